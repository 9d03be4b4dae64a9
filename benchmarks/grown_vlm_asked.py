"""What the grown model is asked, each with its picture, with a grey one (blind) and with another's (shuffled).

Texts are scored by their likelihood: nats a token of a held-out figure's own description or caption. Questions are
answered greedily. In matching, the figure's description stands against that of another held-out figure of the same
subject; the one whose likelihood the picture raises more is chosen, which a blind model can only guess.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from foretell.data.world.base import Item, dialogue, document
from foretell.evals.visual import Prior, examine_visual, grey, majority_answers, with_images
from foretell.images import decode_image
from foretell.measure.stats import paired_difference
from grown_vlm_data import ASK, BOOKS, KINDS, Figure, ask, jpeg, world_items

TEXTS = ("description", "caption")
CLOSED = {"subject": tuple(BOOKS.values()), "kind": tuple(KINDS)}
CONDITIONS = ("seen", "blind", "shuffled")


def questions(figures: Sequence[Figure]) -> list[Item]:
    """The closed questions about figures, as items of an examination."""
    found = []
    for figure in figures:
        for task, choices in CLOSED.items():
            if truth := figure.truths.get(task):
                content = document(f"figures.{task}", dialogue([(ASK[task], truth)], image=figure.image))
                found.append(Item(f"{figure.id}/{task}", f"figures.{task}", content, truth, choices))
    return found


def examine(generator: Any, train: Sequence[Figure], held: Sequence[Figure], world: int, shown: int = 24) -> dict[str, Any]:
    """Closed questions about held-out figures and held-out pictures of the world, by `examine_visual`."""
    prior: Prior = majority_answers([*questions(train), *world_items("train", 2000, 0)])
    return examine_visual(generator, [*questions(held), *world_items("heldout", world, 1)], prior, max_tokens=8, shown=shown)


def likelihoods(generator: Any, held: Sequence[Figure], seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """By task, a row for each held-out figure: nats a token of its text under each condition, and for matching the
    gains of the two descriptions."""
    rng = random.Random(seed)
    others = [rng.choice([g for g in held if g.id != f.id]) for f in held]
    rows: dict[str, list[dict[str, Any]]] = {task: [] for task in (*TEXTS, "matching")}
    asked: list[tuple[str, Figure, str, str]] = []
    prompts: list[Any] = []
    for figure, other in zip(held, others, strict=True):
        same = [g for g in held if g.subject == figure.subject and g.module != figure.module and g.description]
        rival = rng.choice(same) if same and figure.description else None
        wanted = [(task, figure.truths[task]) for task in TEXTS if task in figure.truths]
        wanted += [("rival", rival.description)] if rival else []
        for task, text in wanted:
            seen = ask(ASK["description" if task == "rival" else task], _plain(figure.image))
            for condition in CONDITIONS[: 2 if task == "rival" else 3]:
                prompt = seen
                if condition == "blind":
                    prompt = with_images(seen, [grey(image) for image in seen.images])
                elif condition == "shuffled":
                    prompt = with_images(seen, ask("", _plain(other.image)).images)
                asked.append((task, figure, condition, text))
                prompts.append((prompt, [text]))
    scores: list[float] = []
    for start in range(0, len(prompts), 64):
        scores += [found[0] for found in asyncio.run(generator.score_many(prompts[start : start + 64]))]
    by: dict[tuple[str, str], dict[str, float]] = {}
    for (task, figure, condition, text), score in zip(asked, scores, strict=True):
        by.setdefault((figure.id, task), {})[condition] = score
        by[figure.id, task]["tokens"] = len(generator.tokenizer.encode(text))
    for figure in held:
        for task in TEXTS:
            if found := by.get((figure.id, task)):
                per = {c: -found[c] / found["tokens"] for c in CONDITIONS}
                rows[task].append({"figure": figure.id, "module": figure.module, "tokens": found["tokens"], **per})
        rival = by.get((figure.id, "rival"))
        if rival:
            own = by[figure.id, "description"]
            gains = own["seen"] - own["blind"], rival["seen"] - rival["blind"]
            grade = 0.5 if gains[0] == gains[1] else float(gains[0] > gains[1])
            plain = [float(own[c] / own["tokens"] > rival[c] / rival["tokens"]) for c in ("seen", "blind")]
            rows["matching"].append(
                {"figure": figure.id, "module": figure.module, "right": grade, "plain": plain[0], "plain_blind": plain[1]}
            )
    return rows


def _plain(image: bytes) -> bytes:
    """The figure as JPEG, whatever it was."""
    return jpeg(decode_image(image))


def gains(rows: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row a task: what is gained over the blind and the shuffled control, with 95 % intervals over modules."""
    found = []
    for task, entries in rows.items():
        modules = [entry["module"] for entry in entries]
        if task == "matching":
            right, blind = [entry["right"] for entry in entries], [0.5] * len(entries)
            values = {"seen": right, "blind": blind}
            pairs = {"blind": paired_difference(right, blind, groups=modules)}
        else:
            values = {c: [entry[c] for entry in entries] for c in CONDITIONS}
            pairs = {c: paired_difference(values[c], values["seen"], groups=modules) for c in CONDITIONS[1:]}
        row: dict[str, Any] = {"task": f"figures.{task}", "questions": len(entries)}
        row |= {name: sum(each) / len(each) for name, each in values.items()}
        for name, gain in pairs.items():
            row |= {f"above_{name}": gain.estimate, f"above_{name}_low": gain.low, f"above_{name}_high": gain.high}
        found.append(row)
    return found
