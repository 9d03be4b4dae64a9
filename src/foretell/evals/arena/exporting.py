"""Judgements as preference data: one row a battle that was decided, in the form that reward models and DPO read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from foretell.errors import EvalError
from foretell.evals.arena.results import PEOPLE_NAME, Result, Source
from foretell.files import write_text


def export(result: Result, path: Path, source: str | None = None) -> tuple[int, Counter[str]]:
    """Write rows of prompt, chosen and rejected; returns how many, and why battles were left out.

    source: whose judgements; None takes people's where there are any, else the only judge's. Where several people
    judged a battle, the reply that more of them prefer is chosen.
    Raises EvalError for an unknown source, and where nothing was decided.
    """
    arena, of = result.arena, _chosen(result, source)
    scores: dict[int, list[float]] = {}
    for one in of.judgements:
        scores.setdefault(one.battle, []).append(one.score)
    lines, left = [], Counter[str]()
    for battle in arena.battles:
        if battle.prompt not in arena.replies:
            left["a player has no reply"] += 1
        elif arena.identical(battle):
            left["both replies are the same"] += 1
        elif battle.id not in scores:
            left["not judged, or without a choice that can be read"] += 1
        elif (mean := sum(scores[battle.id]) / len(scores[battle.id])) == 0.5:
            left["a tie"] += 1
        else:
            said = arena.replies[battle.prompt]
            good, bad = (said[battle.a], said[battle.b])[:: 1 if mean > 0.5 else -1]
            if not good.strip() or not bad.strip():
                left["a reply is empty"] += 1
                continue
            row = {
                "prompt": list(arena.prompts[battle.prompt].messages),
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": bad}],
                "judged_by": of.name, "judgements": len(scores[battle.id]),
            }  # fmt: skip
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    if not lines:
        why = ", ".join(f"{count} {reason}" for reason, count in left.items())
        raise EvalError(f"No battle of {arena.folder} was decided by {of.name} ({why}). Judge more battles first.")
    write_text(path, "".join(lines))
    return len(lines), left


def _chosen(result: Result, source: str | None) -> Source:
    names = [each.name for each in result.sources]
    if source is None:
        people = [each for each in result.sources if each.people]
        if people or len(names) == 1:
            return (people or list(result.sources))[0]
        raise EvalError(f"{result.arena.folder} has several judges. Name one with --by: {', '.join(names)}.")
    if source not in names:
        known = ", ".join(names)
        raise EvalError(f"{source} judged nothing in {result.arena.folder}; there are {known}. {PEOPLE_NAME} is all.")
    return result.sources[names.index(source)]
