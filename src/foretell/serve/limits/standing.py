"""Where an account stands with each limit, and how that is told: headers, refusals, a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from foretell.errors import RequestError
from foretell.serve.limits.windows import duration, stamp
from foretell.serve.refusals import refuse

Kind = Literal["requests", "tokens", "streams", "cap", "quota", "budget", "key_budget", "tier_budget"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_ON_REQUESTS = ("requests", "cap", "quota")
_SPARED = ("cap", "quota", "budget", "key_budget", "tier_budget")  # which another model may not reach
_BUDGETS = {"budget": "account's", "key_budget": "key's", "tier_budget": "tier's"}


@dataclass(frozen=True)
class Standing:
    """One limit as it stands. All are counts, or micro-dollars of budgets.

    span: its window in words. asked: what a call wants of it, 0 where none is at hand. reset: milliseconds until it is
    as if nothing had been used (None: not a matter of time). wait: milliseconds until `asked` fits; None: it never
    will, being above the limit. ends: whether nothing more is answered once nothing remains; past free messages a
    budget may pay.
    """

    kind: Kind
    limit: int
    remaining: int
    reset: int | None
    span: str = ""
    models: tuple[str, ...] = ("*",)
    asked: int = 0
    wait: int | None = 0
    ends: bool = True

    @property
    def is_met(self) -> bool:
        return self.asked == 0 or self.asked <= self.remaining


def headers(standings: Sequence[Standing]) -> tuple[tuple[bytes, bytes], ...]:
    """x-ratelimit-…, in OpenAI's form: of several limits on requests the one that has least left."""
    told: list[tuple[bytes, bytes]] = []
    for name, kinds in (("requests", _ON_REQUESTS), ("tokens", ("tokens",))):
        found = [standing for standing in standings if standing.kind in kinds and standing.ends]
        if found:
            least = min(found, key=lambda standing: standing.remaining)
            values = {"limit": least.limit, "remaining": max(least.remaining, 0), "reset": duration(least.reset or 0)}
            told += [(f"x-ratelimit-{what}-{name}".encode(), str(value).encode()) for what, value in values.items()]
    return tuple(told)


class Full(Exception):
    """A call does not fit in. falls_back: whether the tier has another model, which some limits do not hold for.

    binding: of the limits that refuse, and that falling back does not help, the one that holds longest.
    """

    def __init__(self, standings: Sequence[Standing], tier: str, model: str, falls_back: bool, now: int) -> None:
        unmet = [standing for standing in standings if not standing.is_met]
        super().__init__(", ".join(standing.kind for standing in unmet))
        hard = [standing for standing in unmet if standing.kind not in _SPARED] if falls_back else unmet
        self.may_fall_back = falls_back and not hard
        self.binding = max(hard or unmet, key=lambda found: float("inf") if found.wait is None else found.wait)
        self._standings, self._tier, self._model, self._now = standings, tier, model, now

    def error(self) -> RequestError:
        """429, with when to ask again; 400 for what no waiting would help."""
        full = self.binding
        money = full.kind in _BUDGETS
        if full.wait is None and not (money and full.limit == 0):
            return refuse(_never(full, self._tier), 400, param="max_tokens", code="above_limit")
        wait = full.wait if full.wait is not None else full.reset or 0
        when = f"in {duration(wait)}, at {stamp(self._now + wait)}"
        code = "insufficient_quota" if money or full.kind == "quota" else "rate_limit_exceeded"
        error = refuse(_why(full, self._tier, self._model, when), 429, code=code)
        # Whole seconds, rounded up: who asks after so many is not refused again for the same.
        seconds = max(1, -(-wait // 1000))
        error.headers = (*headers(self._standings), (b"retry-after", str(seconds).encode()))
        return error


def dollars(micros: int) -> str:
    """Rounded to cents, or to what tells it from nothing."""
    cents = f"{micros / 1e6:,.2f}"
    return f"${cents}" if micros == 0 or abs(micros) >= 10_000 else f"${micros / 1e6:.6f}".rstrip("0")


def _why(full: Standing, tier: str, model: str, when: str) -> str:
    of = "" if "*" in full.models else f" with {model}"
    if full.kind in _BUDGETS:
        return (
            f"The {_BUDGETS[full.kind]} budget is {dollars(full.limit)} a month (UTC). Of it "
            f"{dollars(max(full.remaining, 0))} is left, and this call may cost {dollars(full.asked)}. Ask for less "
            f"with max_tokens, or again {when}."
        )
    if full.kind == "streams":
        return f"The tier {tier} has {_count(full, 'stream')} at once; all are open. Ask again when one has ended."
    if full.kind == "quota":
        return f"The tier {tier} has {_count(full, 'free message')} a day (UTC){of}; all are used. Ask again {when}."
    if full.kind == "cap":
        return f"The tier {tier} has {_count(full, 'message')} every {full.span}{of}; all are used. Ask again {when}."
    if full.kind == "tokens":
        return (
            f"The tier {tier} has {full.limit:,} tokens a minute. {full.remaining:,} are left, and this call may need "
            f"{full.asked:,}. Ask for fewer with max_tokens, or again {when}."
        )
    return f"The tier {tier} has {_count(full, 'request')} a minute; all are used. Ask again {when}."


def _count(full: Standing, name: str) -> str:
    return f"{full.limit:,} {name}" if full.limit == 1 else f"{full.limit:,} {name}s"


def _never(full: Standing, tier: str) -> str:
    if full.kind in _BUDGETS:
        limit, asked = f"a budget of {dollars(full.limit)} a month", dollars(full.asked)
        return f"This call may cost {asked}, and the {_BUDGETS[full.kind]} limit is {limit}. Lower max_tokens."
    return (
        f"This call may need {full.asked:,} tokens, its prompt and max_tokens together; the tier {tier} has "
        f"{full.limit:,} a minute. Shorten it, or lower max_tokens."
    )
