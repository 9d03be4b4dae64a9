"""A sequence computed piece by piece, as the engine does."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from foretell.engine.cache import BLOCK
from foretell.engine.runner import Runner
from foretell.model.multimodal import Multimodal
from foretell.template import Encoded


class Stepped:
    """tokens (T,), tiles (N, S, S, 3); `more` gives the logits (count, V) of the next `count` positions."""

    def __init__(self, model: Multimodal, tokens: Tensor, tiles: Tensor | None = None, room: int = 0) -> None:
        pixels = np.zeros((0, 0, 0, 3), np.uint8) if tiles is None else tiles.numpy()
        ids = tokens.numpy().astype(np.int32)
        self.runner = Runner(model.eval(), 0)
        self.sequence = self.runner.open(Encoded(ids, np.zeros(len(ids), np.bool_), pixels))
        self.cache = self.runner.cache(len(ids) + room)
        self.sequence.blocks = self.cache.take(-(-(len(ids) + room) // BLOCK))

    @torch.inference_mode()
    def more(self, count: int) -> Tensor:
        return self.runner.logits(self.runner.forward(self.cache, [(self.sequence, count)])[0])

    def all(self, counts: Iterable[int]) -> Tensor:
        return torch.cat([self.more(count) for count in counts])
