"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import numpy as np
import pytest

from foretell.errors import RunError
from foretell.files import atomic_folder, atomic_path, sha256_file, write_json, write_text


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "a.json"
    write_json(file, {"b": 1, "a": "ż"})
    assert file.read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": "ż"\n}\n'
    write_text(file, "new")
    assert file.read_text() == "new"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
    assert sha256_file(file) == hashlib.sha256(b"new").hexdigest()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, number: int) -> None:
    file = tmp_path / "a"
    write_text(file, "old")
    with pytest.raises(RunError) as error, atomic_path(file) as temporary:
        temporary.write_text("half")
        raise OSError(number, "no")
    assert str(file) in str(error.value)
    assert file.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_that_numpy_met_is_named(tmp_path: Path) -> None:
    path = Path("/dev/full")
    if not path.exists():
        pytest.skip("there is no /dev/full")
    with pytest.raises(RunError, match=r"disk is full.*free some space"), atomic_path(tmp_path / "a"):
        np.zeros(100_000).tofile(path)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"disk is full.*free some space"), atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_another_error_passes_through_and_cleans_up(tmp_path: Path) -> None:
    with pytest.raises(KeyError), atomic_folder(tmp_path / "f") as folder:
        (folder / "x").write_text("half")
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "f"
    for content in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / content).write_text(content)
    assert [path.name for path in target.iterdir()] == ["two"]
    with pytest.raises(RunError), atomic_folder(target) as folder:
        raise OSError(errno.ENOSPC, "full")
    assert (target / "two").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
