"""Runs of several processes with faults: what torchrun's processes do at a given step of a given attempt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

# Python imports it as it starts: nothing of the package knows that it is tested.
CUSTOMIZE = """
import json, os
if "RANK" in os.environ:
    import signal, sys, time
    from pathlib import Path
    from foretell import run
    from foretell.train import loop, trainer
    loop.peak_rate = lambda *_: 1e11
    rank, attempt = int(os.environ["RANK"]), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    fault = json.loads(os.environ["FAULTS"]).get(attempt, {})
    if fault.get("rank") == rank and fault["kind"] == "damage":
        newest = sorted(Path(fault["folder"]).glob("step-*"))[-1]
        state = newest / "training/state.safetensors"
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
        print("damaged", newest.name, flush=True)
    if fault.get("rank") == rank and fault["kind"] == "version":
        from foretell.train import meeting
        known = meeting.about
        meeting.about = lambda: known() | {"torch": "0.0.1"}
    step = trainer.Trainer._train_step
    def stepped(self, batch):
        if fault.get("rank") == rank and fault.get("step") == self.count.step:
            if fault["kind"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault["kind"] == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            if fault["kind"] == "lose":  # this machine, with torchrun's agent
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            if fault["kind"] == "cut":
                os.system(f"ip link set {fault['device']} down")
            if fault["kind"] == "limit":  # of a Slurm job: its script is told
                os.kill(int(os.environ["BATCH"]), signal.SIGTERM)
                time.sleep(3)
            if fault["kind"] == "hang":
                time.sleep(10**6)
            if fault["kind"] == "break":
                raise ZeroDivisionError("a defect")
        return step(self, batch)
    trainer.Trainer._train_step = stepped
"""


def environment(folder: Path, faults: dict[str, dict[str, Any]]) -> dict[str, str]:
    """faults: number of the attempt -> kind, rank, and the step before which it comes."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(CUSTOMIZE)
    path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "FAULTS": json.dumps(faults), "OMP_NUM_THREADS": "1"}


def recipe(toy: Any, folder: Path, **train: Any) -> Path:
    """A recipe of counting lines that trains for 24 steps and keeps every checkpoint."""
    (folder / "texts").mkdir()
    for i in range(30):
        (folder / "texts" / f"{i}.md").write_text(f"The number {i} is followed by {i + 1}. " * 20)
    # Half a batch at a time, so that one process adds gradients up in the order in which two do.
    settings = {"micro_batch": 4, "eval_every": 0.25, "checkpoint_minutes": 1e-9, "keep": 3, "log_every": 1} | train
    found = toy.recipe(**settings).model_dump(mode="json") | {"tokenizer": {"vocab_size": 320}}
    found["data"] |= {"tokens": 4096, "heldout_tokens": 256}
    found["data"]["sources"] = [{"kind": "folder", "path": str(folder / "texts"), "heldout": 0.2}]
    (folder / "toy.yaml").write_text(yaml.safe_dump(found))
    return folder / "toy.yaml"


def foretell(*words: object, env: dict[str, str], timeout: float = 900) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "foretell", *map(str, words)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
