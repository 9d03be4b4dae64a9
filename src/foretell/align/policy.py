"""Policy gradients as a run: [base →] prompts → ppo or grpo; skipped and resumed as any run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from foretell.align.drawers import Drawers, Elsewhere, make_engine
from foretell.align.episodes import Player, request_seed
from foretell.align.examples import read_prompts
from foretell.align.packing import require_template
from foretell.align.ppo import Advantages, GroupAdvantages, PolicyGradient
from foretell.align.prompts import read_split
from foretell.align.reward import RewardModel, add_head
from foretell.align.rewarding import Part, Rewards, by_model
from foretell.align.rollout import Credit, Rollouts, describe, logprobs
from foretell.align.rows import data_files
from foretell.align.stages import OWN_FILES, SETTINGS, import_stage, open_base, tuned
from foretell.data.loader import Loader, PackedBatch
from foretell.errors import CheckpointError, DataError, GenerationError, TrainingError
from foretell.files import expand_home, read_json, sha256_file
from foretell.loading import find_checkpoint, is_foreign
from foretell.model.adapters import choose_trained, without_adapters
from foretell.model.multimodal import Multimodal
from foretell.model.weights import MANIFEST, SCALAR_HEAD, read_scalar_head
from foretell.run import Report, Stage, place, run_stages, silent
from foretell.train.loop import fit
from foretell.train.setup import pick_device, pick_precision
from foretell.tuning import GRPOConfig, PolicyConfig, PPOConfig
from foretell.weights.importing import Opened, load_checkpoint

PolicyKind = Literal["ppo", "grpo"]
POLICIES: dict[PolicyKind, type[PolicyConfig]] = {"ppo": PPOConfig, "grpo": GRPOConfig}
SAMPLES = "samples.jsonl"
_EVALUATING = 1 << 20  # in place of a round's number, in seeds


@dataclass(frozen=True)
class Sources:
    """Where rewards come from, and what is read beside them.

    reward: a run of `foretell reward` or its checkpoint, whose model also becomes PPO's critic. weight: of its score.
    parts: further rewards; made by `make` where they need to be loaded only once the run begins. ptx: a run, or a
    packed folder, whose training rows are mixed in. identity: what `parts` depend on, so that a change begins anew.
    """

    reward: str | Path | None = None
    weight: float = 1.0
    parts: tuple[Part, ...] = ()
    make: Callable[[], Sequence[Part]] | None = None
    ptx: str | Path | None = None
    identity: Any = None

    def outside(self) -> Any:
        found: list[Any] = [self.identity, [[part.name, part.weight] for part in self.parts]]
        if self.reward:
            found.append(sha256_file(_judge_folder(self.reward) / MANIFEST))
        if self.ptx:
            found.append(sha256_file(find_pack(self.ptx) / "index.json"))
        return found


def train_policy(
    kind: PolicyKind,
    model: str | Path,
    data: str | Path,
    out_dir: str | Path,
    settings: PolicyConfig | None = None,
    sources: Sources | None = None,
    report: Report = silent,
) -> dict[str, dict[str, Any]]:
    """Let a model learn from rewards of its own replies; the result is `out_dir`/KIND/checkpoint.

    model, data, the call again, and what is raised: as of `align.stages.tune`; of data the prompts are read
    (`examples.read_prompts`). Raises TrainingError, after a checkpoint, where a reward is not finite, where the policy
    has left `most_kl` or `least_entropy`; GraderError where a grader does not answer. The same call goes on from there.
    """
    settings, sources = settings or POLICIES[kind](), sources or Sources()
    if place()[1] > 1:
        raise TrainingError(
            f"{kind} runs as a single process: start it without foretell launch, or torchrun. `foretell sft`, `reward` "
            "and `dpo` share their steps among several."
        )
    data, out_dir = Path(data), Path(out_dir)
    if not (sources.reward or sources.parts or sources.make):
        raise TrainingError(
            "Nothing rewards the replies. Give a reward model (--reward), a rubric (--rubric) or a --function."
        )
    plain = settings.model_dump(mode="json")
    foreign = is_foreign(model)
    base = None if foreign else find_checkpoint(model)
    data_files(data)

    def origin(inputs: Mapping[str, Path]) -> Path:
        return inputs["base"] / "checkpoint" if base is None else base

    named = {
        "reward": str(sources.reward) if sources.reward else None,
        "ptx": str(sources.ptx) if sources.ptx else None,
    }
    beside = {"model": str(model), "data": str(data), **named}
    text = yaml.safe_dump({"name": kind, **beside, **plain}, sort_keys=False, allow_unicode=True)
    stage = policy_stage(kind, settings, origin, data, sources, text, report, ("base",) if foreign else ())
    outside = "" if base is None else sha256_file(base / MANIFEST)
    stage = replace(
        stage, config={**stage.config, **beside}, outside=lambda: [outside, _digests(data), sources.outside()]
    )
    stages = [import_stage(model, report), stage] if foreign else [stage]
    return run_stages(out_dir, stages, recipe_text=text, name=kind, seed=settings.seed, report=report)


def policy_stage(
    kind: PolicyKind,
    settings: PolicyConfig,
    origin: Callable[[Mapping[str, Path]], Path],
    data: Path,
    sources: Sources,
    text: str,
    report: Report,
    first: tuple[str, ...],
    name: str | None = None,
) -> Stage:
    """The stage that trains a policy. origin: its checkpoint, from the folders of the stages `first`; data: as of
    `train_policy`. text: lies beside the result. name: of the stage, where it is not `kind`.
    """
    return Stage(
        name or kind,
        settings.deciding,
        lambda inputs, out: _Run(
            kind, settings, origin(inputs), data, sources, out, text, report, name or kind
        ).train(),
        first,
        scratch="checkpoints",
    )


def _digests(data: Path) -> list[list[str]]:
    return [[file.name, sha256_file(file)] for file in data_files(data)]


def find_pack(ref: str | Path) -> Path:
    """The packed training rows of a run, or a packed folder itself. Raises DataError where there are none."""
    path = Path(ref)
    for folder in (path, path / "train", path / "pack" / "train"):
        if (folder / "index.json").is_file():
            return folder
    raise DataError(f"{path} holds no packed rows. Give a run of `foretell run` with --ptx, or its pack folder.")


def _judge_folder(ref: str | Path) -> Path:
    """The checkpoint of a reward model. Raises CheckpointError where there is none."""
    place = expand_home(ref)
    own = place / "reward" / "checkpoint"
    try:
        folder = own if own.is_dir() else find_checkpoint(ref)
    except (CheckpointError, GenerationError) as error:
        why = "there is no such folder"
        if place.is_dir():
            begun = (place / "reward").is_dir() or (place / "recipe.yaml").is_file()
            why = "its training is not finished" if begun else "it is no run and no checkpoint"
        raise CheckpointError(
            f"{ref} is no reward model: {why}. Give a finished run of `foretell reward` with --reward."
        ) from error
    if not (folder / SCALAR_HEAD).is_file():
        raise CheckpointError(
            f"{ref} is no reward model: {folder} has no {SCALAR_HEAD}. Train one with `foretell reward --model {ref}`, "
            "and give that run with --reward."
        )
    return folder


@dataclass
class _Run:
    """One training run with everything it holds in memory."""

    kind: PolicyKind
    settings: PolicyConfig
    base: Path
    data: Path
    sources: Sources
    out: Path
    text: str
    report: Report
    name: str
    device: torch.device = field(init=False)

    def train(self) -> dict[str, Any]:
        settings = self.settings
        opened = open_base(self.base, settings.device, frozen=settings.lora.rank > 0)
        model, template = opened.model, require_template(opened.template, str(self.base))
        choose_trained(model, settings)
        self.device = model.device
        precision = pick_precision(settings.precision, model.device)
        model.compute_dtype = getattr(torch, precision)
        room = model.config.max_length - settings.max_tokens
        if room < 1:
            raise TrainingError(
                f"max_tokens is {settings.max_tokens}, but this model reads {model.config.max_length} tokens, prompt "
                "and reply together. Set it lower."
            )
        rewards = self._rewards()
        split, skipped, unjudged = read_split(
            read_prompts(self.data), template, room, settings.heldout, settings.bad_rows == "skip", rewards.parts
        )
        critic = self._critic(model.compute_dtype)
        ptx = None
        if settings.ptx:
            if not self.sources.ptx:
                raise TrainingError(
                    f"ptx is {settings.ptx}, but there is nothing to mix in. Give a run with --ptx RUN."
                )
            ptx = Loader(find_pack(self.sources.ptx), settings.ptx_rows, settings.seed)
        engine = make_engine(opened, settings)
        manifest = read_json(self.base / MANIFEST)
        facts = {key: manifest[key] for key in ("imported_from",) if key in manifest}
        player = Player(engine, template, model.config.max_length, settings.max_tokens)
        credit: Credit = Advantages(settings) if isinstance(settings, PPOConfig) else GroupAdvantages(_grpo(settings))
        rollouts = Rollouts(
            model, player, split["train"], rewards, self._reference(model), credit, settings,
            opened.tokenizer.pad, critic, ptx, self.out / SAMPLES,
            self._elsewhere(opened, settings.model_copy(update={"precision": precision}), facts),
        )  # fmt: skip
        steps = settings.rounds * settings.epochs * settings.minibatches
        held = list(enumerate(split["heldout"][: settings.eval_prompts]))

        def measure(batches: int) -> dict[str, Any]:
            episodes = player.play(held, 1, lambda i: request_seed(settings.seed, _EVALUATING, i))
            values, by_part = rewards([episode.sample for episode in episodes])
            rollouts.measure(episodes)
            return describe(episodes, values, by_part)

        files: dict[str, Path | str] = {
            p.name: p for p in self.base.iterdir() if p.is_file() and p.name not in OWN_FILES
        }
        divergence = settings.kl if isinstance(settings, GRPOConfig) else 0.0
        try:
            found = fit(
                model,
                rollouts,
                PolicyGradient(rollouts, settings, critic, divergence),
                settings.model_copy(update={"precision": precision}).training(
                    steps, rollouts.sequence_length, micro_batch=1, watch="off"
                ),
                self.out,
                total_steps=steps,
                name=self.name,
                seed=settings.seed,
                measure=measure if held else None,
                files=files | {SETTINGS: self.text},
                facts=facts | tuned(self.text, self.base, self.kind),
                plan={"kind": self.kind, "settings": settings.deciding, "prompts": len(split["train"])},
                critic=None if critic is None else (critic, getattr(settings, "critic_lr", settings.lr)),
                task=self.name,
                report=self.report,
                observe=self._alarms,
            )
        finally:
            engine.close()
        return {**found, "prompts": len(split["train"]), "skipped": dict(skipped), "unjudged": dict(unjudged)}

    def _elsewhere(self, opened: Opened, settings: PolicyConfig, facts: Mapping[str, Any]) -> Elsewhere | None:
        if settings.rollout is None:
            return None
        if settings.rollout.served:
            from foretell.align.served import Served

            return Served(opened, self.base, settings, facts)
        return Drawers(opened.model, self.base, settings, self.out, self.report)

    def _rewards(self) -> Rewards:
        parts = [*self.sources.parts, *(self.sources.make() if self.sources.make else ())]
        if self.sources.reward:
            folder = _judge_folder(self.sources.reward)
            mine, its = (place / "tokenizer.json" for place in (self.base, folder))
            if mine.is_file() and its.is_file() and sha256_file(mine) != sha256_file(its):
                raise CheckpointError(
                    f"The reward model {self.sources.reward} has another tokenizer than the policy, so it cannot read "
                    "its tokens. Train it with `foretell reward --model` on the same model."
                )
            judge = RewardModel.load(folder, str(self.device))
            parts.insert(0, Part("model", by_model(judge), self.sources.weight))
        return Rewards(tuple(parts))

    def _critic(self, dtype: torch.dtype) -> Multimodal | None:
        """The reward model, or where there is none the policy with a head that says 0; as much of it is trained as of
        the policy, and its head."""
        if self.kind != "ppo":
            return None
        if self.sources.reward:
            folder = _judge_folder(self.sources.reward)
            critic = open_base(folder, str(self.device), self.settings.lora.rank > 0).model
            read_scalar_head(folder, critic)
        else:
            critic = open_base(self.base, str(self.device), self.settings.lora.rank > 0).model
            add_head(critic, self.settings.seed)
            assert critic.scalar_head is not None
            torch.nn.init.zeros_(critic.scalar_head.weight)
        critic.compute_dtype = dtype
        choose_trained(critic, self.settings)
        return critic.to(self.device)

    def _reference(self, model: Multimodal) -> Callable[[PackedBatch], Tensor]:
        """Log-probabilities by the model that the run began with: a second one, or without adapters the same."""
        if model.lora is not None:

            def base(batch: PackedBatch) -> Tensor:
                with without_adapters(model):
                    return logprobs(model, batch, self.device)

            return base
        dtype = model.compute_dtype
        frozen = load_checkpoint(self.base, lambda stored: dtype).model.to(pick_device(str(self.device)))
        for parameter in frozen.parameters():
            parameter.requires_grad_(False)
        return lambda batch: logprobs(frozen, batch, self.device)

    def _alarms(self, share: float, line: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """A policy that has left what it was is stopped while its last whole checkpoint is near."""
        settings = self.settings
        kl, entropy = line.get("kl"), line.get("entropy")
        if isinstance(kl, float) and kl > settings.most_kl:
            yield {
                "what": "kl",
                "stop": True,
                "text": f"the policy is {kl:.1f} nats a reply from its reference, beyond most_kl = "
                f"{settings.most_kl:g}. Raise kl or lower lr and begin in another folder",
            }
        if isinstance(entropy, float) and entropy < settings.least_entropy:
            yield {
                "what": "entropy",
                "stop": True,
                "text": f"the policy's entropy is {entropy:.3f} nats a token, below least_entropy = "
                f"{settings.least_entropy:g}: it has collapsed. Raise kl or lower lr and begin in another folder",
            }


def _grpo(settings: PolicyConfig) -> GRPOConfig:
    assert isinstance(settings, GRPOConfig)
    return settings
