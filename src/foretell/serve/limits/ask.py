"""What one call asks of the limits of its account, in the terms of `limits.statements`, and how they stand to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from foretell.serve.accounts.account import Account
from foretell.serve.limits.prices import Price
from foretell.serve.limits.standing import Kind, Standing
from foretell.serve.limits.tiers import Cap, Quota, Tier, micros
from foretell.serve.limits.windows import (
    DAY,
    MINUTE,
    day_of,
    day_start,
    drained_in,
    level_at,
    month_of,
    month_start,
    room,
    wait_for,
)

_NO_RATE = 10**9  # a minute: what has no limit drains at once
NO_LIMIT = 2**62
_STREAM_WAIT = 1_000  # when to ask again for what ends at no known time

Row = Mapping[str, int]
"""A meter, as limits.tables has it."""


@dataclass(frozen=True)
class Ask:
    """money: the most it may cost, in micro-dollars, as budgets are, and total_budget of the tier."""

    account: Account
    tier: Tier
    model: str
    prompt_tokens: int
    max_tokens: int
    image_tokens: int
    stream: bool
    money: int
    caps: tuple[Cap, ...]
    quota: Quota | None
    budget: int | None
    total_budget: int | None

    @classmethod
    def of(
        cls,
        account: Account,
        tier: Tier,
        price: Price,
        model: str,
        *,
        prompt_tokens: int = 0,
        max_tokens: int = 0,
        image_tokens: int = 0,
        stream: bool = False,
    ) -> Ask:
        """model "*": as if it were every one."""
        image_tokens = min(image_tokens, prompt_tokens)
        money = price.most(prompt_tokens, max_tokens, image_tokens)
        own = account.user_budget if account.user_budget is not None else _micros(tier.budget)
        caps = tuple(cap for cap in tier.caps if model == "*" or cap.covers(model))
        quota = tier.free_per_day if tier.free_per_day and (model == "*" or tier.free_per_day.covers(model)) else None
        return cls(
            account, tier, model, prompt_tokens, max_tokens, image_tokens, stream, money, caps, quota, own,
            _micros(tier.total_budget),
        )  # fmt: skip

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.max_tokens

    @property
    def ways(self) -> tuple[bool, ...]:
        """Whether as a free message, and whether paid: first what costs nothing."""
        if self.quota is None:
            return (False,)
        return (True,) if self.budget is None else (True, False)

    @property
    def fits_in_a_minute(self) -> bool:
        return self.tier.tokens_per_minute is None or self.tokens <= self.tier.tokens_per_minute

    @property
    def shared(self) -> tuple[tuple[str, int], ...]:
        """The other meters whose budgets hold: subject and budget, in the order in which they are always locked."""
        found = []
        if self.account.key is not None and self.account.key_budget is not None:
            found.append((self.account.key, self.account.key_budget))
        if self.total_budget is not None:
            found.append((tier_subject(self.account.tier), self.total_budget))
        return tuple(found)

    def of_user(self, now: int, free: bool) -> dict[str, Any]:
        """Parameters of `take` for the user's meter."""
        values = _nothing(self.account.user, now)
        rpm, tpm = self.tier.requests_per_minute, self.tier.tokens_per_minute
        if rpm is not None:
            values |= {"requests_rate": rpm, "requests_cost": MINUTE, "requests_most": rpm * MINUTE}
        if tpm is not None:
            values |= {"tokens_rate": tpm, "tokens_cost": self.tokens * MINUTE, "tokens_most": tpm * MINUTE}
        if self.stream:
            values |= {"streams_cost": 1, "streams_most": _or_none(self.tier.streams)}
        if free and self.quota is not None:
            return values | {"quota_cost": 1, "quota_most": self.quota.messages}
        return values | _money(self.money, self.budget)

    def of_shared(self, subject: str, budget: int, now: int) -> dict[str, Any]:
        return _nothing(subject, now) | _money(self.money, budget)

    def standings(
        self,
        user: Row | None,
        shared: Mapping[str, Row],
        times: Mapping[str, Sequence[int]],
        load: float,
        now: int,
        asking: bool,
    ) -> list[Standing]:
        """How every limit stands. shared: the other meters by subject, where there are any. times: of each cap, by id,
        those of the messages in its window, ascending. asking: whether the call is still to be taken."""
        row = user or dict.fromkeys(("requests", "requests_at", "tokens", "tokens_at", "streams", "messages"), 0)
        found: list[Standing] = []
        one = int(asking)
        if (rpm := self.tier.requests_per_minute) is not None:
            found.append(_of_bucket("requests", rpm, row, one, now))
        if (tpm := self.tier.tokens_per_minute) is not None:
            found.append(_of_bucket("tokens", tpm, row, self.tokens * one, now))
        if self.tier.streams is not None:
            left, asked = self.tier.streams - row["streams"], int(self.stream) * one
            found.append(Standing("streams", self.tier.streams, left, None, asked=asked, wait=_STREAM_WAIT * asked))
        found += [_of_cap(cap, times.get(cap.id, ()), load, now, one) for cap in self.caps]
        pays = asking
        if self.quota is not None:
            today = max(user["day"], day_of(now)) if user else day_of(now)
            left = self.quota.messages - (row["messages"] if user and user["day"] == today else 0)
            pays = asking and self.budget is not None and left < 1
            reset = day_start(today) + DAY - now
            asked = int(asking and not pays)
            wait, ends = reset * (left < 1), self.budget is None
            found.append(
                Standing("quota", self.quota.messages, left, reset, "day", self.quota.models, asked, wait, ends)
            )
        money = self.money * pays
        if self.budget is not None:
            found.append(_of_budget("budget", user, self.budget, money, now))
        for subject, budget in self.shared:
            kind: Kind = "key_budget" if subject == self.account.key else "tier_budget"
            found.append(_of_budget(kind, shared.get(subject), budget, money, now))
        return found


def tier_subject(tier: str) -> str:
    return f"tier:{tier}"


def _micros(dollars: float | None) -> int | None:
    return None if dollars is None else micros(dollars)


def _or_none(limit: int | None) -> int:
    return NO_LIMIT if limit is None else limit


def _money(money: int, budget: int | None) -> dict[str, int]:
    """What costs nothing is taken also where a budget is used up."""
    return {"money_cost": money, "money_most": _or_none(budget) if money else NO_LIMIT}


def _nothing(subject: str, now: int) -> dict[str, Any]:
    """A `take` that finds room always, and takes nothing."""
    values: dict[str, Any] = {"whose": subject, "now": now, "this_day": day_of(now), "this_month": month_of(now)}
    for kind in ("requests", "tokens"):
        values |= {f"{kind}_rate": _NO_RATE, f"{kind}_cost": 0, f"{kind}_most": NO_LIMIT}
    for kind in ("streams", "quota", "money"):
        values |= {f"{kind}_cost": 0, f"{kind}_most": NO_LIMIT}
    return values


def _of_bucket(kind: Literal["requests", "tokens"], limit: int, row: Row, asked: int, now: int) -> Standing:
    level = level_at(row[kind], row[f"{kind}_at"], now, limit)
    wait = wait_for(level, limit, asked) if asked <= limit else None
    return Standing(kind, limit, room(level, limit), drained_in(level, limit), "minute", asked=asked, wait=wait)


def _of_cap(cap: Cap, times: Sequence[int], load: float, now: int, asked: int) -> Standing:
    limit, used = cap.at(load), len(times)
    # So many must have left the window before one more fits: more than one where the cap has shrunk.
    leave = used - limit + asked
    wait = times[leave - 1] + cap.window - now if leave > 0 and asked else 0
    reset = times[-1] + cap.window - now if times else 0
    return Standing("cap", limit, limit - used, reset, cap.span, cap.models, asked, wait)


def _of_budget(kind: Kind, row: Row | None, budget: int, money: int, now: int) -> Standing:
    month = max(row["month"], month_of(now)) if row else month_of(now)
    spent = row["held"] + (row["spent"] if row["month"] == month else 0) if row else 0
    reset = month_start(month + 1) - now
    wait = None if money > budget else reset if money > budget - spent else 0
    return Standing(kind, budget, budget - spent, reset, "month", asked=money, wait=wait)
