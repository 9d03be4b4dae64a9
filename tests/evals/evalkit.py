"""What tests of evals share: a small registry on disk, and models that are functions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from foretell.evals.base import Eval
from foretell.evals.classes import make_eval
from foretell.evals.registry import Registry

CLASSES = {
    "Match": "evals.elsuite.basic.match:Match",
    "Includes": "evals.elsuite.basic.includes:Includes",
    "FuzzyMatch": "evals.elsuite.basic.fuzzy_match:FuzzyMatch",
    "JsonMatch": "evals.elsuite.basic.json_match:JsonMatch",
    "Translate": "evals.elsuite.translate:Translate",
    "MultipleChoice": "evals.elsuite.multiple_choice:MultipleChoice",
    "Graded": "evals.elsuite.modelgraded.classify:ModelBasedClassify",
}


def sums(count: int) -> list[dict[str, Any]]:
    """Samples whose ideal is what `adds` answers."""
    return [{"input": [{"role": "user", "content": f"{i} + {i} ="}], "ideal": str(2 * i)} for i in range(count)]


async def adds(prompt: Any, **params: Any) -> str:
    words = prompt[-1]["content"].split()
    return str(int(words[0]) + int(words[2]))


def write_registry(folder: Path, cls: str, samples: Sequence[Any], graded: Any = None, **args: Any) -> Registry:
    """A registry with one eval, "x.dev.v0"."""
    (folder / "evals").mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    lines = (s if isinstance(s, str) else json.dumps(s, ensure_ascii=False) for s in samples)
    (folder / "data/x.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    name = "dataset" if cls == "MultipleChoice" else "samples_jsonl"
    entry = {"class": CLASSES.get(cls, cls), "args": {name: "x.jsonl", **args}}
    (folder / "evals/x.yaml").write_text(yaml.safe_dump({"x": {"id": "x.dev.v0"}, "x.dev.v0": entry}))
    if graded is not None:
        (folder / "modelgraded").mkdir(exist_ok=True)
        (folder / "modelgraded/g.yaml").write_text(yaml.safe_dump({"g": graded}))
    return Registry((folder,))


def small_eval(folder: Path, cls: str, samples: Sequence[Any], graded: Any = None, **args: Any) -> Eval:
    return make_eval(write_registry(folder, cls, samples, graded, **args), "x.dev.v0")
