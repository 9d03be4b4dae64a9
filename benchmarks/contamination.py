"""Contamination at corpus scale: how fast a corpus is indexed, and how long 10,000 test items take against it.

    python benchmarks/contamination.py [--megabytes 1000] [--items 10000] [--rounds 3] [--planted 500] [--folder FOLDER]

The corpus is generated: words drawn by Zipf's law, in documents of about 3 kB of JSON lines, so that common phrases
recur as they do in text. `planted` of the items are cut from its documents and dressed in other spaces and punctuation;
the others are of the same words and stand nowhere but by chance, which a plain search of the normalised text tells.
A tenth of the items are shorter than 50 characters, and take a pass over the text. Index and search run in processes
of their own, whose highest resident memory is told: pages of mapped files count in it. Recall is of planted items,
precision the share of flags that a plain search confirms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import figure, write_result
from foretell.data.texts import corpus_files
from foretell.measure.overlap import Index, build, check, normalize, substrings

WORDS, DOCUMENT_WORDS, SHORT = 50_000, 500, 6
INDEX_AIM, SEARCH_AIM, MEMORY_AIM = 20.0, 60.0, 2.0


def vocabulary(rng: random.Random) -> list[str]:
    """Distinct words of one to four syllables, the shortest first, as frequent words are."""
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "er", "is", "on")]
    words: dict[str, None] = {}
    while len(words) < WORDS:
        words["".join(rng.choices(syllables, k=1 + min(3, len(words) // 150)))] = None
    return list(words)


def write_corpus(path: Path, size: int, seed: int) -> None:
    """About `size` bytes of JSON lines."""
    rng = np.random.default_rng(seed)
    words = np.array(vocabulary(random.Random(seed)), object)
    chance = 1 / np.arange(1, WORDS + 1)
    cumulated, written = np.cumsum(chance / chance.sum()), 0
    with path.open("w", encoding="utf-8") as out:
        while written < size:
            drawn = words[np.searchsorted(cumulated, rng.random(DOCUMENT_WORDS))]
            written += out.write(json.dumps({"text": " ".join(drawn) + "."}) + "\n")


def draw_items(path: Path, count: int, planted: int, seed: int) -> tuple[dict[str, str], set[str]]:
    """Items by id, and the ids of those that were cut out of the corpus."""
    rng = random.Random(seed)
    size, items = path.stat().st_size, dict[str, str]()
    with path.open("rb") as stream:
        for number in range(count):
            stream.seek(rng.randrange(max(1, size - 20_000)))
            stream.readline()
            words = json.loads(stream.readline())["text"].split()
            length = SHORT if number % 10 == 0 else 60
            start = rng.randrange(len(words) - length)
            told = words[start : start + length]
            if number >= planted:
                rng.shuffle(told)
            items[f"item.{number}"] = ",  ".join(told) + "?"
    return items, {f"item.{number}" for number in range(planted)}


def apart(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float, float]:
    """What a function returns in a process of its own, the seconds it took, those of a processor, and the process's
    highest memory in GB."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(send, work, arguments))
    process.start()
    send.close()
    found: tuple[Any, float, float, float] = receive.recv()
    process.join()
    return found


def _report(send: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    began, worked = time.perf_counter(), time.process_time()
    result = work(*arguments)
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    send.send((result, seconds, processor, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6))


def index_once(corpus: Path, out: Path) -> int:
    return int(build(corpus_files([corpus]), out)["characters_bytes"])


def search_once(folder: Path, items: dict[str, str]) -> set[str]:
    return {flag.id for flag in check(Index(folder, verify=True), items) if flag.contaminated}


def confirmed(folder: Path, items: dict[str, str], ids: set[str]) -> set[str]:
    """Of some items those of which a plain search finds a substring."""
    text = (folder / "text.bin").read_bytes()
    parts = {id: substrings(normalize(items[id]).decode(), id) for id in ids}
    return {id for id, of in parts.items() if any(part.encode() in text for part in of)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the corpus and its index are put; default a temporary one")
    parser.add_argument("--results", type=Path, help="where the result is written; default benchmarks/results")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        folder = Path(name)
        corpus = folder / "corpus.jsonl"
        write_corpus(corpus, asked.megabytes * 1_000_000, 0)
        items, planted = draw_items(corpus, asked.items, asked.planted, 1)
        rates, seconds, memory = list[float](), list[float](), {"index": list[float](), "search": list[float]()}
        processor = {"index": list[float](), "search": list[float]()}
        flagged: set[str] = set()
        for turn in range(asked.rounds):
            _, took, worked, held = apart(index_once, corpus, folder / f"index-{turn}")
            rates.append(corpus.stat().st_size / 1e6 / took)
            memory["index"].append(held)
            processor["index"].append(worked)
            flagged, took, worked, held = apart(search_once, folder / f"index-{turn}", items)
            seconds.append(took)
            processor["search"].append(worked)
            memory["search"].append(held)
        others = sorted(items.keys() - flagged)
        missed = confirmed(folder / "index-0", items, set(random.Random(2).sample(others, min(200, len(others)))))
        wrong = flagged - confirmed(folder / "index-0", items, flagged)
    held = max(*memory["index"], *memory["search"])
    precise = 1 - len(wrong) / max(1, len(flagged))
    figures = {
        "index_mb_s": figure(rates, "MB/s of JSON lines", INDEX_AIM),
        "query_s_10k_1gb": figure(seconds, f"s for {asked.items:,} items against {asked.megabytes:,} MB", SEARCH_AIM),
        "index_cpu_s": figure(processor["index"], "s of a processor, which a busy machine does not change"),
        "query_cpu_s": figure(processor["search"], "s of a processor, likewise"),
        "peak_rss_gb": figure(held, "GB, highest resident of index and search", MEMORY_AIM),
        "index_rss_gb": figure(memory["index"], "GB, highest resident"),
        "search_rss_gb": figure(memory["search"], "GB, highest resident, with pages of mapped files"),
        "recall": figure(len(planted & flagged) / max(1, len(planted)), f"share of {len(planted)} planted items", 1.0),
        "precision": figure(precise, f"share of {len(flagged)} flags that a plain search confirms", 1.0),
        "missed": figure(len(missed), f"of {min(200, len(others))} items without a flag, found by a plain search", 0),
    }
    for key, value in figures.items():
        print(key, value)
    print(write_result("contamination", "python benchmarks/contamination.py", figures, asked.results))


if __name__ == "__main__":
    main()
