"""The one training loop: pre-training, SFT and reward models differ in the loader and the objective they pass in."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foretell.data.loader import PackedBatch
from foretell.errors import AlarmError, ForetellError, Stopped, TrainingError
from foretell.model.describe import training_flops
from foretell.model.multimodal import Multimodal
from foretell.model.weights import read_weights
from foretell.recipe import TrainConfig
from foretell.train import checkpoint, pieces
from foretell.train.checkpoint import TrainingState
from foretell.train.distributed import Group
from foretell.train.hooks import Hooks
from foretell.train.log import RunLog, read_log
from foretell.train.loss import IGNORE
from foretell.train.objective import Batches, Objective, Sums, add, split
from foretell.train.optim import clip, gradient_norm, load_moments, lr_factor, named_moments, set_lr
from foretell.train.parallel import Sharded
from foretell.train.sharing import add_gradients, sharers
from foretell.train.signals import Signals
from foretell.train.watch import Alarm, Watch

SNAPSHOT_EVERY = 50


@dataclass
class Counters:
    """Steps done, tokens read, FLOPs spent, steps whose update was dropped, the last gradient norm."""

    step: int = 0
    tokens: int = 0
    flops: float = 0.0
    dropped: int = 0
    grad_norm: float = 0.0


class Trainer:
    """State of a run, and the loop over it.

    loader: one batch is one optimizer step; `micro_rows` of its rows go through the model at a time. plan: the settings
    that decide the numbers; a checkpoint of another plan is refused. log: where lines go. folder: for checkpoints.
    group: the processes that share a step, each with its own rows of it; a single one without. sharded: the model,
    where no process holds the whole of it. critic: a second model that the objective trains beside the first; it lies
    in the training state alone.
    """

    def __init__(
        self,
        model: Multimodal,
        optimizer: torch.optim.Optimizer,
        loader: Batches,
        objective: Objective,
        config: TrainConfig,
        log: RunLog,
        folder: Path,
        *,
        total_steps: int,
        micro_rows: int,
        plan: Mapping[str, Any],
        hooks: Hooks | None = None,
        group: Group | None = None,
        sharded: Sharded | None = None,
        critic: Multimodal | None = None,
    ) -> None:
        self.model, self.optimizer, self.loader, self.objective = model, optimizer, loader, objective
        self.config, self.log, self.folder = config, log, folder
        self.total_steps, self.micro_rows, self.plan = total_steps, micro_rows, dict(plan)
        self.hooks, self.group = hooks or Hooks(), group or Group()
        self.critic, self.sharded = critic, sharded
        self._saver = pieces.Saver(self.group, config.keep) if sharded is not None else None
        self._copies = sharded.place.tensor if sharded is not None else 1  # of every row of a batch
        parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.names: dict[Tensor, str] = {
            p: name for name, p in (parameters if sharded is None else sharded.local).items()
        }
        if critic is not None:
            self.names |= {p: f"critic.{name}" for name, p in critic.named_parameters() if p.requires_grad}
        self.watch = Watch(config.watch, config.spike_sigmas)
        self.count = Counters()
        self.sums: Sums = {}
        self.snapshot: dict[str, Tensor] = {}
        self.seconds = log.seconds
        self._since = (self.seconds, 0, 0.0)
        self._note = self._alarm = self._enough = ""
        self._saved = -1  # the step of the last checkpoint

    def state(self) -> TrainingState:
        """Everything beside the weights that decides the numbers from here on."""
        tensors = {f"moments/{key}": value for key, value in named_moments(self.optimizer, self.names).items()}
        tensors |= {f"sums/{key}": value for key, value in self.sums.items()}
        tensors |= {f"snapshot/{key}": value for key, value in self.snapshot.items()}
        if self.critic is not None:
            tensors |= {f"critic/{name}": parameter for name, parameter in self.critic.named_parameters()}
        plain = {
            **asdict(self.count),
            "plan": self.plan,
            "loader": self.loader.state_dict(),
            "watch": self.watch.state_dict(),
            "generators": checkpoint.generators_state(),
        }
        return TrainingState(plain, tensors)

    def restore(self, folder: Path, state: TrainingState) -> None:
        """Go on from a checkpoint. Raises CheckpointError when it is from another plan or shape.

        Whole weights are read before a model is sharded, so that here a sharded one has them.
        """
        plain = state.plain
        checkpoint.check_same(plain["plan"], self.plan, folder)
        if state.pieces:
            pieces.read(folder, state, self.names, self.sharded)
        elif self.sharded is None:
            read_weights(folder, self.model)
        else:
            for key in state.tensors:
                if name := pieces.parameter_of(key):
                    state.tensors[key] = self.sharded.cut(name, state.tensors[key])
        if self.critic is not None:
            with torch.no_grad():
                for name, parameter in self.critic.named_parameters():
                    parameter.copy_(state.tensors[f"critic/{name}"])
        load_moments(self.optimizer, self.names, _under(state.tensors, "moments/"))
        self.sums, self.snapshot = _under(state.tensors, "sums/"), _under(state.tensors, "snapshot/")
        if self.group.rank:  # they are in the first process's already
            self.sums = {key: torch.zeros_like(value) for key, value in self.sums.items()}
        self.count = Counters(**{key: plain[key] for key in asdict(self.count)})
        self._since = (self.seconds, self.count.tokens, self.count.flops)
        self.loader.load_state_dict(plain["loader"])
        self.watch.load_state_dict(plain["watch"])
        checkpoint.restore_generators(plain["generators"])
        if self.hooks.observe and not self.group.rank:
            for line in read_log(self.log.path):
                if line["event"] == "train":
                    self._observe(line["step"], line)
            self._enough = ""  # whoever resumes has seen it

    def fit(self) -> None:
        """Train until `total_steps`, then write the last checkpoint.

        Raises KeyboardInterrupt, after finishing the step and writing a checkpoint, on SIGINT or SIGTERM to any process
        of the group; TrainingError likewise when the observer ends the run, and when the watch gives up or another
        process is gone; RunError when the disk is full.
        """
        count, config, hooks = self.count, self.config, self.hooks
        eval_steps = max(1, round(config.eval_every * self.total_steps)) if config.eval_every else self.total_steps
        saved_at = hooks.clock()
        self.model.train()
        if self.critic is not None:
            self.critic.train()
        if self.sharded is None:
            self.group.broadcast(self.names)
        with Signals() as signals:
            while count.step < self.total_steps:
                began = time.perf_counter()
                with self._kept():
                    batch = next(self.loader)
                self._train_step(batch)
                self.seconds += time.perf_counter() - began
                if count.step % config.log_every == 0 or count.step == self.total_steps:
                    self._log_train()
                hooks.report(hooks.task, count.step, self.total_steps, self._note)
                if hooks.evaluate and count.step % eval_steps == 0 and count.step < self.total_steps:
                    with self._kept():
                        self.log.write("eval", step=count.step, tokens=count.tokens, **hooks.evaluate())
                now = hooks.clock()
                reasons = (
                    signals.received,
                    now - saved_at >= config.checkpoint_minutes * 60,
                    bool(self._enough) and count.step < self.total_steps,
                    self._saver is not None and self._saver.failed,
                )
                told, due, ended, failed = map(int, self.group.most(*reasons))
                if failed or (self._saver is not None and self._saver.done):
                    self.settle()
                if told or due or ended:
                    self.save()
                    saved_at = now
                if told or ended:
                    self.settle()
                if told:
                    name = signal.Signals(told).name
                    self.log.write("stop", step=count.step, tokens=count.tokens, signal=name)
                    raise Stopped(
                        f"Stopped by {name} after step {count.step} of {self.total_steps}; everything is "
                        f"saved in {self.folder}. Run the same command again to go on from there.",
                        told,
                    )
                if ended:
                    self.log.write("stop", step=count.step, tokens=count.tokens, reason="alarm")
                    raise AlarmError(
                        f"Ended by an alarm after step {count.step} of {self.total_steps}: "
                        f"{self._enough or 'see the log'}. Everything is saved in {self.folder}; run the same command "
                        "again to go on all the same."
                    )
            if self._saved != count.step:
                self.save()
            self.settle()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Where batches are made or judged by others, such as a grader that does not answer, nothing is lost.

        Of several processes it may be this one alone that fails, and the others do not meet it to save anything.
        """
        try:
            yield
        except ForetellError:
            if self._saved != self.count.step and self.group.world == 1:
                self.save()
            self.settle()
            raise

    def save(self) -> Path:
        """Write a checkpoint of this step and remove the oldest ones beyond `train.keep`.

        A sharded run goes on while it is written; `settle` waits for that.
        """
        path = checkpoint.checkpoint_path(self.folder, self.count.step)
        self.settle()
        began = time.perf_counter()
        self.sums = self.group.total(self.sums)
        if self.sharded is not None and self._saver is not None:
            hooks = self.hooks
            self._saver.start(path, self.sharded, self.names, self.state(), hooks.files or {}, hooks.facts or {})
            self._saved = self.count.step
            return path
        if self.group.rank == 0:
            checkpoint.save_checkpoint(path, self.model, self.state(), self.hooks.files or {}, self.hooks.facts)
            checkpoint.prune(path, self.config.keep)
        self.group.wait()  # a process that left earlier would have torchrun end the one that writes
        self._saved = self.count.step
        self.log.write("checkpoint", step=self.count.step, path=path.name, took=round(time.perf_counter() - began, 3))
        return path

    def settle(self) -> None:
        """Wait until what is being saved is on the disk. Raises RunError when it could not be written."""
        if self._saver is not None and (fields := self._saver.wait()) is not None:
            self.log.write("checkpoint", step=self._saved, **fields)

    def _train_step(self, batch: PackedBatch) -> None:
        count, config = self.count, self.config
        if config.watch == "rewind" and (not self.snapshot or count.step % SNAPSHOT_EVERY == 0):
            self._take_snapshot()
        seen = self.group.add(self.objective.weight(batch), _flops(self.model, batch), len(batch.tiles))
        weight, flops, tiles = (value / self._copies for value in seen)
        loss, norm, sums = self._gradients(batch, max(1.0, weight), tiles > 0)
        count.tokens += batch.tokens.size * self.group.world // self._copies
        count.flops += flops
        try:
            alarm = self.watch.judge(count.step + 1, loss, norm)
        except TrainingError as error:
            self.log.write("stop", step=count.step + 1, tokens=count.tokens, reason=str(error))
            raise
        if alarm is None:
            clip(self.names, norm, config.optimizer.clip)
            set_lr(self.optimizer, self._lr_factor())
            self.optimizer.step()
            self.sums = add(self.sums, sums)
            count.grad_norm = norm
        self.optimizer.zero_grad(set_to_none=True)
        count.step += 1
        if alarm is not None:
            self._react(alarm)

    def _gradients(self, batch: PackedBatch, weight: float, images: bool) -> tuple[float, float, Sums]:
        """Loss and gradient norm of one optimizer step, over all processes, and the objective's sums of this one.

        weight: what the summed loss of all processes is divided by. images: whether any of them has one. The one host
        sync is here.
        """
        config = self.model.config
        sums: Sums = {}
        losses = []
        per_tile = config.vision.tokens_per_tile if config.vision else 1
        parts = list(split(batch, self.micro_rows, config.image_token, per_tile))
        for number, part in enumerate(parts, 1):
            if self.sharded is not None:
                self.sharded.begin(number == len(parts), images)
            rows, length = part.tokens.shape
            alone = self.sharded is not None or self.model.device.type != "cpu"
            threads = 1 if alone else sharers(rows, length, config.width)
            total, part_sums = add_gradients(self.objective, self.model, part, weight, self.names, threads)
            losses.append(total)
            sums = add(sums, part_sums)
        mean = torch.stack(losses).sum() / weight
        if self.sharded is not None:
            if self.sharded.place.tensor_rank:  # the first of those that read these rows counts them
                sums = {key: torch.zeros_like(value) for key, value in sums.items()}
            return *self.sharded.finish(mean, self.group), sums
        self.group.sum_gradients(list(self.names), mean)
        loss, norm = torch.stack([mean, gradient_norm(self.names).to(mean.device)]).tolist()
        return loss, norm, sums

    def _lr_factor(self) -> float:
        c = self.config
        return lr_factor(self.count.step, self.total_steps, c.warmup, c.decay, c.schedule)

    def _react(self, alarm: Alarm) -> None:
        """Say what was bad; the update is dropped already. With `rewind`, go back to the last snapshot as well."""
        count = self.count
        count.dropped += 1
        sigmas = None if alarm.sigmas is None else round(alarm.sigmas, 2)
        fields = {"what": alarm.what, "value": alarm.value, "sigmas": sigmas, "tokens": count.tokens}
        if self.config.watch != "rewind":
            self.log.write(alarm.event, step=count.step, action="skip", **fields)
            return
        bad, count.step, self._saved = count.step, int(self.snapshot["step"]), -1
        self.log.write(alarm.event, step=bad, action="rewind", to_step=count.step, **fields)
        with torch.no_grad():
            for parameter, name in self.names.items():
                parameter.copy_(self.snapshot[f"weights/{name}"])
        load_moments(self.optimizer, self.names, _under(self.snapshot, "moments/"))
        self.watch.rewind((self.snapshot["losses"].tolist(), self.snapshot["log_norms"].tolist()))
        self.sums = {}

    def _take_snapshot(self) -> None:
        """Keep weights and moments to go back to. It travels in checkpoints, so that resuming changes nothing."""
        moments = named_moments(self.optimizer, self.names)
        self.snapshot = {f"weights/{name}": p.detach().clone() for p, name in self.names.items()}
        self.snapshot |= {f"moments/{key}": value.clone() for key, value in moments.items()}
        losses, log_norms = self.watch.window()
        self.snapshot |= {
            "step": torch.tensor(self.count.step),
            "losses": torch.tensor(losses, dtype=torch.float64),
            "log_norms": torch.tensor(log_norms, dtype=torch.float64),
        }

    def _log_train(self) -> None:
        count, (seconds, tokens, flops) = self.count, self._since
        spent = max(1e-9, self.seconds - seconds)
        sums = self.group.total(self.sums)
        summary: dict[str, Any] = self.objective.summary(sums) if sums else {"loss": None}
        by_kind: dict[str, dict[str, Any]] = summary.pop("by_kind", {})
        rate = (count.tokens - tokens) / spent
        share = (count.flops - flops) / spent / self.hooks.matmul_rate if self.hooks.matmul_rate else None
        line = {"step": count.step, "tokens": count.tokens, **summary, "lr": self.optimizer.param_groups[0]["lr"]}
        self.log.write(
            "train",
            **line,
            grad_norm=count.grad_norm,
            tokens_per_s=round(rate, 1),
            matmul_share=share,
            seconds=round(self.seconds, 3),
            loss_by_kind={kind: entry["loss"] for kind, entry in by_kind.items()},
        )
        for alarm in self._observe(count.step, line):
            self.log.write("alarm", step=count.step, tokens=count.tokens, **alarm)
            self.hooks.report(self._alarm, 0, 0, alarm["text"])
        if summary["loss"] is not None:
            self._note = f"loss {summary['loss']:.3f}, {rate:,.0f} tokens/s"
            if "reward" in summary:
                self._note = f"reward {summary['reward']:.3f}, KL {summary['kl']:.1f} nats a reply"
            self._note += f", {self._alarm}" if self._alarm else ""
        self.sums, self._since = {}, (self.seconds, count.tokens, count.flops)

    def _observe(self, step: int, line: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Alarms that the observer raises at a log line."""
        if self.hooks.observe is None or self.group.rank:
            return []
        alarms = list(self.hooks.observe(step / self.total_steps, line))
        for alarm in alarms:
            self._alarm = f"ALARM at {step / self.total_steps:.0%}"
            self._enough = alarm["text"] if alarm.get("stop") else self._enough
        return alarms


def _flops(model: Multimodal, batch: PackedBatch) -> float:
    """FLOPs of training on this batch: attention as far as documents reach, the head only where there is a loss."""
    context = float(batch.positions.mean()) + 1
    return training_flops(
        model.config, batch.tokens.size, len(batch.tiles), context, int((batch.targets != IGNORE).sum())
    )


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
