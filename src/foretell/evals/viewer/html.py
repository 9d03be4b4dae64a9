"""The viewer's pages as they are before a script runs: the table of runs, an eval's history, the frame of samples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from foretell.evals.viewer.runs import Run
from foretell.pages import Html, Series, compact, definitions, details, duration, el, join, line_chart, notice, number
from foretell.pages.axes import Scale, line, short
from foretell.pages.documents import document

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types foretell"
)
_DAY = 86400.0
_LONGEST = 10  # characters of a time on the axis


def policy(live: bool) -> str:
    """What a page may load: its own files and embedded pictures. live: also data from its server."""
    return _POLICY.format(connect="'self'" if live else "'none'")


def eval_page_name(eval: str) -> str:
    return f"eval-{hashlib.sha256(eval.encode('utf-8', 'replace')).hexdigest()[:12]}.html"


def view_page(live: bool) -> str:
    """The frame that runs, samples and comparisons are shown in."""
    empty = el("noscript", notice("Samples are shown by a script. Allow scripts of this page."))
    return _shell("Samples", "view", live, el("main", el("p", "Reading the log…", class_="status"), empty))


def runs_page(runs: Sequence[Run], problems: Sequence[tuple[str, str]], live: bool) -> str:
    """All runs, the latest first, and what could not be read."""
    evals = len({run.eval for run in runs})
    lead = f"{number(len(runs))} runs of {number(evals)} evals" if runs else "No finished run in this folder yet."
    found = [el("header", el("h1", "Runs"), el("p", lead, class_="lead"))]
    if runs:
        found.append(_table(runs))
    if problems:
        found.append(
            details(
                f"{number(len(problems))} logs are not shown", definitions((name, why) for name, why in problems[:500])
            )
        )
    return _shell("Runs", "runs", live, el("main", *found))


def eval_page(runs: Sequence[Run], live: bool) -> str:
    """The history of one eval. runs: of it, the latest first."""
    name = runs[0].eval
    kicker = el("p", el("a", "Runs", href="index.html"), " › history", class_="kicker")
    head = el("header", kicker, el("h1", name or "unnamed eval"))
    return _shell(name, "runs", live, el("main", head, history(runs), _table(runs, before=True)))


def history(runs: Sequence[Run]) -> Html:
    """Scores with their intervals over time, a colour a model."""
    shown = sorted((run for run in runs if run.summary and run.date), key=_stamp)
    if len({_stamp(run) for run in shown}) < 2:
        return notice("A plot of the history takes two runs with scores at least.")
    span = _stamp(shown[-1]) - _stamp(shown[0])
    form = "%d %b %Y" if span > 300 * _DAY else "%d %b" if span > 2 * _DAY else "%H:%M" if span > 600 else "%H:%M:%S.%f"
    series = []
    for colour, model in enumerate(dict.fromkeys(run.model for run in shown)):
        of = [run for run in shown if run.model == model]
        x, y = [_stamp(run) for run in of], [run.summary.estimate for run in of if run.summary]
        if len(of) > 1:
            series.append(Series(model, x, y, mark="faint", colour=colour))
        low = [run.summary.interval.low for run in of if run.summary]
        high = [run.summary.interval.high for run in of if run.summary]
        series.append(Series(model or "unnamed model", x, y, mark="dots", colour=colour, low=low, high=high))
    return el(
        "figure",
        line_chart(
            series,
            title=f"Scores of {runs[0].eval} over time",
            description="Mean score of each run with its 95 % interval.",
            y_label="score",
            x_format=lambda at: datetime.fromtimestamp(at, UTC).strftime(form)[:_LONGEST],
            keys_above=True,
        ),
        el("figcaption", "Mean score of each run with its 95 % interval, by the time it began (UTC)."),
    )


def _stamp(run: Run) -> float:
    return run.date.timestamp() if run.date else 0.0


def _table(runs: Sequence[Run], before: bool = False) -> Html:
    """before: with links to comparisons with the run before, and without the eval, which is then one and the same."""
    heads = ["" if before else "Eval", "Model", "Score", "95 % interval", "Samples", "Invalid", "Date (UTC)", "Took"]
    heads += ["Tokens", "Version", "Differences" if before else ""]
    right = {"Score", "Samples", "Invalid", "Took", "Tokens"}
    heads = [head for head in heads if head]
    rows = []
    for place, run in enumerate(runs):
        older = next((other for other in runs[place + 1 :]), None) if before else None
        rows.append(el("tr", *_cells(run, before, older)))
    return el(
        "div",
        el(
            "table",
            el("thead", el("tr", *(el("th", h, scope="col", class_="num" if h in right else None) for h in heads))),
            el("tbody", *rows),
            class_="runs",
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label="runs",
    )


def _cells(run: Run, before: bool, older: Run | None) -> Iterable[Html]:
    found, here = run.summary, f"view.html#/run/{run.key}"
    if not before:
        yield _cell(el("a", run.eval or "unnamed eval", href=eval_page_name(run.eval)), run.eval, "name")
    yield _cell(el("a", run.model or "unnamed model", href=here), run.model, "name")
    yield _cell(f"{found.estimate:.3f}" if found else "–", found.estimate if found else -1, "num")
    yield _cell(_bar(found.estimate, found.interval.low, found.interval.high) if found else "", _width(run), "word")
    yield _cell(number(len(run.log)), len(run.log), "num")
    yield _cell(number(run.invalid), run.invalid, "bad num" if run.invalid else "num")
    yield _cell(run.date.strftime("%Y-%m-%d %H:%M") if run.date else "–", _stamp(run), "word")
    yield _cell(duration(run.cost.seconds) if run.cost.seconds is not None else "–", run.cost.seconds or 0, "num")
    yield _cell(compact(run.cost.tokens), run.cost.tokens or 0, "num")
    yield _cell(run.version, run.version, "name")
    if before:
        link = el("a", "to the run before", href=f"view.html#/compare/{older.key}/{run.key}") if older else ""
        yield _cell(link, 1 if older else 0, "word")


def _cell(content: object, value: object, class_: str) -> Html:
    return el("td", content, class_=class_, data_value=str(value))


def _width(run: Run) -> float:
    return run.summary.interval.high - run.summary.interval.low if run.summary else 9.0


def _bar(value: float, low: float, high: float) -> Html:
    """The interval in words and, within 0 and 1, drawn on that range."""
    words = f" {low:.3f} to {high:.3f}"
    if low < 0 or high > 1:
        return Html(words.strip()) if abs(low) < 1e9 and abs(high) < 1e9 else Html("too few samples")
    at = Scale(0.0, 1.0, 3.0, 93.0, False)
    mark = el("circle", cx=short(at(value)), cy="10", r="3.4", class_="dot")
    parts = join([line(3, 10, 93, 10, "grid"), el("g", line(at(low), 10, at(high), 10, "whisker"), mark, class_="k1")])
    drawn = el("svg", el("title", words.strip()), parts, viewBox="0 0 96 20", role="img", class_="spark")
    return join([drawn, words])


def _shell(title: str, kind: str, live: bool, main: Html) -> str:
    body = el("body", main, data_page=kind, data_live="yes" if live else "no")
    more = [el("meta", name="referrer", content="no-referrer")]
    more += [] if live else [Html('<script defer src="viewer.js"></script>')]
    styles, scripts = ("style.css", "viewer.css"), ("main.js",) if live else ()
    return document(title, body, *more, policy=policy(live), styles=styles, scripts=scripts)
