"""From three flags to a checkpoint: it learns, resumes to the bit, takes imported weights, and names bad input."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignkit import Base, chat, preferences, write_jsonl
from safetensors.torch import load_file

import foretell
from clikit import invoke
from foretell.align.reward import RewardModel
from foretell.align.stages import Kind, tune
from foretell.chat import Conversation
from foretell.errors import CheckpointError
from foretell.files import read_json
from foretell.recipes import check_settings
from foretell.train.log import read_log
from foretell.tuning import DPOConfig, RewardConfig, SFTConfig, Tuning
from foretell.weights.exporting import export

FAST: dict[str, Any] = {
    "sequence_length": 128,
    "batch_tokens": 256,
    "device": "cpu",
    "precision": "float32",
    "log_every": 2,
}
CONFIGS: dict[Kind, Tuning] = {
    "sft": SFTConfig(epochs=6, lr=1e-2, heldout=0.2, **FAST),
    "reward": RewardConfig(epochs=2, lr=3e-3, heldout=0.2, **FAST),
    "dpo": DPOConfig(epochs=2, lr=3e-3, heldout=0.2, beta=0.3, **FAST),
}
OTHER_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}Ask: {{ m.content }}\n"
    "{% else %}Say:\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}Say:\n{% endif %}"
)


def data(folder: Path, kind: Kind, count: int = 20) -> Path:
    if kind == "sft":
        rows = [{"messages": chat(f"What colour is the sky? {i}", "The sky is blue.")} for i in range(count)]
        return write_jsonl(folder / "sft.jsonl", rows)
    return write_jsonl(folder / "preferences.jsonl", preferences(count))


@pytest.fixture(scope="module")
def runs(base: Base, tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, Path]:
    """One finished run of each kind."""
    patch = pytest.MonkeyPatch()
    patch.setattr("foretell.train.loop.peak_rate", lambda *_: 1e11)
    folder = tmp_path_factory.mktemp("runs")
    for kind, settings in CONFIGS.items():
        tune(kind, base.folder, data(folder, kind), folder / kind, settings)
    patch.undo()
    return {kind: folder / kind for kind in CONFIGS}


def events(run: Path, kind: str, event: str) -> list[dict[str, Any]]:
    return [line for line in read_log(run / kind / "log.jsonl") if line["event"] == event]


def tensors(run: Path, kind: str) -> dict[str, bytes]:
    files = sorted((run / kind / "checkpoint").glob("*.safetensors"))
    return {f"{f.name}/{name}": t.numpy().tobytes() for f in files for name, t in load_file(f).items()}


def test_sft_learns_to_answer_and_loads_as_any_model(runs: dict[Kind, Path], base: Base) -> None:
    run = runs["sft"]
    train = events(run, "sft", "train")
    assert train[-1]["loss"] < 0.5 * train[0]["loss"]
    assert events(run, "sft", "eval")[-1]["loss"] < train[0]["loss"]
    model = foretell.load(run, device="cpu")
    assert model.path == run / "sft/checkpoint"
    assert "sky" in model.chat(chat("What colour is the sky? 3"), temperature=0, max_tokens=12).text
    manifest = read_json(run / "sft/checkpoint/manifest.json")
    assert manifest["tuned_from"] == str(base.folder) and manifest["tuned_by"] == "sft"
    assert "epochs: 6" in (run / "sft/checkpoint/tuning.yaml").read_text()


def test_a_reward_model_prefers_and_is_normalised(runs: dict[Kind, Path]) -> None:
    run = runs["reward"]
    end = events(run, "reward", "eval")[-1]
    assert end["accuracy"] > 0.9 and end["loss"] < 0.6
    assert sum(one["pairs"] for one in end["by_confidence"]) == end["pairs"] > 0
    judge = RewardModel.load(run, "cpu", "float32")
    asked = [row["prompt"] for row in preferences(20)]
    scores = np.array(
        [judge.score([Conversation.from_openai(chat(q, row[name])) for name in ("chosen", "rejected")])
         for q, row in zip(asked, preferences(20), strict=True)]
    )  # fmt: skip
    assert (scores[:, 0] > scores[:, 1]).mean() > 0.9 and abs(scores.mean()) < 0.5
    assert foretell.load(run, device="cpu").complete("The sky", max_tokens=2).token_ids  # a language model all the same
    with pytest.raises(CheckpointError, match="no reward model"):
        RewardModel.load(runs["sft"], "cpu")


def test_dpo_moves_towards_what_is_preferred(runs: dict[Kind, Path]) -> None:
    run = runs["dpo"]
    train = events(run, "dpo", "train")
    assert train[-1]["loss"] < train[0]["loss"] <= np.log(2) + 0.05
    end = events(run, "dpo", "eval")[-1]
    assert end["accuracy"] > 0.9 and end["reward_chosen"] > end["reward_rejected"]
    assert (run / "reference/train.npy").is_file()


def test_what_is_done_is_skipped(runs: dict[Kind, Path], base: Base) -> None:
    run = runs["dpo"]
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    told: list[tuple[str, str]] = []
    tune(
        "dpo",
        base.folder,
        data(run.parent, "dpo"),
        run,
        CONFIGS["dpo"],
        lambda t, d, n=None, note="": told.append((t, note)),
    )
    assert told == [(name, "done before") for name in ("pack", "reference", "dpo")]
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}


def stop_at(step: int, kind: str) -> Callable[..., None]:
    def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
        if task == kind and done == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return report


@pytest.mark.parametrize("kind", ["reward", "dpo"])
def test_resuming_is_exact(runs: dict[Kind, Path], base: Base, tmp_path: Path, kind: Kind) -> None:
    arguments = (kind, base.folder, data(runs[kind].parent, kind), tmp_path / kind, CONFIGS[kind])
    with pytest.raises(KeyboardInterrupt, match="Stopped by SIGTERM after step 3"):
        tune(*arguments, stop_at(3, kind))
    assert not (tmp_path / kind / kind / "checkpoint").exists()
    with pytest.raises(CheckpointError, match=r"not finished.*step-000003"):
        foretell.load(tmp_path / kind)
    tune(*arguments)
    assert events(tmp_path / kind, kind, "resume")[0]["step"] == 3
    assert tensors(tmp_path / kind, kind) == tensors(runs[kind], kind)


def test_imported_weights_keep_their_template_and_tokenizer(base: Base, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    export(base.folder, foreign)
    for file in ("chat_template.json", "chat_template.jinja"):
        (foreign / file).unlink(missing_ok=True)
    settings = read_json(foreign / "tokenizer_config.json")
    (foreign / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": OTHER_TEMPLATE}))
    run = tmp_path / "run"
    tune("sft", foreign, data(tmp_path, "sft"), run, CONFIGS["sft"])
    model = foretell.load(run, device="cpu")
    template = model.generator.template
    assert template.text == OTHER_TEMPLATE
    encoded = template.encode(Conversation.from_openai(chat("1 2", "blue")), learn="assistant")
    learned = model.generator.tokenizer.decode(encoded.ids[encoded.loss].tolist(), skip_special=False)
    assert learned.strip() == "blue<|im_end|>"  # white space before a text may be one token with it
    assert read_json(run / "sft/checkpoint/manifest.json")["imported_from"] == str(foreign)
    train = events(run, "sft", "train")
    assert train[-1]["loss"] < 0.75 * train[0]["loss"]


def test_the_command_line_says_what_came_out(base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = [f"--set={key}={value}" for key, value in (FAST | {"epochs": 0.2, "heldout": 0.3}).items()]
    rows = data(tmp_path, "reward", 12)
    code, out, _ = invoke(capsys, "reward", "--model", base.folder, "--data", rows, "--out", tmp_path / "rm", *sets)
    assert code == 0 and "Held-out accuracy: " in out and "confidence" in out
    code, out, _ = invoke(capsys, "sft", "--model", base.folder, "--data", data(tmp_path, "sft", 12), "--out",
                          tmp_path / "sft", *sets)  # fmt: skip
    assert code == 0 and "Held-out loss: " in out and f"foretell chat {tmp_path / 'sft'}" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"--data": "none.jsonl"}, "There is no file or folder none.jsonl"),
        ({"--data": "bad.jsonl"}, "bad.jsonl, line 2, rejected: missing or empty"),
        ({"--data": "sft.jsonl"}, "sft.jsonl, line 1, the row: holds no preferences"),
        ({"--model": "nowhere"}, "There is no folder nowhere"),
        ({"--model": "http://localhost:1/v1"}, "is an endpoint, whose weights are not here"),
        ({"--set": "betta=0.2"}, "unknown key betta (did you mean 'beta'?)"),
        ({"--set": "epochs=-1"}, "epochs is -1; allowed: above 0"),
        ({"--set": "sequence_length=16"}, "prompt: longer than half a row of 16 tokens. It takes 19"),
    ],
)
def test_bad_input_is_one_clear_message(
    base: Base, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    flags: dict[str, str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    data(tmp_path, "sft", 2)
    data(tmp_path, "dpo", 2)
    write_jsonl(tmp_path / "bad.jsonl", [*preferences(1), {"prompt": "Q", "chosen": "A"}])
    given = {"--model": str(base.folder), "--data": "preferences.jsonl", "--out": "out", "--set": "heldout=0", **flags}
    code, _, err = invoke(capsys, "dpo", *(word for pair in given.items() for word in pair))
    assert code == 2 and said in err


def test_settings_that_nothing_reads_are_refused() -> None:
    assert isinstance(check_settings(DPOConfig, ["beta=0.2"]), DPOConfig)
    training = DPOConfig(lr=1e-3, clip=2.0).training(512, 128)
    assert (training.optimizer.lr, training.optimizer.clip, training.optimizer.tau) == (1e-3, 2.0, 0)
