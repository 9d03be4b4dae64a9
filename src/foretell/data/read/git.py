"""A git checkout or bare repository: the tracked text files of one commit, with their licences and its date.

Blobs are read, not files: what is not committed does not count, no link is followed, and git runs no filter or hook.
"""

from __future__ import annotations

import posixpath
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.data.read.files import PACKED, File, Unit, form_of
from foretell.data.read.folder import ONE_DOCUMENT
from foretell.data.read.html import Pages
from foretell.data.read.licenses import is_license_file, license_of_text, nearest
from foretell.data.read.rows import Defaults, Place
from foretell.data.read.sections import GitRead
from foretell.data.read.texts import read_text_file
from foretell.errors import DataError

LFS = b"version https://git-lfs.github.com/spec/"
GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "--no-optional-locks")


@dataclass(frozen=True)
class Blob:
    name: str
    sha: str
    size: int


@dataclass(frozen=True)
class Commit:
    """licenses: folder → SPDX. url: of the remote it came from, without a password; empty without one."""

    sha: str
    date: str
    url: str
    blobs: tuple[Blob, ...]
    licenses: dict[str, str]
    links: tuple[str, ...]  # symbolic links and submodules, which are not followed


def _git(section: GitRead, *arguments: str) -> bytes:
    try:
        done = subprocess.run([*GIT, "-C", section.path, *arguments], capture_output=True, check=False)
    except OSError as error:
        raise DataError(f"Source {section.name!r} needs git, which could not be started. Install git.") from error
    if done.returncode:
        why = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise DataError(
            f"Source {section.name!r}: {section.path} at {section.revision} could not be read as a git repository "
            f"({why[-1] if why else done.returncode}). Check the path and the revision; if it was there before, bring "
            "it back and run the same command again."
        )
    return done.stdout


@lru_cache(maxsize=4)
def commit(section: GitRead) -> Commit:
    """What one commit holds. Raises DataError where there is no repository or no such revision."""
    sha = _git(section, "rev-parse", "--verify", "--end-of-options", f"{section.revision}^{{commit}}").decode().strip()
    date = _git(section, "show", "-s", "--no-show-signature", "--format=%cs", sha).decode().strip()
    blobs, links = [], []
    for entry in _git(section, "ls-tree", "-r", "-z", "--long", "--full-tree", sha).split(b"\0"):
        if not entry:
            continue
        about, name = entry.split(b"\t", 1)
        mode, kind, object_id, size = about.split()
        path = name.decode("utf-8", "surrogateescape")
        if kind == b"blob" and mode != b"120000":
            blobs.append(Blob(path, object_id.decode(), int(size)))
        else:
            links.append(path)
    blobs.sort(key=lambda blob: blob.name)
    licenses: dict[str, str] = {}
    with _contents(section) as content:
        for blob in blobs:
            if is_license_file(blob.name) and blob.size < 1_000_000:
                folder = str(PurePosixPath(blob.name).parent)
                told = license_of_text(content(blob).decode("utf-8", "replace"))
                licenses.setdefault("" if folder == "." else folder, told)
    return Commit(sha, date, _remote(section), tuple(blobs), licenses, tuple(sorted(links)))


def _remote(section: GitRead) -> str:
    try:
        url = _git(section, "config", "--get", "remote.origin.url").decode("utf-8", "replace").strip()
    except DataError:
        return ""
    if "://" not in url:
        return ""
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}".removesuffix(".git")


class _Content:
    """Blobs through one `git cat-file --batch`."""

    def __init__(self, section: GitRead, asked: IO[bytes], told: IO[bytes]) -> None:
        self._section, self._asked, self._told = section, asked, told

    def __call__(self, blob: Blob) -> bytes:
        try:
            self._asked.write(f"{blob.sha}\n".encode())
            self._asked.flush()
            head = self._told.readline().split()
            data = self._told.read(int(head[2]) + 1)[:-1] if len(head) == 3 else b""
        except (OSError, ValueError) as error:
            raise self._gone() from error
        if len(head) != 3 or len(data) != int(head[2]):
            raise self._gone()
        return data

    def _gone(self) -> DataError:
        return DataError(
            f"Source {self._section.name!r}: {self._section.path} is damaged, or vanished while it was read. Bring it "
            "back (git fsck tells what is missing) and run the same command again: what is finished stays."
        )


@contextmanager
def _contents(section: GitRead) -> Iterator[_Content]:
    command = [*GIT, "-C", section.path, "cat-file", "--batch"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin and process.stdout
        try:
            yield _Content(section, process.stdin, process.stdout)
        finally:
            process.kill()


def git_units(section: GitRead) -> list[Unit]:
    """Files by name, in pieces of about `unit_bytes`. start, stop: places in the sorted list of blobs."""
    found = commit(section)
    units: list[Unit] = []
    start = size = 0
    for place, blob in enumerate(found.blobs, 1):
        size += blob.size
        if size >= section.unit_bytes or place == len(found.blobs):
            files = (File(f"{Path(section.path).resolve().name}@{found.sha}", found.sha),)
            units.append(Unit(section.name, "git", files, start, place, size))
            start, size = place, 0
    if not units:
        raise DataError(f"Source {section.name!r}: {section.path} at {section.revision} holds no file. Check the path.")
    return units


def read_git(section: GitRead, unit: Unit, pages: Pages) -> Iterator[Document | Removed]:
    """A document or a reason for each tracked file. Locators are commit:path.

    Raises DataError if the revision has moved since the units were made, or the repository is gone.
    """
    found = commit(section)
    if unit.files[0].path != found.sha:
        raise DataError(
            f"Source {section.name!r}: {section.revision} is now {found.sha[:12]}, and was "
            f"{unit.files[0].path[:12]} when this was begun. Name the commit as revision, or start anew elsewhere."
        )
    if unit.start == 0:
        for name in found.links:
            yield Place(name).removed("read.link", "links and submodules are not followed")
    named = {blob.name: blob for blob in found.blobs}
    limits = section.limits
    with _contents(section) as content:
        for blob in found.blobs[unit.start : unit.stop]:
            name = blob.name.encode("utf-8", "replace").decode()
            place = Place(f"{found.sha[:12]}:{name}", name)
            form = form_of(blob.name)
            if form not in ONE_DOCUMENT or PACKED.search(blob.name):
                yield place.removed("read.file-kind", "no form of text that is read", name)
                continue
            if blob.size > limits.document_bytes:
                yield place.removed("read.too-large", f"{blob.size:,} bytes", name)
                continue
            data = content(blob)
            if data.startswith(LFS):
                yield place.removed("read.lfs", "its content is in Git LFS", name)
                continue
            told = nearest(blob.name, found.licenses)
            license = told if told not in ("", "unknown") else section.license
            fill = Defaults(section.name, license, section.language, section.date or found.date)

            def figure(address: str, name: str = blob.name) -> bytes | None:
                image = named.get(posixpath.normpath(posixpath.join(posixpath.dirname(name), address)))
                return content(image) if image is not None and image.size <= limits.image_bytes else None

            document = read_text_file(data, form, place, fill, limits, pages, figure)
            if isinstance(document, Document) and found.url:
                document.labels.setdefault("url", f"{found.url}/blob/{found.sha}/{name}")
            yield document
