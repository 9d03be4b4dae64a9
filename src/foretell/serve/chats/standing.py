"""What is left of an account's limits, as the page shows it."""

from __future__ import annotations

from typing import Any

from foretell.serve.accounts.account import Account
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.standing import Standing
from foretell.serve.limits.usage import usage
from foretell.serve.limits.windows import DAY


def caps(limits: Limits, account: Account, model: str = "*") -> dict[str, Any]:
    """Of messages the limit that has least left, of tokens those a minute, or what today came to where there is none.

    Raises RequestError for a tier that is not known.
    """
    found = limits.standings(account, model)
    messages = [one for one in found if one.kind in ("cap", "quota") and one.ends]
    messages = messages or [one for one in found if one.kind == "requests"]
    least = min(messages, key=lambda one: (one.remaining, -(one.reset or 0)), default=None)
    tokens = next((one for one in found if one.kind == "tokens"), None)
    if tokens is not None:
        used, limit = tokens.limit - max(tokens.remaining, 0), tokens.limit
    else:
        now = limits.store.clock()
        total = usage(limits.store, account.user, since=now // DAY * DAY, until=now).total
        used, limit = total.prompt_tokens + total.completion_tokens, None
    return {
        "used_tokens": used,
        "limit_tokens": limit,
        "requests_left": None if least is None else max(least.remaining, 0),
        "requests_limit": None if least is None else least.limit,
        "resets_ms": None if least is None else least.reset,
        "text": _text(least, used, limit),
    }


def _text(least: Standing | None, used: int, limit: int | None) -> str:
    tokens = f"{used:,} tokens today" if limit is None else f"{used:,} of {limit:,} tokens this minute"
    if least is None:
        return tokens
    every = f"every {least.span}" if least.kind == "cap" else f"a {least.span}"
    left = f"{max(least.remaining, 0):,} of {least.limit:,} messages left {every}"
    again = f", all again in {_wait(least.reset)}" if least.reset else ""
    return f"{left}{again}; {tokens}"


def _wait(ms: int) -> str:
    """In whole minutes, which is how people wait."""
    hours, minutes = divmod(-(-ms // 60_000), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
