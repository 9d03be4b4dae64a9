"""What the grown model is asked, each with its picture, with a grey one (blind) and with another's (shuffled).

Texts are scored by their likelihood: nats a token of a held-out figure's own description or caption. Questions are
answered greedily. In matching, the figure's description stands against that of another held-out figure of the same
subject; the one whose likelihood the picture raises more is chosen, which a blind model can only guess.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from foretell.data.world.base import Item, dialogue, document
from foretell.evals.vision.likelihood import Told, gains, likelihoods
from foretell.evals.visual import Prior, examine_visual, majority_answers
from foretell.images import decode_image
from foretell.measure.stats import paired_difference
from grown_vlm_data import ASK, BOOKS, KINDS, Figure, ask, jpeg, world_items

TEXTS = ("description", "caption")
CLOSED = {"subject": tuple(BOOKS.values()), "kind": tuple(KINDS)}
RIVAL = "rival"


def questions(figures: Sequence[Figure]) -> list[Item]:
    """The closed questions about figures, as items of an examination."""
    found = []
    for figure in figures:
        for task, choices in CLOSED.items():
            if truth := figure.truths.get(task):
                content = document(f"figures.{task}", dialogue([(ASK[task], truth)], image=figure.image))
                found.append(Item(f"{figure.id}/{task}", f"figures.{task}", content, truth, choices))
    return found


def examine(
    generator: Any, train: Sequence[Figure], held: Sequence[Figure], world: int, shown: int = 24
) -> dict[str, Any]:
    """Closed questions about held-out figures and held-out pictures of the world, by `examine_visual`."""
    prior: Prior = majority_answers([*questions(train), *world_items("train", 2000, 0)])
    return examine_visual(
        generator, [*questions(held), *world_items("heldout", world, 1)], prior, max_tokens=8, shown=shown
    )


def descriptions(held: Sequence[Figure], count: int) -> list[Told]:
    """Held-out figures to be described on a page, every so many of them."""
    told = [figure for figure in held if figure.description]
    chosen = told[:: max(1, len(told) // count)][:count]
    return [
        Told("figures.description", f.module, ask(ASK["description"], plain(f.image)), f.description) for f in chosen
    ]


def scored(generator: Any, held: Sequence[Figure], seed: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of texts, as `evals.vision.likelihood` gives them, and of matching: a row for each held-out figure."""
    rng = random.Random(seed)
    others = [rng.choice([g for g in held if g.id != f.id]) for f in held]
    told: list[tuple[str, Told]] = []
    for figure, other in zip(held, others, strict=True):
        same = [g for g in held if g.subject == figure.subject and g.module != figure.module and g.description]
        rival = rng.choice(same) if same and figure.description else None
        picture, stand_in = plain(figure.image), tuple(ask("", plain(other.image)).images)
        told += [
            (figure.id, Told(f"figures.{task}", figure.module, ask(ASK[task], picture), text, stand_in))
            for task, text in figure.truths.items()
            if task in TEXTS
        ]
        if rival:
            prompt = ask(ASK["description"], picture)
            told.append((figure.id, Told(RIVAL, figure.module, prompt, rival.description)))
    rows = likelihoods(generator, [one for _, one in told])
    by = {(figure, one.task): row for (figure, one), row in zip(told, rows, strict=True)}
    matched = [
        {
            "figure": figure,
            "group": row["group"],
            "right": _nearer(_gain(by[figure, "figures.description"]), _gain(row)),
        }
        for (figure, task), row in by.items()
        if task == RIVAL
    ]
    return [row for row in rows if row["task"] != RIVAL], matched


def _gain(row: dict[str, Any]) -> float:
    """How much more likely the picture makes the whole text, in nats."""
    return float((row["blind"] - row["seen"]) * row["tokens"])


def _nearer(own: float, rival: float) -> float:
    return 0.5 if own == rival else float(own > rival)


def plain(image: bytes) -> bytes:
    """The figure as JPEG, whatever it was."""
    return jpeg(decode_image(image))


def told_gains(rows: Sequence[dict[str, Any]], matched: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a task, with what is gained over the controls; blind can only guess in matching."""
    right, guess = [row["right"] for row in matched], [0.5] * len(matched)
    over = paired_difference(right, guess, groups=[row["group"] for row in matched])
    interval = {"above_blind": over.estimate, "above_blind_low": over.low, "above_blind_high": over.high}
    match = {"task": "figures.matching", "unit": "share", "questions": len(matched), "blind": 0.5, **interval}
    return [*gains(rows), {**match, "seen": sum(right) / len(right)}]
