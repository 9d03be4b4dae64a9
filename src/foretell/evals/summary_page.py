"""A page of summaries: accuracy against the number of constraints by model, and visual tasks beside their controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foretell.pages import (
    Html,
    Interval,
    Row,
    Series,
    figure,
    interval_chart,
    line_chart,
    notice,
    page,
    percent,
    section,
    table,
)

Json = Mapping[str, Any]
_CONTROLS = ("blind", "shuffled", "majority")


def summaries_page(found: Sequence[Json]) -> str:
    """found: summaries of runs (`summaries.read_summary`), of one model or several."""
    ladders = [one for one in found if one.get("kind") == "complexity"]
    visual = [one for one in found if one.get("part") == "vision" and one.get("tasks")]
    others = [one for one in found if one not in ladders and one not in visual]
    sections: list[Html] = []
    for name in dict.fromkeys(map(_name, ladders)):
        sections += _complexity(name, [one for one in ladders if _name(one) == name])
    sections += [_vision(one) for one in visual]
    if others:
        names = ", ".join(str(one.get("eval")) for one in others)
        sections.append(section("Others", notice(f"No chart is known for {names}.")))
    models = list(dict.fromkeys(str(one.get("model")) for one in found))
    lead = f"{len(found)} run{'s' * (len(found) != 1)} of {', '.join(models)}."
    return page("Results of evals", sections, kicker="Foretell", lead=lead, footer=_footer(found))


def _complexity(name: str, runs: Sequence[Json]) -> list[Html]:
    names = _told_apart(runs)
    curves = [
        Series(
            label, [r["level"] for r in one["levels"]], [100 * r["accuracy"] for r in one["levels"]], "both",
            low=[100 * r["low"] for r in one["levels"]], high=[100 * r["high"] for r in one["levels"]],
        )
        for label, one in zip(names, runs, strict=True)
    ]  # fmt: skip
    chart = line_chart(
        curves,
        title=f"{name}: replies that keep every constraint, by how many there are",
        description="; ".join(
            f"{label}: " + ", ".join(f"{r['level']} {percent(r['accuracy'], 0)}" for r in one["levels"])
            for label, one in zip(names, runs, strict=True)
        ),
        x_label="constraints at once",
        y_label="replies that keep all, percent",
        y_range=(0, 100),
        x_format=lambda value: f"{value:g}",
    )
    head = ["Model", "Constraints", "Requests", "All kept", "95 % interval", "Share kept", "If slips were independent"]
    rows = [
        [
            label, r["level"], r["n"], percent(r["accuracy"]), f"{percent(r['low'], 0)} to {percent(r['high'], 0)}",
            percent(r["share_kept"]), percent(r["if_independent"]),
        ]
        for label, one in zip(names, runs, strict=True)
        for r in one["levels"]
    ]  # fmt: skip
    note = (
        "Bands are 95 % intervals. Share kept is of single constraints; to the power of their number it is what "
        "independent slips would leave whole."
    )
    first = section(name, figure(chart), table(head, rows, align="lrrrrrr"), note=note)
    each = sorted({constraint for one in runs for constraint in one.get("constraints", {})})
    kept = [
        [constraint, *(percent((one["constraints"].get(constraint) or {}).get("kept")) for one in runs)]
        for constraint in each
    ]
    second = section(
        f"Which constraints are kept, {name}",
        table(["Constraint", *names], kept, align="l" + "r" * len(runs)),
        note="Over all rungs.",
    )
    return [first, second]


def _vision(one: Json) -> Html:
    tasks = one["tasks"]
    chart = interval_chart(
        [
            Row(
                str(task["task"]),
                [Interval(task["accuracy"], task["low"], task["high"]), *(_point(task, name) for name in _CONTROLS)],
            )
            for task in tasks
        ],
        ["with its image", "grey image", "another image", "majority answer"],
        title=str(one.get("title")),
        description="; ".join(f"{task['task']}: {percent(task['accuracy'])}" for task in tasks),
        x_range=(0, 1),
        x_format=lambda value: percent(value, 0),
    )
    head = [
        "Task",
        "Questions",
        "With its image",
        "Grey",
        "Another",
        "Majority",
        "Gain over grey",
        "Gain over majority",
    ]
    rows = [
        [
            str(task["task"]), task["questions"], percent(task["accuracy"]),
            *(percent(task[name]) if task[name] is not None else None for name in _CONTROLS),
            _gain(task, "above_blind"), _gain(task, "above_majority"),
        ]
        for task in tasks
    ]  # fmt: skip
    told = one.get("protocol") or {}
    protocol = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in told.items())
    lost = [f"{one['invalid']} could not be judged"] if one.get("invalid") else []
    lost += [f"{one['without_image']} without an image were left out"] if one.get("without_image") else []
    note = f"{one.get('model')}. {protocol}. Majority of {one.get('majority_of')}. " + "; ".join(lost)
    caption = f"Scores by {str(one.get('measure')).replace('_', ' ')}; gains are paired, with 95 % intervals."
    return section(
        f"{_name(one)}, {one.get('model')}",
        figure(chart),
        table(head, rows, caption=caption, align="lrrrrrrr"),
        note=note,
    )


def _name(one: Json) -> str:
    """An eval's name without split and version."""
    return str(one.get("eval")).split(".")[0]


def _point(task: Json, name: str) -> Interval | None:
    return None if task[name] is None else Interval(task[name])


def _gain(task: Json, key: str) -> str:
    if task.get(key) is None:
        return "–"
    low, high = task[f"{key}_low"], task[f"{key}_high"]
    span = "" if low is None or high is None else f" ({_signed(low)} to {_signed(high)})"
    return f"{'✓ ' if low is not None and low > 0 else ''}{_signed(task[key])}{span}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _told_apart(runs: Sequence[Json]) -> list[str]:
    """A name for each run: its model, with the run's id where a model has several."""
    models = [str(one.get("model")) for one in runs]
    return [m if models.count(m) == 1 else f"{m} ({one.get('run')})" for m, one in zip(models, runs, strict=True)]


def _footer(found: Sequence[Json]) -> str:
    return "Samples: " + ", ".join(f"{one.get('samples')} (run {one.get('run')})" for one in found)
