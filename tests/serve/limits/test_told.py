"""A refusal as it leaves the server."""

from __future__ import annotations

import asyncio

import pytest
from limitskit import account, reserve, tiers_of
from storekit import FakeClock

from foretell.errors import RequestError
from foretell.serve.front import refusal_response
from foretell.serve.limits.limits import Limits
from foretell.serve.refusals import refuse
from foretell.serve.store import Store


def headers(error: RequestError) -> list[tuple[bytes, bytes]]:
    return [pair for pair in refusal_response(error).raw_headers if not pair[0].startswith(b"content-")]


def test_its_headers_go_with_it_and_each_once(store: Store, clock: FakeClock) -> None:
    limits = Limits(store, tiers_of({"requests_per_minute": 1}))
    reserve(limits)
    with pytest.raises(RequestError) as caught:
        asyncio.run(store.run(reserve, limits, account()))
    assert headers(caught.value) == [
        (b"x-ratelimit-limit-requests", b"1"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"1m0s"),
        (b"retry-after", b"60"),
    ]
    assert refusal_response(caught.value).status_code == 429


def test_others_are_as_they_were() -> None:
    assert headers(refuse("Busy.", 503)) == headers(refuse("Too many.", 429)) == [(b"retry-after", b"1")]
    assert headers(refuse("Wrong.", 400)) == []
