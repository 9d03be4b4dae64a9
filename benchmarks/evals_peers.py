"""Other tools that run evals, each in a virtual environment of its own, and one eval in the form that each reads.

The eval is a registry eval of the template Match: the model answers with the question's own text, and three ideals of
four are that text, so that every tool must find an accuracy of 0.75.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import yaml

NAME = "copying"
SHARE = 0.75  # of the samples that are right
_UPSTREAM_NEEDS = ("openai", "tiktoken", "pyyaml", "numpy", "pydantic", "tqdm", "backoff", "blobfile", "lz4")
_UPSTREAM_NEEDS += ("zstandard", "requests", "beartype")

INSPECT = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample, json_dataset
from inspect_ai.model import ModelAPI, ModelOutput, get_model, modelapi
from inspect_ai.scorer import match
from inspect_ai.solver import generate

# Its own mock model counts tokens with an encoding that is fetched from the network.
@modelapi(name="instant")
def instant():
    class Instant(ModelAPI):
        async def generate(self, input, tools, tool_choice, config):
            return ModelOutput.from_content("instant", "This is a dummy response.")
    return Instant

@task
def copying(file, fake=False):
    read = lambda row: Sample(input=row["input"][0]["content"], target=row["ideal"])
    model = get_model("instant/instant") if fake else None
    return Task(dataset=json_dataset(file, read), solver=generate(), scorer=match(location="begin"), model=model)
"""


# A process of its own and small: what a process has held at most, its parent's memory before it began is counted with.
LAUNCH = """
import json, os, subprocess, sys, time
began = time.monotonic()
process = subprocess.Popen(sys.argv[2:])
_, status, used = os.wait4(process.pid, 0)
told = [began, time.monotonic(), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
os._exit(os.waitstatus_to_exitcode(status) and 1)
"""


@dataclass(frozen=True)
class Tool:
    """A program that runs the eval. command: what is typed, with PLACES filled in. correct: reads its accuracy."""

    name: str
    command: Sequence[str]
    correct: Callable[[Path], float]
    environment: Mapping[str, str] = field(default_factory=dict)


def environment(folder: Path, name: str) -> Path | None:
    """The programs of a peer's environment, which is made where it is missing; None, and why is said, if it cannot be.

    name: inspect, lm_eval or upstream.
    """
    programs = folder / name / "bin"
    if (programs / "made").exists():
        return programs
    same = [f"torch=={version('torch').partition('+')[0]}", f"transformers=={version('transformers')}"]
    packages = {
        "inspect": [["inspect-ai==0.3.285", "openai"]],
        "lm_eval": [[*same, "accelerate", "lm-eval[api]==0.4.13"]],
        # Its own list of dependencies cannot be resolved any more.
        "upstream": [["--no-deps", "evals==3.0.1.post1"], list(_UPSTREAM_NEEDS)],
    }  # fmt: skip
    print(f"Installing {name} into {folder / name} …", flush=True)
    made = [[sys.executable, "-m", "venv", str(folder / name)]]
    made += [[str(programs / "python"), "-m", "pip", "install", "--quiet", *some] for some in packages[name]]
    for command in made:
        if subprocess.run(command).returncode:
            print(f"{name} cannot be installed; its figures are left out.")
            return None
    (programs / "made").touch()
    return programs


def write_samples(folder: Path, count: int) -> None:
    """The eval in all forms: a registry, an Inspect task, a task of lm-eval."""
    rows = []
    for i in range(count):
        text = f"What is {i} plus {i + 7}? Reply with the sum alone."
        ideal = text if i % 4 else "no"
        rows.append(json.dumps({"input": [{"role": "user", "content": text}], "ideal": ideal, "text": text}) + "\n")
    data = folder / "registry" / "data" / NAME / "samples.jsonl"
    data.parent.mkdir(parents=True)
    (folder / "registry" / "evals").mkdir()
    data.write_text("".join(rows))
    entry = {"class": "evals.elsuite.basic.match:Match", "args": {"samples_jsonl": f"{NAME}/samples.jsonl"}}
    spec = {NAME: {"id": f"{NAME}.test.v0", "metrics": ["accuracy"]}, f"{NAME}.test.v0": entry}
    (folder / "registry" / "evals" / f"{NAME}.yaml").write_text(yaml.safe_dump(spec))
    (folder / "copying.py").write_text(INSPECT)
    harness = {
        "task": NAME, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "text", "doc_to_target": "ideal",
        "generation_kwargs": {"until": [], "do_sample": False}, "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    (folder / "harness").mkdir()
    (folder / "harness" / f"{NAME}.yaml").write_text(yaml.safe_dump(harness))


def tools(folder: Path, peers: Path | None, url: str = "") -> list[Tool]:
    """Ours and the peers that are there, asking an endpoint, or, where `url` is empty, each its own instant fake."""
    out = folder / "out"
    ours = str(Path(sys.executable).with_name("foretell"))
    found = [
        Tool(
            "ours",
            [ours, "eval", "run", f"{url}#mock" if url else "dummy", NAME, "--registry-path", str(folder / "registry"),
             "--record-path", str(out / "log.jsonl"), "--fresh"],
            lambda out: _last(out / "log.jsonl")["final_report"]["accuracy"],
        )
    ]  # fmt: skip
    if peers is None:
        return found
    keys = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": url, "MOCK_API_KEY": "none", "MOCK_BASE_URL": url}
    if (programs := environment(peers, "inspect")) is not None:
        model = ["--model", "openai-api/mock/mock"] if url else ["-T", "fake=true"]
        found += [
            Tool(
                "inspect",
                [str(programs / "inspect"), "eval", "copying.py", *model, "-T", f"file={_data(folder)}",
                 "--max-connections", "64", "--display", "none", "--log-dir", str(out), "--log-format", "json"],
                lambda out: _inspect(next(out.glob("*.json"))),
                keys,
            )
        ]  # fmt: skip
    if url and (programs := environment(peers, "lm_eval")) is not None:
        arguments = f"model=mock,base_url={url}/chat/completions,num_concurrent=64,tokenized_requests=False"
        found += [
            Tool(
                "lm_eval",
                [str(programs / "lm_eval"), "run", "--model", "local-chat-completions", "--model_args", arguments,
                 "--tasks", NAME, "--include_path", str(folder / "harness"), "--apply_chat_template",
                 "--output_path", str(out), "--log_samples"],
                _harness,
                {**keys, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
            )
        ]  # fmt: skip
    if (programs := environment(peers, "upstream")) is not None:
        for name, threads in (("upstream_64", {"EVALS_THREADS": "64"}), ("upstream_default", {})):
            found += [
                Tool(
                    name,
                    [str(programs / "oaieval"), "gpt-3.5-turbo" if url else "dummy", NAME, "--registry_path",
                     str(folder / "registry"), "--record_path", str(out / "log.jsonl")],
                    _upstream,
                    {**keys, **threads},
                )
            ]  # fmt: skip
    return found


def run(tool: Tool, folder: Path) -> tuple[float, float, float, float, float]:
    """Start and end of a tool's process on the monotonic clock, its CPU seconds, peak resident MB, the accuracy."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    command = [sys.executable, "-S", "-c", LAUNCH, str(folder / "used"), *tool.command]
    with (folder / "told").open("w+b") as told:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **tool.environment}, stdout=told, stderr=subprocess.STDOUT
        )
        if done.returncode:
            told.seek(0)
            raise RuntimeError(f"{tool.name} failed: {told.read().decode()[-3000:]}")
    began, ended, cpu, peak = json.loads((folder / "used").read_text())
    return began, ended, cpu, peak, tool.correct(folder / "out")


def _data(folder: Path) -> Path:
    return folder / "registry" / "data" / NAME / "samples.jsonl"


def _last(log: Path) -> dict[str, dict[str, float]]:
    lines: dict[str, dict[str, float]] = json.loads(log.read_bytes().rsplit(b"\n", 2)[-2])
    return lines


def _upstream(out: Path) -> float:
    found = re.search(r'"accuracy": ([0-9.]+)', (out / "log.jsonl").read_text())
    return float(found[1]) if found else float("nan")


def _inspect(log: Path) -> float:
    scores = json.loads(log.read_text())["results"]["scores"]
    return float(scores[0]["metrics"]["accuracy"]["value"])


def _harness(out: Path) -> float:
    found = json.loads(next(out.rglob("results_*.json")).read_text())["results"][NAME]
    return float(next(value for key, value in found.items() if key.startswith("exact_match,")))
