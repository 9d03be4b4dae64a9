"""Rounds of replies drawn elsewhere: by engines in processes of their own, on this machine or a Ray cluster.

The process that learns writes its weights where the drawers can read them: a file in shared memory on one machine, in
the run's folder, which all see, on a cluster. Each drawer takes a part of a round's prompts, and reads the weights that
the part names before it draws. A part whose drawer is lost is drawn by another, from the same seeds.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from foretell.align.episodes import Player, request_seed
from foretell.align.examples import PromptRow
from foretell.align.packing import require_template
from foretell.align.stages import open_base
from foretell.engine.local import Engine
from foretell.files import atomic_path
from foretell.measure.fanout import Workers
from foretell.model.adapters import choose_trained
from foretell.model.multimodal import Multimodal
from foretell.run import Report
from foretell.tuning import PolicyConfig, RolloutConfig

Rows = Sequence[tuple[int, PromptRow]]
Drawn = list[dict[str, Any]]
"""Episodes as `Episode.plain` has them, with "replies" and "finished"; prompt after prompt, in the rows' order."""
MOST_BATCH = 256
_SHARED = Path("/dev/shm")  # noqa: S108  (memory that is a folder, on Linux)
_PREFIX = "foretell-"  # and the process that learns
_SPARE = 3  # times the weights that must stay free there


class Elsewhere(Protocol):
    """Draws rounds beside the process that learns. `begin` returns at once; rounds are drawn in the order begun."""

    config: RolloutConfig

    def begin(self, number: int, rows: Rows, version: int) -> Future[Drawn]:
        """Draw a round by the weights of now, which are called `version`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Part:
    """What one drawer does of a round. base: the checkpoint that the run began with. weights: what has been learned
    since. first: number of its first prompt in the round."""

    base: Path
    weights: Path
    settings: PolicyConfig
    number: int
    first: int
    rows: tuple[tuple[int, PromptRow], ...]


class Drawers:
    """An `Elsewhere` of this package's engine. settings: with the precision that the policy has. folder: of the run."""

    def __init__(self, model: Multimodal, base: Path, settings: PolicyConfig, folder: Path, report: Report) -> None:
        assert settings.rollout is not None
        self.config, self.model, self.base, self.settings = settings.rollout, model, base.absolute(), settings
        self.report = report
        self._files = Files(model, folder.absolute() / ".rollout", self.config.on == "local")
        # As much of a GPU as there are drawers for, or they would all be sent to the same one.
        gpu = 1.0 if settings.device in ("auto", "cuda") else 0.0
        self._pool = Workers(self.config.workers, self.config.on, gpu=gpu)
        self._thread = ThreadPoolExecutor(1, "rollouts")

    def begin(self, number: int, rows: Rows, version: int) -> Future[Drawn]:
        weights = self._files.write(version, version - self.config.max_staleness)
        count = min(len(self._pool), len(rows))
        edges = [len(rows) * i // count for i in range(count + 1)]
        parts = [Part(self.base, weights, self.settings, number, a, tuple(rows[a:b])) for a, b in pairwise(edges)]
        return self._thread.submit(self._draw, parts)

    def _draw(self, parts: Sequence[Part]) -> Drawn:
        found = dict(self._pool.map(draw, parts, tell=lambda said: self.report("rollouts", 0, 0, said)))
        return [plain for i in range(len(parts)) for plain in found[i]]

    def close(self) -> None:
        self._pool.stop()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._files.remove()


class Files:
    """The weights that are trained, one file a version; those older than what is still drawn with are removed.

    folder: where they lie, unless they go into shared memory (`near`), as they do where there is room for all versions.
    """

    def __init__(self, model: Multimodal, folder: Path, near: bool) -> None:
        self.model, self.folder, self._near = model, folder, near
        self._begun = False

    def write(self, version: int, oldest: int) -> Path:
        if not self._begun:
            self._begin(kept=version - oldest + 1)
        path = self.folder / f"{version}.safetensors"
        if path.exists():
            return path
        for old in self.folder.glob("*.safetensors"):
            if int(old.stem) < oldest:
                old.unlink()
        state = {n: p.detach().cpu().contiguous() for n, p in self.model.named_parameters() if p.requires_grad}
        with atomic_path(path) as temporary:
            save_file(state, temporary)
        return path

    def _begin(self, kept: int) -> None:
        self._begun = True
        self.remove()  # what a run that was cut off left, as those in shared memory are
        for old in _SHARED.glob(f"{_PREFIX}*"):
            with suppress(ValueError, PermissionError):
                try:
                    os.kill(int(old.name.split("-")[1]), 0)
                except ProcessLookupError:
                    shutil.rmtree(old, ignore_errors=True)
        size = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        if self._near:
            with suppress(OSError):
                if shutil.disk_usage(_SHARED).free > (kept + _SPARE) * size:
                    self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_SHARED))
        self.folder.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def draw(part: Part) -> Drawn:
    """Draw a part in this process, with its engine."""
    drawer = _drawer(part.base, part.settings.model_dump_json(), type(part.settings))
    return drawer(part)


@lru_cache(maxsize=1)
def _drawer(base: Path, settings: str, kind: type[PolicyConfig]) -> _Drawer:
    """Kept for the process, whose rounds are all of one run."""
    return _Drawer(base, kind.model_validate_json(settings))


class _Drawer:
    """A policy that follows another one's weights, and its engine."""

    def __init__(self, base: Path, settings: PolicyConfig) -> None:
        if threading.current_thread() is threading.main_thread():
            # The terminal's interrupt is for the process that learns: it finishes its step, and ends this one.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        opened = open_base(base, settings.device, frozen=settings.lora.rank > 0)
        self.model, template = opened.model, require_template(opened.template, str(base))
        choose_trained(self.model, settings)
        self.model.compute_dtype = getattr(torch, settings.precision)
        engine = make_engine(opened, settings)
        self.player = Player(engine, template, self.model.config.max_length, settings.max_tokens, logprobs=True)
        self.settings, self.read = settings, Path()

    def __call__(self, part: Part) -> Drawn:
        if self.read != part.weights:
            state = load_file(part.weights)
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    if parameter.requires_grad:
                        parameter.copy_(state[name])
            self.read = part.weights
        return play(self.player, part.rows, self.settings, part.number, part.first)


def play(player: Player, rows: Rows, settings: PolicyConfig, number: int, first: int) -> Drawn:
    """A part of a round. Seeds of first replies are those that the round has when it is drawn in one piece."""

    def seed(i: int) -> int:
        return request_seed(settings.seed, number, *([first + i] if i < len(rows) else [first, i]))

    episodes = player.play(rows, settings.samples, seed)
    return [one.plain() | {"replies": one.replies, "finished": one.finished} for one in episodes]


def make_engine(opened: Any, settings: PolicyConfig) -> Engine:
    """The engine that a round is drawn by."""
    size = min(MOST_BATCH, settings.prompts * settings.samples)
    return Engine(opened.model, opened.tokenizer, opened.template, size, max_waiting=1 << 30)
