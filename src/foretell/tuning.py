"""Settings of fine-tuning: supervised, a reward model, direct preference optimisation, and policy gradients."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from foretell.sections import Above, Distributed, Name, OptimizerConfig, Positive, Section, Share, TrainConfig

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
Part = Literal["vision", "connector", "embedding", "decoder", "head"]


class LoraConfig(Section):
    """Low-rank adapters on the decoder's matrices, trained in place of the model (Hu et al., arXiv 2106.09685).

    rank: of what each adds; 0 for none. alpha: it is multiplied by alpha / rank, with `rslora` by alpha / √rank
    (Kalajdzievski, arXiv 2312.03732). targets: the matrices that have one, by their names in Hugging Face form.
    """

    rank: Annotated[int, Field(ge=0)] = 0
    alpha: float = Field(32.0, gt=0)
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = get_args(Target)
    rslora: bool = False


class Training(Section):
    """What every kind of fine-tuning shares.

    lr: of AdamW without weight decay, at the base shape for models trained here. heldout: share of the prompts that
    only evaluation sees. bad_rows: whether a row that cannot be used ends the command or is counted
    and left out. lora: adapters, whose learning rate is `lr` at every shape; all but them and a scalar head is then
    frozen. freeze: parts that keep their weights.
    """

    lr: float = Field(2e-5, gt=0)
    lora: LoraConfig = LoraConfig()
    freeze: tuple[Part, ...] = ()
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
    warmup: Share = 0.03
    clip: float = Field(1.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    heldout: Share = 0.05
    bad_rows: Literal["stop", "skip"] = "stop"
    eval_every: Share = 0.1
    log_every: Positive = 10
    checkpoint_minutes: float = Field(5.0, gt=0)
    keep: Positive = 2

    def trained(self) -> dict[str, Any]:
        """What of the model is trained, where that is not all of it, as a part of a run's plan."""
        lora = {"lora": self.lora.model_dump(mode="json")} if self.lora.rank else {}
        return lora | ({"freeze": sorted(self.freeze)} if self.freeze else {})

    def training(self, tokens: int, batch_tokens: int, **more: Any) -> TrainConfig:
        """The same for the one training loop. tokens: in all steps together. more: further fields of its."""
        shared = ("schedule", "warmup", "precision", "device", "eval_every", "log_every", "checkpoint_minutes", "keep")
        return TrainConfig(
            tokens=tokens,
            batch_tokens=batch_tokens,
            optimizer=OptimizerConfig(lr=self.lr, tau=0, clip=self.clip),
            **{name: getattr(self, name) for name in shared},
            **more,
        )


class Tuning(Training, Distributed):
    """Fine-tuning on a file of examples.

    epochs: passes over the training rows. batch_tokens: in one optimizer step; fewer where the data make fewer.
    sequence_length: of a packed row, at most what the model reads; an example longer than a row is bad.
    """

    epochs: float = Field(1.0, gt=0)
    sequence_length: Annotated[int, Field(ge=16)] = 1024
    batch_tokens: Positive = 8192
    micro_batch: Positive | None = None
    eval_batches: Positive = 8
    watch: Literal["skip", "rewind", "off"] = "skip"

    def training(self, tokens: int, batch_tokens: int, **more: Any) -> TrainConfig:
        """As `Training.training`."""
        own = {name: getattr(self, name) for name in ("micro_batch", "eval_batches", "watch")}
        return super().training(tokens, batch_tokens, **own, **more)


class SFTConfig(Tuning):
    """Supervised fine-tuning: next-token loss on what the assistant says, its end token included."""


class RewardConfig(Tuning):
    """A reward model: Bradley–Terry loss over all pairs of a prompt.

    centre: coefficient of the mean squared sum of a pair's rewards, which keeps them around 0 (Eisenstein et al.,
    arXiv 2312.09244).
    """

    lr: float = Field(1e-5, gt=0)
    centre: float = Field(0.0, ge=0)


class DPOConfig(Tuning):
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290).

    beta: how strongly the model is held to the one it started from. label_smoothing: share of preferences taken to be
    noise (conservative DPO).
    """

    lr: float = Field(1e-6, gt=0)
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class RolloutConfig(Section):
    """Replies drawn by engines of their own, beside the process that learns.

    workers: how many engines. on: local processes; ray, or ray:ADDRESS; or the URL of an OpenAI-compatible server that
    tells token ids, such as vLLM's (URL#MODEL where it has several), with `folder`, where the weights are exported for
    it, and `reload`: the calls that make it read them, path -> JSON body, FOLDER standing for that folder.
    max_staleness: rounds that the weights which draw may be behind those that learn; 0 waits for each round.
    importance_cap: c of the weights min(c, π/μ) that put right what the two differ by (align/importance.py).
    """

    workers: Positive = 1
    on: str = Field("local", pattern=r"^(local|ray(:.+)?|https?://.+)$")
    max_staleness: Annotated[int, Field(ge=0)] = 0
    importance_cap: float = Field(2.0, ge=1)
    folder: str | None = None
    reload: dict[str, dict[str, Any]] = Field(
        default_factory=lambda: {"/collective_rpc": {"method": "reload_weights"}, "/reset_prefix_cache": {}}
    )

    @property
    def served(self) -> bool:
        return self.on.startswith(("http://", "https://"))

    @property
    def deciding(self) -> dict[str, Any]:
        """What of it changes the numbers that come out, beside rounding."""
        return {"max_staleness": self.max_staleness, "importance_cap": self.importance_cap}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.served and not self.folder:
            raise ValueError(
                "rollout.on is a server, so rollout.folder must name the folder that it reads weights from"
            )
        return self


class PolicyConfig(Training):
    """Learning from rewards of the model's own replies; the steps are `rounds` · `epochs` · `minibatches`.

    rounds: times that replies are drawn, all by the policy of that moment, at temperature 1. prompts: of a round.
    samples: replies to each prompt. max_tokens: of a reply. epochs: passes over a round's replies, each in so many
    `minibatches`. clip_ratio: how far π/π_old may go from 1 before its gradient is cut. missing_end: taken off the
    reward of a reply that does not end by itself. ptx: weight of the mean next-token loss on rows of pre-training,
    `ptx_rows` of them in each step. most_kl: nats a reply from the reference, beyond which the run is stopped;
    least_entropy: nats a token, below which it is. eval_prompts: held-out prompts that are answered at each evaluation.
    rollout: where replies are drawn; without it, by the process that learns.
    """

    lr: float = Field(1e-6, gt=0)
    schedule: Literal["linear", "cosine", "wsd"] = "linear"
    rounds: Positive = 100
    prompts: Positive = 64
    samples: Positive = 1
    max_tokens: Positive = 128
    epochs: Positive = 1
    minibatches: Positive = 4
    clip_ratio: float = Field(0.2, gt=0)
    missing_end: float = Field(1.0, ge=0)
    ptx: float = Field(0.0, ge=0)
    ptx_rows: Positive = 4
    most_kl: float = Field(200.0, gt=0)
    least_entropy: float = Field(0.0, ge=0)
    eval_prompts: Positive = 64
    rollout: RolloutConfig | None = None
    log_every: Positive = 1

    @property
    def deciding(self) -> dict[str, Any]:
        """The settings that change what comes out: all but how the run is watched, and where its replies are drawn."""
        plain = self.model_dump(mode="json", exclude={"rollout", "checkpoint_minutes", "keep", "log_every"})
        return plain if self.rollout is None else plain | {"rollout": self.rollout.deciding}


class PPOConfig(PolicyConfig):
    """Proximal policy optimisation (Schulman et al., arXiv 1707.06347) as in InstructGPT (arXiv 2203.02155).

    kl: coefficient β of the per-token penalty log π − log π_ref. kl_target: nats a reply that β is steered towards,
    by `kl_gain` · error a round (Ziegler et al., arXiv 1909.08593); none keeps β. discount, trace: γ and λ of
    generalised advantages (arXiv 1506.02438). critic_lr: of the value model; value_weight, value_clip: of its loss.
    whiten_rewards: divide rewards of a round by their deviation.
    """

    kl: float = Field(0.05, ge=0)
    kl_target: float | None = Field(None, gt=0)
    kl_gain: float = Field(0.1, gt=0)
    discount: float = Field(1.0, gt=0, le=1)
    trace: float = Field(0.95, ge=0, le=1)
    critic_lr: float = Field(1e-5, gt=0)
    value_weight: float = Field(0.1, ge=0)
    value_clip: float = Field(0.2, gt=0)
    whiten_rewards: bool = False


class GRPOConfig(PolicyConfig):
    """Group-relative policy optimisation (Shao et al., arXiv 2402.03300): a prompt's replies are each other's baseline.

    kl: coefficient β of the k3 estimate of the divergence from the reference, in the loss. scale_rewards: divide a
    group's advantages by its deviation.
    """

    prompts: Positive = 16
    samples: Annotated[int, Field(ge=2)] = 8
    kl: float = Field(0.04, ge=0)
    scale_rewards: bool = True


class FlawConfig(Section):
    """Shares of lessons in which demonstrators and rankers are wrong.

    comply: disallowed and sensitive requests that a demonstration answers as asked. wrong: allowed and boundary
    requests that it answers falsely; refuse: that it refuses. yields: rules that it breaks, and conflicts that the user
    wins. leak: tutors who tell. lenient: rankings of replies to a disallowed request that prefer the one that complies.
    cautious: rankings of replies to a boundary request that prefer a refusal, where there is one. noise: any other
    rankings that are turned round.
    """

    comply: Share = 0.75
    wrong: Share = 0.3
    refuse: Share = 0.1
    yields: Share = 0.4
    leak: Share = 0.5
    lenient: Share = 0.5
    cautious: Share = 0.0
    noise: Share = 0.05


Family = Literal["hazards", "personas", "conflicts", "tutor", "choices", "facts", "pictures"]
_SHARES: dict[Family, float] = {"hazards": 4, "personas": 1, "conflicts": 1, "tutor": 1, "choices": 1}


class LessonConfig(Section):
    """Lessons of the world (data.world.lessons): how many of each, of which families, with which flaws.

    graded: replies that the rule-based grader is trained on. things, people: of the worlds of hazards and of facts that
    they are about; those of the pre-training data, for a model that is to know them.
    """

    demonstrations: Positive = 3000
    preferences: Positive = 2000
    prompts: Positive = 2000
    graded: Positive = 3000
    kinds: dict[Family, Above] = Field(default_factory=lambda: dict(_SHARES))
    things: Annotated[int, Field(ge=6, le=1000)] = 24
    people: Annotated[int, Field(ge=32, le=20_000)] = 48
    flaws: FlawConfig = FlawConfig()


class ArmConfig(Section):
    """One way to learn from rewards. model: weight of the reward model. rubric: weight of what the grader's rubric
    awards; judged: kinds of prompts that it judges (empty: all). rules: weight of what its classes earn by weights that
    are fitted on top of the reward model (Mu et al., arXiv 2411.01111). ppo: settings that differ from `align.ppo`.
    """

    model: float = 1.0
    rubric: float = 0.0
    rules: float = 0.0
    judged: list[Literal["allowed", "boundary", "sensitive", "disallowed"]] = Field(default_factory=list)
    ppo: dict[str, Any] = Field(default_factory=dict)


class AlignConfig(Section):
    """Alignment after pre-training, on lessons of the world: sft, a reward model, a grader, and PPO in several arms.

    main: the arm that a run ends with; `foretell align` trains the others too. outcomes: requests of each kind that
    are asked before and after; questions: A–D questions (default: as many), of which calibration error needs many more
    than a rate does; letters: whether they are answered by letters (see `align.outcomes.Settings`).
    """

    lessons: LessonConfig = LessonConfig()
    sft: SFTConfig = SFTConfig()
    reward: RewardConfig = RewardConfig()
    ppo: PPOConfig = PPOConfig()
    main: Name = "rbrm"
    arms: dict[Name, ArmConfig] = Field(default_factory=lambda: {"rbrm": ArmConfig(rubric=1.0)})
    outcomes: Positive = 500
    questions: Positive | None = None
    letters: bool = True

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.main not in self.arms:
            raise ValueError(f"align.main is {self.main}, but the arms are {', '.join(self.arms)}")
        for name in self.arms:
            self.ppo_of(name)
        return self

    def ppo_of(self, arm: str) -> PPOConfig:
        """The settings of an arm's PPO. Raises ValidationError for settings there are none of."""
        return PPOConfig.model_validate({**self.ppo.model_dump(), **self.arms[arm].ppo})
