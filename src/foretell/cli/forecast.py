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
RecordPath = Annotated[Path, typer.Argument(metavar="RECORD", help="A record, or (to check it) a bundle.")]
Target = Annotated[float | None, typer.Option(min=0, metavar="FLOPS", help="Training FLOPs of the run to forecast.")]
Precision = Annotated[float | None, typer.Option(min=0, help="Asked half-width of the interval, as a share: 0.02.")]
Floor = Annotated[float | None, typer.Option(min=0, help="The loss that no model can beat, where it is known.")]
Level = Annotated[float, typer.Option(min=0.5, max=0.999, help="Probability that the interval is to hold.")]
Out = Annotated[Path | None, typer.Option(help="Also write a page with the figure in this file.")]


@app.command()
def fit(
    table: Table,
    target: Target = None,
    precision: Precision = None,
    floor: Floor = None,
    level: Level = 0.9,
    out: Out = None,
) -> None:
    """Fit a ladder and say what a larger run will reach, how sure that is, and what speaks against it."""
    ladder, forecast = _fitted(table, target, precision, floor)
    _tell(forecast, target, level)
    if out is not None:
        _write_page(out, forecast, ladder, target, level)


@app.command()
def register(
    table: Table,
    target: Annotated[float, typer.Option(min=0, metavar="FLOPS", help="Training FLOPs of the run to come.")],
    out: Annotated[Path, typer.Option(metavar="RECORD", help="The record's file; its folder holds the ledger.")],
    precision: Precision = None,
    floor: Floor = None,
    level: Level = 0.9,
    recipe: Annotated[str | None, typer.Option(help="Recipe of the run to come: no other may use the record.")] = None,
    stop_rule: Annotated[str | None, typer.Option(help="When the run counts as ended, in words.")] = None,
    stamp: Annotated[
        str | None, typer.Option(metavar="URL", help="Have this authority sign the time (RFC 3161).")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="NAME", help="Sign a git tag of the record, in this folder.")
    ] = None,
    anyway: Annotated[bool, typer.Option("--anyway", help="Also if the data do not support the forecast.")] = False,
) -> None:
    """Write the forecast of a run that has not begun as a record that cannot be changed unseen."""
    from foretell.forecast import register as records

    ladder, forecast = _fitted(table, target, precision, floor)
    _tell(forecast, target, level)
    digest = None
    if recipe is not None:
        from foretell.cli.run import load
        from foretell.recipe import digest as digest_of

        digest = digest_of(load(recipe, [], None))
    curve = None
    if ladder.curves:
        from foretell.forecast.watch import watch

        curve = watch(ladder, forecast, target).to_json()
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
    print(f"\nRegistered {record.utc[:19]} UTC: {out}\nSHA-256 {record.sha256}")
    if stamp or tag:
        from foretell.forecast import anchor

        if stamp:
            print(f"Time stamp: {anchor.stamp(out, stamp).own[-1]['time']}")
        if tag:
            anchor.tag(out, tag)
            print(f"Signed tag: {tag}. Push it, so that others see when it appeared.")
    else:
        print("Publish this number, or anchor it (--stamp, --tag): then nobody need trust your clock.")


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
    out: Out = None,
) -> None:
    """Hold a run that is still going on against the curve forecast for it. Exit code 1 if it has left the band."""
    from foretell.errors import ForecastError
    from foretell.forecast.curves import read_live
    from foretell.forecast.register import read
    from foretell.forecast.watch import Band

    found = read(record)
    if found.raw["curve"] is None:
        raise ForecastError(
            f"{record} holds no forecast of the curve: its ladder's table has no curves, only final rows."
        )
    band = Band.from_json(found.raw["curve"])
    points, schedules = read_live(log, steps, band.unit)
    alarms = band.check(points, schedules)
    share = max(points, default=(0.0, 0.0))[0]
    print(f"{share:.0%} of the run, {len(alarms) or 'no'} alarm{'s' * (len(alarms) != 1)}.")
    for a in alarms:
        print(f"At {a.share:.0%}: loss {a.loss:.4g}, expected {a.low:.4g} to {a.high:.4g} {band.unit}: {a.text}.")
    if out is not None:
        from foretell.files import write_text
        from foretell.forecast.live_chart import watch_page

        write_text(out, watch_page(band, points, found, schedules))
        print(f"Page: {out}")
    if alarms:
        raise typer.Exit(1)


@app.command()
def verify(
    record: RecordPath,
    loss: Annotated[float | None, typer.Option(help="Loss of the finished run; nan if it diverged.")] = None,
    authority: Annotated[Path | None, typer.Option(help="PEM certificates to check time stamps against.")] = None,
    out: Out = None,
) -> None:
    """Check that a record or bundle is whole; with --loss, compare and note the outcome."""
    from foretell.forecast import register as records
    from foretell.forecast.anchor import check_anchors

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
    path: Path, target: float | None, precision: float | None, floor: float | None
) -> tuple[LadderTable, Forecast]:
    from foretell.forecast import fit as fit_table
    from foretell.forecast import read_table

    table = read_table(path)
    return table, fit_table(table, floor=floor, target=target, precision=precision)


def _tell(forecast: Forecast, target: float | None, level: float) -> None:
    from foretell.forecast.chart import advice, findings, sentence

    if target is not None:
        print(sentence(forecast.predict(target, level), forecast.unit), end="\n\n")
    else:
        last = forecast.diagnostics.rungs[-1].flops
        ahead = [forecast.predict(last * times, level) for times in (10, 100, 1000)]
        rows = [(f"{p.flops:.3g}", f"{p.loss:.4g}", f"{p.low:.4g}", f"{p.high:.4g}") for p in ahead]
        draw.table(("FLOPs", forecast.unit, f"{level:.0%} from", "to"), rows, right=range(4))
        print()
    for said in findings(forecast):
        print(f"- {said}")
    if told := advice(forecast):
        print(f"\n{told}")


def _tell_record(record: Record) -> None:
    from foretell.forecast.chart import sentence

    forecast = record.forecast()
    print(f"Whole: record and ledger are as they were written. Registered {record.utc[:19]} UTC.")
    print(f"SHA-256 {record.sha256}")
    print(sentence(forecast.predict(record.target, record.claims[0].level), forecast.unit))
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
