"""Rounds of replies as batches: drawn by the policy of the moment, rewarded, valued, and then learned from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from foretell.align.advantage import Floats
from foretell.align.drawers import Drawn, Elsewhere
from foretell.align.episodes import Episode, Player, pack_episodes, request_seed
from foretell.align.examples import PromptRow
from foretell.align.importance import IMPORTANCE, weigh
from foretell.align.rewarding import Rewards
from foretell.data.loader import Loader, PackedBatch, permutation
from foretell.errors import DataError
from foretell.model.multimodal import Multimodal
from foretell.train.log import RunLog
from foretell.train.loop import MICRO_TOKENS
from foretell.train.loss import chunked_logprobs
from foretell.train.objective import inputs, to_device
from foretell.tuning import PolicyConfig

SHOWN = 4  # episodes of a round in samples.jsonl


class Credit(Protocol):
    """How rewards become what the loss reads."""

    names: tuple[str, ...]
    """Numbers of a drawn token that the loss reads."""
    values: bool
    """Whether a critic's values are needed first."""

    def assign(self, episodes: Sequence[Episode], rewards: Floats) -> dict[str, float]:
        """Give each episode its numbers, from "old", "reference" and perhaps "value"; returns what is logged."""
        ...

    def learn(self, kl: float) -> None:
        """A round is over whose replies were `kl` nats from the reference."""
        ...

    def state_dict(self) -> dict[str, float]: ...
    def load_state_dict(self, state: dict[str, float]) -> None: ...


class Rollouts:
    """A `train.objective.Batches`: `config.epochs` · `config.minibatches` batches of every round of episodes.

    reference: the model that the policy is held to; critic: what values its tokens, if anything does. ptx: rows of
    pre-training that go beside each batch. samples: a file that a few episodes of each round are written to.
    What a round draws depends on the seed, its number and the weights alone, and the state holds the round at work: a
    resumed run goes on to the bit on a CPU. `stats` describes the round; of its seconds, `timing`, "update" is of the
    round before. Where drawing or rewarding fails, the state is that before the round.

    elsewhere: who draws in place of this process, perhaps some rounds ahead; each token's policy loss then has the
    weight of `importance`. A resumed run draws those that were under way anew, by the weights that it goes on with.
    """

    rows = 1
    sequence_length = MICRO_TOKENS

    def __init__(
        self,
        policy: Multimodal,
        player: Player,
        prompts: Sequence[PromptRow],
        rewards: Rewards,
        reference: Callable[[PackedBatch], Tensor],
        credit: Credit,
        config: PolicyConfig,
        pad: int,
        critic: Multimodal | None = None,
        ptx: Loader | None = None,
        samples: Path | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        if not prompts:
            raise DataError("There is no prompt to answer. Give more data with --data, or hold less out.")
        self.policy, self.player, self.prompts, self.rewards = policy, player, prompts, rewards
        self.reference, self.credit, self.config, self.pad = reference, credit, config, pad
        self.critic, self.ptx, self.idle_seconds = critic, ptx, 0.0
        self.stats: dict[str, Any] = {}
        self.elsewhere = elsewhere
        self._flying: dict[int, tuple[int, Future[Drawn]]] = {}  # round -> which weights draw it, and its episodes
        self._samples, self._restored = samples, False
        self._log: RunLog | None = None
        self._round, self._at = 0, 0  # rounds begun; batches given of the last
        self._episodes: list[Episode] = []
        self._handed: float | None = None
        self._update_s = 0.0

    @property
    def _steps(self) -> int:
        return self.config.epochs * self.config.minibatches

    def __next__(self) -> PackedBatch:
        if self._handed is not None:
            self._update_s += time.perf_counter() - self._handed
        if not self._episodes or self._at == self._steps:
            self._begin_round()
        batch = self._batch(self._at)
        self._at += 1
        self._handed = time.perf_counter()
        return batch

    def state_dict(self) -> dict[str, Any]:
        return {
            "round": self._round,
            "at": self._at,
            "episodes": [episode.plain() for episode in self._episodes],
            "credit": self.credit.state_dict(),
            "ptx": self.ptx.state_dict() if self.ptx else None,
            "stats": self.stats,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._round, self._at, self.stats = state["round"], state["at"], state["stats"]
        self._episodes = [self._read(plain) for plain in state["episodes"]]
        self.credit.load_state_dict(state["credit"])
        if self.ptx is not None:
            self.ptx.load_state_dict(state["ptx"])
        self._restored = True

    def _read(self, plain: dict[str, Any]) -> Episode:
        prompt = self.prompts[plain["row"]]
        tiles = self.player.template.encode(prompt.prompt, add_generation_prompt=True, learn="none").tiles
        numbers = {name: np.asarray(values, np.float64) for name, values in plain["numbers"].items()}
        replies, finished = plain.get("replies", []), plain.get("finished", False)
        return Episode(plain["row"], prompt, plain["ids"], tiles, plain["drawn"], replies, finished, numbers)

    def close(self) -> None:
        if self.ptx is not None:
            self.ptx.close()
        if self._log is not None:
            self._log.close()
        if self.elsewhere is not None:
            self.elsewhere.close()

    def _begin_round(self) -> None:
        number, config = self._round, self.config
        began = time.perf_counter()
        episodes, version = self._draw(number)
        drawn = time.perf_counter()
        rewards, by_part = self.rewards([episode.sample for episode in episodes])
        rewards = rewards - config.missing_end * np.array([not episode.finished for episode in episodes])
        scored = time.perf_counter()
        self.measure(episodes)
        found: dict[str, Any] = {}
        if self.elsewhere is not None:
            mismatch = weigh(episodes, self.elsewhere.config.importance_cap)
            found = {"staleness": number - version, "mismatch": mismatch}
        found |= self.credit.assign(episodes, rewards)
        measured = time.perf_counter()
        stats = describe(episodes, rewards, by_part) | found
        self.stats = {
            "round": number + 1,
            **stats,
            "timing": {
                "generation": round(drawn - began, 3),
                "scoring": round(scored - drawn, 3),
                "measuring": round(measured - scored, 3),
                "update": round(self._update_s, 3),
            },
        }
        self._update_s, self._handed = 0.0, None
        self.credit.learn(stats["kl"])
        self._show(number + 1, episodes, rewards)
        self._episodes, self._round, self._at = episodes, number + 1, 0

    def _draw(self, number: int) -> tuple[list[Episode], int]:
        """The episodes of a round, and after how many rounds the weights that drew them were learned."""
        if self.elsewhere is None:
            seed = partial(request_seed, self._seed, number)
            return self.player.play(self._rows(number), self.config.samples, seed), number
        ahead = min(number + self.elsewhere.config.max_staleness + 1, self.config.rounds)
        for later in range(number, ahead):
            if later not in self._flying:
                self._flying[later] = number, self.elsewhere.begin(later, self._rows(later), number)
        version, future = self._flying.pop(number)
        return [self._read(plain) for plain in future.result()], version

    @property
    def _seed(self) -> int:
        return self.config.seed

    def _rows(self, number: int) -> list[tuple[int, PromptRow]]:
        return [(i, self.prompts[i]) for i in self._drawn(number)]

    def _drawn(self, number: int) -> list[int]:
        """The prompts of a round: the next ones of the shuffled rows, epoch after epoch."""
        places = number * self.config.prompts + np.arange(self.config.prompts)
        epochs, at = np.divmod(places, len(self.prompts))
        orders = {epoch: permutation(self._seed, int(epoch), len(self.prompts)) for epoch in np.unique(epochs)}
        return [int(orders[epoch][i]) for epoch, i in zip(epochs, at, strict=True)]

    @torch.no_grad()
    def measure(self, episodes: Sequence[Episode]) -> None:
        """Log-probabilities of the drawn tokens by policy ("old") and reference, and values where there is a critic."""
        device = self.policy.device
        for part, batch in pack_episodes(episodes, MICRO_TOKENS, self.pad):
            found = {"old": logprobs(self.policy, batch, device), "reference": self.reference(batch)}
            if self.credit.values:
                assert self.critic is not None
                found["value"] = token_values(self.critic, batch, device)
            edges = np.cumsum([0, *(len(episode.drawn) for episode in part)])
            for name, numbers in found.items():
                flat = numbers.double().cpu().numpy()
                for episode, a, b in zip(part, edges, edges[1:], strict=False):
                    episode.numbers[name] = flat[a:b].copy()

    def _batch(self, at: int) -> PackedBatch:
        epoch, number = divmod(at, self.config.minibatches)
        order = np.random.Generator(np.random.PCG64([self._seed, self._round, epoch])).permutation(len(self._episodes))
        chosen = [self._episodes[i] for i in np.array_split(order, self.config.minibatches)[number]]
        beside = next(self.ptx) if self.ptx is not None else None
        names = ("old", *self.credit.names, *((IMPORTANCE,) if self.elsewhere else ()))
        rows = [batch for _, batch in pack_episodes(chosen, MICRO_TOKENS, self.pad, names, beside)]
        weigh = self.config.ptx / max(1.0, sum(float(row.values["ptx"].sum()) for row in rows))
        count = sum(float(row.values["weight"].sum()) for row in rows)
        for row in rows:
            row.values["ptx"][:] *= weigh * count
        return stack_rows(rows, self.pad)

    def _show(self, number: int, episodes: Sequence[Episode], rewards: Floats) -> None:
        if self._samples is None:
            return
        if self._log is None:
            self._log = RunLog(self._samples, number - 1 if self._restored else None)
        for episode, reward in list(zip(episodes, rewards.tolist(), strict=True))[:: max(1, len(episodes) // SHOWN)]:
            said = episode.sample.conversation.to_openai()
            kl = float((episode.numbers["old"] - episode.numbers["reference"]).sum())
            self._log.write("sample", step=number, reward=reward, kl=kl, ended=episode.finished, messages=said)


def describe(episodes: Sequence[Episode], rewards: Floats, by_part: dict[str, Floats]) -> dict[str, Any]:
    """What is logged of episodes: rewards, divergence in nats a reply, entropy in nats a token, length, ends.

    The entropy is estimated by the mean of −log π of the drawn tokens.
    """
    old = np.concatenate([episode.numbers["old"] for episode in episodes])
    gaps = [float((episode.numbers["old"] - episode.numbers["reference"]).sum()) for episode in episodes]
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "rewards": {name: float(values.mean()) for name, values in by_part.items()},
        "kl": float(np.mean(gaps)),
        "entropy": float(-old.mean()),
        "length": len(old) / len(episodes),
        "ended": float(np.mean([episode.finished for episode in episodes])),
    }


def logprobs(model: Any, batch: PackedBatch, device: torch.device) -> Tensor:
    """(n,): of each target that counts, in flat order."""
    targets = batch.targets.reshape(-1)
    counted = to_device(np.flatnonzero(targets >= 0), device)
    hidden = model.hidden(*inputs(batch, device))
    return chunked_logprobs(hidden, model.head_weight, to_device(targets, device), counted)


def token_values(critic: Any, batch: PackedBatch, device: torch.device) -> Tensor:
    """(n,) float32: the critic's value before each target that counts."""
    hidden = critic.hidden(*inputs(batch, device)).flatten(0, 1)
    found: Tensor = critic.scalar_head(hidden[to_device(np.flatnonzero(batch.targets.reshape(-1) >= 0), device)])
    return found


def stack_rows(rows: Sequence[PackedBatch], pad: int) -> PackedBatch:
    """Batches of one row each as one, the shorter ones padded."""
    if len(rows) == 1:
        return rows[0]
    width = max(row.tokens.shape[1] for row in rows)
    empty = {"tokens": pad, "targets": -100, "positions": 0, "segments": -1, "kinds": 0, "examples": -1}
    joined = {name: _joined([getattr(row, name) for row in rows], width, fill) for name, fill in empty.items()}
    values = {name: _joined([row.values[name] for row in rows], width, 0) for name in rows[0].values}
    tiles = np.concatenate([row.tiles for row in rows if len(row.tiles)] or [rows[0].tiles])
    return PackedBatch(**joined, tiles=tiles, values=values)


def _joined(arrays: Sequence[Any], width: int, fill: int) -> Any:
    return np.concatenate(
        [np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill) for array in arrays]
    )
