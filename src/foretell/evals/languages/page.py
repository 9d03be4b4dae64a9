"""The page of a run in many languages: the report's figure, a table, how questions were put, what others published."""

from __future__ import annotations

from collections.abc import Sequence

from foretell.evals.languages.chart import Row, languages_chart
from foretell.evals.languages.codes import name_of
from foretell.evals.languages.published import BASELINES, GPT_4, SOURCE
from foretell.evals.languages.scoring import CHANCE, LanguageScore, LanguagesScore
from foretell.evals.log import read_log
from foretell.measure.stats import Interval
from foretell.pages import (
    Html,
    cards,
    code,
    definitions,
    details,
    el,
    figure,
    notice,
    page,
    percent,
    section,
    table,
)

_MARK = "GPT-4, published"


def languages_page(score: LanguagesScore) -> str:
    """The page of one run, self-contained."""
    best, worst = score.languages[0], score.languages[-1]
    count = len(score.languages)
    return page(
        f"{count} language{'s' if count > 1 else ''}: {score.model}",
        [
            section("Result", _cards(score, best, worst), *map(notice, score.settings["warnings"])),
            section("Languages", _chart(score), _table(score), *_doubt(score)),
            *([section("By subject", *_subjects(score))] if len(_subjects_of(score)) > 1 else []),
            section("How it was asked", *_conditions(score)),
            section("As published", *_published(score)),
        ],
        kicker="Languages",
        lead=f"{score.set_name}, {len(score.answers):,} questions, {score.settings['shots']}-shot.",
        footer=f"Run {score.run}, log {score.log.name}, questions {score.settings['digest'][:12]}.",
    )


def rows_of(score: LanguagesScore) -> list[Row]:
    """The figure's bars: baselines that may be compared, then languages from the best on."""
    baselines = BASELINES if score.is_mmlu else (("Random guessing", CHANCE),)
    rows = [Row(name, value, published=True) for name, value in baselines]
    for one in score.languages:
        mark = GPT_4.get(one.language) if score.is_mmlu else None
        rows.append(Row(one.name, one.accuracy.estimate, one.accuracy.low, one.accuracy.high, mark=mark))
    return rows


def figure_of(score: LanguagesScore) -> Html:
    """The figure alone, for other pages."""
    told = "; ".join(f"{one.name} {percent(one.accuracy.estimate)}" for one in score.languages)
    return languages_chart(rows_of(score), model=score.model, mark=_MARK, title="Accuracy by language",
                           others="published, not measured here" if score.is_mmlu else "chance",
                           description=told)  # fmt: skip


def _cards(score: LanguagesScore, best: LanguageScore, worst: LanguageScore) -> Html:
    told = [("mean of languages", percent(score.mean.estimate), _span(score.mean))]
    if len(score.languages) > 1:
        told.append(("best", percent(best.accuracy.estimate), f"{best.name}, {_span(best.accuracy)}"))
        told.append(("worst", percent(worst.accuracy.estimate), f"{worst.name}, {_span(worst.accuracy)}"))
    return cards(told)


def _chart(score: LanguagesScore) -> Html:
    others = (
        f"Strokes and the grey bars are published figures ({SOURCE}), on MMLU translated by machine and on MMLU in "
        "English: no results of this project."
        if score.is_mmlu
        else "The grey bar is chance."
    )
    return figure(figure_of(score), f"Accuracy with 95 % intervals over questions like these. {others}")


def _table(score: LanguagesScore) -> Html:
    head = ["language", "n", "accuracy", "95 % interval", "against English", "p", "no letter", "not put"]
    rows = []
    for one in score.languages:
        d = one.against
        rows.append([
            f"{one.name} ({one.language})", one.n, percent(one.accuracy.estimate), _span(one.accuracy),
            None if d is None else f"{100 * d.difference.estimate:+.1f} ({100 * d.difference.low:+.1f} to "
            f"{100 * d.difference.high:+.1f})".replace("-", "−"),
            None if d is None else f"{d.p:.2g}", one.silent, one.invalid,
        ])  # fmt: skip
    return table(head, rows, align="lrrrrrrr", caption="Accuracy by language")


def _doubt(score: LanguagesScore) -> list[Html]:
    """What remains where translations in doubt are left out."""
    rows = [
        [one.name, one.flagged, one.n, percent(one.accuracy.estimate), percent(one.unflagged.estimate),
         _span(one.unflagged)]
        for one in score.languages if one.unflagged is not None
    ]  # fmt: skip
    if not rows:
        return []
    return [
        el("h3", "Translations in doubt"),
        el("p", "Questions whose back-translation departs from the source, and accuracy without them."),
        table(["language", "in doubt", "of", "accuracy", "without them", "95 % interval"], rows, align="lrrrrr"),
    ]


def _subjects_of(score: LanguagesScore) -> list[str]:
    return sorted({name for one in score.languages for name, _, _ in one.by_subject})


def _subjects(score: LanguagesScore) -> list[Html]:
    names = _subjects_of(score)
    if len(names) <= 8:
        head: Sequence[object] = ["language", *names]
        rows = []
        for one in score.languages:
            own = {name: interval for name, _, interval in one.by_subject}
            rows.append([one.name, *(percent(own[n].estimate) if n in own else None for n in names)])
        return [table(head, rows, align="l" + "r" * len(names))]
    parts = []
    for one in score.languages:
        own_rows = [[name.replace("_", " "), n, percent(i.estimate), _span(i)] for name, n, i in one.by_subject]
        inner = table(["subject", "n", "accuracy", "95 % interval"], own_rows, align="lrrr")
        parts.append(details(f"{one.name}: {len(own_rows)} subjects", inner))
    return parts


def _conditions(score: LanguagesScore) -> list[Html]:
    args = score.settings
    forms: dict[str, int] = {}
    for source in args["sources"]:
        forms[source["form"]] = forms.get(source["form"], 0) + source["questions"]
    files = "\n".join(f"{s['name']}\n  {s['form']}, {s['questions']:,}, {s['sha256'][:12]}" for s in args["sources"])
    log = read_log(score.log)
    prompts = []
    for one in score.languages:
        number = next(a.number for a in score.answers if a.language == one.language and a.right is not None)
        prompts.append(details(f"A question in {one.name}", code(_prompt(log.events(number)))))
    return [
        definitions([
            ("Model", score.model), ("Questions", score.set_name), ("Worked questions", args["shots"]),
            ("Letters", "the likeliest of the four, by log-probability" if score.how == "score"
             else "sampled at temperature 0; a reply without one is wrong"),
            ("Left in English", "“Answer:” and the letters"),
            ("Form", ", ".join(f"{form} ({count:,} questions)" for form, count in forms.items())),
        ]),
        *prompts,
        details("Sources, with the beginnings of their SHA-256", code(files)),
        details("The log", code(f"foretell exam languages report {score.log}\nforetell eval view {score.log}")),
    ]  # fmt: skip


def _prompt(events: Sequence[dict[str, object]]) -> str:
    """What was asked, by the log."""
    for event in events:
        data = event["data"]
        if event["type"] in ("sampling", "cond_logp") and isinstance(data, dict):
            prompt = data["prompt"]
            return str(prompt) if isinstance(prompt, str) else str(prompt[-1]["content"])
    return ""


def _published(score: LanguagesScore) -> list[Html]:
    remark = (
        f"{SOURCE}: MMLU translated by machine, 3-shot. Published by others, and no results of this project."
        if score.is_mmlu
        else f"{SOURCE}: on MMLU, which is other questions than these, so that the two do not compare. No results of "
        "this project."
    )
    rows = [Row(name, value, published=True) for name, value in BASELINES]
    rows += [Row(f"GPT-4, {name_of(code)}", value, published=True) for code, value in GPT_4.items()]
    cells = [[row.label, percent(row.value)] for row in rows]
    return [notice(remark), details("The figures", table(["published", "accuracy"], cells, align="lr"))]


def _span(i: Interval) -> str:
    return f"{100 * i.low:.1f} to {100 * i.high:.1f}\u202f%"
