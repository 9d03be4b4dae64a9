"""An arena's results as one page, and as the texts that the command line prints."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite, isnan
from pathlib import Path

from foretell.evals.arena.bradley_terry import ANCHOR, ELO, Ratings
from foretell.evals.arena.results import Result, Source
from foretell.evals.arena.summary import aa_statement, notes
from foretell.files import write_text
from foretell.measure.stats import Interval
from foretell.pages import Html, Row, cards, details, el, figure, interval_chart, notice, number, page, section, table
from foretell.pages import Interval as Point

_SHOWN = 12  # battles with their replies
_CUT = 1200  # characters of a reply
_HEAD = ("", "over", "preferred, %", "95 % interval", "wins", "ties", "losses", "same reply", "p (Holm)")


def write_page(result: Result) -> Path:
    """Write report.html into the arena's folder."""
    path = result.arena.folder / "report.html"
    write_text(path, render(result))
    return path


def range_text(interval: Interval, form: str = ".1f") -> str:
    """A share and its interval in per cent."""
    if isnan(interval.estimate):
        return "–"
    values = (interval.estimate, interval.low, interval.high)
    told = [format(100 * v, form) if isfinite(v) else "any" for v in values]
    return f"{told[0]} % ({told[1]} to {told[2]})"


def elo_text(ratings: Ratings, player: int) -> tuple[str, str, str]:
    """Rating, its interval and that of the bootstrap, in words where they have no number."""
    i = ratings.elo(player)
    if not player:
        return f"{ANCHOR:.0f}", "fixed", ""
    value = f"{i.estimate:.0f}" if isfinite(i.estimate) else "none" if isnan(i.estimate) else "unbounded"
    boot = ""
    if ratings.bootstrap is not None and isfinite(i.estimate):
        boot = _ends(*(ANCHOR + ELO * end for end in (ratings.bootstrap[player].low, ratings.bootstrap[player].high)))
    return value, "not comparable" if isnan(i.estimate) else _ends(i.low, i.high), boot


def pair_rows(result: Result, source: Source) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A table's head and rows: one a pair."""
    names = result.arena.names
    rows: list[tuple[str, ...]] = []
    for pair in source.pairs:
        twins = " (A/A)" if pair.twins else ""
        rows.append(
            (
                names[pair.a], names[pair.b] + twins, f"{100 * pair.win.estimate:.1f}",
                f"{100 * pair.win.low:.1f} to {100 * pair.win.high:.1f}", str(pair.wins), str(pair.ties),
                str(pair.losses), str(pair.identical), f"{pair.p_holm:.2g}",
            )
        )  # fmt: skip
    return _HEAD, rows


def render(result: Result) -> str:
    """The page as one string."""
    arena = result.arena
    sections = [section(f"Judged by {source.name}", *_source(result, source)) for source in result.sources]
    twins = [pair for source in result.sources for pair in source.pairs if pair.twins]
    if twins:
        sections.append(section("A/A check", el("p", aa_statement(twins))))
    if result.accuracy is not None:
        told = [(n, a.estimate * 100, _percents(a)) for n, a in zip(arena.names, result.accuracy, strict=True)]
        what = f"Share of {result.known} prompts with a known answer that each player answers rightly."
        sections.append(section("Known truth", table(("", "right, %", "95 % interval"), told), note=what))
    if result.alike:
        sections.append(section("Agreement of judges", *_agreement(result)))
    sections.append(section("Left out", *_left_out(result)))
    sections.append(section("Battles", *_battles(result)))
    main = result.sources[0]
    first = main.pairs[0] if main.pairs else None
    head: list[Html] = []
    lead, *more = (text for text in notes(result) if not text.startswith("A/A"))
    if first is not None:
        title = f"{arena.names[first.a]} preferred to {arena.names[first.b]}"
        head = [
            cards(
                [
                    (title, f"{100 * first.win.estimate:.1f} %", _percents(first.win)),
                    ("Judgements", number(sum(len(s.judgements) for s in result.sources)), "of all judges"),
                    ("Ties", number(first.ties), f"of which {first.identical} with the same reply"),
                ]
            )
        ]
    return page(
        " and ".join(arena.names) if len(arena.names) < 4 else f"{len(arena.names)} models", sections,
        kicker="foretell arena", lead=lead, head=[*head, *map(notice, more)],
        footer=f"Seed {arena.seed}; players: " + "; ".join(f"{p.name} = {p.model}" for p in arena.players),
    )  # fmt: skip


def _source(result: Result, source: Source) -> list[Html]:
    names = result.arena.names
    head, rows = pair_rows(result, source)
    charted = [
        Row(f"{names[p.a]} over {names[p.b]}", [Point(p.win.estimate, p.win.low, p.win.high)]) for p in source.pairs
    ]
    parts = [
        figure(
            interval_chart(charted, ["preferred"], title="Win rates", x_range=(0.0, 1.0)),
            "How often the first of two is preferred, ties as half, with 95 % intervals that count prompts, not "
            "judgements. In the middle neither is.",
        ),
        table(head, rows, align="llrlrrrrr"),
    ]
    if source.ratings is not None:
        told = [(name, *elo_text(source.ratings, i)) for i, name in enumerate(names)]
        what = (
            f"Bradley–Terry by maximum likelihood, ties as half a win; {names[0]} is fixed at {ANCHOR:.0f}, and 400 "
            "points are odds of ten to one. Intervals: sandwich over prompts; bootstrap over prompts."
        )
        parts += [el("h3", "Ratings"), el("p", what, class_="note")]
        parts.append(table(("", "rating", "95 % interval", "bootstrap"), told, align="lrll"))
        for above, below in source.ratings.separated:
            parts.append(
                notice(
                    f"{', '.join(above)} won every judged battle against {', '.join(below)}: how far above cannot be "
                    "told, only that it is at least the interval's end (profile likelihood)."
                )
            )
    elif source.no_ratings:
        parts.append(notice(source.no_ratings))
    parts += [el("h3", "What the judge goes by"), table(("", "share", "n"), _biases(source), align="lrr")]
    if source.length.controlled is not None and source.length.effect is not None:
        equal = [
            (name, f"{mean:.0f}", _percents(rate, True) if i else "50 by definition")
            for i, (name, mean, rate) in enumerate(
                zip(names, source.length.mean, source.length.controlled, strict=True)
            )
        ]
        what = (
            f"With the difference of lengths in the model (a spread of it changes the log-odds by "
            f"{source.length.effect.estimate:.2f}, {source.length.effect.low:.2f} to {source.length.effect.high:.2f})."
        )
        parts += [el("h3", "At equal length"), el("p", what, class_="note")]
        parts.append(table(("", "mean characters", f"preferred to {names[0]}, %"), equal, align="lrl"))
    if source.effect is not None:
        parts += _effect(source)
    return parts


def _biases(source: Source) -> list[tuple[str, str, int]]:
    rows = []
    if source.first_n:
        rows.append(("prefers the reply shown first", range_text(source.first), source.first_n))
    if source.consistent is not None and source.judgements:
        rows.append(("says the same in both orders", range_text(source.consistent), len(source.judgements)))
    if source.length.n:
        rows.append(("prefers the longer reply", range_text(source.length.longer), source.length.n))
    if source.truth is not None:
        rows.append(("names the reply that is right", range_text(source.truth.agreement), source.truth.n))
    return rows


def _effect(source: Source) -> list[Html]:
    e = source.effect
    assert e is not None
    rows = [
        ("with a critique", range_text(e.assisted.agreement), e.assisted.n, _seconds(e.assisted.seconds)),
        ("without", range_text(e.alone.agreement), e.alone.n, _seconds(e.alone.seconds)),
        ("difference", range_text(e.difference, "+.1f"), e.assisted.n + e.alone.n, _factor(e.time)),
    ]
    what = (
        "Of battles in which one reply is right and the other wrong: how often the judge names the right one (a tie "
        "does not). Which battles have critiques is drawn within each judge; the difference is within judges, by "
        f"prompts as clusters; p = {e.p:.2g}."
    )
    shown = table(("", "names the right reply", "n", "median time"), rows, align="lrrr")
    return [el("h3", "Do critiques help?"), el("p", what, class_="note"), shown]


def _agreement(result: Result) -> list[Html]:
    rows = [(a.one, a.other, a.n, f"{100 * a.same:.0f}", _plain(a.kappa)) for a in result.alike]
    parts = [table(("", "and", "battles", "same, %", "Cohen's κ"), rows, align="llrrr")]
    if result.alpha_n:
        nominal, interval = map(_plain, result.alpha)
        parts.append(
            el("p", f"Krippendorff's α of people over {result.alpha_n} battles that several judged: {nominal} "
               f"(verdicts as names), {interval} (a tie half way).")
        )  # fmt: skip
    return parts


def _left_out(result: Result) -> list[Html]:
    arena = result.arena
    rows = [(f"prompt {p}", arena.prompts[p].where, why) for p, why in arena.unanswered.items()]
    rows += [
        (f"critique of {arena.names[player]}", arena.prompts[p].where, why)
        for (p, player), why in arena.uncriticised.items()
    ]
    rows += [("row", "", why) for why in arena.skipped]
    rows += [(f"battle {id}", source.name, why) for source in result.sources for id, why in source.invalid]
    if not rows:
        return [el("p", "Nothing: every prompt was answered, and every judgement could be read.")]
    return [details(f"{len(rows)} prompts, rows and judgements", table(("", "where", "why"), rows))]


def _battles(result: Result) -> list[Html]:
    """Some, with what was said of them."""
    arena, found = result.arena, []
    said: dict[int, list[str]] = {}
    for source in result.sources:
        for one in source.judgements:
            b = arena.battles[one.battle]
            winner = "tie" if one.score == 0.5 else arena.names[b.a if one.score == 1 else b.b]
            said.setdefault(one.battle, []).append(f"{one.judge}: {winner}")
    for battle in [b for b in arena.open if b.id in said][:_SHOWN]:
        asked = arena.prompts[battle.prompt]
        replies = arena.replies[battle.prompt]
        truth = f" Truth: {asked.answer}." if asked.answer is not None else ""
        found.append(
            details(
                f"{_words(asked.messages)[-90:]}",
                *(
                    el("p", el("b", f"{arena.names[i]}: "), replies[i][:_CUT], class_="sample")
                    for i in (battle.a, battle.b)
                ),
                el("p", "; ".join(said[battle.id][:8]) + "." + truth, class_="note"),
            )
        )
    return found or [el("p", "None was judged yet.")]


def _words(messages: Sequence[object]) -> str:
    """The last message's text on one line."""
    last = messages[-1]
    content = last.get("content") if isinstance(last, dict) else ""
    parts = content if isinstance(content, list) else [{"text": content}]
    return " ".join(" ".join(str(part.get("text", "[image]")) for part in parts).split())


def _percents(interval: Interval, whole: bool = False) -> str:
    told = f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
    return f"{100 * interval.estimate:.1f} ({told})" if whole else told


def _ends(low: float, high: float) -> str:
    if low == -inf:
        return "any" if high == inf else f"at most {high:.0f}"
    return f"at least {low:.0f}" if high == inf else f"{low:.0f} to {high:.0f}"


def _plain(value: float) -> str:
    return "–" if isnan(value) else f"{value:.2f}"


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} s"


def _factor(time: Interval | None) -> str:
    return "–" if time is None else f"× {time.estimate:.2f} ({time.low:.2f} to {time.high:.2f})"
