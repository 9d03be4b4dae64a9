"""An arena to be judged, and its page on a port of this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from foretell.data.world import make_items
from foretell.evals.arena import api
from foretell.evals.arena.folder import Arena, Asked, load
from foretell.evals.arena.people import People
from foretell.serve.arena.app import Desk, make_app
from foretell.serve.run import listen

HOSTILE = (
    '<script>document.title="owned"</script><img src=x onerror="document.title=\'owned\'">\n\n'
    '[link](javascript:alert(1)) ![pixel](https://example.com/p.png) <form action="https://example.com"><button>1</button>'
    '</form>\n\n<style>body { display: none }</style>\n\n"><svg onload=alert(1)>'
)


def says(text: str) -> Any:
    """A model with one reply."""

    def model(prompt: Any, **params: Any) -> str:
        return text

    model.__name__ = f"says-{abs(hash(text))}"
    return model


def arena_of(folder: Path, players: dict[str, Any], prompts: list[Asked], critic: Any = None) -> Arena:
    models = api.Models(4)
    arena = api.set_up(folder, players, prompts, models)
    api.ask_replies(arena, list(players.values()), models)
    if critic is not None:
        api.ask_critiques(arena, critic, models)
    return load(folder)


def questions(count: int) -> list[Asked]:
    return [Asked([{"role": "user", "content": f"What is {i} + {i}?"}], f"g{i}", str(2 * i)) for i in range(count)]


def pictured() -> list[Asked]:
    """A question of the world with its picture."""
    item = next(item for item in make_items("charts", "heldout", 20, 0) if item.answer)
    messages = item.content.conversation().to_openai()[:-1]
    return [Asked(messages, item.key, item.answer)]


@contextmanager
def open_page(arena: Arena) -> Iterator[str]:
    """The page's URL, while it is served."""
    socket = listen("127.0.0.1", 0)
    with People(arena) as people, socket:
        config = uvicorn.Config(make_app(Desk(arena, people)), log_level="warning", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([socket],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{socket.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not end"
