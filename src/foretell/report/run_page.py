"""The run page: one HTML file that tells how a run went, from its manifests and logs alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from foretell.files import write_text
from foretell.pages import (
    Html,
    cards,
    code,
    compact,
    definitions,
    details,
    duration,
    el,
    join,
    notice,
    number,
    page,
    section,
    size,
    table,
)
from foretell.report.alignment import align_section
from foretell.report.forecast import Foretold, forecast_card, forecast_notices, forecast_section, read_forecast
from foretell.report.ledger import Cost, cost, data_section, model_section
from foretell.report.record import TELLING, RunRecord, mapping, num, place_of, read_run, records, words
from foretell.report.tasks import beats, pictures_section, samples_section, tasks_section
from foretell.report.training import held_out, loss_section, speed_section

_QUIET = frozenset({"start", "checkpoint", "end"})
_MOST_EVENTS = 60


def write_page(run_dir: Path, out: Path | None = None) -> Path:
    """Write the page of a run; returns its path, `run_dir`/page/index.html unless `out` says otherwise.

    What the run has not reached yet, or what cannot be read, is stated on the page.
    Raises RunError when there is no run, or the page cannot be written.
    """
    path = out or run_dir / "page" / "index.html"
    if path.is_dir():
        path = path / "index.html"
    write_text(path, render(read_run(run_dir)))
    return path


def render(run: RunRecord) -> str:
    """The page of a run as HTML."""
    total, foretold = cost(run), read_forecast(run)
    sections = [
        forecast_section(foretold),
        loss_section(run),
        tasks_section(run),
        pictures_section(run),
        samples_section(run),
        align_section(run),
        data_section(run),
        model_section(run),
        _cost(run, total),
        speed_section(run),
        _events(run),
        _use(run),
        _recipe(run),
    ]
    begun = [words(stage, "started") for stage in run.stages.values() if words(stage, "started")]
    versions = sorted({words(stage, "code") for stage in run.stages.values() if words(stage, "code")})
    seed = run.recipe.get("seed", next((s["seed"] for s in run.stages.values() if "seed" in s), None))
    facts = [
        f"begun {_when(min(begun))}" if begun else "",
        f"seed {seed}" if seed is not None else "",
        ", ".join(versions),
    ]
    return page(
        run.name,
        [part for part in sections if part],
        kicker="Foretell training run" + "".join(f" · {fact}" for fact in facts if fact),
        lead=words(run.recipe, "description"),
        head=[
            _verdict(run, total, foretold),
            *forecast_notices(foretold),
            *map(notice, run.problems),
            *_unfinished(run),
        ],
        footer="Written by foretell from the run's manifests and logs. Nothing on this page is loaded from elsewhere.",
    )


def _when(utc: str) -> str:
    return utc[:16].replace("T", " ") + " UTC" if len(utc) >= 16 else utc


def _verdict(run: RunRecord, total: Cost, foretold: Foretold | None) -> Html:
    bits, source = held_out(run)
    visual = [task for task in records((run.examine or {}).get("tasks")) if num(task, "blind") is not None]
    above = [task for task in visual if beats(task, "above_blind")]
    majority = sum(beats(task, "above_majority") for task in above)
    hours = f"{number(total.core_hours)} core-hours" if total.core_hours is not None else "cores not recorded"
    return cards(
        [
            ("Held-out bits per byte", number(bits) if bits is not None else "missing", source),
            *forecast_card(foretold),
            (
                "Visual tasks above blind",
                f"{len(above)} of {len(visual)}" if visual else "none" if run.examine else "missing",
                f"95 % interval above zero; {majority} above majority too"
                if visual
                else "no visual tasks in this run"
                if run.examine
                else "not examined yet",
            ),
            ("Wall time", duration(total.seconds), "all stages together"),
            ("Tokens trained on", compact(total.tokens) if total.tokens is not None else "missing", ""),
            ("Parameters", compact(total.parameters) if total.parameters is not None else "missing", ""),
            (
                "Compute",
                f"{compact(total.flops)}FLOP" if total.flops is not None else hours,
                hours if total.flops is not None else "",
            ),
        ]
    )


def _unfinished(run: RunRecord) -> list[Html]:
    open_ = [name for name, stage in run.stages.items() if stage.get("state") == "partial" and name not in TELLING]
    missing = [name for name in ("data", "tokenizer", "pack", "pretrain", "examine") if name not in run.stages]
    told = [f"not finished: {', '.join(open_)}"] if open_ else []
    told += [f"not there yet: {', '.join(missing)}"] if missing else []
    return [notice("This run is incomplete. Stages " + "; ".join(told) + ".")] if told else []


def _cost(run: RunRecord, total: Cost) -> Html:
    rows = [
        [
            name,
            duration(num(stage, "seconds")),
            size(num(stage, "size")),
            _state(stage),
            _when(words(stage, "started")) or None,
        ]
        for name, stage in run.stages.items()
        if name not in TELLING
    ]
    if not rows:
        return section("What it cost", notice("No stage has left a manifest."))
    facts = definitions(
        [
            ("Wall time", duration(total.seconds)),
            (
                "Core-hours",
                f"{number(total.core_hours)} on {_cores(total.cores)}" if total.cores else None,
            ),
            ("Training compute", f"{compact(total.flops)}FLOP, {total.counted}" if total.flops is not None else None),
            ("Device", total.device or None),
        ]
    )
    grid = table(["Stage", "Time", "On disk", "State", "Begun"], rows, align="lrrll")
    return section("What it cost", facts, grid)


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count:,} cores"


def _state(stage: dict[str, object]) -> str:
    return "not finished" if stage.get("state") == "partial" else "done"


def _events(run: RunRecord) -> Html:
    counts: dict[str, int] = {}
    for event in run.events:
        counts[event["event"]] = counts.get(event["event"], 0) + 1
    loud = [event for event in run.events if event["event"] not in _QUIET]
    told = ", ".join(f"{count} × {name}" for name, count in counts.items())
    parts: list[object] = [el("p", f"The log holds {told}." if told else "The log holds no events.")]
    if loud:
        known = ("event", "utc", "step")
        rows = [
            [
                _when(words(event, "utc")),
                num(event, "step"),
                words(event, "event"),
                ", ".join(f"{k} {_brief(v)}" for k, v in event.items() if k not in known)[:300],
            ]
            for event in loud[-_MOST_EVENTS:]
        ]
        if len(loud) > _MOST_EVENTS:
            parts.append(el("p", f"The last {_MOST_EVENTS} of {len(loud)} that are out of the ordinary:"))
        parts.append(table(["Time", "Step", "Event", "Said"], rows, align="lrll"))
    elif counts:
        parts.append(el("p", "No loss spike, no non-finite step, no resumption."))
    return section("Events", *parts)


def _brief(value: object) -> str:
    return number(value) if isinstance(value, int | float) and not isinstance(value, bool) else str(value)[:200]


def _use(run: RunRecord) -> Html:
    place = place_of(run.folder)
    quoted = shlex.quote(place)
    asked = [words(s, "prompt") for s in records((run.examine or {}).get("samples")) if s.get("chat") is True]
    python = (
        "import foretell\n\n"
        f"model = foretell.load({json.dumps(place)})\n"
        'reply = model.chat([{"role": "user", "content": '
        f"{json.dumps(asked[0][:80] if asked else 'Hello.', ensure_ascii=False)}"
        "}])\n"
        "print(reply.text)"
    )
    ready = (run.folder / "pretrain" / "checkpoint").is_dir()
    return section(
        "Use it",
        ""
        if ready
        else notice("There is no finished checkpoint yet; the commands below work once pre-training is done."),
        el("p", "Chat in the terminal; an image is given by its path:"),
        code(f"foretell chat {quoted}"),
        el("p", "Load it from Python:"),
        code(python),
        el("p", "See its stages, or bring it up to date and write this page again:"),
        code(f"foretell status {quoted}\nforetell run {quoted}"),
    )


def _recipe(run: RunRecord) -> Html:
    parts: list[object] = []
    if run.recipe_text:
        parts.append(details("The resolved recipe", code(run.recipe_text[:100_000])))
    else:
        parts.append(notice("recipe.yaml is missing."))
    rows = [
        [
            name,
            el("code", words(stage, "config_hash")[:12] or "–"),
            el("code", words(stage, "output")[:12] or "–"),
            ", ".join(mapping(stage.get("inputs"))),
        ]
        for name, stage in run.stages.items()
        if name not in TELLING and stage.get("state") != "partial"
    ]
    if rows:
        parts.append(details("Lineage of the stages", table(["Stage", "Configuration", "Output", "Reads"], rows)))
    return section("Recipe and lineage", join(parts))
