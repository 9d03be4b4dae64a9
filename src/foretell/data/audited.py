"""A source whose entropy is known: records of a key, drawn by Zipf's law, and the value that belongs to it.

A model can learn the facts, whose frequencies fall as a power, but not foresee which key is drawn. So the loss that no
model can beat has a closed form, and a forecast can be held against it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foretell.data.shards import FORMAT, Piece, ShardWriter
from foretell.data.tokenizer import Tokenizer
from foretell.data.tokenizer_file import byte_symbols
from foretell.errors import DataError
from foretell.files import atomic_folder, write_json
from foretell.template import END_OF_TEXT, IMAGE

CONTROLS = (END_OF_TEXT, IMAGE)  # a model's image slot has an id even where there are no images
ROWS = 4096  # drawn at a time


@dataclass(frozen=True)
class Audited:
    """Independent records: `length` symbols that spell one of `keys` keys, then that key's value.

    The key of rank r has a probability ∝ r^−exponent. Spellings, no two alike, and values are drawn once from `seed`.
    Every place of a record has its own alphabet of `symbols`, so that no model must count to know where it is.
    Raises DataError for a source that cannot be.
    """

    keys: int = 1 << 20
    exponent: float = 1.3
    symbols: int = 32
    length: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        most = self.symbols**self.length
        if not 0 < self.keys <= most or self.symbols * self.places > 256:
            raise DataError(
                f"{self.length} of {self.symbols} symbols cannot spell {self.keys} keys with a byte for every symbol; "
                f"allowed are at most {most} keys, and symbols × (length + 1) ≤ 256."
            )

    @property
    def places(self) -> int:
        """Tokens in a record."""
        return self.length + 1

    @property
    def vocab_size(self) -> int:
        return len(CONTROLS) + self.symbols * self.places

    def probabilities(self) -> npt.NDArray[np.float64]:
        """(keys,), by rank."""
        weight = np.arange(1, self.keys + 1, dtype=np.float64) ** -self.exponent
        return np.asarray(weight / weight.sum())

    @property
    def floor(self) -> float:
        """Least expected loss in nats a token: H(key) / (length + 1).

        A token without loss stands before every record, so all tokens of all records are counted. A record is its key
        spelled out, and its value adds no entropy, so the entropies of its tokens, each given those before, add up to
        that of the key (chain rule; Cover and Thomas, Elements of Information Theory, 2.5).
        """
        p = self.probabilities()
        return float(-(p * np.log(p)).sum() / self.places)

    def records(self) -> npt.NDArray[np.int32]:
        """(keys, length + 1) token ids of every key's record, by rank."""
        rng = np.random.default_rng([self.seed, 0])
        code = rng.permutation(self.symbols**self.length)[: self.keys]
        spelled = code[:, None] // self.symbols ** np.arange(self.length) % self.symbols
        value = rng.integers(self.symbols, size=(self.keys, 1))
        alphabets = len(CONTROLS) + self.symbols * np.arange(self.places)
        return np.asarray(np.concatenate([spelled, value], 1) + alphabets, np.int32)


def write_tokenizer(source: Audited, folder: Path) -> None:
    """A tokenizer of one token a symbol, and no other: small models would pay for every unused one."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocab = dict(zip([*CONTROLS, *byte_symbols()], range(source.vocab_size), strict=False))
    added = [{"id": vocab[token], "content": token, "special": True} for token in CONTROLS]
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    parts = {"pre_tokenizer": byte_level, "decoder": byte_level, "model": {"type": "BPE", "vocab": vocab, "merges": []}}
    text = json.dumps({"version": "1.0", "added_tokens": [token | plain for token in added], **parts})
    with atomic_folder(folder) as new:
        Tokenizer(text, {"eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT}).save(new)


def write_pack(
    source: Audited, folder: Path, *, rows: int, records: int, draw: int, even: bool = False
) -> dict[str, int]:
    """Pack `rows` rows of `records` records, each a document of its own behind END_OF_TEXT; returns rows and tokens.

    draw: which stream of random numbers; two of them share nothing. even: the keys' shares are those of the source as
    nearly as whole numbers allow, in random order, so that a loss measured on the pack has hardly a sampling error
    (systematic sampling: every record on its own is still a fair draw).
    """
    table, below = source.records(), np.cumsum(source.probabilities())
    rng = np.random.default_rng([source.seed, 1, draw])
    loss = np.arange(source.places + 1) > 0
    tiles = np.zeros((0, 0, 0, 3), np.uint8)
    steps = (rng.permutation(rows * records) + rng.random()) / (rows * records) if even else None
    length = records * len(loss)
    with atomic_folder(folder) as new:
        writer = ShardWriter(new, length, 0, source.vocab_size, 0)
        for start in range(0, rows, ROWS):
            stop = min(start + ROWS, rows)
            lots = rng.random((stop - start) * records) if steps is None else steps[start * records : stop * records]
            keys = np.searchsorted(below, lots * below[-1], side="right")
            ids = np.zeros((stop - start, records, len(loss)), np.int32)
            ids[..., 1:] = table[keys].reshape(stop - start, records, -1)
            for row in ids:
                writer.add([Piece(record, loss, tiles, 0) for record in row])
        writer.flush()
        index = {"format": FORMAT, "sequence_length": length, "tile": 0, "kinds": ["record"], "shards": writer.shards}
        count = {"rows": rows, "tokens": rows * length}
        write_json(new / "index.json", index | count | {"files": writer.files})
    return count
