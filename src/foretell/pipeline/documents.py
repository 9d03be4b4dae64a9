"""The data stage: every source read once into Parquet, training and held-out apart, counted as it streams."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from foretell.data.document import Document, SkipCount
from foretell.data.splits import Split
from foretell.errors import DataError, RecipeError
from foretell.files import write_json
from foretell.recipe import FolderSource, HubSource, JsonlSource, ParquetSource, PythonSource, Source, WorldSource
from foretell.run import Report

_REPORT_EVERY = 50  # documents


def documents_file(data_dir: Path, source: str, split: Split) -> Path:
    """Where the data stage puts one source's documents of one split."""
    return data_dir / source / f"{split}.parquet"


def write_sources(
    sources: Sequence[Source], cutoff: str | None, seed: int, out: Path, report: Report
) -> dict[str, Any]:
    """Write every source; what an interrupted call finished is kept. Returns the counts and the licence table.

    Raises DataError when a source gives no training documents, or no source any held-out ones.
    """
    counts: dict[str, dict[str, Any]] = {}
    for source in sources:
        splits = {split: _write(source, split, cutoff, seed, out, report) for split in get_args(Split)}
        counts[source.name] = _together(list(splits.values())) | splits
        if not splits["train"]["documents"]:
            why = ", ".join(f"{n} {reason}" for reason, n in splits["train"]["skipped"].items()) or "nothing was found"
            raise DataError(
                f"Source {source.name!r} ({source.kind}) gave no training documents: {why}. Check its path and "
                "settings in the recipe, or remove it."
            )
    if not any(count["heldout"]["documents"] for count in counts.values()):
        raise DataError("No source gave held-out documents, so nothing could be measured. Raise a source's `heldout`.")
    return _together(list(counts.values())) | {"sources": counts}


def _together(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of several counts."""
    whole: dict[str, Any] = {key: sum(count[key] for count in counts) for key in ("documents", "bytes", "images")}
    for key in ("kinds", "languages", "licenses", "skipped"):
        whole[key] = dict(sum((Counter(count[key]) for count in counts), Counter()).most_common())
    return whole


def _write(source: Source, split: Split, cutoff: str | None, seed: int, out: Path, report: Report) -> dict[str, Any]:
    from foretell.data.parquet import write_documents
    from foretell.data.sources import read_source

    file = documents_file(out, source.name, split)
    note = file.with_suffix(".json")
    if note.is_file() and file.is_file():  # a build that was cut off had finished this one
        done: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return done
    tally = _Tally(f"{source.name}, {split}", _expected(source, split), report)
    skipped = SkipCount()
    started = time.perf_counter()
    write_documents(file, tally.count(_before(read_source(source, split, seed, skipped), cutoff, tally)))
    result = tally.result()
    result["skipped"] = dict(skipped.counts) | result["skipped"]
    write_json(note, result)  # without the time: equal data must have an equal hash
    return result | {"seconds": round(time.perf_counter() - started, 3)}


def _expected(source: Source, split: Split) -> tuple[float | None, bool]:
    """How much is to come: (documents, False), (bytes, True) or unknown."""
    if isinstance(source, WorldSource):
        return (source.documents if split == "train" else source.heldout_documents), False
    most = source.max_bytes
    if most is None:
        return None, True
    return (most if split == "train" else most * source.heldout), True


class _Tally:
    """Counts documents as they pass by."""

    def __init__(self, task: str, expected: tuple[float | None, bool], report: Report) -> None:
        self._task, (self._total, self._in_bytes), self._report = task, expected, report
        self.documents = self.bytes = self.images = 0
        self.kinds: Counter[str] = Counter()
        self.languages: Counter[str] = Counter()
        self.licenses: Counter[str] = Counter()
        self.late = 0

    def count(self, documents: Iterator[Document]) -> Iterator[Document]:
        for document in documents:
            self.documents += 1
            self.bytes += sum(len((s.text or "").encode("utf-8", "replace")) for s in document.segments)
            self.images += sum(s.image is not None for s in document.segments)
            self.kinds[document.kind] += 1
            self.languages[document.language] += 1
            self.licenses[document.license] += 1
            if self.documents % _REPORT_EVERY == 0:
                done = self.bytes if self._in_bytes else self.documents
                self._report(self._task, done, self._total, f"{self.documents:,} documents")
            yield document

    def result(self) -> dict[str, Any]:
        self._report(self._task, 1, 1, f"{self.documents:,} documents, {_text_size(self.bytes)} of text")
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "images": self.images,
            "kinds": dict(self.kinds.most_common()),
            "languages": dict(self.languages.most_common()),
            "licenses": dict(self.licenses.most_common()),
            "skipped": {"dated after the cutoff": self.late} if self.late else {},
        }


def _text_size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _before(documents: Iterator[Document], cutoff: str | None, tally: _Tally) -> Iterator[Document]:
    for document in documents:
        if cutoff and document.date and document.date[: len(cutoff)] > cutoff[: len(document.date)]:
            tally.late += 1
        else:
            yield document


def fingerprint(sources: Sequence[Source]) -> list[Any]:
    """What tells that material outside the run has changed: names, sizes and times of files; Python's version.

    Raises DataError for a path that is not there and a world that cannot be made, before anything built is touched.
    """
    from foretell.data.world import generate

    found: list[Any] = []
    for source in sources:
        if isinstance(source, WorldSource):
            try:
                generate(source, "train", 0)  # checks kinds and options; makes nothing until it is read
            except RecipeError as error:
                raise DataError(f"Source {source.name!r}: {error}") from error
        if isinstance(source, (FolderSource, JsonlSource, ParquetSource)):
            found.append([source.name, *_files(source)])
        elif isinstance(source, PythonSource):
            found.append([source.name, sys.version])
    return found


def _files(source: FolderSource | JsonlSource | ParquetSource) -> Iterator[list[Any]]:
    from foretell.data.sources import source_files

    for name, file in source_files(source.name, source.path, lambda file: True):
        stat = file.stat()
        yield [name, stat.st_size, stat.st_mtime_ns]


def tokenizer_texts(
    sources: Sequence[Source], data_dir: Path, counts: Mapping[str, Any], train_bytes: int, seed: int
) -> Iterator[str]:
    """Texts for the tokenizer: each source by its weight, its documents thinned evenly over the whole source."""
    from foretell.data.parquet import read_documents

    weights = sum(source.weight for source in sources)
    for source in sources:
        wanted = train_bytes * source.weight / weights
        keep = min(1.0, wanted / max(1, counts[source.name]["train"]["bytes"]))
        for document in read_documents(documents_file(data_dir, source.name, "train")):
            lot = int.from_bytes(hashlib.sha256(f"{seed}/{document.id}".encode()).digest()[:4], "big") / 2**32
            if lot < keep:
                yield "\n".join(segment.text for segment in document.segments if segment.text)


def size_of(source: Source) -> float:
    """What reading a source costs, in its own unit: documents of a world, bytes of anything else."""
    if isinstance(source, WorldSource):
        return source.documents + source.heldout_documents
    limit = float(source.max_bytes or "inf")
    if isinstance(source, (PythonSource, HubSource)):
        return limit
    return min(limit, float(sum(size for _, size, _ in _files(source))))


def samples(run_dir: Path, source: str | None, kind: str | None, split: Split, count: int) -> Iterator[Document]:
    """The first `count` documents of each source of a run, or of one source or kind ("charts" is every "charts.…").

    Raises DataError when the run has no such source or kind, or its data stage is not finished.
    """
    from foretell.data.parquet import read_documents

    if not (run_dir / "recipe.yaml").is_file():
        raise DataError(
            f"{run_dir} is not a run directory: it has no recipe.yaml. Start one with: foretell run RECIPE."
        )
    names = sorted(file.parent.name for file in (run_dir / "data").glob(f"*/{split}.parquet"))
    if not names:
        raise DataError(f"The data stage of {run_dir} is not finished. Build it with: foretell run {run_dir}.")
    if source is not None and source not in names:
        raise DataError(f"{run_dir} has no source {source}; its sources are {', '.join(names)}.")
    shown, met = 0, set()
    for name in names if source is None else [source]:
        documents = read_documents(documents_file(run_dir / "data", name, split))
        left = count
        for document in documents:
            met.add(document.kind)
            if kind is None or document.kind == kind or document.kind.startswith(f"{kind}."):
                yield document
                shown, left = shown + 1, left - 1
                if not left:
                    break
    if not shown:
        there = f"its kinds are {', '.join(sorted(met))}" if met else "there are no documents at all"
        raise DataError(f"No {split} document of {run_dir} is of kind {kind}; {there}.")
