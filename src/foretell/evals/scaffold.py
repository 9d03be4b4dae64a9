"""Begin a new eval from a template, and check a registry before it is handed in."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from foretell.errors import EvalError, ForetellError
from foretell.evals.base import BAD_SAMPLE, Eval, Trial
from foretell.evals.classes import make_eval
from foretell.evals.completion import from_callable
from foretell.evals.registry import OWN, Registry
from foretell.evals.samples import Sample
from foretell.files import write_text
from foretell.generate import run_sync
from foretell.run import Report, silent

_NAME = re.compile(r"[A-Za-z0-9][\w-]*")
_SHOWN = 5  # problems of one eval that are told

_ASK = [{"role": "system", "content": "Answer with one word."}]
_RED = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAA"
    "AElFTkSuQmCC"
)


def _asked(question: Any, **rest: Any) -> Sample:
    return {"input": [*_ASK, {"role": "user", "content": question}], **rest}


def _picture(question: str, answer: str) -> Sample:
    parts = [{"type": "image_url", "image_url": {"url": _RED}}, {"type": "text", "text": question}]
    return _asked(parts, ideal=answer)


def _program(head: str, does: str, returns: str, test: str) -> Sample:
    """A row in HumanEval's form."""
    return {
        "prompt": f'def {head}:\n    """{does}"""\n',
        "entry_point": head.partition("(")[0],
        "canonical_solution": f"    return {returns}\n",
        "test": f"def check(candidate):\n    assert {test}\n",
    }


_CAPITALS = [
    _asked("Which city is the capital of France?", ideal="Paris"),
    _asked("Which city is the capital of Italy?", ideal=["Rome", "Roma"]),
]
_FORMS: dict[str, tuple[str, Mapping[str, Any], Sequence[Sample]]] = {
    "match": ("evals.elsuite.basic.match:Match", {}, _CAPITALS),
    "includes": ("evals.elsuite.basic.includes:Includes", {"ignore_case": True}, _CAPITALS),
    "fuzzy": ("evals.elsuite.basic.fuzzy_match:FuzzyMatch", {}, _CAPITALS),
    "json": (
        "evals.elsuite.basic.json_match:JsonMatch",
        {},
        [_asked('Give {"sum": 2 + 3} as JSON.', ideal='{"sum": 5}'), _asked("Reverse [1, 2].", ideal="[2, 1]")],
    ),
    "choice": (
        "evals.elsuite.multiple_choice:MultipleChoice",
        {"instructions": "Choose."},
        [
            {"question": "Which is a fruit?", "answers": ["Pear", "Brick", "Lamp", "Shoe"], "label": 0},
            {"question": "Which is a metal?", "answers": ["Wool", "Iron", "Milk", "Sand"], "label": 1},
        ],
    ),
    "graded": (
        "evals.elsuite.modelgraded.classify:ModelBasedClassify",
        {"eval_type": "cot_classify"},
        [
            {"input": "Why is the sky blue? One sentence.", "ideal": "Air scatters blue light more than red."},
            {"input": "Why does ice float? One sentence.", "ideal": "Ice is less dense than water."},
        ],
    ),
    "image": (
        "evals.elsuite.basic.includes:Includes",
        {"ignore_case": True},
        [_picture("Which colour is this?", "red"), _picture("Is this red or blue?", "red")],
    ),
    "code": (
        "foretell.evals.academic:Benchmark",
        {"form": "humaneval", "max_tokens": 512},
        [
            _program("half(n: int) -> int", "Half of n, rounded up.", "(n + 1) // 2", "candidate(5) == 3"),
            _program("initials(name: str) -> str", "The capital letters.", '"".join(c for c in name if c.isupper())',
                     "candidate('Ada Lovelace') == 'AL'"),
        ],
    ),
    "class": (
        "{name}:Backwards",
        {},
        [{"word": "level"}, {"word": "forecast"}],
    ),
}  # fmt: skip
_GRADER = {
    "prompt": "A question, a reply and a reference.\n\nQuestion: {input}\nReply: {completion}\nReference: {ideal}\n\n"
    "Does the reply say what the reference says?",
    "choice_strings": ["Yes", "No"],
    "choice_scores": {"Yes": 1.0, "No": 0.0},
    "input_outputs": {"input": "completion"},
}
_CLASS = '''"""An eval of our own: one class."""

from foretell.evals import Eval, Trial


class Backwards(Eval):
    """Words spelled backwards."""

    async def eval_sample(self, sample: dict, trial: Trial) -> None:
        right = sample["word"][::-1]
        text = await trial.complete(f"Spell backwards, in lower case: {sample['word']}", max_tokens=20)
        trial.match(text.strip() == right, expected=right, picked=text)
'''


def scaffold(name: str, template: str, folder: Path) -> list[Path]:
    """Write an eval's files into a registry folder: entry, samples, and what its template needs beside.

    Raises EvalError for an unknown template, a name that is none, or one whose files are there.
    """
    if template not in _FORMS:
        raise EvalError(f"There is no template {template!r}; choose from {', '.join(_FORMS)}.")
    if not _NAME.fullmatch(name):
        raise EvalError(f"{name!r} is no name of an eval. Use letters, digits, - and _.")
    cls, args, samples = _FORMS[template]
    module = name.replace("-", "_")
    data = "dataset" if template == "choice" else "samples_jsonl"
    settings = {data: f"{name}/samples.jsonl", **args}
    files: dict[Path, str] = {}
    if template == "graded":
        settings["modelgraded_spec"] = name
        files[folder / "modelgraded" / f"{name}.yaml"] = _yaml({name: _GRADER})
    if template == "class":
        files[folder / f"{module}.py"] = _CLASS
    entry = {
        name: {"id": f"{name}.dev.v0", "description": "What it asks, and why.", "metrics": ["accuracy"]},
        f"{name}.dev.v0": {"class": cls.format(name=module), "args": settings},
    }
    files[folder / "evals" / f"{name}.yaml"] = _yaml(entry)
    rows = "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    files[folder / "data" / name / "samples.jsonl"] = rows
    if there := next((path for path in files if path.exists()), None):
        raise EvalError(f"{there} is there already. Choose another name, or delete it.")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return list(files)


@dataclass(frozen=True)
class Checked:
    """problems: (eval, what to mend). checked, samples: how many were looked at."""

    problems: tuple[tuple[str, str], ...]
    checked: int
    samples: int


def check_registry(folder: Path, names: Sequence[str] = (), report: Report = silent) -> Checked:
    """Try every eval of a registry: its entry, its class, every sample; and, where a right answer is known, that a
    model that gives it is found right and one that says nothing is not."""
    if not folder.is_dir():
        raise EvalError(f"There is no registry {folder}. Give a folder that holds evals/ and data/.")
    registry = Registry((folder,) if folder.resolve() == OWN.resolve() else (folder, OWN))
    asked = list(names) or [n for n, e in registry.evals.items() if e.root == folder]
    if not asked:
        raise EvalError(f"{folder} has no evals. Expected YAML files in {folder / 'evals'}.")
    problems: list[tuple[str, str]] = []
    looked: dict[str, int] = {}
    for number, name in enumerate(asked):
        report("check", number, len(asked), name)
        try:
            spec = registry.eval(name)
            if spec.name.count(".") < 1:
                problems.append((name, "its name has no split. Call it NAME.SPLIT.VERSION, such as x.dev.v0."))
            if spec.name not in looked:
                made = make_eval(registry, spec.name)
                samples = made.samples()
                looked[spec.name] = len(samples)
                problems += [(spec.name, problem) for problem in _judged(made, samples)]
        except ForetellError as error:
            problems.append((name, str(error)))
    report("check", len(asked), len(asked))
    return Checked(tuple(dict.fromkeys(problems)), len(looked), sum(looked.values()))


def _judged(made: Eval, samples: Sequence[Sample]) -> list[str]:
    problems: list[str] = []
    known = False
    for number in range(len(samples)):
        try:
            sample = samples[number]
            right = _ideal(sample)
            events = _try(made, sample, right or "Yes")
            known = known or right is not None
            if right is not None and not _right(events, default=True):
                problems.append(f"sample {number + 1}: its own ideal, {right!r}, is not found right.")
            if right is not None and _right(_try(made, sample, " \n"), default=False):
                problems.append(f"sample {number + 1}: an empty answer is found right.")
        except ForetellError as error:
            problems.append(f"sample {number + 1}: {error}")
        if len(problems) >= _SHOWN:
            return [*problems, "and perhaps more; mend these first."]
    return problems


def _ideal(sample: Sample) -> str | None:
    ideal = sample.get("ideal", sample.get("canonical_solution"))
    first = ideal[0] if isinstance(ideal, list) and ideal else ideal
    return first if isinstance(first, str) and ("input" in sample or "test" in sample) else None


def _try(made: Eval, sample: Sample, answer: str) -> list[tuple[str, dict[str, Any]]]:
    model = from_callable(lambda prompt, **_: answer, "check")
    trial = Trial("check.dev.0", [model], random.Random(0))
    run_sync(made.eval_sample(dict(sample), trial))
    return trial.events


def _right(events: Sequence[tuple[str, Mapping[str, Any]]], default: bool) -> bool:
    found = [data["correct"] for type, data in events if type == "match"]
    return all(found) if found and BAD_SAMPLE not in dict(events) else default


class _Dumper(yaml.SafeDumper):
    """Puts a text of several lines as it is read."""


_Dumper.add_representer(
    str, lambda d, text: d.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)
)


def _yaml(raw: Mapping[str, Any]) -> str:
    return yaml.dump(dict(raw), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
