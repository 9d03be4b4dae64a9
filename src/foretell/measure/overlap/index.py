"""An index opened: where strings stand first in its corpus, exactly."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foretell.errors import DataError
from foretell.files import sha256_file
from foretell.measure.overlap.builder import DOCUMENT, DOCUMENTS, FORMAT, GRAMS, INDEX, TEXT
from foretell.measure.overlap.grams import GRAM, SPAN, STRIDE, WORD, Bytes, Hashes, Needles, expand, mix, words
from foretell.measure.overlap.scan import scan
from foretell.run import Report, silent

_GRAMS_AT_ONCE = 1 << 21
_TABLE = 22  # bits of a fingerprint that are looked up at first


@dataclass(frozen=True)
class Place:
    """A document of the corpus. name: of its file. row: of the file, as a user would count it."""

    name: str
    row: int

    def __str__(self) -> str:
        return f"{self.name}:{self.row}"


class Index:
    """A corpus that can be searched; its text is mapped, and read where something may stand.

    verify: compare every file's SHA-256 with the index.
    Raises DataError if the folder is no index, of another form, incomplete, or (verify) a byte has changed.
    """

    def __init__(self, folder: Path, verify: bool = False) -> None:
        self.folder = folder
        try:
            self.about: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            version = self.about["format"]
        except FileNotFoundError as error:
            raise DataError(
                f"{folder} holds no index of a corpus ({INDEX} is missing). Build one with: foretell contamination "
                f"index SOURCES --out {folder}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(INDEX, error) from error
        if version != FORMAT or (self.about.get("gram"), self.about.get("stride")) != (GRAM, STRIDE):
            raise DataError(
                f"{folder} is an index in form {version}; this version reads form {FORMAT}. Build it again."
            )
        try:
            size, count = int(self.about["characters_bytes"]), int(self.about["documents"])
            digests = dict(self.about["files"])
            self.sources: list[dict[str, Any]] = [dict(source) for source in self.about["sources"]]
            self.ignore_case = bool(self.about["ignore_case"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(INDEX, error) from error
        expected = {
            TEXT: size + WORD,
            GRAMS: 4 * max(0, (size - GRAM) // STRIDE + 1),
            DOCUMENTS: DOCUMENT.itemsize * count,
        }
        for name, length in expected.items():
            found = (folder / name).stat().st_size if (folder / name).is_file() else -1
            if found != length:
                raise self._damaged(
                    name, f"it has {found:,} bytes, and {length:,} were written" if found >= 0 else "missing"
                )
            if verify and sha256_file(folder / name) != digests.get(name):
                raise self._damaged(name, "its SHA-256 is not the one that was recorded")
        self.size = size
        self._text: Bytes = np.memmap(folder / TEXT, np.uint8, "r")
        self._documents = np.memmap(folder / DOCUMENTS, DOCUMENT, "r") if count else np.zeros(0, DOCUMENT)

    @property
    def notes(self) -> list[str]:
        """What a reader of its answers should know."""
        made = self.about.get("unicode")
        if made == unicodedata.unidata_version:
            return []
        return [
            f"The index was made with Unicode {made}, and items are read with {unicodedata.unidata_version}: "
            "characters that are new between the two count as letters on one side only."
        ]

    def require_current(self, outdated: bool = False) -> None:
        """Raises DataError where the corpus has changed since it was indexed. outdated: that is put up with."""
        if not outdated and (changed := self.outdated()):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise DataError(
                f"{self.folder} is older than its corpus: {changed[0]}{more} changed since. Build it again, or give "
                "--outdated if it is the corpus of then that counts."
            )

    def outdated(self) -> list[str]:
        """Of its sources that are still there, those that are not as they were when it was made."""
        changed = []
        for source in self.sources:
            path = Path(source["path"])
            if not path.is_file():
                continue
            stat = path.stat()
            touched = stat.st_mtime_ns != source["mtime_ns"]
            if stat.st_size != source["bytes"] or (touched and sha256_file(path) != source["sha256"]):
                changed.append(str(path))
        return changed

    def find(self, needles: Sequence[bytes], report: Report = silent) -> list[int | None]:
        """Of each needle the first byte of the normalised corpus where it stands, None where it does not.

        needles: as `normalize` makes them. Exact: nothing is missed, and nothing found that is not there. Those of
        SPAN bytes or more are looked up by fingerprints; for shorter ones the text is read through, once for all.
        Raises ValueError for an empty needle, which stands everywhere.
        """
        if not all(needles):
            raise ValueError("an empty needle stands everywhere; expected letters or digits")
        distinct = sorted(set(needles))
        long = Needles([needle for needle in distinct if len(needle) >= SPAN])
        short = Needles([needle for needle in distinct if len(needle) < SPAN])
        if len(long):
            self._look_up(long, report)
        if len(short):
            scan(self.folder / TEXT, short, report)
        places = {
            text: int(place) for some in (long, short) for text, place in zip(some.texts, some.found, strict=True)
        }
        return [None if places[needle] < 0 else places[needle] for needle in needles]

    def place(self, at: int) -> Place:
        """The document that a byte of the normalised corpus belongs to."""
        document = self._documents[int(np.searchsorted(self._documents["start"], at, "right")) - 1]
        return Place(str(self.sources[int(document["file"])]["name"]), int(document["row"]))

    def _look_up(self, needles: Needles, report: Report) -> None:
        """A needle that stands somewhere holds, at one of its first STRIDE bytes, a gram that was sampled there."""
        data = words(needles.data)
        asked = np.concatenate(
            [mix(*(data[needles.start + j + WORD * i] for i in range(GRAM // WORD))) for j in range(STRIDE)]
        )
        order = np.argsort(asked, kind="stable")
        asked = asked[order]
        offset, needle = np.divmod(order, len(needles))
        table = np.zeros(1 << _TABLE, np.bool_)
        table[asked >> (32 - _TABLE)] = True
        for first, grams in self._grams():
            likely = np.flatnonzero(table[grams >> np.uint32(32 - _TABLE)])
            low = np.searchsorted(asked, grams[likely], "left")
            high = np.searchsorted(asked, grams[likely], "right")
            some = high > low
            likely, low, high = likely[some] + first, low[some], high[some]
            for row, k in expand(low, high):
                needles.verify(self._text, likely[row] * STRIDE - offset[k], needle[k])
            report("look up", (first + len(grams)) * STRIDE, self.size)
            if (needles.found >= 0).all():
                break

    def _grams(self) -> Iterator[tuple[int, Hashes]]:
        """Read rather than mapped, so that they are not held."""
        first = 0
        with (self.folder / GRAMS).open("rb") as stream:
            while len(held := stream.read(4 * _GRAMS_AT_ONCE)):
                grams = np.frombuffer(held, "<u4")
                yield first, grams
                first += len(grams)

    def _damaged(self, name: str, why: object) -> DataError:
        return DataError(
            f"{self.folder / name} is damaged or incomplete ({why}). Remove {self.folder}, and build it again."
        )
