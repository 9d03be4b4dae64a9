from collections.abc import Iterator

import openai
import pytest
from servekit import Live, Stub, make_server, running

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
