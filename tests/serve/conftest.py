from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from argon2 import PasswordHasher
from servekit import Live, Stub, make_server, running
from storekit import FakeClock, cleared, empty_store

from foretell.serve.accounts import passwords
from foretell.serve.store import Store
from pgkit import emptied

CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


@pytest.fixture(scope="session")
def stub() -> Stub:
    return Stub()


@pytest.fixture(scope="session")
def live(stub: Stub) -> Iterator[Live]:
    """One server for all that change nothing in it; its model says what it was told last."""
    generators = {"demo-2026-11-20": stub, "other": Stub()}
    with running(make_server(generators, aliases={"demo": "demo-2026-11-20", "latest": "demo"})) as server:
        yield server


@pytest.fixture(scope="session")
def client(live: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time: what they cost is argon2's affair, how many are made is ours."""
    monkeypatch.setattr(passwords, "hasher", lambda made=PasswordHasher(1, 8, 1): made)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty database is to be: a file, then one of PostgreSQL, which for `store` may have empty tables."""
    if request.param == "sqlite":
        return str(tmp_path / "store" / "gateway.db")
    url = request.getfixturevalue("postgresql")
    return url if "store" in request.fixturenames and cleared(url) else emptied(url)


@pytest.fixture
def store(place: str, clock: FakeClock) -> Iterator[Store]:
    """A database with every table and nobody in it."""
    with empty_store(place, clock) as made:
        yield made
