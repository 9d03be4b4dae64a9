"""The loader: one order of the data, exact resume, honest errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from foretell.data.loader import Loader, PackedBatch, permutation
from foretell.data.shards import Piece, ShardWriter
from foretell.errors import DataError
from foretell.files import write_json

T, ROWS = 16, 23
PAD = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 rows in several shards; row r holds segments of 10 and 4 tokens (ids 100 r + place) and r % 3 tiles."""
    folder = tmp_path_factory.mktemp("pack")
    writer = ShardWriter(folder, T, 4, 70_000, PAD)
    for row in range(ROWS):
        tiles = np.full((row % 3, 4, 4, 3), row, np.uint8)
        first = Piece(np.arange(10, dtype=np.int32) + 100 * row, np.arange(10) % 5 > 0, tiles, 0)
        second = Piece(np.arange(10, 14, dtype=np.int32) + 100 * row, np.arange(4) > 0, tiles[:0], 1)
        writer.add([first, second])
        if row % 5 == 4:
            writer.flush()
    writer.flush()
    index = {"format": 1, "sequence_length": T, "kinds": ["a", "b"], "shards": writer.shards, "files": writer.files}
    write_json(folder / "index.json", index)
    return folder


def stream(loader: Loader, batches: int) -> list[PackedBatch]:
    return [next(loader) for _ in range(batches)]


def rows_of(batches: list[PackedBatch]) -> list[int]:
    return [int(token) // 100 for batch in batches for token in batch.tokens[:, 0]]


def same(a: PackedBatch, b: PackedBatch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(vars(a).values(), vars(b).values(), strict=True))


@pytest.fixture
def loader(folder: Path) -> Iterator[Loader]:
    loader = Loader(folder, 4, seed=3)
    yield loader
    loader.close()


def test_a_batch_is_what_was_packed(folder: Path) -> None:
    batch = Loader.fixed(folder, 3, 1)[0]
    tokens = np.full((3, T), PAD)
    tokens[:, :14] = 100 * np.arange(3)[:, None] + np.arange(14)
    assert np.array_equal(batch.tokens, tokens)
    learned = [1, 2, 3, 4, -100, 6, 7, 8, 9, -100, 11, 12, 13, -100, -100, -100]
    assert batch.targets[0].tolist() == learned
    assert batch.targets[2].tolist() == [t + 200 if t > 0 else t for t in learned]
    assert batch.positions[1].tolist() == [*range(10), *range(4), 0, 1]
    assert batch.segments[1].tolist() == [0] * 10 + [1] * 4 + [-1] * 2
    assert batch.kinds[1, :14].tolist() == [0] * 10 + [1] * 4
    assert batch.tiles[:, 0, 0, 0].tolist() == [1, 2, 2]
    assert batch.examples is None
    kinds = {name: str(array.dtype) for name, array in vars(batch).items() if name not in ("examples", "values")}
    assert kinds == {
        "tokens": "int64", "targets": "int64", "positions": "int64", "segments": "int32", "kinds": "uint8",
        "tiles": "uint8",
    }  # fmt: skip


def test_the_order_is_a_permutation_of_each_epoch_whatever_the_batch_size(folder: Path) -> None:
    expected = [int(row) for epoch in range(4) for row in permutation(3, epoch, ROWS)]
    assert sorted(expected[:ROWS]) == list(range(ROWS)) and expected[:ROWS] != expected[ROWS : 2 * ROWS]
    for rows in (1, 4, 7, ROWS):
        loader = Loader(folder, rows, seed=3)
        batches = 3 * ROWS // rows
        assert rows_of(stream(loader, batches)) == expected[: batches * rows]
        loader.close()


def test_tiles_follow_their_rows_in_a_shuffled_batch(loader: Loader) -> None:
    for batch in stream(loader, 12):
        rows = batch.tokens[:, 0] // 100
        assert batch.tiles[:, 0, 0, 0].tolist() == [int(row) for row in rows for _ in range(row % 3)]


@pytest.mark.parametrize("consumed", [0, 1, 5, 6, 17])
def test_resume_is_exact_through_json_and_ignores_what_was_read_ahead(folder: Path, consumed: int) -> None:
    loader = Loader(folder, 4, seed=3, prefetch=3)
    stream(loader, consumed)
    state = json.loads(json.dumps(loader.state_dict()))
    assert state["epoch"] == consumed * 4 // ROWS and state["position"] == consumed * 4 % ROWS
    expected = stream(loader, 9)
    other = Loader(folder, 4, seed=3)
    next(other)
    other.load_state_dict(state)
    assert all(same(a, b) for a, b in zip(expected, stream(other, 9), strict=True))
    loader.load_state_dict(state)
    assert same(expected[0], next(loader))
    loader.close()
    other.close()


def test_ranks_share_the_steps_of_one_stream(folder: Path) -> None:
    whole = Loader(folder, 6, seed=3)
    parts = [Loader(folder, 2, seed=3, rank=rank, world=3) for rank in range(3)]
    for batch in stream(whole, 8):
        assert rows_of([batch]) == rows_of([next(part) for part in parts])
    assert all(part.state_dict() == whole.state_dict() for part in parts)
    for loader in (whole, *parts):
        loader.close()


def test_closing_ends_the_thread_and_keeps_the_place(loader: Loader) -> None:
    before = threading.active_count()
    expected = permutation(3, 0, ROWS)
    first = stream(loader, 2)
    assert threading.active_count() == before + 1 and loader.idle_seconds > 0
    loader.close()
    loader.close()
    assert threading.active_count() == before
    assert rows_of([*first, next(loader)]) == expected[:12].tolist()


def test_an_error_in_the_thread_reaches_the_consumer(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise DataError("the shard went away")

    with monkeypatch.context() as patch:
        patch.setattr("foretell.data.loader.assemble", fail)
        for _ in range(2):
            with pytest.raises(DataError, match="went away"):
                next(loader)
    assert rows_of([next(loader)]) == permutation(3, 0, ROWS)[:4].tolist()


def test_fixed_batches_are_in_order_and_can_be_read_again(folder: Path) -> None:
    fixed = Loader.fixed(folder, 5, 3)
    assert len(fixed) == 3 and rows_of(list(fixed)) == list(range(15)) == rows_of(list(fixed))
    whole = Loader.fixed(folder, 5, 99)
    assert len(whole) == 5 and rows_of(list(whole)) == list(range(ROWS)) and len(whole[-1].tokens) == 3


def test_too_few_rows_for_a_batch(folder: Path) -> None:
    with pytest.raises(DataError, match=r"holds 23 rows of 16 tokens, fewer than one batch of 24 rows.*at most 368"):
        Loader(folder, 24, seed=0)


def test_a_state_of_other_data_is_refused(folder: Path, loader: Loader) -> None:
    with pytest.raises(DataError, match="seed 4, but this pack has 3"):
        loader.load_state_dict(Loader(folder, 4, seed=4).state_dict())
    with pytest.raises(DataError, match="rows_per_epoch 9"):
        loader.load_state_dict(loader.state_dict() | {"rows_per_epoch": 9})


def copy(folder: Path, to: Path) -> Path:
    for path in folder.rglob("*.*"):
        if path.is_file():
            target = to / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return to


def test_damage_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no packed data .*run the pack stage"):
        Loader(tmp_path, 1, seed=0)
    Loader(folder, 1, seed=0, verify=True)
    flipped = copy(folder, tmp_path / "flipped")
    path = flipped / "shard-00001/tokens.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"tokens.npy is damaged .*SHA-256.*pack again"):
        Loader(flipped, 1, seed=0, verify=True)
    path.write_bytes(data[:-8])
    with pytest.raises(DataError, match=r"tokens.npy is damaged"):
        Loader(flipped, 1, seed=0)
    path.unlink()
    with pytest.raises(DataError, match=r"tokens.npy is damaged"):
        Loader(flipped, 1, seed=0)
    (flipped / "index.json").write_text("[]")
    with pytest.raises(DataError, match=r"index.json is damaged"):
        Loader(flipped, 1, seed=0)


@pytest.fixture
def phased(folder: Path, tmp_path: Path) -> Path:
    """The same rows as a curriculum: 15, then 8."""
    import shutil

    copy = tmp_path / "phased"
    shutil.copytree(folder, copy)
    index = json.loads((copy / "index.json").read_text())
    write_json(copy / "index.json", index | {"phases": [15, 8]})
    return copy


def test_phases_are_read_in_their_order_each_shuffled(phased: Path) -> None:
    read = rows_of(stream(Loader(phased, 1, seed=3), 2 * ROWS))
    assert sorted(read[:15]) == list(range(15)) and sorted(read[15:ROWS]) == list(range(15, ROWS))
    assert read[:15] != sorted(read[:15])
    assert sorted(read[ROWS : ROWS + 15]) == list(range(15))  # the next epoch begins anew


def test_a_short_run_passes_through_every_phase_in_proportion(phased: Path) -> None:
    whole = rows_of(stream(Loader(phased, 1, seed=3), ROWS))
    short = rows_of(stream(Loader(phased, 1, seed=3, planned=12), 12))
    assert len([row for row in short if row < 15]) == 8 and len([row for row in short if row >= 15]) == 4
    assert short == whole[:8] + whole[15:19]
    loader = Loader(phased, 2, seed=3, planned=12)
    first = rows_of(stream(loader, 3))
    state = loader.state_dict()
    again = Loader(phased, 2, seed=3, planned=12)
    again.load_state_dict(state)
    assert first + rows_of(stream(again, 3)) == short
