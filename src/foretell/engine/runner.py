"""The model's side of the engine: pieces of sequences in, final states out, with keys and values kept between.

One step multiplies all rows of all pieces together. Attention is computed for groups of pieces whose lengths are
alike, over whole blocks of the cache: a row's bits do not depend on what else is in its step (see `model.packed`;
padding adds exact zeros), nor on how its sequence was cut into pieces.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foretell.engine.cache import BLOCK, Cache, chain
from foretell.model.fused import linear
from foretell.model.lora import Lora, merged
from foretell.model.packed import Attend, PackedDecoder, give_up_matrices, row_multiple
from foretell.model.quantized import Bits

if TYPE_CHECKING:
    from foretell.model.multimodal import Multimodal
    from foretell.template import Encoded

_TILES = 256  # whose features are kept
_SUMMED = 6 * BLOCK  # positions that one product sums over; MKL sums so many without a cut
_ALIKE = 0.75  # least share of the longest of a group that its shortest has, in blocks


@dataclass(eq=False)
class Sequence:
    """Token ids whose first `filled` positions are in the cache, in `blocks`. salt: who may share them; adapter: what
    computes them; cached: how many positions were in the cache when it was first read; guess: tokens that may follow
    the ids."""

    prompt: Encoded
    ids: list[int]
    salt: bytes = b""
    adapter: str | None = None
    blocks: list[int] = field(default_factory=list)
    filled: int = 0
    cached: int | None = None
    guess: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    slots: dict[int, tuple[int, int]] = field(default_factory=dict)  # position -> tile, place in it
    digests: list[bytes] = field(default_factory=list)

    def name(self, count: int) -> list[bytes]:
        """The chained names of the first `count` whole blocks."""
        while len(self.names) < count:
            start = len(self.names) * BLOCK
            places = range(start, start + BLOCK)
            tiles = [self.slots[i] for i in places if i in self.slots] if self.slots else []
            extra = b"".join(self.digests[tile] + place.to_bytes(4) for tile, place in tiles)
            root = repr((self.salt, self.adapter)).encode()
            before = self.names[-1] if self.names else hashlib.blake2b(root, digest_size=24).digest()
            self.names.append(chain(before, self.ids[start : start + BLOCK], extra))
        return self.names[:count]


@dataclass(frozen=True)
class _Group:
    """B pieces of t tokens each whose attention is computed together, made once a step and used by every layer.

    rows: of the step. blocks: rows of a layer's cache, those of all keys before those of all values, copied to
    `gathered`, of which `keys` (B·G, D, L) and `values` (B·G, L, D) are views. bias: 0 or -inf on the scores,
    (B, 1, S, L); near: the same within the window. queries, scores, seen: room (B·G, S, ·); asked, biased, answered:
    views of them, without padding (B, t, G, R, D) but for `biased` (B, G, S, L).
    """

    rows: slice
    blocks: Tensor
    gathered: Tensor
    keys: Tensor
    values: Tensor
    bias: Tensor
    near: Tensor
    queries: Tensor
    asked: Tensor
    scores: Tensor
    biased: Tensor
    seen: Tensor
    answered: Tensor


class Runner:
    """A model on its device. pad: an id that fills short batches. bits: of the weights, 8 or 4 in place of those of
    the compute type; the model then gives up its matrices, which saves their memory and makes it of no other use."""

    def __init__(self, model: Multimodal, pad: int, bits: Bits | None = None) -> None:
        self.model, self.pad, self.device, self._bits = model, pad, model.device, bits
        self._features: OrderedDict[bytes, Tensor] = OrderedDict()
        self._loras: dict[str, Lora] = {}
        self.pack()

    def pack(self) -> None:
        """Take the model's weights as they are now."""
        plain = PackedDecoder(self.model.decoder, self.model.compute_dtype, bits=self._bits)
        if self._bits is not None:
            give_up_matrices(self.model.decoder)
        self._decoders: dict[str | None, PackedDecoder] = {None: plain}
        self._head = plain.head
        for name, lora in self._loras.items():
            self.adapt(name, lora)
        self._multiple = row_multiple(self._head)
        self._version = self._versions()
        self._features.clear()

    def adapt(self, name: str, lora: Lora) -> None:
        """Compute sequences of this adapter with it merged, which takes the decoder's memory once more."""
        self._loras[name] = lora
        self._decoders[name] = PackedDecoder(merged(self.model, lora), self.model.compute_dtype, head=False)

    def stale(self) -> bool:
        """Whether the model's weights were changed since they were packed."""
        return self._version != self._versions()

    def _versions(self) -> list[int]:
        return [0 if p.is_inference() else p._version for p in self.model.parameters()]

    @property
    def weight_bytes(self) -> int:
        """What a step reads of the weights."""
        return self._decoders[None].weight_bytes

    @property
    def token_bytes(self) -> int:
        """Memory of one position's keys and values."""
        config = self.model.config
        return 2 * config.depth * config.n_kv_heads * config.head_dim * self.model.compute_dtype.itemsize

    def cache(self, tokens: int) -> Cache:
        return Cache(self.model.config, tokens, self.model.compute_dtype, self.device)

    def open(self, prompt: Encoded, ids: Many[int] = (), salt: bytes = b"", adapter: str | None = None) -> Sequence:
        """A sequence of a prompt and ids after it, of which nothing is computed."""
        sequence = Sequence(prompt, [*prompt.ids.tolist(), *ids], salt, adapter)
        if len(prompt.tiles) and self.model.config.vision is not None:
            each = self.model.config.vision.tokens_per_tile
            places = (prompt.ids == self.model.config.image_token).nonzero()[0].tolist()
            sequence.slots = {place: divmod(i, each) for i, place in enumerate(places)}
            sequence.digests = [hashlib.blake2b(tile.tobytes(), digest_size=24).digest() for tile in prompt.tiles]
        return sequence

    def forward(self, cache: Cache, pieces: Many[tuple[Sequence, int]]) -> list[Tensor]:
        """Compute the next `count` positions of each sequence, and those of its guess; their final states (·, D).

        The sequences' blocks must reach that far. They are filled up to the guess; `fill` takes what was right of it.
        """
        found: dict[int, Tensor] = {}
        pieces = [(sequence, count + len(sequence.guess)) for sequence, count in pieces]
        for adapter in dict.fromkeys(sequence.adapter for sequence, _ in pieces):
            rows = [i for i, (sequence, _) in enumerate(pieces) if sequence.adapter == adapter]
            rows.sort(key=lambda i: (pieces[i][1] > 1, -pieces[i][0].filled))
            states = self._forward(cache, self._decoders[adapter], [pieces[i] for i in rows])
            found |= zip(rows, states, strict=True)
        return [found[i] for i in range(len(pieces))]

    def _forward(self, cache: Cache, decoder: PackedDecoder, parts: Many[tuple[Sequence, int]]) -> list[Tensor]:
        """parts: single tokens first, longest sequence first."""
        total = sum(count for _, count in parts)
        padding = -total % self._multiple
        ids, positions, places = [self.pad] * (total + padding), [0] * (total + padding), []
        at = 0
        for sequence, count in parts:
            span = range(sequence.filled, sequence.filled + count)
            ids[at : at + count] = sequence.ids[span.start : span.stop] + sequence.guess
            positions[at : at + count] = span
            places += [sequence.blocks[i // BLOCK] * BLOCK + i % BLOCK for i in span]
            at += count
        x_ND = decoder.embed(self._tensor(ids))
        self._place_images(x_ND, parts)
        decoder.reach(max(positions) + 1)
        attend = self._attend(cache, places, total + padding, self._groups(parts))
        states_ND = decoder(x_ND, self._tensor(positions), attend)
        for sequence, count in parts:
            self.fill(cache, sequence, count - len(sequence.guess))
        return list(torch.split(states_ND[:total], [n for _, n in parts]))

    @property
    def row_multiple(self) -> int:
        """A step has a multiple of so many rows; those that lack are computed for nothing."""
        return self._multiple

    def fill(self, cache: Cache, sequence: Sequence, count: int) -> None:
        """So many positions more are computed for good: where a block is whole, the cache knows it."""
        whole = sequence.filled // BLOCK
        sequence.filled += count
        for i, name in enumerate(sequence.name(sequence.filled // BLOCK)[whole:], whole):
            cache.learn(sequence.blocks[i], name)

    def logits(self, states_ND: Tensor) -> Tensor:
        """(N, V) float32"""
        n = len(states_ND)
        padded = torch.nn.functional.pad(states_ND, (0, 0, 0, -n % self._multiple))
        return linear(padded, self._head)[:n].float()

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _place_images(self, x_ND: Tensor, parts: Many[tuple[Sequence, int]]) -> None:
        at = 0
        for sequence, count in parts:
            if sequence.slots:
                span = range(sequence.filled, sequence.filled + count)
                for row, slot in enumerate(map(sequence.slots.get, span), at):
                    if slot is not None:
                        x_ND[row] = self._tile(sequence, slot[0])[slot[1]]
            at += count

    def _tile(self, sequence: Sequence, tile: int) -> Tensor:
        """Features (tokens_per_tile, D) of a tile, each computed alone so that its bits are always the same."""
        name = sequence.digests[tile]
        if name not in self._features:
            assert self.model.vision is not None
            pixels = torch.from_numpy(sequence.prompt.tiles[tile : tile + 1]).to(self.device)
            self._features[name] = self.model.vision(pixels, self.model.compute_dtype)[0]
            while len(self._features) > _TILES:
                self._features.popitem(last=False)
        self._features.move_to_end(name)
        return self._features[name]

    def _groups(self, parts: Many[tuple[Sequence, int]]) -> list[_Group]:
        """parts: single tokens first, longest sequence first."""
        starts, longest = [0], 0
        for i, (sequence, count) in enumerate(parts):
            length = -(-(sequence.filled + count) // BLOCK)
            if i and (count > 1 or length < _ALIKE * longest - 1):
                starts.append(i)
            if starts[-1] == i:
                longest = length
        at, groups = 0, []
        for a, b in pairwise([*starts, len(parts)]):
            groups.append(self._group(at, parts[a:b]))
            at = groups[-1].rows.stop
        return groups

    def _group(self, start: int, parts: Many[tuple[Sequence, int]]) -> _Group:
        config, t = self.model.config, parts[0][1]
        kv, share = config.n_kv_heads, config.heads // config.n_kv_heads
        lengths = np.array([sequence.filled for sequence, _ in parts])
        blocks = -(-(int(lengths.max()) + t) // BLOCK)
        table = np.zeros((len(parts), blocks), np.int64)
        for row, (sequence, _) in zip(table, parts, strict=True):
            used = sequence.blocks[:blocks]
            row[: len(used)] = used
        heads = table[:, None] * 2 * kv + np.arange(kv)[:, None]
        gather = np.stack([heads, heads + kv])
        place, position = np.arange(blocks * BLOCK), lengths[:, None] + np.arange(t)
        past = place <= position[..., None]
        biases = []
        for mask in (
            (past, past & (place > position[..., None] - config.sliding_window)) if config.sliding_window else (past,)
        ):
            rows = np.zeros((len(parts), t * share + -t * share % 4, mask.shape[-1]), np.float32)
            rows[:, : t * share][np.repeat(~mask, share, 1)] = -np.inf
            biases.append(torch.from_numpy(rows[:, None]).to(self.device, self.model.compute_dtype))
        dim, count, wide, length = config.head_dim, len(parts), biases[0].shape[2], blocks * BLOCK
        kind: dict[str, Any] = {"dtype": self.model.compute_dtype, "device": self.device}
        gathered = torch.empty(2, count * kv, length, dim, **kind)
        queries = torch.zeros(count * kv, wide, dim, **kind)
        scores = torch.empty(count * kv, wide, length, **kind)
        seen = torch.empty(count * kv, wide, dim, **kind)
        asked, answered = (
            room.view(count, kv, wide, dim)[:, :, : t * share].view(count, kv, t, share, dim).transpose(1, 2)
            for room in (queries, seen)
        )
        return _Group(
            rows=slice(start, start + count * t),
            blocks=self._tensor(gather.ravel()),
            gathered=gathered.view(-1, BLOCK * dim),
            keys=gathered[0].transpose(1, 2),
            values=gathered[1],
            bias=biases[0],
            near=biases[-1],
            queries=queries,
            asked=asked,
            scores=scores,
            biased=scores.view(count, kv, wide, length),
            seen=seen,
            answered=answered,
        )

    def _attend(self, cache: Cache, places: Many[int], count: int, groups: Many[_Group]) -> Attend:
        """places: positions of the cache, of the tokens that are not padding; count: of all rows."""
        config, n = self.model.config, len(places)
        kv, dim = config.n_kv_heads, config.head_dim
        block_N, offset_N = np.divmod(np.array(places), BLOCK)
        stored = self._tensor(((block_N[:, None] * 2 * kv + np.arange(2 * kv)) * BLOCK + offset_N[:, None]).ravel())
        sliding = frozenset(config.sliding_layers)
        out_ND = torch.zeros(count, config.heads * dim, dtype=self.model.compute_dtype, device=self.device)
        answers = [out_ND[group.rows].view(group.asked.shape) for group in groups]

        def attention(layer: int, q_NHD: Tensor, kv_NGD: Tensor) -> Tensor:
            cache.positions[layer].index_copy_(0, stored, kv_NGD[:n].view(-1, dim))
            for group, answer in zip(groups, answers, strict=True):
                torch.index_select(cache.blocks[layer], 0, group.blocks, out=group.gathered)
                group.asked.copy_(q_NHD[group.rows].view(group.asked.shape))
                torch.bmm(group.queries, group.keys, out=group.scores)
                group.biased.add_(group.near if layer in sliding else group.bias)
                _weigh(torch.softmax(group.scores, -1), group.values, group.seen)
                answer.copy_(group.answered)
            return out_ND

        return attention


def _weigh(weights_MSL: Tensor, values_MLD: Tensor, out_MSD: Tensor) -> None:
    """weights @ values, summed piece by piece: BLAS libraries cut a long sum at places that depend on its length."""
    if (length := weights_MSL.shape[-1]) <= _SUMMED:
        torch.bmm(weights_MSL, values_MLD, out=out_MSD)
        return
    torch.bmm(weights_MSL[..., :_SUMMED], values_MLD[:, :_SUMMED], out=out_MSD)
    for start in range(_SUMMED, length, _SUMMED):
        piece = slice(start, start + _SUMMED)
        out_MSD.baddbmm_(weights_MSL[..., piece], values_MLD[:, piece])
