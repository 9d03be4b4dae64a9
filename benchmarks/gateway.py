"""What accounts, limits and moderation add to a call, whether caps hold in a race, and how fast usage is told.

    python benchmarks/gateway.py [--rounds 5] [--seconds 10] [--rate 100] [--postgresql URL]

added: two servers before the same upstream, which answers at once, one of them with accounts, limits and moderation on
SQLite; each in turn is asked `rate` times a second, whatever the answers take, and the 95th percentiles are compared.
A message has some 60 words, for the classifier to read. race: 200 calls at once through two server
processes on one database, where the account has one message left. usage: the usage page over a million rows.
--postgresql: the race there too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT, figure, write_result

WORDS = (
    "The harbour lay quiet in the evening light while the old ferry came in past the breakwater with three passengers "
    "and a crate of oranges, and the keeper of the inn, who had watched it since noon, folded his paper and went down "
    "the steps to ask whether any of them had heard about the new timetable before the winter"
)
TIERS = """
prices: {"*": {prompt: 30.00, completion: 60.00}}
images: {base: 85, tile: 170, added: true}
tiers:
  work:
    requests_per_minute: 1000000
    tokens_per_minute: 1000000000
    streams: 1000
    budget: 1000000.00
    caps: [{messages: 1000000, every: 3h}]
  capped:
    caps: [{messages: 1, every: 3h}]
"""


@contextmanager
def program(*command: str) -> Iterator[str]:
    """A server of its own, and the address that its first line ends with."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if "http://" not in line:
                log.seek(0)
                sys.exit(f"{' '.join(command)} did not start: {line}{log.read().decode()}")
            yield "http://" + line.split("http://")[-1].split()[0].rstrip(";")
        finally:
            process.terminate()
            process.wait(30)


def gateway(upstream: str, database: str, tiers: Path) -> tuple[str, ...]:
    serve = sys.executable, "-m", "foretell", "serve", "--upstream", upstream, "--port", "0"
    return *serve, *(("--database", database, "--tiers", str(tiers)) if database else ())


def account(database: str, tier: str) -> str:
    """A new account of a tier, and its key."""
    from foretell.serve.accounts import keys, people
    from foretell.serve.migrations import prepare
    from foretell.serve.store import Store

    store = Store(database)
    prepare(store)
    with store.write() as db:
        user = people.add(db, f"{tier}-{time.time_ns()}@example.org", role="user", tier=tier, now=store.clock())
        _, key = keys.create(db, user, "benchmark", now=store.clock())
    store.close()
    return key


async def load(url: str, key: str, rate: float, seconds: float) -> list[float]:
    """Milliseconds of each call, asked at a steady rate whether or not earlier ones were answered."""
    import aiohttp

    body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": WORDS}], "max_tokens": 64})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    took = list[float]()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask() -> None:
            began = time.perf_counter()
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                text = await response.text()
                if response.status != 200:
                    sys.exit(f"{url} answered {response.status}: {text[:300]}")
            took.append((time.perf_counter() - began) * 1000)

        tasks, began = [], time.perf_counter()
        for i in range(int(rate * seconds)):
            await asyncio.sleep(max(began + i / rate - time.perf_counter(), 0))
            tasks.append(asyncio.create_task(ask()))
        await asyncio.gather(*tasks)
    return took


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def added(options: argparse.Namespace, folder: Path, upstream: str, tiers: Path) -> dict[str, Any]:
    database = str(folder / "added.db")
    key = account(database, "work")
    with program(*gateway(upstream, "", tiers)) as plain, program(*gateway(upstream, database, tiers)) as full:
        for url in (plain, full):
            asyncio.run(load(url, key, options.rate, 2))  # first calls prepare statements and load the classifier
        found: dict[str, list[list[float]]] = {plain: [], full: []}
        for turn in range(options.rounds):
            for url in (plain, full) if turn % 2 == 0 else (full, plain):
                found[url].append(asyncio.run(load(url, key, options.rate, options.seconds)))
                print(
                    f"{'with' if url == full else 'without'}: p95 {percentile(found[url][-1], 0.95):.2f} ms", flush=True
                )

    def over(share: float, url: str) -> list[float]:
        return [percentile(took, share) for took in found[url]]

    differences = {
        share: [a - b for a, b in zip(over(share, full), over(share, plain), strict=True)] for share in (0.5, 0.95)
    }
    return {
        "added_p95_ms": figure(differences[0.95], "ms, p95 with less p95 without, at 100 requests a second", 5),
        "added_median_ms": figure(differences[0.5], "ms, median with less median without"),
        "plain_p95_ms": figure(over(0.95, plain), "ms, without accounts"),
        "gateway_p95_ms": figure(over(0.95, full), "ms, with accounts, limits and moderation"),
    }


async def _race(urls: list[str], key: str, calls: int) -> int:
    """How many of so many calls at once are let through."""
    import aiohttp

    body = json.dumps({"model": "mock", "messages": [{"role": "user", "content": "Hello"}]})
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(url: str) -> int:
            async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                await response.read()
                return response.status

        statuses = await asyncio.gather(*(ask(urls[i % len(urls)]) for i in range(calls)))
    if strange := set(statuses) - {200, 429}:
        sys.exit(f"the race was answered with {sorted(strange)}")
    return statuses.count(200)


def race(options: argparse.Namespace, database: str, upstream: str, tiers: Path) -> list[float]:
    with program(*gateway(upstream, database, tiers)) as a, program(*gateway(upstream, database, tiers)) as b:
        passed = [float(asyncio.run(_race([a, b], account(database, "capped"), 200))) for _ in range(options.rounds)]
    print(f"race: {passed} of 200 passed", flush=True)
    return passed


def usage_page(upstream: str, tiers: Path, database: str, rows: int, rounds: int) -> list[float]:
    """Milliseconds in which the administrator's page of everyone's usage comes, over so many rows of usage."""
    from foretell.serve.accounts import people, sessions
    from foretell.serve.migrations import prepare
    from foretell.serve.store import Store
    from foretell.serve.web import cookies
    from gateway_limits import fill

    store = Store(database)
    prepare(store)
    fill(store, rows)
    with store.write() as db:
        admin = people.add(db, "admin@example.org", role="admin", tier="work", now=store.clock())
    secret = sessions.begin(store, admin, "127.0.0.1")
    cookie = cookies.session(secret, secure=False, seconds=3600).partition(";")[0]
    store.close()
    with program(*gateway(upstream, database, tiers)) as url:
        return asyncio.run(_pages(url.removesuffix("/v1") + "/admin/usage", cookie, rounds + 1))[1:]


async def _pages(url: str, cookie: str, count: int) -> list[float]:
    import aiohttp

    took = []
    async with aiohttp.ClientSession(headers={"Cookie": cookie}) as session:
        for _ in range(count):
            began = time.perf_counter()
            async with session.get(url) as response:
                page = await response.text()
            took.append((time.perf_counter() - began) * 1000)
            if "Day by day" not in page:
                sys.exit("the usage page was not shown")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of usage; what is committed has a million")
    parser.add_argument("--postgresql", help="URL of an empty database for the race there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        tiers = folder / "tiers.yaml"
        tiers.write_text(TIERS)
        mock = stack.enter_context(program(sys.executable, str(ROOT / "tests" / "mock_endpoint.py")))
        figures = added(options, folder, mock, tiers)
        figures["cap_race_passed"] = figure(
            race(options, str(folder / "race.db"), mock, tiers), "of 200 at remaining = 1, SQLite, two processes", 1
        )
        if options.postgresql:
            figures["cap_race_passed_postgresql"] = figure(
                race(options, options.postgresql, mock, tiers), "of 200 at remaining = 1, PostgreSQL, two processes", 1
            )
        pages = usage_page(mock, tiers, str(folder / "usage.db"), options.rows, options.rounds)
        figures["usage_page_ms_1m"] = figure(pages, f"ms, everyone's usage over {options.rows:,} rows, by HTTP", 300)
    moderation = RESULTS / "moderation.json"
    if moderation.is_file():
        figures["moderation_auprc_macro"] = json.loads(moderation.read_text())["figures"]["moderation_auprc_macro"]
    print(json.dumps(figures, indent=2))
    if options.rows == 1_000_000:
        print(write_result("gateway", "python benchmarks/gateway.py", figures))


if __name__ == "__main__":
    main()
