"""forecast: fit, register, watch, verify, bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import draw

if TYPE_CHECKING:
    from foretell.forecast import Forecast, LadderTable
    from foretell.forecast.register import Record

app = typer.Typer(help="Forecast: know the result before the run.", no_args_is_help=True)

Table = Annotated[
    Path,
    typer.Argument(metavar="TABLE", help="The ladder: CSV, Parquet or JSON lines; a run each. See docs/forecast.md."),
]
Stamp = Annotated[str | None, typer.Option(metavar="URL", help="Have this authority sign the time (RFC 3161).")]
Tag = Annotated[str | None, typer.Option(metavar="NAME", help="Sign a git tag of the record, in this folder.")]
RecordPath = Annotated[Path, typer.Argument(metavar="RECORD", help="A record, or (to check it) a bundle.")]
Target = Annotated[float | None, typer.Option(min=0, metavar="FLOPS", help="Training FLOPs of the run to forecast.")]
Precision = Annotated[float | None, typer.Option(min=0, help="Asked half-width of the interval, as a share: 0.02.")]
Floor = Annotated[float | None, typer.Option(min=0, help="The loss that no model can beat, where it is known.")]
Tail = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LOW HIGH", help="Local exponent beyond the ladder, where larger models have shown it."),
]
Level = Annotated[float, typer.Option(min=0.5, max=0.999, help="Probability that the interval is to hold.")]
Column = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=COLUMN", help="Column of flops, loss, tokens, step …, where it is called otherwise."),
]
Out = Annotated[Path | None, typer.Option(help="Also write a page with the figure in this file.")]


@app.command()
def fit(
    table: Table,
    target: Target = None,
    precision: Precision = None,
    floor: Floor = None,
    tail: Tail = None,
    level: Level = 0.9,
    column: Column = None,
    out: Out = None,
) -> None:
    """Fit a ladder and say what a larger run will reach, how sure that is, and what speaks against it.

    Exit code 1 if the data do not support the forecast.
    """
    ladder, forecast = _fitted(table, target, precision, floor, tail, column)
    _tell(ladder, forecast, target, level)
    if out is not None:
        _write_page(out, forecast, ladder, target, level)
    if forecast.refusal:
        raise typer.Exit(1)


@app.command()
def register(
    table: Table,
    target: Annotated[float, typer.Option(min=0, metavar="FLOPS", help="Training FLOPs of the run to come.")],
    out: Annotated[Path, typer.Option(metavar="RECORD", help="The record's file; its folder holds the ledger.")],
    precision: Precision = None,
    floor: Floor = None,
    tail: Tail = None,
    level: Level = 0.9,
    column: Column = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the run to come: no other may use the record.")] = None,
    stop_rule: Annotated[str | None, typer.Option(help="When the run counts as ended, in words.")] = None,
    stamp: Stamp = None,
    tag: Tag = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also if the data do not support the forecast.")] = False,
) -> None:
    """Write the forecast of a run that has not begun as a record that cannot be changed unseen."""
    from foretell.forecast import register as records

    ladder, forecast = _fitted(table, target, precision, floor, tail, column)
    if forecast.refusal and not anyway:
        _tell(ladder, forecast, target, level)
    digest = None
    if recipe is not None:
        from foretell.cli.run import load
        from foretell.recipe import digest as digest_of

        digest = digest_of(load(recipe, [], None))
    curve, blind = None, "its table has no curves (a row every few steps, with run and step)"
    if ladder.curves:
        from foretell.errors import ForecastError
        from foretell.forecast.watch import watch

        try:
            curve = watch(ladder, forecast, target).to_json()
        except ForecastError as error:
            blind = str(error)
    record = records.register(
        out,
        ladder,
        forecast,
        target=target,
        level=level,
        recipe=digest,
        curve=curve,
        stop_rule=stop_rule or records.STOP_RULE,
        anyway=anyway,
    )
    # Only now: a reader that closes the pipe must not be what keeps a forecast from being registered.
    _tell(ladder, forecast, target, level)
    print(f"\nRegistered {record.utc[:19]} UTC: {out}\nSHA-256 {record.sha256}")
    if curve is None:
        print(f"The run cannot be watched: {blind}")
    if stamp or tag:
        anchor(out, stamp, tag)
    else:
        print("Publish this number, or anchor it (foretell forecast anchor): then nobody need trust your clock.")


@app.command()
def anchor(record: RecordPath, stamp: Stamp = None, tag: Tag = None) -> None:
    """Have others attest that a record existed: a time-stamping authority, or a signed git tag that you push."""
    from foretell.errors import ForecastError
    from foretell.forecast import anchor as anchors

    if not stamp and not tag:
        raise ForecastError("Name an anchor: --stamp URL of a time-stamping authority, --tag NAME, or both.")
    try:
        if stamp:
            print(f"Time stamp: {anchors.stamp(record, stamp).own[-1]['time']}")
        if tag:
            anchors.tag(record, tag)
            print(f"Signed tag: {tag}. Push it, so that others see when it appeared.")
    except ForecastError as error:
        raise ForecastError(
            f"The record stands, but without this anchor: {str(error).rstrip('.')}. Try again with: foretell forecast "
            f"anchor {record}"
        ) from error


@app.command()
def watch(
    record: RecordPath,
    log: Annotated[
        Path,
        typer.Argument(
            metavar="LOG", help="Log of the run: CSV, JSON lines, Parquet; step, loss and, if it is there, lr."
        ),
    ],
    steps: Annotated[float, typer.Option(min=1, help="Steps of the whole run.")],
    column: Column = None,
    out: Out = None,
) -> None:
    """Hold a run that is still going on against the curve forecast for it. Exit code 1 if it has left the band."""
    from foretell.errors import ForecastError
    from foretell.forecast.curves import read_live
    from foretell.forecast.live_chart import BLIND, watch_page, watch_rows
    from foretell.forecast.register import read
    from foretell.forecast.watch import Band

    found = read(record)
    if found.raw["curve"] is None:
        raise ForecastError(
            f"{record} holds no forecast of the curve: its ladder's table has no curves that serve, only final rows. "
            "Register one from a table with a row every few steps, with run and step, before the run begins."
        )
    band = Band.from_json(found.raw["curve"])
    theirs = found.table().settings.get("loss column")
    points, schedules = read_live(log, steps, band.unit, _named(column), theirs)
    alarms = band.check(points, schedules)
    share = max(points, default=(0.0, 0.0))[0]
    print(f"{share:.0%} of the run, {len(alarms) or 'no'} alarm{'s' * (len(alarms) != 1)}.")
    for a in alarms:
        print(f"At {a.share:.0%}: {a.text} (loss {a.loss:.4g}, band {a.low:.4g} to {a.high:.4g}).")
    if band.is_blind:
        print(BLIND)
    if rows := watch_rows(band, points):
        print()
        draw.table(("run", band.unit, "band", ""), rows, right=(0, 1))
    if out is not None:
        from foretell.files import write_text

        write_text(out, watch_page(band, points, found, schedules))
        print(f"Page: {out}")
    if alarms:
        raise typer.Exit(1)


@app.command()
def verify(
    record: RecordPath,
    loss: Annotated[float | None, typer.Option(help="Loss of the finished run; nan if it diverged.")] = None,
    first_step: Annotated[
        str | None, typer.Option(metavar="TIME", help="When the run began (2026-05-04T10:00+00:00): no later record.")
    ] = None,
    authority: Annotated[Path | None, typer.Option(help="PEM certificates to check time stamps against.")] = None,
    out: Out = None,
) -> None:
    """Check that a record or bundle is whole; with --loss, compare and note the outcome."""
    from foretell.forecast import register as records
    from foretell.forecast.anchor import check_anchors

    if first_step is not None:
        records.check_before(record, first_step)
    found = records.read(record) if loss is None else records.verify(record, loss)
    anchors = check_anchors(found, authority)
    _tell_record(found)
    for anchor in anchors:
        print(f"Anchor: {anchor.text}")
    if out is not None:
        from foretell.files import write_text
        from foretell.forecast.chart import forecast_page

        write_text(out, forecast_page(found.forecast(), found.table(), record=found, anchors=anchors))
        print(f"Page: {out}")
    if any(anchor.holds is False for anchor in anchors):
        raise typer.Exit(2)


@app.command()
def bundle(record: RecordPath, out: Annotated[Path, typer.Option(help="File to write.")]) -> None:
    """Put record, ladder table, outcomes and anchors into one file, to be verified anywhere."""
    from foretell.forecast.register import bundle as write

    digest = write(record, out)
    print(f"{out}: SHA-256 {digest}\nCheck it with: foretell forecast verify {out}")


def _fitted(
    path: Path,
    target: float | None,
    precision: float | None,
    floor: float | None,
    tail: tuple[float, float] | None,
    column: list[str] | None,
) -> tuple[LadderTable, Forecast]:
    from foretell.forecast import fit as fit_table
    from foretell.forecast import read_table

    table = read_table(path, named=_named(column))
    return table, fit_table(table, floor=floor, tail=tail, target=target, precision=precision)


def _named(pairs: list[str] | None) -> dict[str, str]:
    from foretell.errors import ForecastError

    if wrong := next((pair for pair in pairs or () if "=" not in pair), None):
        raise ForecastError(f"--column {wrong} names no column; expected FIELD=COLUMN, as loss=eval/bpb.")
    return {field: name for field, _, name in (pair.partition("=") for pair in pairs or ())}


def _tell(ladder: LadderTable, forecast: Forecast, target: float | None, level: float) -> None:
    from foretell.forecast.chart import advice, findings, reading, sentence

    told = advice(forecast)
    if told:
        print(told, end="\n\n")
    if target is not None:
        print(sentence(forecast.predict(target, level), forecast.unit, not told), end="\n\n")
    else:
        last = forecast.diagnostics.rungs[-1].flops
        ahead = [forecast.predict(last * times, level) for times in (10, 100, 1000)]
        rows = [(f"{p.flops:.3g}", f"{p.loss:.4g}", f"{p.low:.4g}", f"{p.high:.4g}") for p in ahead]
        draw.table(("FLOPs", forecast.unit, f"{level:.0%} from", "to"), rows, right=range(4))
        print()
    for said in [*findings(forecast), *reading(ladder)]:
        print(f"- {said}")


def _tell_record(record: Record) -> None:
    from foretell.forecast.chart import advice, sentence

    forecast = record.forecast()
    print(f"Whole: record and ledger are as they were written. Registered {record.utc[:19]} UTC.")
    print(f"SHA-256 {record.sha256}")
    predicted = forecast.predict(record.target, record.claims[0].level)
    print(sentence(predicted, forecast.unit, not advice(forecast)))
    for outcome in record.outcomes:
        was = "diverged" if outcome.measured is None else f"{outcome.measured:.6g}"
        error = "" if outcome.error is None else f", error {outcome.error:+.2%}"
        print(f"{'Hit' if outcome.hit else 'Miss'}: {outcome.claim.name} {was} ({outcome.utc[:19]} UTC){error}")
    if not record.outcomes:
        print("No outcome yet. When the run is done: foretell forecast verify RECORD --loss X")


def _write_page(out: Path, forecast: Forecast, ladder: LadderTable, target: float | None, level: float) -> None:
    from foretell.files import write_text
    from foretell.forecast.chart import forecast_page

    write_text(out, forecast_page(forecast, ladder, target, level=level))
    print(f"\nPage: {out}")
