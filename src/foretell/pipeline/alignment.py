"""Alignment after pre-training: lessons → sft → reward, grader → ppo, in one arm or several → outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from foretell.files import write_text
from foretell.pipeline.rules import RULES, rules_stage
from foretell.recipe import Recipe
from foretell.run import Report, Stage
from foretell.tuning import AlignConfig, ArmConfig, LessonConfig, PPOConfig

if TYPE_CHECKING:
    from foretell.align.graders import ClassifierGrader
    from foretell.align.policy import Sources
    from foretell.engine.local import Engine

CHECKPOINT = "checkpoint"
GRADER = "grader.npz"
MAIN = "ppo"
LESSONS = ("demonstrations", "preferences", "prompts", "graded", "tested")
_TESTED = 1000  # replies that the grader is tested on


def align_stages(recipe: Recipe, run_dir: Path, report: Report, arms: bool) -> list[Stage]:
    """The stages after pre-training. arms: all of them, not only the main one."""
    config = recipe.align
    assert config is not None
    lessons, sees = run_dir / "lessons", recipe.model.vision is not None

    def pretrained(inputs: Mapping[str, Path]) -> Path:
        return inputs["pretrain"] / CHECKPOINT

    def tuned(inputs: Mapping[str, Path]) -> Path:
        return inputs["sft"] / CHECKPOINT

    from foretell.align.stages import tuning_stages

    def settings(kind: str, section: Any) -> str:
        named = {"name": recipe.name, "kind": kind, **section.model_dump(mode="json")}
        return yaml.safe_dump(named, sort_keys=False, allow_unicode=True)

    seeded = {name: getattr(config, name).model_copy(update={"seed": recipe.seed}) for name in ("sft", "reward")}
    found = [
        Stage(
            "lessons",
            {**config.lessons.model_dump(mode="json"), "sees": sees, "seed": recipe.seed},
            lambda inputs, out: _write_lessons(config.lessons, sees, recipe.seed, out, report),
        ),
        *tuning_stages(
            "sft", seeded["sft"], pretrained, lessons / "demonstrations.jsonl", settings("sft", config.sft), report,
            ("pretrain", "lessons"), prefix="sft-",
        ),
        *tuning_stages(
            "reward", seeded["reward"], tuned, lessons / "preferences.jsonl", settings("reward", config.reward), report,
            ("sft", "lessons"), prefix="reward-",
        ),
        Stage("grader", {}, lambda inputs, out: _fit_grader(inputs["lessons"], out), ("lessons",)),
    ]  # fmt: skip
    chosen = list(config.arms) if arms else [config.main]
    if any(config.arms[arm].rules for arm in chosen):
        found.append(rules_stage(config.lessons, recipe.seed, recipe.train.device))
    found += [_arm_stage(recipe, config, arm, run_dir, tuned, settings, report) for arm in chosen]
    names = {"pretrain": "base", "sft": "sft"} | {arm_stage(config, arm): arm for arm in chosen}
    found.append(
        Stage(
            "outcomes",
            {
                "count": config.outcomes,
                "questions": config.questions,
                "letters": config.letters,
                "things": config.lessons.things,
                "seed": recipe.seed,
                "names": names,
            },
            lambda inputs, out: _outcomes(recipe, config, names, inputs, out, report),
            (*names, "pack"),
        )
    )
    return found


def arm_stage(config: AlignConfig, arm: str) -> str:
    """The name of an arm's stage: the main one is what a run is talked to by."""
    return MAIN if arm == config.main else f"{MAIN}-{arm}"


def _arm_stage(
    recipe: Recipe,
    config: AlignConfig,
    arm: str,
    run_dir: Path,
    tuned: Callable[[Mapping[str, Path]], Path],
    settings: Callable[[str, Any], str],
    report: Report,
) -> Stage:
    from foretell.align.policy import policy_stage

    how, chosen = config.arms[arm], config.ppo_of(arm).model_copy(update={"seed": recipe.seed})
    before = ("sft", "lessons", "reward", "grader", *(["rules"] if how.rules else []), "pack")
    stage = policy_stage(
        "ppo", chosen, tuned, run_dir / "lessons" / "prompts.jsonl", _sources(how, run_dir, chosen),
        settings(f"ppo, {arm}", chosen), report, before, arm_stage(config, arm),
    )  # fmt: skip
    told = {"model": how.model, "rubric": how.rubric, "judged": how.judged}
    return replace(stage, config={**stage.config, **told, **({"rules": how.rules} if how.rules else {})})


def _sources(how: ArmConfig, run_dir: Path, ppo: PPOConfig) -> Sources:
    from foretell.align.policy import Sources
    from foretell.align.rewarding import Part, by_rubric, by_rules, judges_kinds
    from foretell.align.rules import EXPECTED, RuleWeights

    def graded() -> Sequence[Part]:
        found = []
        if how.rubric:
            grader = load_grader(run_dir / "grader" / GRADER, how.judged)
            found.append(Part("rubric", by_rubric(grader), how.rubric, judges_kinds(grader.rubric.rewards)))
        if how.rules:
            rules = by_rules([load_grader(run_dir / "grader" / GRADER)], RuleWeights.load(run_dir / "rules" / RULES))
            found.append(Part("rules", rules, how.rules, judges_kinds(EXPECTED)))
        return found

    return Sources(run_dir, how.model, make=graded, ptx=run_dir if ppo.ptx else None)


def _write_lessons(config: LessonConfig, sees: bool, seed: int, out: Path, report: Report) -> dict[str, Any]:
    from foretell.data.world.lessons import Lessons

    kinds = {family: share for family, share in config.kinds.items() if sees or family != "pictures"}
    lessons = Lessons(kinds, config.flaws, config.things, config.people)
    made: dict[str, Iterable[dict[str, Any]]] = {
        "demonstrations": lessons.demonstrations(config.demonstrations, seed),
        "preferences": lessons.preferences(config.preferences, seed),
        "prompts": lessons.prompts(config.prompts, seed),
        "graded": lessons.graded(config.graded, seed),
        "tested": lessons.graded(_TESTED, seed + 1),
    }
    metrics: dict[str, Any] = {}
    for number, name in enumerate(LESSONS):
        report("lessons", number, len(LESSONS), name)
        rows = list(made[name])
        write_text(out / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        metrics[name] = len(rows)
        if name == "preferences":  # no reward model can agree with more of the rankings than are right
            metrics["right"] = sum(row["true"] for row in rows) / max(1, len(rows))
    return metrics


def _fit_grader(lessons: Path, out: Path) -> dict[str, Any]:
    """Train the grader of the coarse rubric on graded replies, and test it on others."""
    from foretell.align.graders import Case, ClassifierGrader
    from foretell.align.rubric import load_rubric

    def cases(name: str) -> tuple[list[Case], list[str]]:
        rows = [json.loads(line) for line in (lessons / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        return [Case(row["reply"], row["prompt"]) for row in rows], [row["letter"] for row in rows]

    grader = ClassifierGrader.fit(load_rubric("refusal"), *cases("graded"))
    grader.classifier.save(out / GRADER)
    asked, letters = cases("tested")
    found = ["ABCD"[i] for i in grader.grade(asked).argmax(1)]
    recalls = {
        letter: sum(f == t == letter for f, t in zip(found, letters, strict=True)) / max(1, letters.count(letter))
        for letter in "ABCD"
    }
    return {"accuracy": sum(f == t for f, t in zip(found, letters, strict=True)) / len(letters), "recall": recalls}


def load_grader(path: Path, judged: Sequence[str] = ()) -> ClassifierGrader:
    """A run's grader; with `judged` it says nothing of other kinds of prompts."""
    from foretell.align.graders import ClassifierGrader
    from foretell.align.rubric import load_rubric
    from foretell.measure.classify import TextClassifier

    rubric = load_rubric("refusal")
    if judged:
        rubric = replace(rubric, rewards={kind: row for kind, row in rubric.rewards.items() if kind in judged})
    return ClassifierGrader(rubric, TextClassifier.load(path))


def _outcomes(
    recipe: Recipe, config: AlignConfig, names: Mapping[str, str], inputs: Mapping[str, Path], out: Path, report: Report
) -> dict[str, Any]:
    """Ask every model the same, by the world's oracles; rates with their intervals, by model and measure."""
    from foretell.align.measures import MEASURES
    from foretell.align.outcomes import Outcomes, Settings, measure
    from foretell.align.outcomes_page import write_page
    from foretell.loading import load

    count, lessons = config.outcomes, config.lessons
    settings = Settings(
        requests=count, attacks=max(1, count // 10), steering=count, conflicts=count, sums=max(1, count // 5),
        questions=config.questions or count, letters=config.letters, max_tokens=config.ppo.max_tokens, seed=recipe.seed,
        options={
            "hazards": {"things": lessons.things},
            "choices": {"people": lessons.people, "languages": ["en"], "tasks": ["choices.facts"]},
        },
    )  # fmt: skip
    found: dict[str, Outcomes] = {}
    kept: dict[str, float] = {}  # nats a token
    for stage, name in names.items():
        report("outcomes", 0, 0, name)
        model = load(inputs[stage] / CHECKPOINT, device=recipe.train.device)
        found[name] = measure(model.generator, settings, report)
        model.generator.close()
        found[name].save(out / name)
        kept[name] = _pretraining_loss(model.generator, inputs["pack"] / "heldout")
    others = [name for name in found if name not in ("base", "sft", config.main)]
    write_page(out, {name: found[name] for name in ("sft", *others, config.main)})
    repairs = {name: one.calibration() for name, one in found.items()}
    return {
        "rates": {name: {r.measure.name: list(astuple(r.value)) for r in one.rates()} for name, one in found.items()},
        "titles": {measure.name: measure.title for measure in MEASURES if not measure.detail},
        "calibration": {
            name: {"before": r.before.ece.estimate, "after": r.after.ece.estimate, "temperature": r.temperature}
            for name, r in repairs.items()
            if r is not None
        },
        "pretraining_loss": kept,
    }


def _pretraining_loss(engine: Engine, pack: Path) -> float:
    """What is left of what the model learned first: its loss on held-out rows of pre-training, in nats a token."""
    import numpy as np

    from foretell.data.loader import Loader
    from foretell.train.loop import WHOLE
    from foretell.train.objective import NextToken, evaluate

    rows = Loader.fixed(pack, 16, WHOLE)
    sizes = np.ones(engine.model.config.vocab_size, np.int64)
    return float(evaluate(engine.model, NextToken(rows.kinds, sizes), rows, engine.model.device)["loss"])
