"""Usage by its pages: sums, money, the table to take away, and what is asked of it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from storekit import FakeClock
from webkit import ORIGIN, Browser, Read, enter, join
from webserver import add_usage

from foretell.serve.accounts import keys
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tiers import load_tiers
from foretell.serve.store import Store
from foretell.serve.web import Site
from foretell.serve.web.forms import money

Visitor = Callable[..., Browser]


def test_ones_own_usage_by_day_model_and_key(store: Store, visitor: Visitor, clock: FakeClock) -> None:
    ada, eve = join(store, "ada@example.org"), join(store, "eve@example.org")
    with store.write() as db:
        key, _ = keys.create(db, ada, "a <b> key", now=store.clock())
    add_usage(store, ada, key, days=10)
    add_usage(store, eve, None, days=3)
    browser = enter(visitor(), "ada@example.org")
    shown = browser.get("/usage")
    read = Read(shown.text)
    rows = list(csv.DictReader(io.StringIO(browser.get("/usage.csv").text)))
    assert len(rows) == 20 and {row["user"] for row in rows} == {ada} and {row["key"] for row in rows} == {key}
    total = sum(round(float(row["dollars"]) * 1e6) for row in rows)
    assert total > 0 and f"Cost {money(total)}" in read.text
    assert "foretell-8b" in read.text and "a <b> key" in read.text and "<b>" not in shown.text
    assert any(tag == "svg" for tag, _ in read.tags) and "2026-11-11" in read.text
    link = next(link for link in read.links if link.startswith("/usage.csv"))
    found = browser.get(link)
    assert found.text == browser.get("/usage.csv").text
    assert found.headers["content-type"] == "text/csv; charset=utf-8"
    assert found.headers["content-disposition"].startswith('attachment; filename="usage-2026-10-22-2026-11-20.csv"')
    one = browser.get("/usage.csv?from=2026-11-20&to=2026-11-20").text
    assert len(one.splitlines()) == 3


def test_without_usage_there_is_a_sentence(store: Store, visitor: Visitor) -> None:
    join(store, "ada@example.org")
    browser = enter(visitor(), "ada@example.org")
    assert "Nothing was used" in browser.get("/usage").text
    assert len(browser.get("/usage.csv").text.splitlines()) == 1


def test_days_that_are_none_are_told(store: Store, visitor: Visitor) -> None:
    join(store, "ada@example.org")
    browser = enter(visitor(), "ada@example.org")
    for query in ("from=x", "from=2026-12-31&to=2026-01-01", "from=1900-01-01", "from=9999-12-31", "to=2026-13-01"):
        found = browser.get(f"/usage?{query}")
        assert found.status_code == 200 and 'role="alert"' in found.text, query
        assert browser.get(f"/usage.csv?{query}").status_code == 200


def test_limits_as_they_stand(store: Store, visitor: Visitor) -> None:
    limits = Limits(store, load_tiers())
    tier = limits.tiers.tiers["free"]
    site = Site(store, base_url=ORIGIN, limits=limits)
    join(store, "ada@example.org")
    text = Read(enter(visitor(site), "ada@example.org").get("/usage").text).text
    assert f"Requests a minute {tier.requests_per_minute} {tier.requests_per_minute} 100" in text


def test_an_admin_sees_anyones_and_everyones(store: Store, visitor: Visitor) -> None:
    ada = join(store, "ada@example.org")
    join(store, "root@example.org", role="admin")
    add_usage(store, ada, None, days=3)
    root = enter(visitor(), "root@example.org")
    one = root.get(f"/admin/users/{ada}/usage").text
    assert "ada@example.org" in one and "the chat page" in one
    every = Read(root.get("/admin/usage").text)
    assert f"/admin/users/{ada}" in every.links
    assert root.get("/admin/usage.csv").text == root.get(f"/admin/users/{ada}/usage.csv").text
    for path in ("/admin/users/user_0/usage", "/admin/users/user_0/usage.csv"):
        assert root.get(path).status_code == 404


def test_money_is_written_in_cents_and_finer_below_one() -> None:
    told = {0: "$0.00", 7_500_000: "$7.50", 1_234_567_890: "$1,234.57", 9_999: "$0.009999", 1: "$0.000001"}
    assert {micro: money(micro) for micro in told} == told and money(None) == "–" and money(-2_000_000) == "−$2.00"
