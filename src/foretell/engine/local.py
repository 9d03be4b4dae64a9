"""The local engine: a model of this machine behind the Generator protocol."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from foretell.chat import Conversation
from foretell.engine.draws import count_draws
from foretell.engine.reply import Reply
from foretell.engine.runner import Runner
from foretell.engine.sampler import choose, log_probabilities, stream
from foretell.errors import GenerationError
from foretell.generate import Prompt, Request, Result, Sampling
from foretell.template import ChatTemplate, Encoded

if TYPE_CHECKING:
    from foretell.data.tokenizer import Tokenizer
    from foretell.model.multimodal import Multimodal


_POSITIONS = 16_384  # of the prompts that are scored together: bounds the memory of their cache


class Engine:
    """Generates in batches of at most max_batch replies, on one worker thread, so an event loop stays free.

    template: how the model reads conversations; None for one that only continues text. Calls made at the same
    time take turns, batch by batch.
    """

    can_score = True

    def __init__(
        self, model: Multimodal, tokenizer: Tokenizer, template: ChatTemplate | None, max_batch: int = 32
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.template = template
        self.max_batch = max_batch
        self._runner = Runner(model, tokenizer.pad)
        allowed = np.zeros(model.config.vocab_size, np.bool_)
        allowed[: tokenizer.vocab_size] = tokenizer.token_bytes > 0
        allowed[list(tokenizer.ends)] = True
        self._allowed = torch.from_numpy(allowed).to(self._runner.device)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="foretell-engine")

    def encode_text(self, text: str) -> Encoded:
        """A prompt of plain text, to be continued as it stands."""
        ids = np.asarray([*self.tokenizer.prefix, *self.tokenizer.encode(text)], np.int32)
        return Encoded(ids, np.zeros(len(ids), np.bool_), np.zeros((0, 0, 0, 3), np.uint8))

    def encode_chat(self, conversation: Conversation) -> Encoded:
        """A prompt that ends with the opening of a reply. Raises as `ChatTemplate.encode`, and GenerationError
        without a template."""
        if self.template is None:
            raise GenerationError(
                "This model has no chat template, so it cannot read a conversation. Continue plain text with "
                "`complete`, or load the model's instruct version."
            )
        return self.template.encode(conversation, add_generation_prompt=True, learn="none")

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        """Deltas as they come, and one finished Result for each sample of each request.

        token_ids and logprobs of a finished Result cover every token drawn, the end token and those of a stop
        string included; its text does not. max_tokens is cut to the room the prompt leaves.
        Raises GenerationError, before anything is generated, for a prompt that does not fit.
        """
        loop = asyncio.get_running_loop()
        replies = await loop.run_in_executor(self._worker, self._open, requests)
        for start in range(0, len(replies), self.max_batch):
            queue: asyncio.Queue[list[Result] | None] = asyncio.Queue()
            left = threading.Event()

            def emit(results: list[Result], queue: asyncio.Queue[list[Result] | None] = queue) -> None:
                loop.call_soon_threadsafe(queue.put_nowait, results)

            job = loop.run_in_executor(self._worker, self._run, replies[start : start + self.max_batch], emit, left)
            job.add_done_callback(lambda _, queue=queue: queue.put_nowait(None))  # type: ignore[misc]
            try:
                while (results := await queue.get()) is not None:
                    for result in results:
                        yield result
                await job
            finally:
                left.set()  # the caller may be gone: the worker ends at its next step
                job.cancel()

    def count(self, prompt: Encoded, draws: int, sampling: Sampling) -> Counter[str]:
        """How often each text came up in so many draws of one prompt; their order, which is random, is not kept.

        As `generate` with n draws, but what is drawn alike is computed once; stop strings are not looked for. It waits.
        Raises GenerationError for a prompt that does not fit.
        """
        return self._worker.submit(self._count, prompt, draws, sampling).result()

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Exact log-probability in nats of each continuation's tokens after the prompt, no end token counted.

        A continuation is tokenized by itself: as a reply after a conversation, else as text that goes on.
        Raises GenerationError when one does not fit.
        """
        return (await self.score_many([(prompt, continuations)]))[0]

    async def score_many(self, asked: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
        """`score` of each prompt with its continuations, many prompts in one batch."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._score, list(asked))

    def _open(self, requests: Sequence[Request]) -> list[Reply]:
        replies: list[Reply] = []
        for index, request in enumerate(requests):
            if request.grammar is not None:
                raise GenerationError("Replies bound to a grammar come with a later version; leave `grammar` out.")
            if request.n < 1:
                raise GenerationError(f"n is {request.n}; allowed is at least 1.")
            prompt = self._encode(request.prompt)
            limit = min(request.sampling.max_tokens, self.model.config.max_length - len(prompt.ids))
            replies += [
                Reply(
                    index,
                    sample,
                    request.sampling,
                    prompt,
                    limit,
                    stream(request.sampling.seed, sample),
                    self.tokenizer,
                    self._image_tokens(prompt),
                    opens=isinstance(request.prompt, Conversation),
                )
                for sample in range(request.n)
            ]
        return replies

    def _encode(self, prompt: Prompt) -> Encoded:
        """Token ids of a prompt, with room for at least one more."""
        if isinstance(prompt, Conversation):
            prompt = self.encode_chat(prompt)
        elif isinstance(prompt, str):
            prompt = self.encode_text(prompt)
        config = self.model.config
        ids = prompt.ids
        if not len(ids):
            raise GenerationError("The prompt is empty; give at least one token of text to continue.")
        if len(ids) >= config.max_length:
            raise GenerationError(
                f"The prompt is {len(ids)} tokens long, but this model reads at most {config.max_length}, the reply "
                "included. Shorten it, or leave out earlier messages or images."
            )
        if ids.min() < 0 or ids.max() >= config.vocab_size:
            raise GenerationError(
                f"The prompt holds token ids from {ids.min()} to {ids.max()}; this model knows 0 to "
                f"{config.vocab_size - 1}. Encode it with this model's own tokenizer."
            )
        if len(prompt.tiles) and config.vision is None:
            raise GenerationError("This model reads text only, but the prompt holds an image. Remove the image.")
        slots = self._image_tokens(prompt)
        expected = len(prompt.tiles) * config.vision.tokens_per_tile if config.vision else 0
        if slots != expected:
            raise GenerationError(
                f"The prompt has {slots} image slots, but its {len(prompt.tiles)} tiles fill {expected}. "
                "Build it with this model's template."
            )
        return prompt

    def _image_tokens(self, prompt: Encoded) -> int:
        config = self.model.config
        return int((prompt.ids == config.image_token).sum()) if config.vision else 0

    @torch.inference_mode()
    def _run(self, live: list[Reply], emit: Callable[[list[Result]], None], left: threading.Event) -> None:
        prompts = list({id(reply.prompt): reply.prompt for reply in live}.values())  # samples share a prefill
        places = {id(prompt): i for i, prompt in enumerate(prompts)}
        rows = [places[id(reply.prompt)] for reply in live]
        cache, logits = self._runner.prefill(prompts, max(len(reply.prompt.ids) + reply.limit for reply in live))
        if rows != list(range(len(prompts))):
            cache, logits = self._runner.take(cache, rows), logits[rows]
        while not left.is_set():
            tokens = choose(logits, [r.sampling for r in live], [r.stream for r in live], self._allowed)
            k = max(r.sampling.logprobs for r in live)
            logs = [x.tolist() for x in log_probabilities(logits, tokens, k)] if k else None
            results = []
            for i, (reply, token) in enumerate(zip(live, tokens.tolist(), strict=True)):
                results += reply.push(token, (logs[0][i], logs[1][i], logs[2][i]) if logs else None)
            if results:
                emit(results)
            keep = [i for i, reply in enumerate(live) if not reply.finished]
            if not keep:
                return
            if len(keep) < len(live):
                live, cache, tokens = [live[i] for i in keep], self._runner.take(cache, keep), tokens[keep]
            logits = self._runner.step(cache, tokens)

    def _count(self, prompt: Encoded, draws: int, sampling: Sampling) -> Counter[str]:
        room = self.model.config.max_length - len(self._encode(prompt).ids)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        ends, counted = self.tokenizer.ends, Counter[str]()
        for ids, n in count_draws(self._runner, prompt, draws, sampling, ends, self._allowed).items():
            kept = ids[:-1] if ids[-1] in ends else ids
            counted[self.tokenizer.decode_bytes(kept).decode("utf-8", "replace")] += n
        return counted

    @torch.inference_mode()
    def _score(self, asked: list[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
        prompts, tails = [], []
        for prompt, continuations in asked:
            prompts.append(self._encode(prompt))
            encode = self.tokenizer.encode if isinstance(prompt, Conversation) else self.tokenizer.encode_inside
            tails.append([encode(text) for text in continuations])
            length, longest = len(prompts[-1].ids), max(map(len, tails[-1]), default=0)
            if length + longest > self.model.config.max_length:
                raise GenerationError(
                    f"The prompt ({length} tokens) and its longest continuation ({longest}) exceed the "
                    f"{self.model.config.max_length} tokens this model reads. Shorten one of them."
                )
        scores = [[0.0] * len(ends) for ends in tails]  # nothing is certain: log 1
        longest_of = [max(map(len, ends), default=0) for ends in tails]
        order = sorted(range(len(asked)), key=lambda i: len(prompts[i].ids))  # alike in length: little is padding
        while order:
            some = [order.pop()]
            length, longest = len(prompts[some[0]].ids), longest_of[some[0]]
            while order and len(some) < min(self.max_batch, _POSITIONS // length):
                longest = max(longest, longest_of[order[-1]])
                if length + longest > self.model.config.max_length:  # padding takes positions too
                    break
                some.append(order.pop())
            room = length + max(longest_of[i] for i in some)
            rows = [(row, i, j) for row, i in enumerate(some) for j, tail in enumerate(tails[i]) if tail]
            if not rows:
                continue
            cache, logits = self._runner.prefill([prompts[i] for i in some], room)
            for start in range(0, len(rows), self.max_batch):
                part = rows[start : start + self.max_batch]
                taken, ends = [row for row, _, _ in part], [tails[i][j] for _, i, j in part]
                copies = self._runner.take(cache, taken) if max(map(len, ends)) > 1 else cache  # else it is not read
                for (_, i, j), value in zip(part, self._runner.score(copies, logits[taken], ends), strict=True):
                    scores[i][j] = value
        return scores
