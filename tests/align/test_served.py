"""Rounds drawn by a server that reads exported weights: the own engine behind OpenAI's form, in vLLM's manner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignkit import Base, preferences, write_jsonl

import foretell
from foretell.align.policy import Sources, train_policy
from foretell.align.rewarding import Part
from foretell.errors import EndpointError
from foretell.generate import Request, Sampling, generate_sync
from foretell.template import Encoded
from foretell.train.log import read_log
from foretell.tuning import PPOConfig, RolloutConfig
from mock_endpoint import Call, Reply, serve_in_thread


class Server:
    """Answers completions by the model that it read last. tells: whether it spells tokens by their ids."""

    def __init__(self, folder: Path, tells: bool = True) -> None:
        self.folder, self.tells, self.model = folder, tells, None
        self.refuses = False
        self.reloads: list[dict[str, Any]] = []

    def __call__(self, call: Call) -> Reply:
        if call.path.endswith("/models"):
            return Reply({"object": "list", "data": [{"id": "policy", "object": "model"}]})
        if self.refuses:
            return Reply({"detail": "Not Found"}, 404)
        if call.path == "/collective_rpc":
            self.reloads.append(call.json)
            self.close()
            self.model = foretell.load(self.folder, device="cpu", dtype="float32")
        if call.path != "/v1/completions":
            return Reply({})
        asked = call.json
        ids = np.asarray(asked["prompt"], np.int32)
        prompt = Encoded(ids, np.zeros(len(ids), np.bool_), np.zeros((0, 0, 0, 3), np.uint8))
        sampling = Sampling(asked["max_tokens"], asked["temperature"], seed=asked["seed"], logprobs=1)
        assert self.model is not None and asked["return_tokens_as_token_ids"]
        (drawn,) = generate_sync(self.model.generator, [Request(prompt, sampling, asked.get("n", 1))])
        choices = [
            {
                "index": i, "text": one.text, "finish_reason": one.finish_reason,
                "logprobs": {
                    "tokens": [f"token_id:{log.id}" if self.tells else log.token for log in one.logprobs],
                    "token_logprobs": [log.logprob for log in one.logprobs], "top_logprobs": None, "text_offset": [],
                },
            }
            for i, one in enumerate(drawn)
        ]  # fmt: skip
        return Reply({"id": "c", "object": "text_completion", "model": "policy", "choices": choices})

    def close(self) -> None:
        if self.model is not None:
            self.model.generator.close()


def run(base: Base, tmp_path: Path, server: Server) -> list[dict[str, Any]]:
    prompts = write_jsonl(tmp_path / "prompts.jsonl", preferences(8))
    sources = Sources(parts=(Part("length", lambda samples: [float(len(s.reply)) for s in samples]),))
    with serve_in_thread(server) as mock:
        settings = PPOConfig(
            device="cpu", precision="float32", rounds=3, prompts=4, samples=2, minibatches=1, lr=1e-3, max_tokens=8,
            heldout=0.0, checkpoint_minutes=1e9, rollout=RolloutConfig(on=mock.url, folder=str(server.folder)),
        )  # fmt: skip
        train_policy("ppo", base.folder, prompts, tmp_path / "run", settings, sources)
        assert [call.path for call in mock.calls if "completions" not in call.path] == [
            *["/collective_rpc", "/reset_prefix_cache"], "/v1/models", *["/collective_rpc", "/reset_prefix_cache"] * 2
        ]  # fmt: skip
    server.close()
    return [line for line in read_log(tmp_path / "run/ppo/log.jsonl") if line["event"] == "train"]


def test_a_server_draws_by_the_weights_of_each_round(base: Base, tmp_path: Path) -> None:
    server = Server(tmp_path / "served")
    log = run(base, tmp_path, server)
    assert server.reloads == [{"method": "reload_weights"}] * 3
    assert [line["staleness"] for line in log] == [0, 0, 0]
    # Were the weights those of the round before, the numbers would be far apart.
    assert max(line["mismatch"]["largest"] for line in log) < 1e-3
    assert log[-1]["length"] > 1 and log[-1]["loss"] != 0


def test_a_server_that_reads_no_weights_is_told_of(base: Base, tmp_path: Path) -> None:
    server = Server(tmp_path / "served")
    server.refuses = True
    with pytest.raises(EndpointError, match=r"collective_rpc did not make the server read.*404.*VLLM_SERVER_DEV_MODE"):
        run(base, tmp_path, server)


def test_a_server_that_tells_no_ids_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(EndpointError, match="does not tell the ids of its tokens"):
        run(base, tmp_path, Server(tmp_path / "served", tells=False))
