"""Collections at speed: beside plain datatrove with the same filters, by step, by memory, by workers.

    python benchmarks/data.py [--megabytes 100] [--large 2000] [--rounds 3] [--core-hour 0.04] [--folder FOLDER]

The input is generated: JSON lines of about 3 kB, words by Zipf's law among English function words, in sentences and
paragraphs, so that every filter reads all of it and keeps it. Peer: datatrove's Gopher and FineWeb filters and its
Parquet writer behind a plain loop over the lines (its own reader of JSON lines needs orjson), in one process, with the
words cut by the same rules; ours does the same filters and
writes the same documents, and the ledger, examples and manifests beside them. Every run is a process of its own; its
user and system time is compared for the overhead, since that is what is paid for, and its highest resident memory is
told. Memory: the default steps and passes on --megabytes and on --large. Workers: wall time of 1 over that of 2.
Cost: seconds of one core for the default steps and passes and for tokenising, for 1e12 bytes, at --core-hour.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common import RESULTS, alternate, figure, ratios, write_result

OVERHEAD_AIM, MEMORY_AIM, WORKERS_AIM, TOKENS_AIM = 5.0, 2000.0, 1.8, 5.0
FUNCTION = re.findall(r"\w+", "the of and to in that is was for with as on by at from be this have are not")
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


def recipe(path: Path, rules: bool) -> dict[str, Any]:
    """A recipe of the filters of RULES alone, or of the default steps and passes."""
    source = {"kind": "jsonl", "name": "x", "path": str(path), "unit_bytes": 16_000_000, "language": "en"}
    made: dict[str, Any] = {"name": "speed", "sources": [source], "shard_bytes": 16_000_000}
    return {**made, "steps": [{"step": name} for name in RULES], "passes": []} if rules else made


def ours(path: Path, out: Path, workers: int, rules: bool) -> None:
    from foretell.data.collection.recipe import CollectionRecipe
    from foretell.data.collection.run import build

    build(CollectionRecipe.model_validate(recipe(path, rules)), out, workers=workers, keep_work=True)


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


def measured(*arguments: str) -> dict[str, float]:
    """Run this file for one part of it, in a process of its own: wall and CPU seconds, highest memory in MB."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, __file__, "--part", *arguments], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**found, "wall": time.monotonic() - began}


def part(arguments: list[str]) -> None:
    import resource

    what, path, out, *rest = arguments
    if what == "peer":
        peer(Path(path), Path(out))
    else:
        ours(Path(path), Path(out), int(rest[0]), what == "rules")
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(one.ru_utime + one.ru_stime for one in usage)
    print(json.dumps({"cpu": cpu, "rss": max(one.ru_maxrss for one in usage) / 1000}))


def step_rates(out: Path) -> dict[str, float]:
    """MB of characters a second and core, by step, from the marks of a build."""
    seconds: dict[str, float] = {}
    characters: dict[str, float] = {}
    for mark in (out / ".work" / "done" / "read").glob("*.json"):
        for name, cost in json.loads(mark.read_bytes())["cost"].items():
            seconds[name] = seconds.get(name, 0.0) + cost["seconds"]
            characters[name] = characters.get(name, 0.0) + cost["characters"]
    return {name: characters[name] / 1e6 / seconds[name] for name in seconds if seconds[name]}


def token_rate(path: Path, megabytes: int) -> float:
    """MB a second that one core turns into tokens, with a vocabulary of 8,192 trained on the same text."""
    from foretell.data.tokenizer import train_tokenizer
    from foretell.recipe import TokenizerConfig

    with path.open(encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for _, line in zip(range(megabytes * 330), stream, strict=False)]
    tokenizer = train_tokenizer(iter(texts[:1000]), TokenizerConfig(vocab_size=8192), 1)
    began = time.process_time()
    tokenizer.encode_batch(texts)
    return sum(map(len, texts)) / 1e6 / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--large", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core-hour", type=float, default=0.04)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--part", nargs="+", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        part(options.part)
        return
    with tempfile.TemporaryDirectory() as name:
        figures = run(options, Path(name))
    command = f"python benchmarks/data.py --megabytes {options.megabytes} --large {options.large}"
    path = write_result("data", f"{command} --rounds {options.rounds}", figures, options.folder)
    print(path.read_text())


def run(options: argparse.Namespace, scratch: Path) -> dict[str, dict[str, Any]]:
    small = write_input(scratch / "small.jsonl", options.megabytes, 0)
    large = write_input(scratch / "large.jsonl", options.large, 1)
    count = iter(range(1000))

    def cpu(what: str, *rest: str) -> float:
        return measured(what, str(small), str(scratch / f"out{next(count)}"), *rest)["cpu"]

    mine, theirs = alternate(lambda: cpu("rules", "1"), lambda: cpu("peer"), options.rounds)
    one = [measured("default", str(small), str(scratch / f"one{i}"), "1") for i in range(options.rounds)]
    two = [measured("default", str(small), str(scratch / f"two{i}"), "2") for i in range(options.rounds)]
    peak = measured("default", str(large), str(scratch / "large"), "1")
    tokens = token_rate(small, min(options.megabytes, 20))
    size = small.stat().st_size / 1e6
    seconds = [run["cpu"] / size + 1 / tokens for run in one]  # of one core, for a megabyte
    figures = {
        "overhead_vs_datatrove_pct": figure([100 * (r - 1) for r in ratios(mine, theirs)], "%", OVERHEAD_AIM),
        "rss_growth_2gb_mb": figure(peak["rss"] - min(run["rss"] for run in one), "MB"),
        "peak_rss_mb": figure(peak["rss"], "MB", MEMORY_AIM),
        "two_worker_speedup": figure(ratios([r["wall"] for r in one], [r["wall"] for r in two]), "x", WORKERS_AIM),
        "tokenizing_mb_s": figure(tokens, "MB/s", TOKENS_AIM),
        "build_mb_s": figure([size / run["cpu"] for run in one], "MB/s"),
        "cost_per_tb": figure(
            [1e6 * s / 3600 * options.core_hour for s in seconds], f"at {options.core_hour} a core hour"
        ),
    }
    rates = {**step_rates(scratch / "one0"), **step_rates(scratch / "out0")}
    figures |= {f"step_{name}_mb_s": figure(rate, "MB/s") for name, rate in sorted(rates.items())}
    planted = RESULTS / "data_planted.json"
    if planted.exists():
        found = json.loads(planted.read_bytes())["figures"]
        figures |= {name: found[name] for name in PLANTED if name in found}
    return figures


if __name__ == "__main__":
    main()
