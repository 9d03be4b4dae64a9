"""Weights of 8 and 4 bits beside full ones: perplexity, accuracy, tokens a second, memory.

    FORETELL_DATA=… python benchmarks/quantized.py --model MODEL --own RUN [--rounds 3] [--samples 200]

--model: open weights of a chat model, such as SmolLM2-135M-Instruct. --own: a second one, stored in float32 and never
in fewer bits, for its perplexity alone: where the first comes from a file of 4 bits, rounding to 4 bits again finds the
same levels and costs nothing. Products run in bfloat16, but for one candidate in float32. Perplexity: Python's
documentation in windows of 512 tokens (or the model's length), by the engine that answers. Accuracy: HellaSwag and
ARC-easy by log-probability, without worked samples, the same samples for all (left out without FORETELL_DATA).
Decoding: one greedy reply; reading: a prompt of 512 tokens; both without the start. Memory: what the process holds once
it has answered, beyond one that only imported the same modules. Every candidate is a process of its own; they take
turns.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from common import figure, ratios, write_result

CANDIDATES = {
    "float32": ("float32", "full"),
    "bfloat16": ("bfloat16", "full"),
    "int8": ("bfloat16", "int8"),
    "int4": ("bfloat16", "int4"),
}
TASKS = ("hellaswag", "arc-easy")
SPEAKER = """
import json, math, os, sys, tempfile, time
from pathlib import Path
import psutil, torch, foretell
from foretell.evals.api import open_registry, run
from foretell.weights import importing
source, dtype, weights = sys.argv[1:]
held = psutil.Process().memory_info().rss
model = foretell.load(source, dtype=dtype, weights=weights)
chat = [{"role": "user", "content": "Tell me about the history of the printing press, in a few paragraphs."}]
def reply(n):
    began = time.perf_counter()
    count = len(model.chat(chat, temperature=0, max_tokens=n).token_ids)
    return time.perf_counter() - began, count
def documentation():
    from pydoc_data.topics import topics
    return model.generator.encode_text("\\n\\n".join(topics[name] for name in sorted(topics)))
def memory():
    reply(4)
    return psutil.Process().memory_info().rss - held
def decode():
    reply(1)
    (a, m), (b, n) = reply(1), reply(65)
    return (n - m) / (b - a)
long = min(512, model.generator.max_length)
def windows(count, start=0):
    from dataclasses import replace
    from foretell.generate import run_sync
    whole = documentation()
    nats = []
    for at in range(start, start + long * count, long):
        part = replace(whole, ids=whole.ids[at:at + long], loss=whole.loss[at:at + long])
        nats += [log.logprob for log in run_sync(model.generator.prompt_logprobs(part))[1:]]
    return nats
turns = iter(range(10000, 30000, 512))
def read():
    began = time.perf_counter()
    windows(1, next(turns))
    return 512 / (time.perf_counter() - began)
def perplexity():
    nats = windows(16)
    return math.exp(-sum(nats) / len(nats))
def accuracy(task, samples):
    with tempfile.TemporaryDirectory() as folder:
        log = run(task, model, registry=open_registry(), samples=samples, args={"num_few_shot": 0},
                  out=Path(folder) / "log", fresh=True).log
        return log.report["acc"]
for line in sys.stdin:
    name, *arguments = json.loads(line)
    print(json.dumps(globals()[name](*arguments)), flush=True)
"""


class Candidate:
    """A process with one form of the model, which measures what it is asked."""

    def __init__(self, source: Path, dtype: str, weights: str) -> None:
        command = [sys.executable, "-c", SPEAKER, str(source), dtype, weights]
        environment = {**os.environ, "GOMP_SPINCOUNT": "10000"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, *asked: Any) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return float(json.loads(self.process.stdout.readline()))

    def __enter__(self) -> Candidate:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--own", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=200)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        made = {n: stack.enter_context(Candidate(options.model, *how)) for n, how in CANDIDATES.items()}

        def keep(name: str, values: list[float], unit: str) -> None:
            figures[name] = figure(values, unit)
            print(f"{name:32} {figures[name]['value']:>10} {unit}", flush=True)

        for name, ask in made.items():
            keep(f"memory_mb_{name}", [ask("memory") / 1e6], "MB beyond the imports")
        speeds: dict[str, list[float]] = {}
        for turn in range(options.rounds):
            for name in list(made)[:: -1 if turn % 2 else 1]:
                speeds.setdefault(f"decode_tokens_s_{name}", []).append(made[name]("decode"))
                speeds.setdefault(f"read_tokens_s_{name}", []).append(made[name]("read"))
        for name, values in speeds.items():
            keep(name, values, "tokens/s")
        for name in ("int8", "int4"):
            for what in ("decode", "read"):
                pair = speeds[f"{what}_tokens_s_{name}"], speeds[f"{what}_tokens_s_bfloat16"]
                keep(f"{what}_{name}_vs_bfloat16", ratios(*pair), "x")
        for name, ask in made.items():
            keep(f"perplexity_{name}", [ask("perplexity")], "16 windows of Python's documentation")
        for task in TASKS if os.environ.get("FORETELL_DATA") else ():
            for name, ask in list(made.items())[1:]:  # float32 is here for speed and memory
                value = ask("accuracy", task, options.samples)
                keep(f"{task.replace('-', '_')}_{name}", [value], f"accuracy on {options.samples} questions")
        for kind in ("bfloat16", "int8", "int4") if options.own else ():
            with Candidate(options.own, *CANDIDATES[kind]) as ask:
                keep(f"own_perplexity_{kind}", [ask("perplexity")], "a model trained in float32, the same text")
        for model in ("", "own_") if options.own else ("",):
            for kind in ("int8", "int4"):
                loss = figures[f"{model}perplexity_{kind}"]["value"] / figures[f"{model}perplexity_bfloat16"]["value"]
                keep(f"{model}perplexity_loss_pct_{kind}", [100 * (loss - 1)], "% over bfloat16")
    if options.own and os.environ.get("FORETELL_DATA"):
        command = "FORETELL_DATA=… python benchmarks/quantized.py --model MODEL --own RUN"
        print(write_result("quantized", f"{command} --samples {options.samples}", figures))


if __name__ == "__main__":
    main()
