"""The pages behind a real socket of this machine, and people, usage and cases to be seen there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from foretell.serve.limits.statements import statements
from foretell.serve.limits.tables import events
from foretell.serve.store import Store
from foretell.serve.web import Site, web_routes

DAY = 86_400_000


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The URL of the pages, until the block ends."""
    app = Starlette(routes=web_routes(site))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)


def add_usage(store: Store, user: str, key: str | None, *, days: int = 21) -> None:
    """Some calls a day to two models, rising and falling with the week."""
    do, now = statements(store.is_sqlite), store.clock()
    with store.write() as db:
        for back in range(days):
            for model, price in (("foretell-8b", 900), ("foretell-1b", 120)):
                calls = 3 + (back * 7) % 5 + (4 if back % 7 < 5 else 0)
                at, tokens = now - back * DAY, 700 * calls
                counts = {
                    "prompt_tokens": tokens,
                    "completion_tokens": tokens // 3,
                    "image_tokens": 255 if back % 4 == 0 else 0,
                    "cached_tokens": 0,
                    "micros": price * calls * 7,
                }
                row = {"id": f"res_{user}{model}{back}", "time": at, "user": user, "key": key, "tier": "free"}
                db.execute(events.insert().values(**row, model=model, free=0, status="done", **counts))
                sums = {"day": at // DAY, "model": model, "calls": calls, **counts, "charged": counts["micros"]}
                db.execute(do.days, [{"user": user, "key": key or "", **sums}, {"user": "", "key": "", **sums}])
