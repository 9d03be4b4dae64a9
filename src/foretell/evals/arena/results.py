"""What an arena came to, computed from its folder: win rates, ratings, and how far its judges can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import nan

import numpy as np

from foretell.data.world.base import is_right
from foretell.errors import EvalError
from foretell.evals.arena.asking import DECISION, FIRST, SECOND, VERDICT
from foretell.evals.arena.assistance import Arm, Effect, Verdict, arm_of, effect_of
from foretell.evals.arena.bradley_terry import Battles, Ratings, rate
from foretell.evals.arena.folder import Arena, problem, samples
from foretell.evals.arena.length import Length, length_bias
from foretell.evals.arena.people import Judgement, read_people
from foretell.evals.arena.schedule import Battle
from foretell.measure.agreement import cohen_kappa, krippendorff_alpha
from foretell.measure.stats import Floats, Interval, holm, paired_difference, proportion, student_test

PEOPLE_NAME = "people"


@dataclass(frozen=True)
class Pair:
    """Two players before one source of judgements. win: how often a is preferred, ties as half; also with replies that
    are the same. p: of one half, and p_holm that for all pairs together. twins: one model under two names."""

    a: int
    b: int
    win: Interval
    wins: int
    ties: int
    losses: int
    identical: int
    p: float
    p_holm: float
    twins: bool


@dataclass(frozen=True)
class Source:
    """One model as a judge, or all people together.

    first: how often what was shown first (or left) is preferred where one is. consistent: share of battles of which a
    model says the same in both orders; None for people. invalid: (battle, why) of what could not be counted. waiting:
    battles without a judgement. truth: agreement with what is known to be right; None where nothing is.
    """

    name: str
    people: bool
    judgements: tuple[Judgement, ...]
    pairs: tuple[Pair, ...]
    ratings: Ratings | None
    no_ratings: str
    first: Interval
    first_n: int
    consistent: Interval | None
    invalid: tuple[tuple[int, str], ...]
    waiting: int
    length: Length
    truth: Arm | None
    effect: Effect | None


@dataclass(frozen=True)
class Alike:
    """Two judges on the battles that both judged."""

    one: str
    other: str
    n: int
    same: float
    kappa: float


@dataclass(frozen=True)
class Result:
    """An arena and its sources. accuracy: of each player, where truth is known. alpha: people's agreement, as names of
    verdicts and as numbers (left of a tie, of right); alike: pairs of judges."""

    arena: Arena
    sources: tuple[Source, ...]
    identical: int
    accuracy: tuple[Interval, ...] | None
    known: int
    alpha: tuple[float, float]
    alpha_n: int
    alike: tuple[Alike, ...]


def result_of(arena: Arena, resamples: int = 999) -> Result:
    """Results of all that is judged so far. resamples: of the bootstrap over prompts.

    Raises EvalError where replies are not there yet, or nothing is judged.
    """
    right = _truth(arena)
    sources = [_of_model(arena, log.name, right, resamples) for log in arena.judge_logs()]
    people = read_people(arena)
    if people:
        sources.append(_source(arena, PEOPLE_NAME, people, right, resamples))
    if not sources:
        raise EvalError(
            f"Nothing is judged in {arena.folder} yet. Let a model judge (foretell arena run … --judge MODEL) or "
            f"people (foretell arena judge {arena.folder})."
        )
    said: dict[int, list[float]] = {}
    for one in people:
        said.setdefault(one.battle, []).append(one.score)
    shared = [scores for scores in said.values() if len(scores) > 1]
    groups = [arena.prompts[prompt].group for prompt in sorted(right)]
    accuracy = tuple(
        proportion([float(right[prompt][i]) for prompt in sorted(right)], groups) for i in range(len(arena.players))
    )
    return Result(
        arena, tuple(sources), sum(map(arena.identical, _answered(arena))), accuracy if right else None, len(right),
        (krippendorff_alpha(shared), krippendorff_alpha(shared, "interval")), len(shared),
        _alike([one for source in sources for one in source.judgements]),
    )  # fmt: skip


def win_rate(scores: Sequence[float], groups: Sequence[str]) -> Interval:
    """Mean of scores 1, ½ and 0 with its 95 % interval, which judgements of one prompt do not narrow.

    It is (1 + d) / 2 of the difference d between the shares of wins and losses, `stats.paired_difference`.
    """
    won, lost = ([float(score == value) for score in scores] for value in (1.0, 0.0))
    d = paired_difference(won, lost, groups=groups)
    return Interval((1 + d.estimate) / 2, (1 + d.low) / 2, (1 + d.high) / 2)


def _of_model(arena: Arena, file: str, right: dict[int, tuple[bool, ...]], resamples: int) -> Source:
    log = arena.log(file)
    name = judge = str(log.spec["completion_fns"][0])
    found, invalid, firsts, groups, same, same_groups = [], [], [], [], [], []
    for number, events in samples(log):
        verdicts = [data for kind, data in events if kind == VERDICT]
        battle = arena.open[number]
        group = arena.prompts[battle.prompt].group
        for data in verdicts:
            if data["choice"] in (FIRST, SECOND):
                firsts.append(float(data["choice"] == FIRST))
                groups.append(group)
        if why := problem(events):
            invalid.append((battle.id, why))
            continue
        winners = [{FIRST: d["first"], SECOND: d["second"]}.get(d["choice"]) for d in verdicts]
        same.append(float(winners[0] == winners[1]))
        same_groups.append(group)
        decision = next(data for kind, data in events if kind == DECISION)
        score = float(decision["score"])
        name = f"{judge} by likelihood" if decision["by"] == "logprob" else judge
        found.append(Judgement(name, battle.id, score, bool(verdicts[0]["assisted"]), int(verdicts[0]["first"])))
    made = _source(arena, name, found, right, resamples, people=False)
    return replace(
        made, first=proportion(firsts, groups), first_n=len(firsts), consistent=proportion(same, same_groups),
        invalid=tuple(invalid), waiting=0,
    )  # fmt: skip


def _source(
    arena: Arena,
    name: str,
    judgements: Sequence[Judgement],
    right: dict[int, tuple[bool, ...]],
    resamples: int,
    people: bool = True,
) -> Source:
    battles = {battle.id: battle for battle in arena.battles}
    same = [battle for battle in _answered(arena) if arena.identical(battle)]
    rows = [(battles[one.battle], one.score) for one in judgements] + [(battle, 0.5) for battle in same]
    groups = [arena.prompts[battle.prompt].group for battle, _ in rows]
    scores = np.array([score for _, score in rows], np.float64)
    first, second = (np.array([getattr(b, side) for b, _ in rows], np.int64) for side in ("a", "b"))
    ratings, why = None, ""
    try:
        fight = Battles(first, second, scores, groups)
        ratings = rate(arena.names, fight, np.random.default_rng(arena.seed), resamples)
    except EvalError as error:
        why = str(error)
    pairs = []
    for a, b in combinations(range(len(arena.players)), 2):
        at = np.flatnonzero((first == a) & (second == b))
        own, theirs = scores[at], [groups[i] for i in at]
        if len(at):
            pairs.append(
                Pair(
                    a, b, win_rate(own.tolist(), theirs), int((own == 1).sum()), int((own == 0.5).sum()),
                    int((own == 0).sum()), sum((x.a, x.b) == (a, b) for x in same), student_test(own - 0.5, theirs),
                    1.0, arena.players[a].twin_of(arena.players[b]),
                )
            )  # fmt: skip
    adjusted: Sequence[float] | Floats = holm([pair.p for pair in pairs]) if pairs else []
    lefts, left_groups, known, drawn = [], [], [], []
    for one in judgements:
        battle = battles[one.battle]
        group, truth = arena.prompts[battle.prompt].group, right.get(battle.prompt)
        if one.score != 0.5:
            lefts.append(float((one.score == 1) == (one.left == battle.a)))
            left_groups.append(group)
        if truth is not None and truth[battle.a] != truth[battle.b]:
            agrees = one.score == float(truth[battle.a])
            known.append(Verdict(one.judge, group, one.assisted, agrees, one.seconds))
            drawn += known[-1:] if arena.has_critiques(battle) else []
    return Source(
        name, people, tuple(judgements),
        tuple(replace(pair, p_holm=float(p)) for pair, p in zip(pairs, adjusted, strict=True)),
        ratings, why, proportion(lefts, left_groups), len(lefts), None, (),
        len({battle.id for battle in arena.open} - {one.battle for one in judgements}),
        length_bias(arena, judgements), arm_of(known) if known else None,
        effect_of(drawn) if len({v.assisted for v in drawn}) == 2 else None,
    )  # fmt: skip


def _answered(arena: Arena) -> list[Battle]:
    return [battle for battle in arena.battles if battle.prompt in arena.replies]


def _truth(arena: Arena) -> dict[int, tuple[bool, ...]]:
    """Of each prompt whose answer is known: whether each player's reply gives it."""
    found = {}
    for prompt, replies in arena.replies.items():
        answer = arena.prompts[prompt].answer
        if answer is not None:
            found[prompt] = tuple(is_right(reply, answer) for reply in replies)
    return found


def _alike(judgements: Sequence[Judgement]) -> tuple[Alike, ...]:
    by: dict[str, dict[int, float]] = {}
    for one in judgements:
        by.setdefault(one.judge, {})[one.battle] = one.score
    found = []
    for judge, other in combinations(by, 2):
        both = [battle for battle in by[judge] if battle in by[other]]
        if both:
            a, b = [by[judge][i] for i in both], [by[other][i] for i in both]
            same = sum(x == y for x, y in zip(a, b, strict=True)) / len(both)
            found.append(Alike(judge, other, len(both), same, cohen_kappa(a, b) if len(both) > 1 else nan))
    return tuple(found)
