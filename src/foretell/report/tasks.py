"""What the model can do: visual tasks beside their controls, held-out pictures, samples of text."""

from __future__ import annotations

from foretell.pages import (
    Html,
    Interval,
    Row,
    el,
    figure,
    image,
    interval_chart,
    join,
    notice,
    percent,
    section,
    table,
)
from foretell.report.record import Json, RunRecord, num, records, words

_MOST_SHOWN = 24
_MOST_TEXT = 1500
_CAPTION = "Accuracy in percent, margins in percentage points, with 95 % intervals."
_NOT_EXAMINED = "Missing: the run has not been examined."
_NO_TASKS = "Nothing to ask: visual tasks need an image tower (model.vision) and a source of kind world in the recipe."
_MARGINS = " ✓ marks a margin whose interval lies above zero."


def beats(task: Json, key: str) -> bool:
    """Whether the 95 % interval of a margin, "above_blind" or "above_majority", lies above zero."""
    low = num(task, f"{key}_low")
    return low is not None and low > 0


def tasks_section(run: RunRecord) -> Html:
    """Accuracy of every task with its interval, beside blind, shuffled-image and majority controls."""
    tasks = [task for task in records((run.examine or {}).get("tasks")) if num(task, "blind") is not None]
    if not tasks:
        return section("What it sees", notice(_NO_TASKS if run.examine else _NOT_EXAMINED))
    tasks.sort(key=lambda task: -(num(task, "above_blind") or 0))
    note = (
        "Held-out questions about images. Blind: the same model with a grey image. Shuffled: with another "
        "question's image. Majority: the answer that was commonest in training. Bars are 95 % intervals."
    )
    names = ["with its image", "blind", "shuffled image", "majority answer"]
    chart = interval_chart(
        [Row(words(task, "task") or "task", _points(task)) for task in tasks],
        names,
        title="Accuracy on visual tasks beside their controls",
        description="; ".join(
            f"{words(task, 'task')}: {percent(num(task, 'accuracy'))}, blind {percent(num(task, 'blind'))}"
            for task in tasks
        ),
        x_range=(0, 1),
        x_format=lambda value: percent(value, 0),
    )
    head = ["Task", "Accuracy", "Above blind", "Blind", "Shuffled", "Majority", "Above majority"]
    rows = [
        [
            words(task, "task"),
            f"{_bare(num(task, 'accuracy'))} ({_span(task, 'low', 'high')})",
            _margin(task, "above_blind"),
            _bare(num(task, "blind")),
            _bare(num(task, "shuffled")),
            _bare(num(task, "majority")),
            _margin(task, "above_majority"),
        ]
        for task in tasks
    ]
    return section(
        "What it sees",
        el("p", note, class_="note"),
        figure(chart),
        table(head, rows, caption=_asked(tasks) + _CAPTION + _MARGINS, align="lrrrrrr"),
    )


def _asked(tasks: list[Json]) -> str:
    counts = sorted(int(count) for task in tasks if (count := num(task, "questions")) is not None)
    if not counts:
        return ""
    return f"{counts[0]:,}{f' to {counts[-1]:,}' if counts[-1] > counts[0] else ''} questions a task. "


def _points(task: Json) -> list[Interval | None]:
    values = [num(task, key) for key in ("accuracy", "blind", "shuffled", "majority")]
    found = [None if value is None else Interval(value) for value in values]
    if values[0] is not None:
        found[0] = Interval(values[0], num(task, "low"), num(task, "high"))
    return found


def _span(task: Json, low: str, high: str) -> str:
    a, b = num(task, low), num(task, high)
    return "–" if a is None or b is None else f"{_edge(a)} to {_edge(b)}"


def _edge(value: float) -> str:
    """An interval's end: whole percents, which is as fine as such intervals are, but never a false zero."""
    return f"{100 * value:.{1 if 0 < abs(value) < 0.01 else 0}f}".replace("-", "−")


def _bare(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}".replace("-", "−")


def _margin(task: Json, key: str) -> Html:
    value = num(task, key)
    if value is None:
        return el("span", "–", class_="soft")
    text = f"{'+' if value > 0 else ''}{_bare(value)} ({_span(task, f'{key}_low', f'{key}_high')})"
    return el("span", "✓ " + text, class_="good") if beats(task, key) else el("span", text)


def pictures_section(run: RunRecord) -> Html:
    """Held-out pictures with question, truth and answer; right and wrong are told by word and sign."""
    shown = records((run.examine or {}).get("shown"))[:_MOST_SHOWN]
    if not shown:
        return section("Held-out pictures", notice(_NO_TASKS if run.examine else _NOT_EXAMINED))
    cards = [_card(item) for item in shown]
    note = "Not chosen by their result."
    if judged := [item for item in shown if isinstance(item.get("correct"), bool)]:
        right = sum(item["correct"] for item in judged)
        note = f"Not chosen by their result; {right} of these {len(judged)} answers are right."
    return section("Held-out pictures", el("ul", *cards, class_="gallery"), note=note)


def _card(item: Json) -> Html:
    question, correct = words(item, "question"), item.get("correct")
    mark = el("span", "✓ right", class_="good") if correct is True else el("span", "✗ wrong", class_="bad")
    blind = words(item, "blind")[:300] or "(nothing)"
    return el(
        "li",
        image(item.get("image"), f"Image of the question: {question[:200]}"),
        el(
            "div",
            el("p", question[:_MOST_TEXT], dir="auto"),
            el(
                "dl",
                el("div", el("dt", "Answer"), el("dd", words(item, "answer")[:300] or "(nothing)", dir="auto")),
                el("div", el("dt", "Blind"), el("dd", blind, dir="auto")) if "blind" in item else "",
                el("div", el("dt", "Truth"), el("dd", words(item, "truth")[:300], dir="auto")),
                class_="answers",
            ),
            el(
                "p",
                mark if isinstance(correct, bool) else "",
                el("span", words(item, "task"), class_="soft"),
                class_="verdict",
            ),
        ),
    )


def samples_section(run: RunRecord) -> Html:
    """Text the model wrote, after the prompt it was given."""
    samples = records((run.examine or {}).get("samples"))[:_MOST_SHOWN]
    if not samples:
        return section("Samples", notice("Missing: no text was sampled."))
    blocks = [
        el(
            "blockquote",
            el("span", words(sample, "prompt")[:_MOST_TEXT], class_="given"),
            "\n" if sample.get("chat") is True else "",
            words(sample, "text")[:_MOST_TEXT] or el("span", " (nothing)", class_="soft empty"),
            class_="sample mono" if "\n " in words(sample, "text") else "sample",
            dir="auto",
        )
        for sample in samples
    ]
    return section("Samples", join(blocks), note="What it was given is set pale, what it wrote follows.")
