"""Run an arena from Python: set up, replies, critiques, judgements; each call goes on with what was cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.arena.asking import Critiques, Judging, Replies, judge_file
from foretell.evals.arena.folder import CRITIQUES, REPLIES, Arena, Asked, Player, check_names, load, save
from foretell.evals.base import CompletionFn, Eval
from foretell.evals.models import as_model
from foretell.evals.registry import Registry
from foretell.evals.runner import Budget, Settings, run_eval
from foretell.run import Report, silent

DEFAULTS = {"temperature": 0.7, "max_tokens": 256}


class Models:
    """Models by reference, each loaded once, so that one under two names takes the memory of one."""

    def __init__(self, concurrency: int = 64, registry: Registry | None = None) -> None:
        self.concurrency, self.registry = concurrency, registry or Registry()
        self._made: dict[Any, CompletionFn] = {}

    def __call__(self, ref: Any) -> CompletionFn:
        key = ref if isinstance(ref, str) else id(ref)
        if key not in self._made:
            self._made[key] = as_model(ref, self.registry, self.concurrency)
        return self._made[key]


def set_up(
    folder: Path,
    players: Mapping[str, Any],
    prompts: Sequence[Asked],
    models: Models,
    *,
    sampling: Mapping[str, Mapping[str, Any]] | None = None,
    battles: int | None = None,
    seed: int = 0,
    skipped: Sequence[str] = (),
) -> Arena:
    """Write an arena's settings, or open the same arena again.

    players: name → model, in any form `evals.models.as_model` takes. sampling: name → parameters over DEFAULTS; "" for
    all players. Raises EvalError for fewer than two players, no prompts, or a folder with another arena.
    """
    check_names(list(players))
    given = dict(sampling or {})
    if unknown := sorted(set(given) - {"", *players}):
        raise EvalError(f"Sampling is given for {', '.join(unknown)}; the players are {', '.join(players)}.")
    made = []
    for name, ref in players.items():
        fn = models(ref)
        params = {**DEFAULTS, **given.get("", {}), **given.get(name, {})}
        made.append(Player(name, fn.name, params, getattr(fn, "weights", "")))
    arena = Arena(folder, tuple(made), tuple(prompts), seed, battles, tuple(skipped))
    if not prompts:
        raise EvalError("There are no prompts. Give a file of them (--prompts), or some of the world (--world N).")
    _ = arena.battles  # refused before anything is written
    save(arena)
    return load(folder)


def ask_replies(
    arena: Arena,
    players: Sequence[Any],
    models: Models,
    *,
    budget: Budget | None = None,
    command: str = "",
    report: Report = silent,
) -> None:
    """Let every player answer every prompt, once. players: their models, in order.

    Raises EvalError where a model fails for good: what is finished is kept, and the same call goes on.
    """
    _run(arena, REPLIES, Replies(arena), [models(ref) for ref in players], models, budget, command, report)


def ask_critiques(
    arena: Arena,
    critic: Any,
    models: Models,
    *,
    max_tokens: int = 256,
    budget: Budget | None = None,
    command: str = "",
    report: Report = silent,
) -> None:
    """Let a model criticise every reply that is to be judged. Raises as `ask_replies`, and for a second critic."""
    fn = models(critic)
    if arena.critic and arena.critic != fn.name:
        raise EvalError(f"{arena.folder} has critiques of {arena.critic} already. Set up another arena for {fn.name}.")
    made = Critiques(arena, max_tokens)
    if made.samples():
        _run(arena, CRITIQUES, made, [fn], models, budget, command, report)


def ask_judge(
    arena: Arena,
    judge: Any,
    models: Models,
    *,
    by: str = "reply",
    max_tokens: int = 512,
    budget: Budget | None = None,
    command: str = "",
    report: Report = silent,
) -> None:
    """Let a model judge every battle in both orders. Raises as `ask_replies`."""
    fn = models(judge)
    if by == "logprob" and not fn.can_score:
        raise EvalError(f"{fn.name} tells no log-probabilities, so it cannot judge by them. Leave --by at reply.")
    made = Judging(arena, fn.name, by, max_tokens)
    if made.samples():
        _run(arena, judge_file(fn, by), made, [fn], models, budget, command, report)


def _run(
    arena: Arena,
    name: str,
    made: Eval,
    fns: Sequence[CompletionFn],
    models: Models,
    budget: Budget | None,
    command: str,
    report: Report,
) -> None:
    """What is finished stays as it is."""
    path = arena.folder / name
    if not path.is_file():
        settings = Settings(concurrency=models.concurrency, budget=budget or Budget())
        run_eval(made, fns, path, settings, command=command, report=report)
