"""The server with a stub in place of a model: it says a word as often as it may, each after some time.

Its arguments are the port and that time in milliseconds, which is none by default.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from foretell.generate import Request, Result, Usage
from foretell.loading import Model
from foretell.serve.setup import build

PACE_S = float(sys.argv[2]) / 1e3 if len(sys.argv) > 2 else 0.0


class Stub:
    can_score = False

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        (request,) = requests
        count = request.sampling.max_tokens
        for _ in range(count):
            yield Result(" word", (1,), None, None, (), 0, 0, True)
            await asyncio.sleep(PACE_S)  # each token is sent by itself, as those of a model that takes its time
        yield Result(" word" * count, (1,) * count, "length", Usage(8, count), (), 0, 0)

    def close(self) -> None:
        pass


if __name__ == "__main__":
    build(
        {"stub": "stub"},
        lambda ref: Model(Stub(), Path(ref)),
        aliases={},
        adapters={},
        key=None,
        upstream=None,
        upstream_key=None,
        max_waiting=64,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        drain_seconds=1.0,
        started=lambda url: None,
    ).run()
