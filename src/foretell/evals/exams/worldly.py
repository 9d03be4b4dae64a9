"""An exam about the generated world: questions whose truth is known, worked ones with explanations, difficulties."""

from __future__ import annotations

import base64
import hashlib
from statistics import NormalDist
from typing import Any

from foretell.data.world import generate
from foretell.data.world.base import Item
from foretell.data.world.facts import LETTERS, Facts
from foretell.data.world.phrases import PHRASES
from foretell.errors import EvalError, RecipeError
from foretell.recipe import WorldSource

Row = dict[str, Any]
_DIFFERENT = 40  # draws a question, after which there are taken to be no more


def world(
    kind: str,
    count: int,
    seed: int = 0,
    worked: bool = False,
    spread: float = 1.0,
    discrimination: float = 1.0,
    but: int = 0,
    **options: Any,
) -> list[Row]:
    """`count` different questions of a kind that asks: "choices" as choices, others as free responses.

    They are of the world's held-out side; worked ones of its training side, with explanations. Their difficulties are
    the quantiles of a normal distribution with this spread, dealt out by turns. but: questions that are passed over
    first, so that two splits of one seed share none. options: of the kind.
    Raises EvalError for a kind or option that is not there, or has not so many questions.
    """
    wanted = count + but
    found: dict[str, Item] = {}
    drawn = _DIFFERENT * wanted + 1000
    try:
        source = WorldSource(name=kind, documents=drawn, heldout_documents=drawn, kinds={kind: 1.0},
                             options={kind: options})  # fmt: skip
        for item in generate(source, "train" if worked else "heldout", seed):
            if item.answer is not None and item.content.is_conversation:
                stem = _asked(item).partition("\nA) ")[0]
                found.setdefault(stem + hashlib.sha256(_image(item) or b"").hexdigest(), item)
            if len(found) == wanted:
                break
    except RecipeError as error:
        raise EvalError(str(error)) from error
    if len(found) < wanted:
        raise EvalError(f"{kind} has about {len(found)} different questions, not {wanted}. Lower count.")
    facts = Facts(**{k: v for k, v in options.items() if k in ("people", "world")})
    told = {fact.id: fact for group in facts.facts.values() for fact in group}
    rows = []
    for i, item in enumerate(list(found.values())[but:]):
        row: Row = {"id": f"{kind}-{seed}-{but + i}", "question": _asked(item), "answer": item.answer}
        if kind == "choices":
            lines = row["question"].split("\n")
            at = next(n for n, line in enumerate(lines) if line.startswith("A) "))
            options_ = [line[3:] for line in lines[at : at + len(LETTERS)]]
            row |= {"question": "\n".join(lines[:at]), "options": options_}
            if worked:
                right = options_[LETTERS.index(str(item.answer))]
                row["explanation"] = _explained(item, right, told)
        if (image := _image(item)) is not None:
            row["images"] = {f"figure-{i + 1}": "data:image/png;base64," + base64.b64encode(image).decode()}
        if not worked:  # multiples of an odd number visit every quantile once, in no order of difficulty
            rank = (i * 7919) % count if count % 7919 else i
            quantile = NormalDist(0.0, spread).inv_cdf((rank + 0.5) / count) if spread else 0.0
            row["irt"] = {"difficulty": round(quantile, 6), "discrimination": discrimination}
        rows.append(row)
    return rows


def _explained(item: Item, right: str, told: dict[str, Any]) -> str:
    fact = told.get(item.content.labels.get("fact", ""))
    if fact is None:
        return f"The result is {right}."
    return PHRASES[item.content.language][fact.relation][0][0].format(s=fact.subject, o=right)


def _asked(item: Item) -> str:
    turns = item.content.conversation().messages[:-1]
    return "\n".join(turn.text for turn in turns if turn.text)


def _image(item: Item) -> bytes | None:
    return next((segment.image for segment in item.content.segments if segment.image is not None), None)
