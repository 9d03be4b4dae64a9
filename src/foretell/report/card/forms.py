"""The forms of measurements that a card understands. To add one, write a `Form` and name it in FORMS.

A form tells its files from others, reads one into a `Document`, and says of which models it is. What is not stored as
it is told (an exam's percentile stands in no log) is computed, written into the card's folder and read back from there.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from foretell.errors import CardError, EvalError
from foretell.files import finite
from foretell.report.card.checked import SUMMARY, check_summary
from foretell.report.card.evidence import COMPUTED, Measurement, compute
from foretell.report.card.figures import Document
from foretell.report.card.subject import OUTCOMES, Subject

Of = tuple[str, str]  # a model as a measurement names it, and the SHA-256 of its weights or ""


@dataclass(frozen=True)
class Form:
    """fits: whether a file is of this form. read: it as a document; what has to be computed goes below the folder.
    models: which it is of; none where that cannot be told from it and `same` decides."""

    name: str
    what: str
    fits: Callable[[Path], bool]
    read: Callable[[Path, Path], Document]
    models: Callable[[Document], Sequence[Of]]
    same: Callable[[Document, Subject], bool] = lambda document, subject: False


def find_measurements(subject: Subject, folders: Sequence[Path], out: Path) -> list[Measurement]:
    """The measurements below folders (or named files), each of this model.

    Raises CardError for a folder that holds none, one of another model, and for files of a known form that are damaged.
    """
    found: list[Measurement] = []
    seen: set[Path] = set()
    for folder in folders:
        if not folder.exists():
            raise CardError(f"There is no {folder}. Give a folder with measurements, or one file of them.")
        files = (
            [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".jsonl"))
        )
        here = 0
        for path in files:
            if path.resolve() in seen or COMPUTED in path.parts:
                continue
            form = next((form for form in FORMS if form.fits(path)), None)
            if form is None:
                _check_log(path)
                continue
            here += 1
            seen.add(path.resolve())
            found.append(_measurement(form, path, subject, out))
        if not here:
            known = "; ".join(form.what for form in FORMS)
            raise CardError(f"{folder} holds no measurement that a card knows. Known are {known}.")
    told = {each.document.samples.resolve() for each in found if each.form in _TOLD and each.document.samples}
    kept = [m for m in found if m.form != "eval" or not (m.document.samples and m.document.samples.resolve() in told)]
    for each in found:
        if each not in kept:
            each.document.path.unlink()  # what was computed of it
    return kept


def _measurement(form: Form, path: Path, subject: Subject, out: Path) -> Measurement:
    document = form.read(path, out)
    models = form.models(document)
    if not models and form.same(document, subject):
        return Measurement(form.name, document, (subject.final,))
    stages = [subject.stage_of(*model) for model in models]
    if (other := next((m for m, stage in zip(models, stages, strict=True) if stage is None), None)) or not models:
        told = (
            f"{other[0] or 'a model without a name'}" + (f" (weights {other[1][:12]})" if other and other[1] else "")
            if other
            else "no model that it names"
        )
        own = ", ".join(sorted({digest[:12] for digest in subject.weights}))
        raise CardError(
            f"{path} measures {told}, and this card is of {subject.given}" + (f" (weights {own})" if own else "") + ". "
            "Leave it out, or measure this model with the same command."
        )
    return Measurement(form.name, document, tuple(dict.fromkeys(stage for stage in stages if stage is not None)))


def _begins(path: Path) -> dict[str, Any]:
    """The first line of JSON lines as an object; empty where it is none."""
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.readline(1 << 26))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _check_log(path: Path) -> None:
    """Raises CardError for JSON lines that begin as a log and cannot be read as one."""
    if path.suffix != ".jsonl":
        return
    try:
        with path.open("rb") as stream:
            begun = re.match(rb'\s*\{\s*"spec"', stream.read(64)) is not None
    except OSError:
        return
    if begun and not isinstance(_begins(path).get("spec"), dict):
        raise CardError(f"{path} is a damaged log: its first line cannot be read. Run it again, or leave it out.")


def _spec(path: Path) -> dict[str, Any]:
    spec = _begins(path).get("spec") if path.suffix == ".jsonl" else None
    return spec if isinstance(spec, dict) else {}


def _is_eval(path: Path) -> bool:
    """Runs in many languages, and arenas, have a summary of their own beside their logs."""
    spec = _spec(path)
    return bool(spec.get("eval_name")) and spec.get("base_eval") not in ("languages", "arena")


def _args(spec: dict[str, Any]) -> dict[str, Any]:
    config = spec.get("run_config")
    found = config.get("eval_spec") if isinstance(config, dict) else None
    args = found.get("args") if isinstance(found, dict) else None
    return args if isinstance(args, dict) else {}


def _of_log(document: Document) -> Sequence[Of]:
    return [(document.text("model"), document.text("weights"))]


def _name(path: Path, out: Path) -> str:
    """A name for what is computed of a file: its own, with a number where another one has it."""
    stem = re.sub(r"[^\w.-]+", "-", path.stem)[:120]
    names = (f"{stem}{f'-{i}' if i > 1 else ''}.json" for i in itertools.count(1))
    return next(name for name in names if not (out / COMPUTED / name).exists())


def _read_exam(path: Path, out: Path) -> Document:
    """An exam's score, computed from its log as `foretell exam report` does."""
    from foretell.evals.exams.api import read_score
    from foretell.evals.log import read_log
    from foretell.evals.results import weights_of

    try:
        score, log = read_score(path), read_log(path)
    except (EvalError, OSError) as error:
        raise CardError(f"The exam of {path} cannot be scored: {error}") from error
    spec = score.exam.spec
    sections = [
        {"name": s.name, "kind": s.kind, "n": s.n, "highest": s.highest, "raw": finite(asdict(s.raw)),
         "share": finite({"estimate": s.share, "low": s.raw.low / s.highest, "high": s.raw.high / s.highest}),
         "blank": s.blank, "invalid": s.invalid, "ungraded": s.ungraded}
        for s in score.sections
    ]  # fmt: skip
    mark = (
        None
        if score.final is None
        else finite(asdict(score.final) | {"percentile": list(score.final.percentile or ())})
    )
    value = {
        "exam": score.exam.name, "eval": score.exam.eval_name, "title": spec.title, "note": spec.note,
        "split": score.exam.split, "digest": score.exam.digest, "license": spec.license, "source": spec.source,
        "model": score.model, "weights": weights_of(log.spec), "run": score.run, "vision": score.vision,
        "attempt": score.attempt, "questions": len(score.answered), "of_questions": len(score.exam.questions),
        "raw": finite(asdict(score.raw)), "raw_highest": score.raw_highest, "out_of": spec.total.out_of,
        "final": mark, "sections": sections,
        "published": [{k: v for k, v in p.model_dump().items() if v is not None} for p in spec.published],
        "has_chart": bool(score.exam.chart), "warnings": list(score.exam.warnings),
    }  # fmt: skip
    return compute(out, _name(path, out), value, [path], path)


def _read_eval(path: Path, out: Path) -> Document:
    """A run of an eval as one row, with its mean and interval."""
    from foretell.evals.log import read_log
    from foretell.evals.results import result_of, summary_of, weights_of

    try:
        log = read_log(path)
        row, summary = result_of(log), summary_of(log)
    except (EvalError, OSError) as error:
        raise CardError(f"The log {path} cannot be read: {error}") from error
    fields = (
        "run",
        "eval",
        "model",
        "model_version",
        "metric",
        "value",
        "stderr",
        "low",
        "high",
        "n",
        "invalid",
        "seed",
        "seconds",
        "tokens",
    )
    value = {name: getattr(row, name) for name in fields} | {
        "weights": weights_of(log.spec), "max_samples": (log.spec.get("run_config") or {}).get("max_samples"),
        "args": {k: v for k, v in _args(dict(log.spec)).items() if isinstance(v, str | int | float | bool)},
        "report": {k: v for k, v in row.report.items() if isinstance(v, int | float) and math.isfinite(v)},
        "samples": summary.n + summary.invalid,
    }  # fmt: skip
    return compute(out, _name(path, out), value, [path], path)


def _json_with(*keys: str) -> Callable[[Path], bool]:
    """Whether a JSON file holds an object with these keys among its first ones; it is read whole only where it may."""

    def fits(path: Path) -> bool:
        if path.suffix != ".json":
            return False
        try:
            with path.open("rb") as stream:
                head = stream.read(1 << 16).decode("utf-8", "replace")
        except OSError:
            return False
        return all(f'"{key}"' in head for key in keys) and _has(path, keys)

    return fits


def _has(path: Path, keys: Sequence[str]) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True  # damaged: reading it says so
    return isinstance(found, dict) and all(key in found for key in keys)


def _as_it_is(path: Path, out: Path) -> Document:
    return Document(path.parent, path.name)


def _with_log(path: Path, out: Path) -> Document:
    """A summary that names the log beside it."""
    name = Document(path.parent, path.name).text("samples")
    samples = path.parent / name if name else None
    return Document(path.parent, path.name, samples=samples if samples is not None and samples.is_file() else None)


def _of_contamination(document: Document) -> Sequence[Of]:
    rows = document.get("evals")
    named = [str(row.get("model") or "") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return [(name, "") for name in dict.fromkeys(named) if name]


def _same_corpus(document: Document, subject: Subject) -> bool:
    """Whether a check without a run is of the corpus that the model was trained on, by the digests of its files."""
    if subject.folder is None:
        return False
    known = set()
    try:
        manifest = Document(subject.folder, "data/manifest.json")
    except CardError:
        return False
    for file in manifest.get("files") or ():
        known.add(file.get("sha256"))
    sources = document.get("index", "sources") or ()
    return bool(sources) and all(source.get("sha256") in known for source in sources)


def _of_calibration(document: Document) -> Sequence[Of]:
    """By its weights, else its name; a run's outcomes call their models otherwise, and are told by where they lie."""
    found: list[Of] = []
    for side in ("before", "after"):
        log, model = document.text(side, "source", "log"), document.text(side, "source", "model")
        if log or model:
            name = str(Path(log).parent) if OUTCOMES in Path(log).parts else model
            found.append((name, document.text(side, "source", "weights")))
    return found


def _of_named(document: Document) -> Sequence[Of]:
    return (
        [(document.text("model"), document.text("weights"))]
        if document.text("model") or document.text("weights")
        else []
    )


def _read_summary(path: Path, out: Path) -> Document:
    check_summary(Document(path.parent, path.name))
    return _with_log(path, out)


def _is_summary(path: Path) -> bool:
    return _json_with("form", "part", "rows")(path) and Document(path.parent, path.name).text("form") == SUMMARY


def _is_exam(path: Path) -> bool:
    args = _args(_spec(path))
    return "exam" in args and "digest" in args


_TOLD = ("languages", "summary")  # forms that tell of a run; its log is not told again
_CHECK = _json_with("format", "index", "evals")
_CALIBRATION = _json_with("bins", "level", "before")
_LANGUAGES = _json_with("kind", "languages", "mean")
FORMS: tuple[Form, ...] = (
    Form("exam", "logs of foretell exam run", _is_exam, _read_exam, _of_log),
    Form("eval", "logs of foretell eval run", _is_eval, _read_eval, _of_log),
    Form(
        "contamination", "contamination.json of foretell contamination check", _CHECK, _as_it_is, _of_contamination,
        _same_corpus,
    ),
    Form("languages", "summaries of foretell exam languages run", _LANGUAGES, _with_log, _of_named),
    Form("calibration", "figures of foretell exam calibration", _CALIBRATION, _as_it_is, _of_calibration),
    Form("summary", f"JSON of form {SUMMARY}", _is_summary, _read_summary, _of_named),
)  # fmt: skip
