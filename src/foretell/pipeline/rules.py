"""Fitted rules as a stage: what the grader sees in a reply, weighted so that with the reward model the better one wins.

Source: Mu et al. (2024), Rule Based Rewards for Language Model Safety, arXiv 2411.01111, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foretell.run import Stage
from foretell.tuning import LessonConfig

RULES = "rules.json"
_TESTED = 5  # every so many prompts are kept for the test
_SHARE = 4  # graded replies for each prompt whose replies are compared


def rules_stage(lessons: LessonConfig, seed: int, device: str) -> Stage:
    """The stage that fits them, after lessons, reward model and grader."""
    return Stage(
        "rules",
        {"seed": seed},
        lambda inputs, out: _fit(lessons, seed, device, inputs, out),
        ("lessons", "reward", "grader"),
    )


def _fit(config: LessonConfig, seed: int, device: str, inputs: Mapping[str, Path], out: Path) -> dict[str, Any]:
    """Fit on ranked replies to prompts of the world's hazards; tell how many pairs the reward model has in the right
    order on other prompts, alone and with the rules."""
    import numpy as np

    from foretell.align.graders import Case
    from foretell.align.reward import RewardModel
    from foretell.align.rules import EXPECTED, class_features, fit_rules, pairs_of_ranks
    from foretell.chat import Conversation
    from foretell.data.world.lessons import Lessons
    from foretell.pipeline.alignment import GRADER, load_grader

    rows = list(Lessons(config.kinds, config.flaws, config.things, config.people).compared(
        max(_TESTED, config.graded // _SHARE), seed
    ))  # fmt: skip
    flat = [(number, rank, row, reply) for number, row in enumerate(rows) for rank, reply in enumerate(row["replies"])]
    asked = [
        [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": reply}] for *_, row, reply in flat
    ]
    judge = RewardModel.load(inputs["reward"] / "checkpoint", device)
    scores = np.array(judge.score([Conversation.from_openai(messages) for messages in asked]))
    grader = load_grader(inputs["grader"] / GRADER)
    names, features = class_features([grader], [Case(reply, row["prompt"]) for *_, row, reply in flat])
    types = [EXPECTED[row["kind"]] for *_, row, _ in flat]
    pairs = pairs_of_ranks([str(number) for number, *_ in flat], [rank for _, rank, *_ in flat])
    tested = [pair for pair in pairs if flat[pair.better][0] % _TESTED == 0]
    rules = fit_rules(names, features, types, [p for p in pairs if flat[p.better][0] % _TESTED], scores)
    rules.save(out / RULES)
    known = [i for i, kind in enumerate(types) if kind in rules.weights]
    ruled = scores.copy()
    ruled[known] = rules.reward(features[known], [types[i] for i in known], scores[known])

    def right(by: Any) -> float:
        return float(np.mean([by[pair.better] > by[pair.worse] for pair in tested]))

    weights = {kind: dict(zip(names, row.tolist(), strict=True)) for kind, row in rules.weights.items()}
    return {
        "pairs": len(pairs),
        "tested": len(tested),
        "right": {"model": right(scores), "rules": right(ruled)},
        "weights": weights,
    }
