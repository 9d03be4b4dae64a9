"""Rounds of replies drawn by a server with OpenAI's API, such as vLLM's, which reads the weights exported for it.

It is asked with token ids, and has to tell those that it draws, with their log-probabilities: vLLM does, as
"token_id:7" in place of a token's text. New weights are exported and the server is told to read them, once what it
draws by the old ones is drawn.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from foretell.align.drawers import Drawn, Rows, play
from foretell.align.episodes import Player
from foretell.align.packing import require_template
from foretell.align.stages import OWN_FILES
from foretell.engine.openai_form import words
from foretell.engine.remote import Endpoint
from foretell.errors import EndpointError, MissingExtraError
from foretell.files import expand_home
from foretell.generate import Prompt, Request, Result, TokenLogprob, run_sync
from foretell.train.checkpoint import save_checkpoint
from foretell.tuning import PolicyConfig
from foretell.weights.exporting import export
from foretell.weights.importing import Opened

FOLDER = "FOLDER"  # in a call of `reload`: where the weights lie
_TOLD = re.compile(r"token_id:(\d+)")
_CALLS_S = 600.0  # in which weights must be read


class Served:
    """An `Elsewhere` of a server. opened: the policy. base: the checkpoint that it began as; facts: of its manifest."""

    def __init__(self, opened: Opened, base: Path, settings: PolicyConfig, facts: Mapping[str, Any]) -> None:
        assert settings.rollout is not None and settings.rollout.folder is not None
        self.config, self.model, self.settings, self.facts = settings.rollout, opened.model, settings, facts
        self.folder = expand_home(settings.rollout.folder).absolute()
        self._files: dict[str, Path | str] = {
            file.name: file for file in base.iterdir() if file.is_file() and file.name not in OWN_FILES
        }
        url, _, name = settings.rollout.on.partition("#")
        endpoint = Endpoint(url, name or None, chat=False, extra={"return_tokens_as_token_ids": True})
        generator = Told(endpoint, tuple(opened.tokenizer.ends))
        template = require_template(opened.template, str(base))
        self._player = Player(generator, template, self.model.config.max_length, settings.max_tokens, logprobs=True)
        parts = urlsplit(endpoint.url)
        self._root = f"{parts.scheme}://{parts.netloc}"
        self._version: int | None = None
        self._thread = ThreadPoolExecutor(1, "rollouts")

    def begin(self, number: int, rows: Rows, version: int) -> Future[Drawn]:
        if self._version != version:
            self._thread.submit(
                lambda: None
            ).result()  # the server has one set of weights: what it draws is drawn first
            with TemporaryDirectory(prefix="foretell-") as place:
                save_checkpoint(Path(place) / "checkpoint", self.model, None, self._files, self.facts)
                export(Path(place) / "checkpoint", self.folder)
            run_sync(self._reload())
            self._version = version
        return self._thread.submit(play, self._player, rows, self.settings, number, 0)

    async def _reload(self) -> None:
        try:
            import aiohttp
        except ImportError as error:
            raise MissingExtraError("Drawing replies by a server", "evals") from error
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CALLS_S)) as session:
            for path, body in self.config.reload.items():
                told = {key: str(self.folder) if value == FOLDER else value for key, value in body.items()}
                try:
                    async with session.post(self._root + path, json=told) as response:
                        status, said = response.status, words(await response.read())
                except (aiohttp.ClientError, TimeoutError) as error:
                    status, said = None, str(error) or type(error).__name__
                if status is None or status >= 300:
                    raise EndpointError(
                        f"{self._root}{path} did not make the server read new weights ({status or 'no answer'}: "
                        f"{said}). vLLM does where it was started with VLLM_SERVER_DEV_MODE=1; rollout.reload names "
                        "the calls.",
                        status,
                        True,
                    )

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


class Told:
    """A generator that knows the ids of what an endpoint drew. Raises EndpointError for one that does not tell them."""

    can_score = False

    def __init__(self, endpoint: Endpoint, ends: Sequence[int]) -> None:
        self.endpoint, self.ends = endpoint, ends

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        async for result in self.endpoint.generate(requests):
            if not result.delta:
                yield self._known(result)

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        raise NotImplementedError

    def _known(self, result: Result) -> Result:
        ids = tuple(_id(log) for log in result.logprobs)
        ended = result.finish_reason == "stop"
        if not ids or -1 in ids or (ended and ids[-1] not in self.ends):
            what = "its tokens" if not ids or -1 in ids else "the token that ended a reply"
            raise EndpointError(
                f"{self.endpoint.url} does not tell the ids of {what} "
                "with their log-probabilities, without which nothing can be learned from it. vLLM does; draw with "
                "rollout.on local or ray else.",
                200,
                True,
            )
        return replace(result, token_ids=ids)


def _id(log: TokenLogprob) -> int:
    told = _TOLD.fullmatch(log.token)
    return log.id if log.id >= 0 else int(told[1]) if told else -1
