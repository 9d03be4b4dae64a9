"""What alignment did to a run's model: rates before and after, from the manifest of its outcomes."""

from __future__ import annotations

from foretell.pages import Html, el, number, percent, section, table
from foretell.report.record import RunRecord, mapping, num


def align_section(run: RunRecord) -> Html:
    """Rates of every model that was asked, with their intervals, and how well letters are calibrated; empty without."""
    metrics = run.metrics("outcomes")
    models, titles = mapping(metrics.get("rates")), mapping(metrics.get("titles"))
    if not models:
        return Html("")
    shown = [name for name in titles if any(name in mapping(rates) for rates in models.values())]
    rows = [[str(titles[name]), *(_rate(mapping(rates).get(name)) for rates in models.values())] for name in shown]
    errors = mapping(metrics.get("calibration"))
    if errors:
        rows += [
            ["Calibration error of the letters (ECE)", *(_error(errors, name, "before") for name in models)],
            ["– after temperature repair", *(_error(errors, name, "after") for name in models)],
        ]
    kept = mapping(metrics.get("pretraining_loss"))
    if kept:
        rows.append(["Loss on held-out pre-training rows, nats a token", *(_value(kept, name) for name in models)])
    reward, grader = run.metrics("reward"), run.metrics("grader")
    facts = [
        ("Reward model", num(reward, "accuracy"), num(run.metrics("lessons"), "right"), "of the rankings are right"),
        ("Rule-based grader", num(grader, "accuracy"), None, ""),
    ]
    said = "; ".join(
        f"{name}: {percent(value)} of held-out {'rankings' if limit is not None else 'replies'} right"
        + (f", where {percent(limit)} {what}" if limit is not None else "")
        for name, value, limit, what in facts
        if value is not None
    )
    return section(
        "Alignment",
        el("p", "Held-out prompts, judged by the world's exact oracle, with 95 % intervals. ", said and f"{said}."),
        table(["", *models], rows),
        el("p", el("a", "Every change with its interval, and replies side by side", href="../outcomes/index.html")),
    )


def _rate(value: object) -> str:
    if not isinstance(value, list) or len(value) != 3:
        return ""
    estimate, low, high = value
    return f"{percent(estimate)} ({100 * low:.0f}–{100 * high:.0f})"


def _value(values: dict[str, object], name: str) -> str:
    value = num(values, name)
    return "" if value is None else number(round(value, 4))


def _error(errors: dict[str, object], name: str, when: str) -> str:
    return _value(mapping(errors.get(name)), when)
