"""A run directory as a finished quickstart leaves it, without training anything."""

from __future__ import annotations

import base64
import io
import json
import math
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

KINDS = ["python", "facts", "arithmetic", "scenes", "charts", "reading", "chat"]
FLOOR = {"python": 2.9, "facts": 1.1, "arithmetic": 0.9, "scenes": 0.5, "charts": 0.7, "reading": 1.4, "chat": 0.8}
TASKS = [
    ("scene-colour", 0.86, 0.24, 0.25, 0.19),
    ("scene-count", 0.61, 0.31, 0.29, 0.33),
    ("scene-relation", 0.55, 0.51, 0.49, 0.52),
    ("chart-compare", 0.71, 0.48, 0.5, 0.51),
    ("chart-value", 0.18, 0.06, 0.05, 0.07),
    ("read-text", 0.42, 0.01, 0.02, 0.03),
]
RECIPE = """name: quickstart
description: Real text from the Python installation and a generated world of facts, scenes, charts and pages.
seed: 0
data:
  sources:
    - { kind: python, weight: 0.35, max_bytes: 12000000 }
    - { kind: world, weight: 0.65, documents: 12000, heldout_documents: 1200 }
  sequence_length: 256
  tokens: 2000000
model:
  width: 128
  depth: 4
  head_dim: 32
  max_length: 512
  vision: { tile: 64, patch: 8, shuffle: 2, grid: 1, width: 96, depth: 2, head_dim: 32, base_depth: 2 }
train: { tokens: 2000000, batch_tokens: 4096 }
"""


def picture(rng: random.Random, side: int = 64) -> str:
    """Some shapes or bars as a PNG data URI."""
    image = Image.new("RGB", (side, side), rng.choice(["white", "#eef", "#fffbe8"]))
    draw = ImageDraw.Draw(image)
    for i in range(4):
        colour = rng.choice(["crimson", "royalblue", "seagreen", "orange", "purple"])
        x, y, r = rng.randrange(side - 20), rng.randrange(side - 20), rng.randrange(10, 20)
        if rng.random() < 0.5:
            draw.ellipse([x, y, x + r, y + r], fill=colour)
        else:
            draw.rectangle([6 + i * 14, y, 14 + i * 14, side - 4], fill=colour)
    out = io.BytesIO()
    image.save(out, "PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def log_lines(steps: int = 489) -> list[dict[str, Any]]:
    rng = random.Random(1)
    utc = "2026-03-02T09:{:02d}:{:02d}+00:00".format
    lines: list[dict[str, Any]] = [
        {"event": "start", "utc": utc(1, 0), "step": 0, "device": "cpu", "threads": 2, "parameters": 1_625_952}
    ]
    for step in range(1, steps + 1):
        when = utc(1 + step // 120, step % 60)
        tokens = step * 4096
        shape = (1 + step / 9) ** -0.55
        by_kind = {k: f + (8.3 - f) * shape * (1 + 0.03 * rng.gauss(0, 1)) for k, f in FLOOR.items()}
        loss = sum(by_kind.values()) / len(by_kind)
        if step % 2 == 0:
            lines.append(
                {"event": "train", "utc": when, "step": step, "tokens": tokens, "loss": loss, "loss_by_kind": by_kind,
                 "bits_per_byte": loss / math.log(2) / 3.4, "lr": 4e-3 * (1 - step / steps), "grad_norm": 0.6,
                 "tokens_per_s": 8900 + 300 * rng.gauss(0, 1), "matmul_share": 0.46, "seconds": step * 0.46}
            )  # fmt: skip
        if step % 49 == 0:
            tested = {k: {"loss": v + 0.05, "bits_per_byte": v / 2.36, "tokens": 8000} for k, v in by_kind.items()}
            lines.append(
                {"event": "eval", "utc": when, "step": step, "tokens": tokens, "loss": loss + 0.06,
                 "bits_per_byte": loss / math.log(2) / 3.3, "by_kind": tested}
            )  # fmt: skip
        if step in (120, 240):
            lines.append({"event": "checkpoint", "utc": when, "step": step})
        if step == 260:
            lines.append({"event": "resume", "utc": when, "step": 240, "from": "checkpoints/step-000240"})
        if step == 300:
            lines.append({"event": "spike", "utc": when, "step": 300, "loss": 6.123, "sigmas": 9.4, "action": "skip"})
    lines.append({"event": "end", "utc": utc(5, 0), "step": steps, "tokens": steps * 4096, "seconds": 231.0})
    return lines


def examination() -> dict[str, Any]:
    rng = random.Random(2)
    tasks = []
    for name, accuracy, blind, shuffled, majority in TASKS:
        above = accuracy - blind
        tasks.append(
            {"task": name, "kind": name.split("-")[0], "questions": 150, "accuracy": accuracy,
             "low": accuracy - 0.06, "high": accuracy + 0.05, "blind": blind, "shuffled": shuffled,
             "majority": majority, "above_blind": above, "above_blind_low": above - 0.08,
             "above_blind_high": above + 0.08, "above_majority": accuracy - majority,
             "above_majority_low": accuracy - majority - 0.09, "above_majority_high": accuracy - majority + 0.09}
        )  # fmt: skip
    asked = [
        ("scene-colour", "What colour is the largest circle?", "crimson", "crimson"),
        ("scene-count", "How many squares are there?", "3", "4"),
        ("chart-compare", "Which is taller, the bar for Oslo or the bar for Lima? A) Oslo B) Lima", "B", "B"),
        ("read-text", "What is written here?", "harbour 72", "harbour 12"),
    ]
    shown = [
        {"task": t, "question": q, "truth": truth, "answer": answer, "correct": truth == answer, "image": picture(rng)}
        for t, q, truth, answer in asked * 3
    ]
    samples = [
        {"prompt": "def read(path", "text": ", mode='r'):\n    \"\"\"Open the file and return its contents.\"\"\"\n    with open(path) as stream:\n        return stream.read()"},  # noqa: E501
        {"prompt": "The capital of Verland is", "text": " Ostra. It lies on the river Mun; 41,000 people live there."},
        {"prompt": "Die Hauptstadt von Verland ist", "text": " Ostra."},
        {"prompt": "17 + 26 =", "text": ""},
    ]  # fmt: skip
    by_kind = {k: {"loss": f + 0.4, "bits_per_byte": f / 2.2, "tokens": 8000} for k, f in FLOOR.items()}
    return {"tasks": tasks, "shown": shown, "samples": samples, "text": {"bits_per_byte": 1.873, "by_kind": by_kind}}


def manifest(stage: str, seconds: float, inputs: list[str], metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "stage": stage, "key": "k" * 64, "config": {}, "config_hash": "c0ffee" * 10 + "abcd",
        "inputs": {name: "d" * 64 for name in inputs}, "code": "git 6bdd720a11b2", "seed": 0,
        "started": "2026-03-02T09:00:00+00:00", "finished": "2026-03-02T09:01:00+00:00", "seconds": seconds,
        "size": int(seconds * 150_000), "metrics": metrics, "output": "beef" * 16, "files": [],
    }  # fmt: skip


def fake_run(folder: Path, steps: int = 489) -> Path:
    """Write the run into `folder`/quickstart and return that."""
    run = folder / "quickstart"
    tokens = {"python": 812_345, "world": 1_190_002}
    data = {
        "sources": {
            "python": {
                "licenses": {"PSF-2.0": 1800, "MIT": 43}, "documents": 1843, "bytes": 11_900_000,
                "skipped": {"empty": 12},
            },
            "world": {"licenses": {"CC0-1.0": 12_000}, "documents": 12_000, "bytes": 9_100_000, "skipped": {}},
        },
        "skipped": {"not UTF-8": 3, "empty": 12},
    }  # fmt: skip
    packed = {
        "rows": 7822, "tokens": 2_002_347, "learned_tokens": 1_534_020, "fill": 0.99991,
        "by_source": {
            n: {"tokens": t, "share": t / 2_002_347, "asked_share": 0.35, "documents": 1000, "epochs": 1.25}
            for n, t in tokens.items()
        },
        "by_kind": {k: {"tokens": 286_049, "learned_tokens": 219_145} for k in KINDS},
        "skipped": {"documents with a bad image": 2}, "notes": [],
    }  # fmt: skip
    stages = {
        "data": manifest("data", 21.4, [], data),
        "tokenizer": manifest("tokenizer", 6.2, ["data"], {"vocab_size": 4096}),
        "pack": manifest("pack", 14.9, ["data", "tokenizer"], {"train": packed}),
        "pretrain": manifest("pretrain", 231.7, ["pack"], {"tokens": 2_002_944, "threads": 2, "flops": 1.93e13}),
        "examine": manifest("examine", 38.3, ["pretrain"], {}),
    }
    for name, value in stages.items():
        (run / name).mkdir(parents=True)
        (run / name / "manifest.json").write_text(json.dumps(value))
    (run / "recipe.yaml").write_text(RECIPE)
    (run / "pretrain" / "checkpoint").mkdir()
    lines = [json.dumps(line) for line in log_lines(steps)]
    lines.insert(40, '{"event": "train", "st')
    (run / "pretrain" / "log.jsonl").write_text("\n".join(lines) + "\n")
    (run / "examine" / "examine.json").write_text(json.dumps(examination()))
    return run
