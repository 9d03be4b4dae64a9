"""Deduplication and decontamination: MB a second of a core by pass, and whether memory grows with the corpus.

    FORETELL_DATA=… python benchmarks/dedup.py [--megabytes 20 80] [--rounds 3]

The text is that of corpus/books-en.parquet, read as often as the size asks, each time with its letters exchanged by
another rule, so that no two shards are alike. Each pass runs in a process of its own over shards of about 10 MB; told
are seconds of a processor, without those that reading alone takes, and the highest resident memory. Images are those of
textbooks-en.parquet. Megabytes are of UTF-8 text.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import string
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from common import figure, write_result
from contamination import apart
from foretell.data.curate.passes import Pass
from foretell.data.dedup.decontaminate import DecontaminatePass
from foretell.data.dedup.exact import ExactPass
from foretell.data.dedup.near import NearPass
from foretell.data.dedup.pictures import ImagesPass
from foretell.data.dedup.substrings import SubstringsPass
from foretell.data.document import Document
from foretell.data.parquet import read_documents

SHARD = 10_000_000
PASSES: dict[str, Callable[[Path], Pass]] = {
    "exact": lambda place: ExactPass(),
    "near": lambda place: NearPass(),
    "substrings": lambda place: SubstringsPass(),
    "decontaminate": lambda place: DecontaminatePass(benchmarks=(str(place / "benchmarks"),)),
}


def shard_of(place: Path, number: int) -> Iterator[Document]:
    """About SHARD bytes of the books, with the letters of this shard exchanged."""
    letters = list(string.ascii_lowercase)
    random.Random(number // 6).shuffle(letters)
    table = str.maketrans(string.ascii_lowercase, "".join(letters))
    begin, seen = number % 6 * SHARD, 0
    for document in read_documents(place / "corpus" / "books-en.parquet", images=False):
        size = sum(len((segment.text or "").encode()) for segment in document.segments)
        seen += size
        if seen <= begin:
            continue
        if seen > begin + SHARD:
            return
        segments = tuple(replace(s, text=s.text.translate(table) if s.text else s.text) for s in document.segments)
        yield replace(document, id=f"{number}/{document.id}", segments=segments)


def read_once(place: Path, shards: int) -> float:
    return sum(
        len((s.text or "").encode())
        for n in range(shards)
        for document in shard_of(place, n)
        for s in document.segments
    )


def pass_once(name: str, place: Path, shards: int, folder: Path) -> dict[str, float]:
    """Seconds of a processor for each part of a pass."""
    made, spent = PASSES[name](place), dict[str, float]()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        began = time.process_time()
        for shard in range(shards):
            made.sketch(shard_of(place, shard), shard, Path(scratch))
        spent["sketch"], began = time.process_time() - began, time.process_time()
        made.merge(shards, Path(scratch))
        spent["merge"], began = time.process_time() - began, time.process_time()
        for shard in range(shards):
            for _ in made.apply(shard_of(place, shard), shard, Path(scratch)):
                pass
        spent["apply"] = time.process_time() - began
    return spent


def images_once(place: Path, count: int, folder: Path) -> float:
    """Images a second of a processor."""
    documents = read_documents(place / "corpus" / "textbooks-en.parquet")
    held = list(itertools.islice((d for d in documents if any(s.image for s in d.segments)), count))
    made, began = ImagesPass(), time.process_time()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made.sketch(iter(held), 0, Path(scratch))
        made.merge(1, Path(scratch))
        list(made.apply(iter(held), 0, Path(scratch)))
    return sum(s.image is not None for d in held for s in d.segments) / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs=2, default=(20, 80))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where scratch files are put; default a temporary one")
    parser.add_argument("--results", type=Path, help="where the result is written; default benchmarks/results")
    asked = parser.parse_args()
    place = Path(os.environ["FORETELL_DATA"])
    small, large = (max(1, size * 1_000_000 // SHARD) for size in asked.megabytes)
    size, _, reading, held = apart(read_once, place, small)
    figures = {"read_rss_mb": figure(held * 1000, "MB, highest resident of reading alone")}
    for name in PASSES:
        rates, memory = list[float](), list[float]()
        for _ in range(asked.rounds):
            spent, _, _, held = apart(pass_once, name, place, small, asked.folder)
            seconds = sum(spent.values()) - reading * (2 if spent["sketch"] > reading / 2 else 1)
            rates.append(size / 1e6 / seconds)
            memory.append(held * 1000)
            print(name, {part: round(value, 2) for part, value in spent.items()}, f"{held * 1000:.0f} MB", flush=True)
        figures[f"{name}_mb_s"] = figure(rates, f"MB/s of text a core, {asked.megabytes[0]} MB")
        _, _, _, held = apart(pass_once, name, place, large, asked.folder)
        figures[f"{name}_rss_mb"] = figure(held * 1000, f"MB, highest resident, {asked.megabytes[1]} MB of text")
        growth = held * 1000 - sorted(memory)[len(memory) // 2]
        figures[f"{name}_rss_growth_mb"] = figure(growth, f"MB, from {asked.megabytes[0]} to {asked.megabytes[1]} MB")
        print(name, figures[f"{name}_mb_s"], figures[f"{name}_rss_growth_mb"], flush=True)
    rates = [apart(images_once, place, 200, asked.folder)[0] for _ in range(asked.rounds)]
    figures["images_s"] = figure(rates, "images of at most 256 pixels a side, a second of a core")
    for key, value in figures.items():
        print(key, value)
    print(write_result("dedup", "python benchmarks/dedup.py", figures, asked.results))


if __name__ == "__main__":
    main()
