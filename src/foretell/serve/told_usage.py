"""GET /v1/usage: what the caller's account has used, for programs."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from foretell.serve.accounts.account import Account
from foretell.serve.calls import json_response
from foretell.serve.gateway import Gateway
from foretell.serve.limits.usage import Sums, usage
from foretell.serve.limits.windows import DAY
from foretell.serve.refusals import refuse

_USUAL, _MOST = 30, 366  # days


async def usage_of(gateway: Gateway, request: Request) -> Response:
    """The days from `from` through `to` (ISO, UTC), the last 30 unless given. Raises RequestError for others."""
    account: Account = request.state.caller.account
    now = gateway.store.clock()
    last = _day(request, "to", now // DAY)
    first = _day(request, "from", last - _USUAL + 1)
    if not first <= last < first + _MOST:
        raise refuse(f"'from' should not be after 'to', nor {_MOST} days before it.", 400, param="from")
    found = await asyncio.to_thread(usage, gateway.store, account.user, since=first * DAY, until=last * DAY)
    return json_response(
        {
            "object": "usage",
            "from": _iso(first),
            "to": _iso(last),
            "total": _sums(found.total),
            "days": [{"day": _iso(day), **_sums(sums)} for day, sums in found.by_day.items()],
            "models": [{"model": name, **_sums(sums)} for name, sums in found.by_model.items()],
        }
    )


def _day(request: Request, name: str, usual: int) -> int:
    """As days since 1970."""
    text = request.query_params.get(name)
    if text is None:
        return usual
    try:
        return (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError as error:
        raise refuse(f"Invalid '{name}': expected a day such as 2026-11-20.", 400, param=name) from error


def _iso(day: int) -> str:
    return datetime.fromtimestamp(day * DAY / 1000, UTC).date().isoformat()


def _sums(sums: Sums) -> dict[str, Any]:
    names = ("calls", "prompt_tokens", "completion_tokens", "image_tokens", "cached_tokens")
    return {name: getattr(sums, name) for name in names} | {"dollars": sums.charged / 1e6}
