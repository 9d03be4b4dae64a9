"""card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def card(
    model: Annotated[
        str, typer.Argument(metavar="RUN", help="A run, a checkpoint, open weights, or an endpoint's URL.")
    ],
    measured: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="DIR", help="Measurements of the same model: logs, checks; may be repeated."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where it is written; default RUN/card.")] = None,
    watts: Annotated[float | None, typer.Option(min=0, help="Power of the machine while it trained.")] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of an hour of the machine.")] = None,
    currency: Annotated[str, typer.Option(help="Of the price; default USD.")] = "",
) -> None:
    """Write a system card: what a model is and what was measured of it, each number with the file it comes from."""
    from foretell.report.card.write import Assumed, write_card

    page = write_card(model, measured or (), out, Assumed(watts, price, currency))
    print(f"System card: {page.resolve()}\nAs Markdown: {page.with_name('card.md').resolve()}")
