"""Keys and values of many sequences in one store of blocks, shared between those that begin alike.

A block holds BLOCK positions of one sequence, all layers. Blocks are counted by reference, so sequences with the same
beginning hold the same blocks; a whole block is known by a hash of all that its keys and values depend on, from the
first position on. Blocks nobody holds keep their content until room is needed, the longest unused going first.

Blocks rather than one slot a sequence, since memory then follows the tokens in use and a shared beginning is stored
once. The price: attention copies the blocks of a sequence together before it multiplies, no further than they are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from foretell.recipe import ModelConfig

BLOCK = 32  # positions


class Cache:
    """layers: of each, keys before values, (blocks, 2G, BLOCK, D). positions, blocks: views of them, a row for each
    position, or each block, of each head. Block 0 is never given out: it fills gaps."""

    def __init__(self, config: ModelConfig, tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size = -(-tokens // BLOCK)
        shape = (self.size + 1, 2 * config.n_kv_heads, BLOCK, config.head_dim)
        self.layers = [_zeros(shape, dtype, device) for _ in range(config.depth)]
        self.positions = [layer.view(-1, config.head_dim) for layer in self.layers]
        self.blocks = [layer.view(-1, BLOCK * config.head_dim) for layer in self.layers]
        self._free = list(range(self.size, 0, -1))
        self._held = [0] * (self.size + 1)
        self._known: dict[bytes, int] = {}
        self._name: dict[int, bytes] = {}
        self._idle: dict[int, None] = {}  # known blocks that nobody holds, longest unused first

    @property
    def room(self) -> int:
        """Blocks that can be taken."""
        return len(self._free) + len(self._idle)

    def take(self, count: int) -> list[int]:
        """Blocks for one holder; at most `room` of them."""
        taken = []
        for _ in range(count):
            if not self._free:
                self._forget(next(iter(self._idle)))
            taken.append(self._free.pop())
            self._held[taken[-1]] = 1
        return taken

    def share(self, blocks: Sequence[int]) -> None:
        """One more holder of these."""
        for block in blocks:
            self._idle.pop(block, None)
            self._held[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One holder less. The ends of sequences go before their beginnings, which more may share."""
        for block in reversed(blocks):
            self._held[block] -= 1
            if not self._held[block]:
                if block in self._name:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def find(self, names: Sequence[bytes]) -> list[int]:
        """The known blocks of a beginning; they are to be shared before anything is taken."""
        found = []
        for name in names:
            if name not in self._known:
                break
            found.append(self._known[name])
        return found

    def learn(self, block: int, name: bytes) -> None:
        """Make a filled block known; where the same content is known already, that stays."""
        if name not in self._known:
            self._known[name], self._name[block] = block, name

    def fork(self, blocks: Sequence[int], filled: int) -> list[int]:
        """Blocks of the same `filled` positions for another holder: the last one is a copy unless it is whole."""
        whole = filled // BLOCK
        self.share(blocks[:whole])
        if filled % BLOCK == 0:
            return list(blocks[:whole])
        (copied,) = self.take(1)
        for store in self.layers:
            store[copied] = store[blocks[whole]]
        return [*blocks[:whole], copied]

    def clear(self) -> None:
        """Forget all known content; what is held stays held."""
        for block in list(self._idle):
            self._forget(block)
        self._known.clear()
        self._name.clear()

    def scrub(self, blocks: Sequence[int]) -> None:
        """Make content that is not finite zero and unknown: masked positions are multiplied too, by 0."""
        for store in self.layers:
            store[list(blocks)] = 0
        for block in blocks:
            if name := self._name.pop(block, None):
                del self._known[name]

    def _forget(self, block: int) -> None:
        del self._idle[block]
        del self._known[self._name.pop(block)]
        self._free.append(block)


def chain(before: bytes, ids: Sequence[int], extra: bytes = b"") -> bytes:
    """The name of a block by that of the one before it, its ids, and what else its content depends on."""
    return hashlib.blake2b(before + np.asarray(ids, np.int64).tobytes() + extra, digest_size=24).digest()


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    kind = {2: np.int16, 4: np.int32, 8: np.int64}[dtype.itemsize]
    return torch.from_numpy(np.zeros(shape, kind)).view(dtype)  # takes memory only where it is written
