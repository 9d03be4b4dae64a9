"""Collections at speed: beside plain datatrove with the same filters, by step, by memory, by workers.

    python benchmarks/data.py [--parts peer speed tokens memory] [--core-hour 0.04] [--folder FOLDER]

The input is generated: JSON lines of about 3 kB, words by Zipf's law among English function words, in sentences and
paragraphs, so that every filter reads all of it and keeps it. Every run is a process of its own; told are its user and
system time, start included, and the highest resident memory of any of its processes.

peer: datatrove's Gopher and FineWeb filters and its Parquet writer behind a plain loop over the lines (its own reader
of JSON lines needs orjson), in one process, with the words cut by the same rules; ours gives the same verdicts and
writes the same documents, and the ledger, examples and manifests beside them (which is what `bookkeeping` takes).
speed: the default steps and passes over 160 MB, in 32 shards, by one worker and by two; beside these, what this
machine makes of two builds of one worker at once, which no pool can beat. Of two workers, about 1.5 s is their start
and what is done once.
tokens: of one thread, with a vocabulary of 8,192 trained on the same text: the corpus of FORETELL_DATA where it is set.
memory: 100 MB and 2 GB of documents of 12 kB through reading, one step, both default passes and writing, by two
workers. The other steps look at one document at a time.
Cost: seconds of one core for the default steps and passes and for tokenizing, for 1e12 bytes, at --core-hour.

Parts that are not run keep the figures that they had.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, alternate, figure, ratios, write_result

OVERHEAD_AIM, MEMORY_AIM, WORKERS_AIM, TOKENS_AIM = 5.0, 2000.0, 1.8, 5.0
FUNCTION = re.findall(r"\w+", "the of and to in that is was for with as on by at from be this have are not")
SHARDS = 32
RULES = ("gopher_repetition", "gopher_quality", "fineweb_quality")
PLANTED = ("exact_recall", "near_recall", "leak_recall", "pii_recall")


def write_input(path: Path, megabytes: int, seed: int) -> Path:
    """About so many megabytes of JSON lines."""
    rng, drawn = random.Random(seed), np.random.default_rng(seed)
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "an", "er", "is", "on")]
    words = FUNCTION + ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(50_000)]
    chance = np.cumsum(1 / np.arange(1, len(words) + 1))
    written, number = 0, 0
    with path.open("w", encoding="utf-8") as out:
        while written < megabytes * 1_000_000:
            picked = np.searchsorted(chance, drawn.random(520) * chance[-1]).tolist()
            sentences = [
                " ".join(words[i] for i in picked[at : at + 13]).capitalize() + "." for at in range(0, 520, 13)
            ]
            text = "\n".join(" ".join(sentences[at : at + 4]) for at in range(0, 40, 4))
            written += out.write(json.dumps({"id": f"d{number}", "text": text}) + "\n")
            number += 1
    return path


def repeat_input(small: Path, path: Path, times: int) -> Path:
    """The documents of `small` so many times, four in one, with other letters each time: none is like another."""
    with small.open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    with path.open("w", encoding="utf-8") as out:
        for turn in range(times):
            letters = list(string.ascii_lowercase)
            random.Random(turn).shuffle(letters)
            table = str.maketrans(string.ascii_lowercase, "".join(letters))
            for at in range(0, len(texts), 4):
                text = "\n".join(texts[at : at + 4]).translate(table)
                out.write(json.dumps({"id": f"{turn}-{at}", "text": text}) + "\n")
    return path


def recipe(path: Path, what: str) -> dict[str, Any]:
    """The filters of RULES alone, the default steps and passes, or one cheap step and these passes."""
    shard = max(path.stat().st_size // SHARDS + 4096, 1_000_000) if what != "passes" else 16_000_000
    source = {"kind": "jsonl", "name": "x", "path": str(path), "unit_bytes": shard, "language": "en"}
    made: dict[str, Any] = {"name": "speed", "sources": [source], "shard_bytes": shard}
    if what == "rules":
        return {**made, "steps": [{"step": name} for name in RULES], "passes": []}
    return {**made, "steps": [{"step": "boilerplate"}]} if what == "passes" else made


def ours(path: Path, out: Path, workers: int, what: str) -> None:
    from foretell.measure.fanout import prepare

    if workers > 1:
        prepare("foretell.data.collection.work")  # as `foretell data build` does
    from foretell.data.collection.recipe import CollectionRecipe
    from foretell.data.collection.run import build

    build(CollectionRecipe.model_validate(recipe(path, what)), out, workers=workers, keep_work=True)


def peer(path: Path, out: Path) -> None:
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.writers import ParquetWriter
    from loguru import logger

    from foretell.data.curate.rules import simple_words

    logger.disable("datatrove")
    words = simple_words()

    def lines(data: object, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                yield Document(**json.loads(line))

    LocalPipelineExecutor(
        pipeline=[
            lines,
            GopherRepetitionFilter(language=words),
            GopherQualityFilter(language=words),
            FineWebQualityFilter(language=words),
            ParquetWriter(str(out / "data"), compression="zstd"),
        ],
        tasks=1,
        workers=1,
        logging_dir=str(out / "logs"),
    ).run()


def start(*arguments: str) -> subprocess.Popen[str]:
    """Run this file for one part of it, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen(
        [sys.executable, __file__, "--one", *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


def measured(*arguments: str) -> dict[str, float]:
    """What a part says of itself, and its wall time in seconds."""
    began = time.monotonic()
    process = start(*arguments)
    told, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed; see above.")
    found: dict[str, float] = json.loads(told.splitlines()[-1])
    return {**found, "wall": time.monotonic() - began}


def one(arguments: list[str]) -> None:
    import resource

    what, path, *rest = arguments
    told: dict[str, float] = {}
    if what == "peer":
        peer(Path(path), Path(rest[0]))
    elif what == "tokens":
        told["rate"] = token_rate(Path(path), int(rest[0]))
    else:
        ours(Path(path), Path(rest[0]), int(rest[1]), what)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(each.ru_utime + each.ru_stime for each in usage)
    print(json.dumps({**told, "cpu": cpu, "rss": max(each.ru_maxrss for each in usage) / 1000}))


def step_costs(out: Path) -> dict[str, tuple[float, float]]:
    """Seconds and millions of characters by step, from the marks of a build."""
    found: dict[str, tuple[float, float]] = {}
    for mark in (out / ".work" / "done" / "read").glob("*.json"):
        for name, cost in json.loads(mark.read_bytes())["cost"].items():
            seconds, size = found.get(name, (0.0, 0.0))
            found[name] = seconds + cost["seconds"], size + cost["characters"] / 1e6
    return found


def rates(costs: dict[str, tuple[float, float]]) -> dict[str, dict[str, Any]]:
    return {f"step_{name}_mb_s": figure(size / s, "MB/s") for name, (s, size) in sorted(costs.items()) if s and size}


def token_rate(path: Path, megabytes: int) -> float:
    """MB a second that one core turns into tokens."""
    from foretell.data.parquet import read_documents
    from foretell.data.tokenizer import train_tokenizer
    from foretell.recipe import TokenizerConfig

    corpus = Path(os.environ.get("FORETELL_DATA", "")) / "corpus" / "books-en.parquet"
    texts: list[str] = []
    if corpus.is_file():
        documents = read_documents(corpus, images=False)
        texts = ["\n\n".join(s.text for s in document.segments if s.text) for document in documents]
    else:
        texts = [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
    ends = np.cumsum([len(text.encode()) for text in texts])
    texts = texts[: int(np.searchsorted(ends, megabytes * 1e6)) + 1]
    tokenizer = train_tokenizer(iter(texts), TokenizerConfig(vocab_size=8192, train_bytes=3_000_000), 1)
    began = time.process_time()
    for at in range(0, len(texts), 256):
        tokenizer.encode_batch(texts[at : at + 256])
    return float(ends[len(texts) - 1]) / 1e6 / (time.process_time() - began)


Figures = dict[str, dict[str, Any]]


def beside_peer(scratch: Path, scale: float, rounds: int) -> Figures:
    path, count = write_input(scratch / "peer.jsonl", round(24 * scale) or 1, 0), iter(range(100))

    def cpu(what: str, *rest: str) -> float:
        return measured(what, str(path), str(scratch / f"peer{next(count)}-{what}"), *rest)["cpu"]

    mine, theirs = alternate(lambda: cpu("rules", "1"), lambda: cpu("peer"), rounds)
    out = min(scratch.glob("peer*-rules"))
    costs, size = step_costs(out), path.stat().st_size / 1e6
    inside = sum(seconds for seconds, _ in costs.values())
    return {
        "overhead_vs_datatrove_pct": figure([100 * (r - 1) for r in ratios(mine, theirs)], "%", OVERHEAD_AIM),
        "bookkeeping_s_per_mb": figure((mine[0] - inside) / size, "s of a core a MB beside steps, start included"),
        "rules_mb_s": figure([size / each for each in mine], "MB/s of a core"),
        "datatrove_rules_mb_s": figure([size / each for each in theirs], "MB/s of a core"),
        **rates({name: cost for name, cost in costs.items() if name in RULES}),
    }


def speed(scratch: Path, scale: float, rounds: int) -> Figures:
    path = write_input(scratch / "speed.jsonl", round(160 * scale) or 1, 1)
    count, size = iter(range(100)), path.stat().st_size / 1e6
    alone, pair, both = list[dict[str, float]](), list[dict[str, float]](), list[float]()
    for _ in range(rounds):
        alone.append(measured("default", str(path), str(scratch / f"one{next(count)}"), "1"))
        pair.append(measured("default", str(path), str(scratch / f"two{next(count)}"), "2"))
    began = time.monotonic()
    for process in [start("default", str(path), str(scratch / f"both{i}"), "1") for i in range(2)]:
        process.communicate()
    both.append(2 * alone[-1]["wall"] / (time.monotonic() - began))
    return {
        "two_worker_speedup": figure(ratios([r["wall"] for r in alone], [r["wall"] for r in pair]), "x", WORKERS_AIM),
        "two_builds_at_once_speedup": figure(both, "x, two builds of one worker"),
        "build_mb_s": figure([size / run["cpu"] for run in alone], "MB/s of a core"),
        "build_two_workers_mb_s": figure([size / run["wall"] for run in pair], "MB/s of two cores"),
        **rates(step_costs(scratch / "one0")),
    }


def tokens(scratch: Path, scale: float, rounds: int) -> Figures:
    path = scratch / "peer.jsonl"
    path = path if path.exists() else write_input(path, round(24 * scale) or 1, 0)
    found = [measured("tokens", str(path), str(round(20 * scale) or 1))["rate"] for _ in range(rounds)]
    return {"tokenizing_mb_s": figure(found, "MB/s of a core", TOKENS_AIM)}


def memory(scratch: Path, scale: float, rounds: int) -> Figures:
    small = write_input(scratch / "memory.jsonl", round(100 * scale) or 1, 2)
    peak = []
    for name, times in (("small", 1), ("large", 20)):
        path = repeat_input(small, scratch / f"{name}.jsonl", times)
        peak.append(measured("passes", str(path), str(scratch / name), "2")["rss"])
        path.unlink()
    return {
        "rss_growth_2gb_mb": figure(peak[1] - peak[0], "MB, from 100 MB of input to 2 GB"),
        "peak_rss_mb": figure(peak[1], "MB", MEMORY_AIM),
    }


PARTS: dict[str, Callable[[Path, float, int], Figures]] = {
    "peer": beside_peer, "speed": speed, "tokens": tokens, "memory": memory,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes, for a trial")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core-hour", type=float, default=0.04)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--one", nargs="+", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    before = (options.folder or RESULTS) / "data.json"
    figures: Figures = json.loads(before.read_bytes())["figures"] if before.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        for part in options.parts:
            began = time.monotonic()
            figures |= PARTS[part](Path(name), options.scale, options.rounds)
            print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if {"build_mb_s", "tokenizing_mb_s"} <= figures.keys():
        seconds = 1 / figures["build_mb_s"]["value"] + 1 / figures["tokenizing_mb_s"]["value"]
        cost = 1e6 * seconds / 3600 * options.core_hour
        figures["cost_per_tb"] = figure(cost, f"at {options.core_hour} a core hour")
    planted = RESULTS / "data_planted.json"
    if planted.exists():
        found = json.loads(planted.read_bytes())["figures"]
        figures |= {name: found[name] for name in PLANTED if name in found}
    command = f"python benchmarks/data.py --parts {' '.join(options.parts)}"
    scale = f" --scale {options.scale:g}" if options.scale != 1 else ""
    print(write_result("data", command + scale, figures, options.folder).read_text())


if __name__ == "__main__":
    main()
