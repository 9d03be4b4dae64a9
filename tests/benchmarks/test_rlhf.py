"""PPO beside a peer's: both sides are given the same work, and figures are of the steps that count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
import rlhf
import rlhf_ours
import rlhf_peer
from foretell.align.reward import RewardModel
from foretell.chat import Conversation
from foretell.template import Encoded

WORK = rlhf.Work(batch=3, reply=5, minibatches=2, steps=2, threads=1, width=32, depth=1, vocabulary=300)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("rlhf")
    return rlhf.write_job(folder, rlhf.write_model(folder, WORK), WORK)


def test_prompts_are_equally_long_and_the_same_for_both(job: dict[str, Any]) -> None:
    judge = RewardModel.load(job["reward"], "cpu", "float32")
    rows = [json.loads(line)["prompt"] for line in Path(job["data"]).read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len(set(rows)) >= WORK.batch
    assert len({len(ids) for ids in job["prompts"]}) == 1
    for text, ids in zip(rows[:5], job["prompts"], strict=False):
        asked = Conversation.from_openai([{"role": "user", "content": text}])
        assert judge.template.encode(asked, add_generation_prompt=True, learn="none").ids.tolist() == ids
    assert all(job["pad"] not in ids for ids in job["prompts"])


def test_the_peer_reads_the_same_models(job: dict[str, Any]) -> None:
    judge = RewardModel.load(job["reward"], "cpu", "float32")
    ids = torch.tensor(job["prompts"][:4])
    no_loss, no_tiles = np.zeros(ids.shape[1], np.bool_), np.zeros((0, 0, 0, 3), np.uint8)
    ours = judge.score_tokens([Encoded(row, no_loss, no_tiles) for row in ids.int().numpy()])
    other, tokenizer = rlhf_peer.reward_model(job), rlhf_peer.reader(job)
    with torch.no_grad():
        theirs = other.score(other.model(ids).last_hidden_state[:, -1])[:, 0]
    assert np.std(ours) > 0
    assert theirs.tolist() == pytest.approx(ours, abs=1e-5)
    assert tokenizer.pad_token_id == job["pad"] != tokenizer.eos_token_id


def test_a_step_of_ours_is_timed_whole(job: dict[str, Any], tmp_path: Path) -> None:
    steps, lengths = rlhf_ours.ppo(job, tmp_path)
    assert len(steps) == len(lengths) == WORK.steps
    for step in steps:
        parts = [step[name] for name in ("generation", "scoring", "update")]
        assert min(parts) > 0
        assert sum(parts) <= step["seconds"] + 0.004  # they are logged in whole milliseconds
    assert all(0 < length <= WORK.reply for length in lengths)


def test_the_peers_clock_tells_lengths_up_to_the_end() -> None:
    queries = torch.zeros(3, 2, dtype=torch.int64)
    replies = torch.tensor([[4, 5, 6, 7], [4, 9, 1, 1], [9, 1, 1, 1]])
    module = SimpleNamespace(
        batch_generation=lambda model, queries, *rest: (torch.cat([queries, replies], 1), None),
        masked_whiten=lambda values, mask: values,
    )
    clock = rlhf_peer.Clock(module, end=9)
    clock.on_train_begin(None, None, None)
    for _ in range(2):
        module.batch_generation(None, queries)
        module.masked_whiten(torch.ones(2), None)
        clock.on_step_end(None, None, None)
    assert clock.lengths == [pytest.approx((4 + 2 + 1) / 3)] * 2
    assert [set(step) for step in clock.steps] == [{"seconds", "generation", "scoring", "update"}] * 2


def told(seconds: float, generation: float) -> dict[str, Any]:
    step = {"seconds": seconds, "generation": generation, "scoring": 0.1, "update": 0.2}
    return {"steps": [step, step], "reply_tokens": 8.0, "peak_rss": 1e9, "versions": {"trl": "1.12.0"}}


def test_figures_are_rates_shares_and_the_ratio_by_round() -> None:
    job = {"batch": 4, "reply": 8, "minibatches": 2, "prompts": [[1, 2, 3]], "precision": "float32"}
    found = rlhf.figures_of([told(1.0, 0.5), told(2.0, 0.8)], [told(4.0, 3.0), told(6.0, 3.0)], job, "_1m")
    assert found["samples_s_1m"]["spread"] == [2.0, 4.0]
    assert found["samples_vs_trl_1m"]["spread"] == [3.0, 4.0] and found["samples_vs_trl_1m"]["aim"] == 3.0
    assert found["generation_share_1m"] | {"unit": ""} == {"value": 0.45, "spread": [0.4, 0.5], "aim": 0.6, "unit": ""}
    assert found["generation_share_trl_1m"]["value"] == 0.625
    alone = rlhf.figures_of([told(1.0, 0.5)], [], job)
    assert "samples_vs_trl" not in alone and "samples_s_trl" not in alone


def test_padding_never_stands_for_what_is_said() -> None:
    tokenizer = SimpleNamespace(pad=2, ends={2}, vocab_size=6, token_bytes=[0, 1, 0, 1, 1, 0])
    assert rlhf.spare_id(tokenizer, [[1, 4]]) == 3
    assert rlhf.spare_id(SimpleNamespace(**vars(tokenizer) | {"pad": 0}), [[1, 4]]) == 0


def test_a_side_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no_such_side\.py failed:\n.*No such file"):
        rlhf.run_side(sys.executable, "no_such_side.py", tmp_path / "job.json", 1)
