"""A page an exam: what a model reached, how it was asked, and every question behind the number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foretell.evals.exams.against import Table
from foretell.evals.exams.asking import images_of
from foretell.evals.exams.scoring import Answered, ExamScore, Mark, SectionScore
from foretell.evals.exams.sheets import Agreement
from foretell.pages import (
    Html,
    Interval,
    Row,
    cards,
    code,
    definitions,
    details,
    el,
    figure,
    image,
    interval_chart,
    join,
    notice,
    number,
    page,
    percent,
    section,
    table,
)

_MOST_SHOWN = 400  # questions with all their text
_MOST_TEXT = 6000  # characters of one text


def exam_page(score: ExamScore, agreement: Agreement | None = None) -> str:
    """The page of one run, self-contained. agreement: of people who graded, where they did."""
    spec = score.exam.spec
    return page(
        f"{spec.title}: {score.model}",
        [
            section("Result", *_result(score)),
            section("Sections", _chart(score), _sections(score)),
            section("How it was sat", *_conditions(score, agreement)),
            *([section("As published", *_published(score))] if spec.published else []),
            section("Questions", *_questions(score)),
        ],
        kicker="Exam",
        lead=spec.note,
        footer=f"Run {score.run}, log {score.log.name}, exam {score.exam.eval_name} ({score.exam.digest[:12]}).",
    )


def against_page(found: Table, baseline: str, candidate: str) -> str:
    """The page of two models over exams."""
    rows = [
        Row(row.exam, [Interval(d.estimate, d.low, d.high)]) for row in found.rows for d in [row.comparison.difference]
    ]
    rows.append(Row("mean of exams", [Interval(found.mean.estimate, found.mean.low, found.mean.high)]))
    cells = [
        [row.exam, row.comparison.n, percent(row.baseline), percent(row.candidate), _points(row.comparison.difference),
         f"{row.comparison.p:.3g}"]
        for row in found.rows
    ]  # fmt: skip
    cells.append(["mean of exams", None, percent(found.baseline), percent(found.candidate), _points(found.mean), None])
    chart = interval_chart(rows, ["difference"], title=f"{candidate} against {baseline}", description="Differences.")
    return page(
        f"{candidate} against {baseline}",
        [
            section(
                "Exams",
                figure(chart, "Difference of the share of points, with its 95 % interval, paired by question."),
                table(["exam", "questions", baseline, candidate, "difference", "p"], cells, align="lrrrrr"),
                note="Exams count alike in the mean; its interval is over questions.",
            )
        ],
        kicker="Exams",
    )


def _result(score: ExamScore) -> list[Html]:
    final, told = score.final, []
    if final is not None:
        scale = "scaled score" if score.exam.chart or score.exam.spec.total.of == "scaled" else "points"
        told.append((scale, _plain(final.value), f"{_plain(final.low)} to {_plain(final.high)}, of "
                     f"{_plain(score.exam.spec.total.out_of)}"))  # fmt: skip
        if final.percentile is not None:
            span = f"range {number(final.percentile[0])} to {number(final.percentile[1])}"
            margin = f"{number(final.percentile_low)} to {number(final.percentile_high)} over the score's interval"
            told.append(("percentile, lower bound", number(final.percentile[0]), f"{span}; {margin}"))
    if final is not None:  # a part of the questions has no total
        points = f"{_plain(score.raw.estimate)} of {_plain(score.raw_highest)}"
        span = f"{number(score.raw.low)} to {number(score.raw.high)}"
        told.append(("raw points", points, f"{span}; standard error {number(score.stderr)}"))
    parts = [cards(told)]
    if score.repeated:
        parts.append(notice(f"Run {score.attempt} of this holdout by this model: it is not a first look, and its score "
                            "may owe something to what was learned from the earlier ones."))  # fmt: skip
    if score.exam.split == "nonholdout":
        parts.append(notice("The questions to try settings on. The score to report is the holdout's."))
    if score.ungraded:
        parts.append(notice(f"{score.ungraded} replies wait for grades, so there is no total."))
    if score.partial:
        asked = f"{len(score.answered)} of {len(score.exam.questions)} questions were asked"
        parts.append(notice(f"{asked}, so there is no total."))
    return [*parts, *(notice(warning) for warning in score.exam.warnings)]


def _chart(score: ExamScore) -> Html:
    rows = [
        Row(s.name, [Interval(s.share, s.raw.low / s.highest, s.raw.high / s.highest)]) for s in score.sections if s.n
    ]
    return figure(
        interval_chart(rows, ["share of points"], title="Share of points by section",
                       description="; ".join(f"{s.name} {percent(s.share)}" for s in score.sections if s.n),
                       x_range=(0, 1), x_format=lambda value: percent(value, 0)),
        "With 95 % intervals over questions like these; questions of one passage do not count as independent.",
    )  # fmt: skip


def _sections(score: ExamScore) -> Html:
    head = ["section", "kind", "n", "points", "95 % interval", "std. error", "score", "percentile", "blank", "invalid"]
    return table(head, [_section(s) for s in score.sections], align="llrrrrrrrr")


def _section(s: SectionScore) -> list[object]:
    if not s.n:
        return [s.name, s.kind, 0, f"– of {_plain(s.highest)}", None, None, None, None, s.blank, s.invalid]
    return [
        s.name, s.kind, s.n, f"{_plain(s.raw.estimate)} of {_plain(s.highest)}",
        f"{number(s.raw.low)} to {number(s.raw.high)}", number(s.stderr), _scaled(s.scaled), _percentile(s.scaled),
        s.blank, s.invalid,
    ]  # fmt: skip


def _conditions(score: ExamScore, agreement: Agreement | None) -> list[Html]:
    spec = score.exam.spec
    args = score.settings
    shots = ", ".join(f"{s.name} {len(s.shots)}" for s in score.exam.sections if s.spec.kind == "choice")
    pictures = "shown" if score.vision else "IMAGE: NAME in their place"
    graded = None
    if any(s.spec.kind == "essay" or i.rubric for s, i in score.exam.questions):
        graded = "people, by a sheet" if args.get("graded") == "person" else "a model, line by line of the rubric"
    people = None
    if agreement is not None and agreement.questions:
        people = f"{number(agreement.difference)} points apart on average, over {agreement.questions} questions"
    return [
        definitions([
            ("Model", score.model), ("Exam", f"{score.exam.eval_name}, digest {score.exam.digest[:12]}"),
            ("Split", score.exam.split), ("Holdout run", score.attempt), ("Worked questions", shots or None),
            ("Images", pictures if score.exam.has_images else None),
            ("Letters", "the likeliest, where the model tells it" if args.get("letter") == "score"
             else "asked for at temperature 0"),
            ("Rubrics graded by", graded), ("Graders", people), ("Source", spec.source or None),
            ("Licence", spec.license or None),
        ]),
        details("The log", code(f"foretell exam report {score.log}\nforetell eval view {score.log}")),
    ]  # fmt: skip


def _published(score: ExamScore) -> list[Html]:
    rows = [[p.model, p.section, p.score, str(p.percentile) if p.percentile is not None else None, p.source]
            for p in score.exam.spec.published]  # fmt: skip
    return [
        table(["model", "section", "score", "percentile", "source"], rows, align="llrrl"),
        notice("Published figures of other models, on other questions. They are no results of this project."),
    ]


def _questions(score: ExamScore) -> list[Html]:
    base = Path(score.exam.file).parent
    shown = [_question(a, base) for a in score.answered[:_MOST_SHOWN]]
    left = len(score.answered) - len(shown)
    if left > 0:
        shown.append(notice(f"{left} more are in the log: foretell eval view {score.log}"))
    links = [el("a", str(a.number + 1), href=f"#q{a.number}", title=_outcome(a)) for a in score.answered[:_MOST_SHOWN]
             if a.points is not None and a.points < a.most]  # fmt: skip
    lead = el("p", "Not in full: ", *_spaced(links)) if links else el("p", "All in full.")
    return [lead, *shown]


def _spaced(links: Sequence[Html]) -> list[Html]:
    return [join([link, " "]) for link in links]


def _question(a: Answered, base: Path) -> Html:
    options = "".join(f"\n{chr(ord('A') + i)}) {text}" for i, text in enumerate(a.item.options))
    asked = f"{a.item.passage}\n\n{a.item.question}" if a.item.passage else a.item.question
    rows: list[tuple[str, object]] = [("Expected", _cut(a.expected) if a.expected not in ("null", "") else None)]
    rows.append(("Picked", a.picked if a.section.spec.kind == "choice" else None))
    rows.append(("Points by line", ", ".join(f"{value:g}" for value in a.grades) or None))
    rows.append(("Not judged", a.invalid or None))
    texts = [el("h4", name) + code(_cut(text)) for name, text in
             (("Explanation", a.explanation), ("Reply", a.reply)) if text]  # fmt: skip
    pictures = [image(uri, name) for name, uri in zip(a.item.images, images_of(a.item, base), strict=True)]
    return el(
        "div",
        details(
            f"{a.number + 1}. {a.section.name}: {_outcome(a)}",
            *pictures, code(_cut(asked + options)), definitions(rows), *(Html(text) for text in texts),
        ),
        id=f"q{a.number}",
    )  # fmt: skip


def _outcome(a: Answered) -> str:
    if a.points is None:
        return "waits for a grade"
    return f"{a.points:g} of {a.most:g}" + (", blank" if a.blank else "")


def _scaled(mark: Mark | None) -> str | None:
    return None if mark is None else f"{_plain(mark.value)} ({_plain(mark.low)} to {_plain(mark.high)})"


def _percentile(mark: Mark | None) -> str | None:
    return None if mark is None or mark.percentile is None else number(mark.percentile[0])


def _points(d: object) -> str:
    low, middle, high = (getattr(d, name) for name in ("low", "estimate", "high"))
    return f"{100 * middle:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _plain(value: float) -> str:
    """A score as it is printed on paper: 370, 12.25."""
    return f"{value:.6g}".replace("-", "−")


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} … ({len(text) - _MOST_TEXT} more characters)"
