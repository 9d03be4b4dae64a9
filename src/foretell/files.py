"""Files that are never half-written: write beside, fsync, rename."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foretell.errors import CheckpointError, RunError


def describe_os_error(error: OSError, path: Path) -> str:
    """One sentence for a user about a failed write, with the next step."""
    if error.errno == errno.ENOSPC or (
        error.errno is None and "requested and" in str(error)
    ):  # numpy's of a short write
        free = shutil.disk_usage(_existing_parent(path)).free / 1e6
        return (
            f"The disk is full: {path} could not be written ({free:.0f} MB free). What was finished before is "
            "untouched; free some space and run the same command again to resume."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"No permission to write {path}. Choose another folder, or change its permissions, and run again."
    return f"{path} could not be written: {error.strerror or error}. Choose another place, and run again."


def _existing_parent(path: Path) -> Path:
    for parent in [path, *path.parents]:
        if parent.exists():
            return parent
    return Path("/")


def expand_home(path: str | Path) -> Path:
    """With ~ as the home folder; as it stands where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over it.

    Raises RunError with the next step when the disk is full or not writable; `path` is then as it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise RunError(describe_os_error(error, path)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def put_folder(temporary: Path, path: Path) -> None:
    """Sync a finished folder, and let it replace `path` beside it as a whole."""
    temporary.chmod(0o755)
    for file in temporary.rglob("*"):
        if file.is_file():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.replace(old)
    temporary.replace(path)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it replaces `path` as a whole."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield temporary
        put_folder(temporary, path)
        temporary = None
    except OSError as error:
        raise RunError(describe_os_error(error, path)) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")  # a name may hold lone surrogates


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically: indented, keys in their given order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def finite(value: Any) -> Any:
    """A value as JSON has it: numbers that are none become None, tuples lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def read_json(path: Path, limit: int = 64_000_000) -> dict[str, Any]:
    """A JSON object of a checkpoint from anywhere.

    limit: bytes; more is refused unread. Raises CheckpointError for what is missing, too large, or no JSON object.
    """
    try:
        if path.stat().st_size > limit:
            raise CheckpointError(f"{path} is larger than {limit // 10**6} MB, as no such file is. Copy it again.")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path} cannot be read as JSON ({why}). Copy or download it again.") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} holds a {type(found).__name__}, not a JSON object. Copy or download it again.")
    return found


def digest(value: Any) -> str:
    """Hex SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
