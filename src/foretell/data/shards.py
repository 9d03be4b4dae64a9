"""Packed rows on disk: shards of .npy files, written once, memory-mapped; docs/pack.md describes the form."""

from __future__ import annotations

import errno
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from foretell.errors import DataError
from foretell.files import sha256_file

FORMAT = 1
BY_TOKEN = ("tokens", "loss", "segments", "kinds")
SHARD_BYTES = 64_000_000
OPEN_SHARDS = 100  # each holds a file descriptor an array, of which a process commonly has 1,024


@dataclass(frozen=True)
class Piece:
    """A document, or a cut of one, that becomes one segment. loss[0] is false: nothing predicts a first token.

    example: the number of what several pieces belong to together, such as the replies to one prompt.
    """

    ids: npt.NDArray[np.int32]
    loss: npt.NDArray[np.bool_]
    tiles: npt.NDArray[np.uint8]
    kind: int
    example: int = -1


class ShardWriter:
    """Collects closed rows and writes them as shards of about SHARD_BYTES. examples: write their numbers too."""

    def __init__(self, folder: Path, length: int, side: int, vocab_size: int, pad: int, examples: bool = False) -> None:
        self._folder, self._length, self._side, self._pad, self._examples = folder, length, side, pad, examples
        self._dtype = np.uint16 if vocab_size <= 1 << 16 else np.uint32
        self._rows: list[list[Piece]] = []
        self._bytes = 0
        self.shards: list[int] = []
        self.files: dict[str, str] = {}
        self.tokens: Counter[int] = Counter()
        self.learned: Counter[int] = Counter()

    @property
    def rows(self) -> int:
        return sum(self.shards) + len(self._rows)

    def add(self, pieces: list[Piece]) -> None:
        self._rows.append(pieces)
        self._bytes += self._length * 6 + sum(piece.tiles.nbytes for piece in pieces)
        if self._bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        shape = (len(self._rows), self._length)
        arrays: dict[str, npt.NDArray[Any]] = {
            "tokens": np.full(shape, self._pad, self._dtype),
            "loss": np.zeros(shape, np.uint8),
            "segments": np.full(shape, -1, np.int16 if self._length < 1 << 16 else np.int32),
            "kinds": np.zeros(shape, np.uint8),
        }
        if self._examples:
            arrays["examples"] = np.full(shape, -1, np.int32)
        offsets = np.zeros(len(self._rows) + 1, np.int64)
        for r, pieces in enumerate(self._rows):
            start = 0
            for number, piece in enumerate(pieces):
                stop = start + len(piece.ids)
                arrays["tokens"][r, start:stop] = piece.ids
                arrays["loss"][r, start:stop] = piece.loss
                arrays["segments"][r, start:stop] = number
                arrays["kinds"][r, start:stop] = piece.kind
                if self._examples:
                    arrays["examples"][r, start:stop] = piece.example
                self.tokens[piece.kind] += len(piece.ids)
                self.learned[piece.kind] += int(piece.loss.sum())
                start = stop
            offsets[r + 1] = offsets[r] + sum(len(piece.tiles) for piece in pieces)
        tiles = [piece.tiles for pieces in self._rows for piece in pieces if len(piece.tiles)]
        side = self._side
        arrays["tiles"] = np.concatenate(tiles) if tiles else np.zeros((0, side, side, 3), np.uint8)
        arrays["tile_offsets"] = offsets
        name = f"shard-{len(self.shards):05d}"
        (self._folder / name).mkdir()
        for array in arrays:
            path = self._folder / name / f"{array}.npy"
            try:
                np.save(path, arrays[array])
            except OSError as error:  # a short write comes without its reason: the disk is full
                raise OSError(error.errno or errno.ENOSPC, str(error)) from error
            self.files[f"{name}/{array}.npy"] = sha256_file(path)
        self.shards.append(len(self._rows))
        self._rows, self._bytes = [], 0


class Shards:
    """Packed rows, opened for reading; nothing is held in memory but the index.

    verify: compare every file's SHA-256 with the index.
    Raises DataError if the folder is no pack, is incomplete, or (verify) a byte has changed.
    """

    def __init__(self, folder: Path, verify: bool = False) -> None:
        self.folder = folder
        try:
            self.index: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            version = self.index["format"]
        except FileNotFoundError as error:
            raise DataError(f"{folder} holds no packed data (index.json is missing); run the pack stage.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged("index.json", error) from error
        if version != FORMAT:
            raise DataError(f"{folder} is packed in form {version}; this version reads form {FORMAT}. Pack it again.")
        self.length, self.kinds = int(self.index["sequence_length"]), list[str](self.index["kinds"])
        self._by_token = (*BY_TOKEN, "examples") if self.index.get("examples") else BY_TOKEN
        self.starts = np.concatenate([[0], np.cumsum(self.index["shards"])]).astype(np.int64)
        if verify:
            for name, digest in self.index["files"].items():
                if not (folder / name).is_file() or sha256_file(folder / name) != digest:
                    raise self._damaged(name, "its SHA-256 is not the one that was recorded")
        self.phases = list[int](self.index.get("phases") or [self.rows])
        self._arrays = lru_cache(OPEN_SHARDS)(self._open)
        for number in range(len(self.starts) - 1):
            self._arrays(number)

    @property
    def rows(self) -> int:
        return int(self.starts[-1])

    def read(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """tokens, loss, segments, kinds, and examples where the pack has them: (B, T) in the order of `rows`. tiles:
        (N, S, S, 3), row after row."""
        where = np.asarray(rows, np.int64)
        shards = np.searchsorted(self.starts, where, side="right") - 1
        local = where - self.starts[shards]
        places = [(self._arrays(int(shard)), int(row)) for shard, row in zip(shards, local, strict=True)]
        out: dict[str, npt.NDArray[Any]] = {
            name: np.stack([arrays[name][row] for arrays, row in places]) for name in self._by_token
        }
        tiles = [a["tiles"][a["tile_offsets"][row] : a["tile_offsets"][row + 1]] for a, row in places]
        return out | {"tiles": np.concatenate(tiles)}

    def tiles(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many tiles each of the rows has."""
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        offsets = [self._arrays(int(shard))["tile_offsets"] for shard in shards]
        local = rows - self.starts[shards]
        return np.array([int(o[row + 1] - o[row]) for o, row in zip(offsets, local, strict=True)], np.int64)

    def _open(self, number: int) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {}
        for array in (*self._by_token, "tiles", "tile_offsets"):
            name = f"shard-{number:05d}/{array}.npy"
            try:
                arrays[array] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                raise self._damaged(name, error) from error
        return arrays

    def _damaged(self, name: str, why: object) -> DataError:
        return DataError(f"{self.folder / name} is damaged or incomplete ({why}). Delete {self.folder} and pack again.")
