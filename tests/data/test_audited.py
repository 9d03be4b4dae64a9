"""The audited source: its floor against brute force, an oracle and the loader; its tokenizer; its draws."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from foretell.data.audited import CONTROLS, Audited, write_pack, write_tokenizer
from foretell.data.loader import NO_LOSS, assemble
from foretell.data.shards import Shards
from foretell.data.tokenizer import Tokenizer
from foretell.errors import DataError
from foretell.files import sha256_file

SMALL = Audited(keys=50, exponent=1.1, symbols=4, length=3, seed=5)


def prefixes(source: Audited) -> dict[tuple[int, ...], float]:
    """Probability of every beginning of a record."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for record, p in zip(source.records().tolist(), source.probabilities(), strict=True):
        for end in range(source.places + 1):
            found[tuple(record[:end])] += p
    return found


def test_the_floor_is_the_entropy_of_each_token_given_those_before_by_brute_force() -> None:
    chance = prefixes(SMALL)
    total = 0.0
    for place in range(SMALL.places):
        for context in [key for key in chance if len(key) == place]:
            following = [
                chance[key] / chance[context] for key in chance if key[:place] == context and len(key) == place + 1
            ]
            assert sum(following) == pytest.approx(1)
            total -= chance[context] * sum(p * math.log(p) for p in following)
    assert SMALL.floor == pytest.approx(total / SMALL.places, rel=1e-12)


def test_the_floor_of_a_million_keys_is_that_of_its_sums() -> None:
    k = np.arange(1, 2**20 + 1, dtype=np.longdouble)
    z = (k**-1.3).sum()
    entropy = np.log(z) + 1.3 * (np.log(k) * k**-1.3).sum() / z
    assert Audited().floor == pytest.approx(float(entropy) / 5, rel=1e-10)


def oracle(source: Audited, pack: Path, records: int) -> tuple[float, int]:
    """Mean loss of the best predictor over the positions that carry loss, and their number."""
    shards = Shards(pack, verify=True)
    batch = assemble(shards, np.arange(shards.rows))
    chance = prefixes(source)
    losses = []
    for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        for t, target in enumerate(targets):
            if target != NO_LOSS:
                begun = tokens[t // (source.places + 1) * (source.places + 1) + 1 : t + 1]
                losses.append(-math.log(chance[(*begun, target)] / chance[tuple(begun)]))
    assert len(losses) == shards.rows * records * source.places
    return float(np.mean(losses)), len(losses)


def test_an_oracle_reaches_the_floor_on_generated_rows(tmp_path: Path) -> None:
    write_pack(SMALL, tmp_path / "drawn", rows=800, records=5, draw=1)
    write_pack(SMALL, tmp_path / "even", rows=800, records=5, draw=0, even=True)
    p = SMALL.probabilities()
    sd = math.sqrt((p * np.log(p) ** 2).sum() - (p @ np.log(p)) ** 2) / SMALL.places
    drawn, count = oracle(SMALL, tmp_path / "drawn", 5)
    assert abs(drawn - SMALL.floor) < 4 * sd / math.sqrt(count / SMALL.places)
    even, _ = oracle(SMALL, tmp_path / "even", 5)
    assert abs(even - SMALL.floor) < 0.05 * sd / math.sqrt(count / SMALL.places)


def test_the_records_of_a_row_are_those_of_the_keys_in_their_shares(tmp_path: Path) -> None:
    write_pack(SMALL, tmp_path / "p", rows=2000, records=5, draw=3, even=True)
    rows = Shards(tmp_path / "p").read(range(2000))
    tokens, loss = (rows[name].reshape(-1, SMALL.places + 1) for name in ("tokens", "loss"))
    assert not tokens[:, 0].any() and not loss[:, 0].any() and loss[:, 1:].all()
    seen, counts = np.unique(tokens[:, 1:], axis=0, return_counts=True)
    known = {tuple(record): p for record, p in zip(SMALL.records().tolist(), SMALL.probabilities(), strict=True)}
    assert len(seen) == len(known) == SMALL.keys
    for record, count in zip(seen.tolist(), counts, strict=True):
        assert abs(count - 10_000 * known[tuple(record)]) < 1


def test_spellings_differ_and_places_share_no_symbol() -> None:
    records = Audited(keys=4**4, symbols=4).records()
    assert len(np.unique(records[:, :-1], axis=0)) == 4**4
    for one, other in itertools.combinations(range(5), 2):
        assert not set(records[:, one]) & set(records[:, other])
    assert not np.array_equal(Audited(keys=64, symbols=4, seed=1).records(), Audited(keys=64, symbols=4).records())


def test_draws_repeat_themselves_and_not_each_other(tmp_path: Path) -> None:
    for name, draw in (("a", 1), ("again", 1), ("b", 2)):
        write_pack(SMALL, tmp_path / name, rows=40, records=5, draw=draw)
    a, again, b = (sha256_file(tmp_path / name / "shard-00000" / "tokens.npy") for name in ("a", "again", "b"))
    assert a == again != b


def test_the_tokenizer_has_one_token_a_symbol_and_no_more(tmp_path: Path) -> None:
    write_tokenizer(SMALL, tmp_path / "t")
    tokenizer = Tokenizer.load(tmp_path / "t")
    assert tokenizer.vocab_size == SMALL.vocab_size == 2 + 16
    assert [tokenizer.special(token) for token in CONTROLS] == [0, 1]
    assert (tokenizer.token_bytes[2:] == 1).all()
    for record in SMALL.records():
        assert tokenizer.encode(tokenizer.decode(record)) == record.tolist()
    write_tokenizer(Audited(), tmp_path / "large")
    large = Tokenizer.load(tmp_path / "large")
    assert large.vocab_size == 162 and (large.token_bytes[2:] == 1).all()


@pytest.mark.parametrize("settings", [{"keys": 257, "symbols": 4}, {"symbols": 64, "keys": 10}, {"keys": 0}])
def test_a_source_that_cannot_be_is_refused(settings: dict[str, int]) -> None:
    with pytest.raises(DataError, match="cannot spell"):
        Audited(**settings)  # type: ignore[arg-type]
