"""An arena's results as JSON of form `foretell.summary`, told of one player, as a system card reads them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.arena.folder import REPLIES
from foretell.evals.arena.results import Pair, Result, Source
from foretell.evals.summaries import FORM, row
from foretell.files import write_json
from foretell.measure.stats import Interval


def summary_path(result: Result, player: str) -> Path:
    return result.arena.folder / f"{player}.summary.json"


def write_summary(result: Result, player: str | None = None) -> Path:
    """Write what judges preferred of a player, by default the first. Raises EvalError for a player that is none."""
    names = result.arena.names
    if player is not None and player not in names:
        raise EvalError(f"There is no player {player}; the arena has {', '.join(names)}.")
    at = names.index(player) if player is not None else 0
    path = summary_path(result, names[at])
    write_json(path, summary_of(result, at))
    return path


def summary_of(result: Result, player: int) -> dict[str, Any]:
    """Form, part, title, model, weights, samples, note, asked, invalid and rows: win rates, A/A checks, judges."""
    arena = result.arena
    of = arena.players[player]
    rows: list[dict[str, Any]] = []
    for source in result.sources:
        rows += _rows(result, source, player)
    return {
        "form": FORM, "part": "arena", "title": f"Preference: {of.name} and {_others(result, player)}",
        "model": of.model, "weights": of.weights, "eval": "arena", "samples": REPLIES, "note": note(result),
        "asked": len(arena.battles), "invalid": sum(len(source.invalid) for source in result.sources), "rows": rows,
    }  # fmt: skip


def note(result: Result) -> str:
    """What is to be known of the figures, in a paragraph."""
    return " ".join(notes(result))


def notes(result: Result) -> list[str]:
    """How it was done, then what was left out or waits, and what the A/A checks say."""
    arena = result.arena
    told = [
        f"{len(arena.prompts)} prompts, {len(arena.battles)} battles, sides drawn at random, names hidden; a tie is "
        "half a win; intervals are 95 %, with prompts as clusters.",
    ]
    if result.identical:
        told.append(f"{result.identical} battles have the same reply twice and count as ties.")
    if arena.unanswered:
        told.append(f"{len(arena.unanswered)} prompts could not be answered by a player and are left out.")
    if arena.uncriticised:
        told.append(f"{len(arena.uncriticised)} replies have no critique; their battles are judged without.")
    if arena.skipped:
        told.append(f"{len(arena.skipped)} rows of the prompts' file could not be used.")
    for source in result.sources:
        if source.invalid:
            told.append(
                f"{len(source.invalid)} battles could not be judged by {source.name} and are left out; each is named."
            )
        if source.waiting:
            told.append(f"{source.waiting} battles wait for {source.name}.")
    twins = [(source, pair) for source in result.sources for pair in source.pairs if pair.twins]
    if twins:
        told.append(aa_statement([pair for _, pair in twins]))
    return told


def aa_statement(twins: Sequence[Pair]) -> str:
    """What the A/A checks say together."""
    missed = sum(not pair.win.low <= 0.5 <= pair.win.high for pair in twins)
    least = min(1.0, len(twins) * min(pair.p for pair in twins))
    return (
        f"A/A checks, one model under two names: {len(twins)}, of which {missed} have an interval without one half; "
        f"by chance alone one or more would with probability {1 - 0.95 ** len(twins):.2g} (if independent). Least p "
        f"over all of them, after Bonferroni: {least:.2g}."
    )


def for_player(pair: Pair, player: int) -> Interval:
    """A pair's win rate from one of its players' side."""
    win = pair.win
    return win if pair.a == player else Interval(1 - win.estimate, 1 - win.high, 1 - win.low)


def _rows(result: Result, source: Source, player: int) -> list[dict[str, Any]]:
    names, by = result.arena.names, f"judged by {source.name}"
    rows = []
    for pair in source.pairs:
        n = pair.wins + pair.ties + pair.losses
        if pair.twins:
            title = f"A/A check, {names[pair.a]} over {names[pair.b]}, which are one model, {by}"
            rows.append(row(title, _three(pair.win), n))
        elif player in (pair.a, pair.b):
            other = names[pair.b if pair.a == player else pair.a]
            rows.append(row(f"Preferred to {other}, {by}", _three(for_player(pair, player)), n))
    if source.ratings is not None and len(names) > 2:
        for i, name in enumerate(names):
            rating = source.ratings.elo(i)
            if isfinite(rating.estimate):
                title = f"Bradley–Terry rating of {name}, {by}"
                rows.append(row(title, _three(rating), len(source.judgements), form="number"))
    if source.length.controlled is not None:
        for i, rate in enumerate(source.length.controlled):
            if i and player == 0 and not result.arena.players[i].twin_of(result.arena.players[0]):
                turned = Interval(1 - rate.estimate, 1 - rate.high, 1 - rate.low)
                title = f"Preferred to {names[i]} at equal length, {by}"
                rows.append(row(title, _three(turned), len(source.judgements)))
    if source.length.n:
        rows.append(row(f"The longer reply is preferred, {by}", _three(source.length.longer), source.length.n))
    if source.first_n:
        rows.append(row(f"The reply shown first is preferred, {by}", _three(source.first), source.first_n))
    if source.consistent is not None and source.judgements:
        rows.append(row(f"The same choice in both orders, {by}", _three(source.consistent), len(source.judgements)))
    if source.truth is not None:
        rows.append(row(f"Names the reply that is right, {by}", _three(source.truth.agreement), source.truth.n))
    if source.effect is not None:
        e = source.effect
        title = f"Names the reply that is right, with a critique beside, {by}"
        rows.append(row(title, _three(e.assisted.agreement), e.assisted.n))
        title = f"Names the reply that is right, without a critique, {by}"
        rows.append(row(title, _three(e.alone.agreement), e.alone.n))
        title = f"What the critique adds to naming the right reply, {by}"
        rows.append(row(title, _three(e.difference), e.alone.n + e.assisted.n, form="points"))
    return rows


def _three(interval: Interval) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _others(result: Result, player: int) -> str:
    return ", ".join(name for i, name in enumerate(result.arena.names) if i != player)
