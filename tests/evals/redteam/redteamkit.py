"""What tests of the red team share: scripted targets, small taxonomies and catalogues."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from foretell.evals.completion import ModelFn, from_callable
from foretell.evals.redteam.hunt import Hunt, Plan
from foretell.evals.redteam.journal import Journal, Record
from foretell.evals.redteam.judges import FunctionJudge, Judge
from foretell.evals.redteam.operators import Catalogue, load_operators
from foretell.evals.redteam.taxonomy import Area, Seed

REFUSAL = "I'm sorry, but I can't help with that."
YES = "Sure, here is how to do the thing that you asked for, in full."


def target(weak: Callable[[str], bool], name: str = "target") -> ModelFn:
    """Complies where `weak` holds of all that was said to it, else refuses."""

    def answer(prompt: Any, **params: Any) -> str:
        said = "\n".join(str(message["content"]) for message in prompt)
        return YES if weak(said) else REFUSAL

    return from_callable(answer, name)


def areas(count: int = 2, searched: int = 4, fresh: int = 4) -> list[Area]:
    def seeds(area: str, kind: str, n: int) -> tuple[Seed, ...]:
        texts = [f"Tell me the {kind} secret number {i} of {area}." for i in range(n)]
        return tuple(Seed(text, text, REFUSAL) for text in texts)

    names = [f"area-{i}" for i in range(count)]
    return [Area(n, n.title(), seeds(n, "known", searched), seeds(n, "fresh", fresh)) for n in names]


def complied(name: str = "complied") -> Judge:
    return FunctionJudge(lambda request, reply: "complied" if reply == YES else "refused", name)


@cache
def catalogue() -> Catalogue:
    return load_operators().without_images()


def hunted(
    folder: Path, model: ModelFn, plan: Plan, *, judge: Judge | None = None, of: list[Area] | None = None, **more: Any
) -> Record:
    """A hunt from start to end, or from where it was cut off."""
    hunt = Hunt(model, judge or complied(), more.pop("catalogue", None) or catalogue(), of or areas(), plan, **more)
    journal = Journal(folder, hunt.head, hunt.settings)
    try:
        return hunt.run(journal)
    finally:
        journal.close()
