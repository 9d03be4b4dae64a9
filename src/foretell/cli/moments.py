"""Times and money as they are typed and shown; inside they are milliseconds since 1970 UTC and micro-dollars."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation

import typer

_UNITS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}
_LATEST = 253_402_300_799_000  # the end of the year 9999


def duration(text: str) -> int:
    """Milliseconds of a duration such as 30m, 12h, 7d or 2w."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip(), re.ASCII)
    if not found:
        raise typer.BadParameter(f"{text!r} is no duration; expected such as 30m, 12h, 7d or 2w.")
    return int(found[1]) * _UNITS[found[2]]


def moment(text: str | None, now: int) -> int | None:
    """A time ahead, as a duration from now or as a date (its beginning, UTC) with or without a time of day."""
    if text is None:
        return None
    if re.fullmatch(r"\d+[mhdw]", text.strip(), re.ASCII):
        return min(now + duration(text), _LATEST)
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time; expected such as 7d, 2026-12-31 or 2026-12-31T18:00."
        ) from error
    end = int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)
    if end <= now:
        raise typer.BadParameter(f"{text} is past.")
    return end


def micro_dollars(text: str) -> int | None:
    """Of dollars as typed; None for none."""
    if text.strip().lower() == "none":
        return None
    try:
        amount = Decimal(text.strip().removeprefix("$"))
        micro = int((amount * 1_000_000).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is no sum of dollars; expected such as 25, 0.50 or none.") from error
    if micro < 0:
        raise typer.BadParameter("a budget cannot be negative.")
    return micro


def money(micro: int | None) -> str:
    """Dollars to the cent, further where there is more."""
    if micro is None:
        return "–"
    whole, part = divmod(micro, 1_000_000)
    digits = f"{part:06}".rstrip("0").ljust(2, "0")
    return f"${whole}.{digits}"


def day(time: int | None) -> str:
    return _shown(time, "%Y-%m-%d")


def minute(time: int | None) -> str:
    return _shown(time, "%Y-%m-%d %H:%M")


def second(time: int | None) -> str:
    return _shown(time, "%Y-%m-%d %H:%M:%S")


def _shown(time: int | None, form: str) -> str:
    return "–" if time is None else datetime.fromtimestamp(time / 1000, UTC).strftime(form)
