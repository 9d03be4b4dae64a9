"""Deduplication and decontamination: MB a second of a core by pass, and whether memory grows with the corpus.

    FORETELL_DATA=… python benchmarks/dedup.py [--megabytes 20 80] [--rounds 3]

The text is that of corpus/books-en.parquet, cut at ends of lines into documents of 3 to 12 kB (the end of a chapter is
shorter) and put into shards of 10 MB; past its 67 MB it begins anew with its letters exchanged, so that nothing stands
twice. Each pass runs in a process of its own. It has the documents of a shard in memory before the clock starts: told
are the seconds of a processor of sketch, merge and apply alone, without reading, and without the tables that a process
makes once. The index of a decontamination, which does not grow with the corpus, is told apart. Images are those of
textbooks-en.parquet. Megabytes are of UTF-8 text.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import statistics
import string
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import figure, write_result
from contamination import apart
from foretell.data.curate.passes import Pass
from foretell.data.dedup.decontaminate import DecontaminatePass
from foretell.data.dedup.exact import ExactPass
from foretell.data.dedup.near import NearPass
from foretell.data.dedup.pictures import ImagesPass
from foretell.data.dedup.substrings import SubstringsPass
from foretell.data.document import Document, Segment
from foretell.data.parquet import read_documents, write_documents

SHARD = 10_000_000
CHARACTERS = 3_000, 11_500  # of a document, to which the rest of a line comes
TEXT = ("exact", "near", "substrings", "decontaminate")


def documents_of(books: Path) -> Iterator[Document]:
    """Without end."""
    for turn in itertools.count():
        letters = list(string.ascii_lowercase)
        if turn:
            random.Random(turn).shuffle(letters)
        table = str.maketrans(string.ascii_lowercase, "".join(letters))
        for chapter in read_documents(books, images=False):
            text = "\n\n".join(s.text for s in chapter.segments if s.text).translate(table)
            rng, begin = random.Random(chapter.id), 0
            while begin < len(text):
                end = text.find("\n", begin + rng.randint(*CHARACTERS)) + 1 or len(text)
                segments = (Segment(text=text[begin:end]),)
                yield Document(f"{turn}/{chapter.id}/{begin}", segments, "books", chapter.license, "en")
                begin = end


def write_shards(books: Path, paths: list[Path]) -> list[int]:
    """Bytes of text of each."""
    documents, sizes = documents_of(books), list[int]()
    for path in paths:
        held, size = list[Document](), 0
        while size < SHARD:
            held.append(next(documents))
            size += len((held[-1].segments[0].text or "").encode())
        write_documents(path, held)
        sizes.append(size)
    return sizes


def pass_of(name: str, place: Path) -> Pass:
    if name == "decontaminate":
        return DecontaminatePass(benchmarks=(str(place / "benchmarks"),))
    return {"exact": ExactPass, "near": NearPass, "substrings": SubstringsPass, "images": ImagesPass}[name]()


def pass_once(name: str, place: Path, shards: list[Path]) -> dict[str, float]:
    """Seconds of a processor for each part of a pass."""
    made, spent = pass_of(name, place), {"sketch": 0.0, "merge": 0.0, "apply": 0.0}
    with tempfile.TemporaryDirectory(dir=shards[0].parent) as scratch:
        made.sketch(itertools.islice(read_documents(shards[0]), 20), 0, Path(scratch) / "first")
        for number, path in enumerate(shards):
            documents, began = list(read_documents(path)), time.process_time()
            made.sketch(iter(documents), number, Path(scratch))
            spent["sketch"] += time.process_time() - began
        began = time.process_time()
        made.merge(len(shards), Path(scratch))
        spent["merge"] = time.process_time() - began
        for number, path in enumerate(shards):
            documents, began = list(read_documents(path)), time.process_time()
            for _ in made.apply(iter(documents), number, Path(scratch)):
                pass
            spent["apply"] += time.process_time() - began
    return spent


def write_pictures(textbooks: Path, path: Path, count: int) -> int:
    """So many documents with images. Returns how many images."""
    pictured = (document for document in read_documents(textbooks) if any(s.image for s in document.segments))
    held = list(itertools.islice(pictured, count))
    write_documents(path, held)
    return sum(segment.image is not None for document in held for segment in document.segments)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs=2, default=(20, 80))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where scratch files are put; default a temporary one")
    parser.add_argument("--results", type=Path, help="where the result is written; default benchmarks/results")
    asked = parser.parse_args()
    place = Path(os.environ["FORETELL_DATA"])
    few, many = (max(1, size * 1_000_000 // SHARD) for size in asked.megabytes)
    figures = {}
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        shards, pictures = [Path(name) / f"{n:05d}.parquet" for n in range(many)], Path(name) / "pictures.parquet"
        sizes = apart(write_shards, place / "corpus" / "books-en.parquet", shards)[0]
        images = apart(write_pictures, place / "corpus" / "textbooks-en.parquet", pictures, 200)[0]

        def measured(of: str, paths: list[Path]) -> tuple[dict[str, float], float]:
            spent, _, _, held = apart(pass_once, of, place, paths)
            print(of, {part: round(s, 3) for part, s in spent.items()}, f"{held * 1000:.0f} MB", flush=True)
            return spent, held * 1000

        for of in TEXT:
            rounds = [measured(of, shards[:few]) for _ in range(asked.rounds)]
            _, held = measured(of, shards)
            seconds = [sum(spent.values()) for spent, _ in rounds]
            if of == "decontaminate":
                indexing = [spent["merge"] for spent, _ in rounds]
                figures["decontaminate_index_s"] = figure(indexing, "s of a core to index the benchmarks, once")
                seconds = [spent["sketch"] + spent["apply"] for spent, _ in rounds]
            rates = [sum(sizes[:few]) / 1e6 / s for s in seconds]
            figures[f"{of}_mb_s"] = figure(rates, f"MB/s of text a core, {asked.megabytes[0]} MB")
            figures[f"{of}_rss_mb"] = figure(held, f"MB, highest resident, {asked.megabytes[1]} MB of text")
            growth = held - statistics.median(before for _, before in rounds)
            unit = f"MB, from {asked.megabytes[0]} to {asked.megabytes[1]} MB of text"
            figures[f"{of}_rss_growth_mb"] = figure(growth, unit)
        rates = [images / sum(measured("images", [pictures])[0].values()) for _ in range(asked.rounds)]
        figures["images_s"] = figure(rates, "images of at most 256 pixels a side, a second of a core")
    for key, value in figures.items():
        print(key, value)
    print(write_result("dedup", "python benchmarks/dedup.py", figures, asked.results))


if __name__ == "__main__":
    main()
