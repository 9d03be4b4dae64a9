"""From a tower and a text model to a run that sees: stages, resume to the bit, what is told, and what is refused."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import foretell
from clikit import invoke
from foretell.chat import Conversation
from foretell.data.tokenizer import train_tokenizer
from foretell.data.world import make_items
from foretell.errors import CheckpointError, DataError
from foretell.files import read_json
from foretell.model.multimodal import Multimodal
from foretell.model.weights import load_model, seal, write_model
from foretell.pipeline.growing import GrowConfig, grow
from foretell.recipe import ModelConfig, TokenizerConfig
from foretell.recipes import check_settings
from foretell.train.log import read_log
from groupkit import launch

FRESH = "fresh:64,16,32,1"
SET = [
    *("sft.sequence_length=192", "sft.heldout=0.2", "sft.epochs=0.5", "connector.epochs=2"),
    *(f"{stage}.{key}" for stage in ("connector", "sft") for key in ("batch_tokens=384", "device=cpu", "log_every=1")),
    *("connector.freeze=[decoder,embedding]", "connector.lr=1e-3"),
    *("connector.precision=float32", "sft.precision=float32"),
]
SETTINGS = check_settings(GrowConfig, SET)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("foretell.train.loop.peak_rate", lambda *_: 1e11)
        yield


@pytest.fixture(scope="module")
def talks() -> list[Conversation]:
    items = [item for item in make_items("scenes", "train", 90, 0, tasks=["scenes.color"]) if item.answer]
    return [item.content.conversation() for item in items]


@pytest.fixture(scope="module")
def data(talks: list[Conversation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "scenes.jsonl"
    path.write_text("".join(json.dumps({"messages": talk.to_openai()}) + "\n" for talk in talks))
    return path


@pytest.fixture(scope="module")
def lm(talks: list[Conversation], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model whose tokenizer knows every control token but those of a wider grid."""
    words = "\n".join(message.text for talk in talks for message in talk.messages)
    tokenizer = train_tokenizer(iter([words]), TokenizerConfig(vocab_size=300), grid=1)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, width=32, depth=1, head_dim=32, zero_init_outputs=False, init_std=0.2
    )
    folder = tmp_path_factory.mktemp("lm") / "model"
    folder.mkdir()
    write_model(folder, Multimodal(config, torch.Generator().manual_seed(0)))
    tokenizer.save(folder)
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def run(lm: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "grown"
    grow(FRESH, lm, data, folder, SETTINGS)
    return folder


@pytest.mark.slow
def test_two_processes_grow_what_one_does(run: Path, lm: Path, data: Path, tmp_path: Path) -> None:
    options = ("--data", data, "--out", tmp_path, *(flag for key in SET for flag in ("--set", key)))
    first, _ = launch("-m", "foretell", "weights", "graft", FRESH, *map(str, (lm, *options)))
    assert first.returncode == 0, first.stderr
    for stage in ("connector", "sft"):
        alone, two = (
            [line for line in read_log(folder / stage / "log.jsonl") if line["event"] == "train"]
            for folder in (run, tmp_path)
        )
        # Rounding grows quickly where a fresh tower learns fast.
        assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in alone], rel=1e-3)
        assert alone[0]["loss"] == pytest.approx(two[0]["loss"], rel=1e-6 if stage == "connector" else 1e-3)


def weights(run: Path, stage: str) -> dict[str, torch.Tensor]:
    return load_file(run / stage / "checkpoint" / "model.safetensors")


def test_the_first_stage_moves_what_is_new_and_the_second_the_rest(run: Path) -> None:
    joined, early, late = (weights(run, stage) for stage in ("graft", "connector", "sft"))
    first = {name for name in joined if not torch.equal(joined[name], early[name])}
    second = {name for name in early if not torch.equal(early[name], late[name])}
    assert first == {name for name in joined if name.startswith("vision.")}
    assert second == joined.keys() - {"decoder.embedding"}


def test_it_is_a_checkpoint_like_any_other(run: Path, talks: list[Conversation]) -> None:
    model = foretell.load(run)
    assert model.path == run / "sft" / "checkpoint"
    assert load_model(model.path).config.vision is not None
    reply = model.chat(Conversation(talks[0].messages[:-1]), max_tokens=4, temperature=0)
    assert reply.usage is not None and reply.usage.image_tokens == 4


def test_what_it_sees_is_measured_and_told(run: Path) -> None:
    found = read_json(run / "examine" / "examine.json")
    row = found["texts"][0]
    assert row["above_blind_low"] <= row["above_blind"] <= row["above_blind_high"]
    members = [one for one in found["rows"] if one["task"] == row["task"]]
    assert row["above_blind"] == pytest.approx(np.mean([one["blind"] - one["seen"] for one in members]))
    assert len(found["shown"]) and {"answer", "blind", "truth", "image"} <= found["shown"][0].keys()
    page = (run / "page" / "index.html").read_text()
    assert "First stage" in page and "Second stage" in page and "data:image/png" in page
    assert found["shown"][0]["truth"] in page and "http" not in page.partition("<body")[2]


def test_the_card_reads_what_it_sees(run: Path) -> None:
    from foretell.report.card.checked import check_summary
    from foretell.report.card.figures import Document

    path = run / "examine" / "seeing.summary.json"
    check_summary(Document(path.parent, path.name))
    assert read_json(path)["part"] == "vision"


def test_the_same_command_does_nothing_twice(run: Path, lm: Path, data: Path) -> None:
    told: list[str] = []
    grow(FRESH, lm, data, run, SETTINGS, lambda task, done, total=None, note="": told.append(note))
    assert set(told) == {"done before"}


def test_a_run_cut_off_in_either_stage_ends_as_if_it_had_not(run: Path, lm: Path, data: Path, tmp_path: Path) -> None:
    def stop_at(stage: str) -> Callable[..., None]:
        seen = iter(range(10))

        def report(task: str, done: float, total: float | None = None, note: str = "") -> None:
            if task == "sft" and done == 2 and (tmp_path / "run" / stage / "log.jsonl").is_file() and next(seen) == 0:
                os.kill(os.getpid(), signal.SIGINT)

        return report

    for stage in ("connector", "sft"):
        with pytest.raises(KeyboardInterrupt):
            grow(FRESH, lm, data, tmp_path / "run", SETTINGS, stop_at(stage))
    grow(FRESH, lm, data, tmp_path / "run", SETTINGS)
    for stage in ("connector", "sft"):
        once, resumed = weights(run, stage), weights(tmp_path / "run", stage)
        assert all(torch.equal(once[name], resumed[name]) for name in once), stage


def test_the_command_line(lm: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "joined"
    code, told, _ = invoke(capsys, "weights", "graft", FRESH, lm, "--out", out, "--set", "grid=2")
    assert code == 0 and "new control tokens" in told and "foretell sft" in told
    sets = [part for setting in SET for part in ("--set", setting)]
    code, told, _ = invoke(capsys, "weights", "graft", FRESH, lm, "--data", data, "--out", tmp_path / "run", *sets)
    assert code == 0 and "Gain over a grey picture" in told and "foretell chat" in told


def test_bad_input_is_named(lm: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="There is no file or folder"):
        grow(FRESH, lm, tmp_path / "none.jsonl", tmp_path / "run")
    with pytest.raises(CheckpointError, match="shuffle 3 does not divide"):
        grow(FRESH, lm, data, tmp_path / "run", check_settings(GrowConfig, ["shuffle=3"]))
    code, _, told = invoke(capsys, "weights", "graft", FRESH, lm, "--set", "connector.epoch=2")
    assert code and "epochs" in told
    code, _, told = invoke(capsys, "weights", "graft", FRESH, tmp_path / "nothing", "--out", tmp_path / "out")
    assert code and "nothing" in told
    broken = tmp_path / "broken.jsonl"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = ({"role": "user", "content": [image, {"type": "text", "text": f"What is {i}?"}]} for i in range(9))
    rows = ({"messages": [ask, {"role": "assistant", "content": "red"}]} for ask in asked)
    broken.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"broken.jsonl, line 1"):
        grow(FRESH, lm, broken, tmp_path / "run2", SETTINGS)
