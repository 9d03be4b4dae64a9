"""align, sft, reward, dpo, ppo, grpo."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from foretell.cli import draw
from foretell.cli.run import RecipeName

if TYPE_CHECKING:
    from foretell.align.policy import PolicyKind
    from foretell.align.stages import Kind
    from foretell.tuning import PolicyConfig

P = TypeVar("P", bound="PolicyConfig")
Model = Annotated[str, typer.Option(metavar="MODEL", help="A run, a checkpoint, open weights, or a hub id.")]
Data = Annotated[Path, typer.Option(metavar="DATA", help="A file or folder of examples: JSON Lines, or a JSON array.")]
Out = Annotated[Path, typer.Option(help="Run directory to write, or to go on with.")]
Reward = Annotated[str | None, typer.Option(metavar="RUN", help="A reward model: a run of `foretell reward`.")]
Function = Annotated[
    list[str],
    typer.Option(
        "--function",
        metavar="FILE.py:NAME",
        help="A reward in Python, or answer, program, handled.",
    ),
]
Rubric = Annotated[
    str | None, typer.Option(metavar="RUBRIC", help="A rubric to grade replies by: a name or a YAML file.")
]
Grader = Annotated[str | None, typer.Option(metavar="MODEL", help="Who grades by it: any model, or an endpoint's URL.")]
Mix = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="A run whose pre-training rows are mixed in, with --set ptx=0.5."),
]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as lr=1e-5 or epochs=2.")]


Workers = Annotated[
    int | None, typer.Option(min=1, help="Engines beside this process that draw the replies; default none.")
]
On = Annotated[
    str | None, typer.Option(metavar="WHERE", help="Where they are: local, ray, ray:ADDRESS; default local.")
]


def register(app: typer.Typer) -> None:
    for command in (align, sft, reward, dpo, ppo, grpo):
        app.command()(command)


def align(
    recipe: RecipeName,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    workers: Workers = None,
    on: On = None,
    overrides: Set = [],  # noqa: B006
) -> None:
    """Run a recipe with every arm of its alignment: pre-training, sft, reward, grader, ppo in each arm, outcomes."""
    from foretell.errors import RecipeError
    from foretell.pipeline import run_recipe
    from foretell.recipes import load_recipe
    from foretell.run import place

    loaded = load_recipe(recipe, overrides)
    if loaded.align is None:
        raise RecipeError(f"Recipe {loaded.name} has no section align. Use align-cpu, or add one: docs/align.md.")
    align = loaded.align.model_copy(update={"ppo": _drawn(loaded.align.ppo, workers, on)})
    loaded = loaded.model_copy(update={"align": align})
    folder = out or (Path(recipe) if Path(recipe).is_dir() else Path("runs") / loaded.name)
    if place()[0] > 0:  # one process speaks for all that torchrun started
        run_recipe(loaded, folder, arms=True)
        return
    with draw.progress() as report:
        found = run_recipe(loaded, folder, None, report, arms=True)["outcomes"]["metrics"]["rates"]
    measures = list(dict.fromkeys(name for rates in found.values() for name in rates))
    rows = [
        (measure, *(f"{rates[measure][0]:.3f}" if measure in rates else "" for rates in found.values()))
        for measure in measures
    ]
    draw.table(("measure", *found), rows, right=tuple(range(1, len(found) + 1)))
    print(f"Run page: {(folder / 'page' / 'index.html').resolve()}")
    print(f"Talk to it: foretell chat {folder}")


def sft(model: Model, data: Data, out: Out, overrides: Set = []) -> None:  # noqa: B006  (typer copies it)
    """Fine-tune a model on conversations: it learns what the assistant says."""
    found = _tune("sft", model, data, out, overrides)
    if found is None:
        return
    if "loss" in found:
        print(f"Held-out loss: {found['loss']:.4f} nats a token")
    print(f"Talk to it: foretell chat {out}")


def reward(model: Model, data: Data, out: Out, overrides: Set = []) -> None:  # noqa: B006
    """Train a reward model on preferences, starting from a fine-tuned model."""
    found = _tune("reward", model, data, out, overrides)
    if found is None:
        return
    _preferred(found)
    rows = [
        (row["pairs"], f"{row['confidence']:.2f}", f"{row['accuracy']:.2f}") for row in found.get("by_confidence", ())
    ]
    if rows:
        draw.table(("pairs", "confidence", "accuracy"), rows, right=(0, 1, 2))


def dpo(model: Model, data: Data, out: Out, overrides: Set = []) -> None:  # noqa: B006
    """Fine-tune a model on preferences directly, without a reward model."""
    found = _tune("dpo", model, data, out, overrides)
    if found is None:
        return
    _preferred(found)
    print(f"Talk to it: foretell chat {out}")


def _policy(kind: PolicyKind, about: str) -> Callable[..., None]:
    def command(
        model: Model,
        data: Data,
        out: Out,
        reward: Reward = None,
        function: Function = [],  # noqa: B006
        rubric: Rubric = None,
        grader: Grader = None,
        ptx: Mix = None,
        workers: Workers = None,
        on: On = None,
        overrides: Set = [],  # noqa: B006
    ) -> None:
        _learn(kind, model, data, out, reward, function, rubric, grader, ptx, workers, on, overrides)

    command.__name__, command.__doc__ = kind, about
    return command


ppo = _policy("ppo", "Let a model learn from rewards of its own replies, each token judged by a critic (PPO).")
grpo = _policy(
    "grpo", "Let a model learn from rewards of its own replies, several to a prompt as each other's measure (GRPO)."
)


def _learn(
    kind: PolicyKind, model: str, data: Path, out: Path, reward: str | None, functions: list[str], rubric: str | None,
    grader: str | None, ptx: str | None, workers: int | None, on: str | None, overrides: list[str],
) -> None:  # fmt: skip
    _need_torch()
    from foretell.align.policy import POLICIES, Sources, train_policy
    from foretell.align.rewarding import named_parts
    from foretell.recipes import check_settings

    settings = _drawn(check_settings(POLICIES[kind], overrides), workers, on)
    parts, identity = named_parts(functions, rubric, grader)
    sources = Sources(reward=reward, parts=parts, ptx=ptx, identity=identity)
    with draw.progress() as report:
        found = train_policy(kind, model, data, out, settings, sources, report)[kind]["metrics"]
    if found["skipped"]:
        for why, count in found["skipped"].items():
            print(f"Left out: {count:,} rows, {why}")
    for name, count in found["unjudged"].items():
        print(f"Not judged by {name}, so that they earn 0 of it: {count:,} prompts")
    if "reward" in found:
        parts_told = ", ".join(f"{name} {value:.3f}" for name, value in found["rewards"].items())
        print(f"Held-out prompts: reward {found['reward']:.3f} ({parts_told}), KL {found['kl']:.1f} nats a reply")
    print(f"Talk to it: foretell chat {out}")


def _drawn(settings: P, workers: int | None, on: str | None) -> P:
    """The settings, with what options say of where replies are drawn."""
    from foretell.recipes import check_section
    from foretell.tuning import RolloutConfig

    given = {name: value for name, value in {"workers": workers, "on": on}.items() if value is not None}
    if not given:
        return settings
    rollout = check_section(
        RolloutConfig, (settings.rollout or RolloutConfig()).model_dump() | given, "--workers and --on"
    )
    return settings.model_copy(update={"rollout": rollout})


def _need_torch() -> None:
    from foretell.measure.machine import has_torch

    if not has_torch():
        from foretell.errors import MissingExtraError

        raise MissingExtraError("Training", "torch")


def _tune(kind: Kind, model: str, data: Path, out: Path, overrides: list[str]) -> dict[str, Any] | None:
    """The metrics; none in a process for which another one speaks, under torchrun."""
    _need_torch()
    from foretell.align.stages import CONFIGS, tune
    from foretell.recipes import check_settings
    from foretell.run import place

    settings = check_settings(CONFIGS[kind], overrides)
    if place()[0] > 0:
        tune(kind, model, data, out, settings)
        return None
    with draw.progress() as report:
        manifests = tune(kind, model, data, out, settings, report)
    packed = manifests["pack"]["metrics"]
    train, skipped = packed["train"], Counter[str]()
    for split in filter(None, packed.values()):
        skipped.update(split["skipped"])
    print(f"{train['examples']:,} examples in {train['rows']:,} rows, {train['fill']:.0%} full: {out}")
    if settings.lora.rank:
        print(f"Adapter, in PEFT's form: {out / kind / 'adapter'}")
    for why, count in skipped.items():
        print(f"Left out: {count:,} rows, {why}")
    metrics: dict[str, Any] = manifests[kind]["metrics"]
    return metrics


def _preferred(found: dict[str, Any]) -> None:
    if "accuracy" in found:
        print(f"Held-out accuracy: {found['accuracy']:.1%} of {found['pairs']:,} pairs")
    else:
        print("No examples were held out, so nothing was measured; more data, or --set heldout=0.2, would.")
