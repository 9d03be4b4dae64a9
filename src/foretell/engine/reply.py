"""Replies in the making: their tokens, their text so far, and when they end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foretell.engine.sampler import NOT_FINITE, adjust, log_probabilities, pick, uniform
from foretell.engine.text import TextStream
from foretell.errors import GenerationError
from foretell.generate import FinishReason, Result, Sampling, TokenLogprob, Usage

if TYPE_CHECKING:
    from foretell.data.tokenizer import Tokenizer
    from foretell.engine.constrain import Constraint
    from foretell.engine.runner import Sequence as Ids
    from foretell.engine.scheduler import Call

Logs = tuple[float, list[float], list[int]]  # of the drawn token; the greatest; their ids


@dataclass(eq=False)
class Reply:
    """Mutable, since it grows token by token. limit: most tokens it may have. opens: whether its text stands by
    itself, and does not go on from the prompt's. constraint: what its tokens must be. reason: why it is finished."""

    request: int
    sample: int
    sampling: Sampling
    sequence: Ids
    call: Call[Result]
    limit: int
    seed: int
    tokenizer: Tokenizer
    opens: bool = True
    constraint: Constraint | None = None
    reason: FinishReason | None = None
    _ids: list[int] = field(default_factory=list)
    _counts: Counter[int] = field(default_factory=Counter)
    _logprobs: list[TokenLogprob] = field(default_factory=list)
    _pieces: list[str] = field(default_factory=list)
    _sent: int = 0
    _after: dict[tuple[int, int], int] = field(default_factory=dict)  # two tokens -> the place behind their last stand
    _noted: int = 1

    def __post_init__(self) -> None:
        self._text = TextStream(self.sampling.stop, self.opens and self.tokenizer.opening_space)

    @property
    def first(self) -> int:
        return len(self.sequence.ids) - 1

    @property
    def finished(self) -> bool:
        return self.reason is not None

    @property
    def uniform(self) -> float:
        """The random number of the next token."""
        return uniform(self.seed, self.sample, len(self._ids))

    @property
    def counts(self) -> Counter[int]:
        return self._counts

    def guess(self, most: int) -> list[int]:
        """What followed the last two tokens where they stood before. Source: prompt lookup decoding, Saxena 2023."""
        ids, most = self.sequence.ids, min(most, self.limit - len(self._ids) - 1)
        if most <= 0 or not self._ids:
            return []
        for i in range(self._noted, len(ids) - 1):
            self._after[ids[i - 1], ids[i]] = i + 1
        self._noted = len(ids) - 1
        at = self._after.get((ids[-2], ids[-1]), len(ids)) if len(ids) > 1 else len(ids)
        return ids[at : at + most]

    def push(self, token: int, logs: Logs | None) -> None:
        """Take the next token, and tell what can be told now: perhaps a delta, and the finished Result at the end."""
        self._ids.append(token)
        self.sequence.ids.append(token)
        self._counts[token] += 1
        if logs is not None and self.sampling.logprobs:
            self._logprobs.append(self._logprob(token, logs))
        ended = token in self.tokenizer.ends
        piece = "" if ended else self._text.push(self.tokenizer.decode_bytes([token]))
        if ended or self._text.stopped:
            self.end("stop", piece)
        elif len(self._ids) >= self.limit:
            self.end("length", piece)
        else:
            if self.constraint is not None:
                self.constraint.push(token)
            if piece:
                self.call.emit([self._delta(piece)])

    def end(self, reason: FinishReason, piece: str = "") -> None:
        """Tell the rest of the text, and the finished Result."""
        piece += self._text.finish()
        self.reason = "stop" if self._text.stopped else reason
        results = [self._delta(piece)] if piece else []
        sequence = self.sequence
        usage = Usage(len(sequence.prompt.ids), len(self._ids), len(sequence.slots), sequence.cached or 0)
        text, ids, logprobs = "".join(self._pieces), tuple(self._ids), tuple(self._logprobs)
        finished = Result(text, ids, self.reason, usage, logprobs, self.request, self.sample)
        self.call.emit([*results, finished], finished=True)

    def _delta(self, piece: str) -> Result:
        """The piece, with every token since the last one."""
        self._pieces.append(piece)
        ids, logprobs = tuple(self._ids[self._sent :]), tuple(self._logprobs[self._sent :])
        self._sent = len(self._ids)
        return Result(piece, ids, None, None, logprobs, self.request, self.sample, delta=True)

    def _logprob(self, token: int, logs: Logs) -> TokenLogprob:
        chosen, values, ids = logs
        top = [(self.tokenizer.spell(i), value) for i, value in zip(ids, values, strict=True)]
        return TokenLogprob(self.tokenizer.spell(token), token, chosen, tuple(top[: self.sampling.logprobs]))


def advance(replies: Sequence[Reply], logits_BV: Tensor, allowed_V: Tensor) -> list[GenerationError | None]:
    """Draw each reply's next token; tokens outside allowed_V (bool) are never drawn.

    A reply that no token may go on ends. The error of each row whose logits are not finite numbers.
    """
    samplings = [reply.sampling for reply in replies]
    adjusted_BV = adjust(logits_BV, samplings, [reply.counts for reply in replies])
    adjusted_BV = adjusted_BV.masked_fill(~allowed_V, -torch.inf)
    for row, reply in enumerate(replies):
        if reply.constraint is not None:
            adjusted_BV[row].masked_fill_(~reply.constraint.mask().to(adjusted_BV.device), -torch.inf)
    errors: list[GenerationError | None] = [None] * len(replies)
    drawn = []
    for row, best in enumerate(adjusted_BV.amax(-1).tolist()):
        bound = replies[row].constraint is not None or bool(samplings[row].logit_bias)
        if best == -math.inf and bound:
            replies[row].end("stop")
        elif not math.isfinite(best):
            errors[row] = GenerationError(NOT_FINITE)
        else:
            drawn.append(row)
    if len(drawn) < len(replies):
        adjusted_BV, logits_BV = adjusted_BV[drawn], logits_BV[drawn]
    if not drawn:
        return errors
    replies, samplings = [replies[row] for row in drawn], [samplings[row] for row in drawn]
    tokens_B = pick(adjusted_BV, samplings, [reply.uniform for reply in replies])
    k = max(s.logprobs for s in samplings)
    logs = [x.tolist() for x in log_probabilities(logits_BV, tokens_B, k)] if k else None
    for i, (reply, token) in enumerate(zip(replies, tokens_B.tolist(), strict=True)):
        reply.push(token, (logs[0][i], logs[1][i], logs[2][i]) if logs else None)
    return errors
