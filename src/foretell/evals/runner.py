"""Run an eval: many samples at a time in one process, every answer kept as it comes, the log in a fixed order."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import random
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from foretell.errors import ConversationError, EvalError, ForetellError, GenerationError, ImageError
from foretell.evals.base import BAD_SAMPLE, Completion, CompletionFn, Eval, Tally, Trial
from foretell.evals.cache import Cache
from foretell.evals.log import Journal, RunLog, read_log, write_log
from foretell.evals.samples import order
from foretell.generate import run_sync
from foretell.run import Report, code_version, silent

SEED = 20220722  # upstream's
_GIVE_UP = 10  # failures in a row, after which a model is taken to be gone
_UNREADABLE = (400, 413, 422)  # statuses with which endpoints refuse a prompt
_BREATH = 32  # samples after which a worker lets others run, though nothing was waited for


class ModelFailure(EvalError):
    """A model did not answer: the sample is not judged, and is asked again by the next run. lasting: others would fail
    alike."""

    def __init__(self, message: str, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class Unreadable(ModelFailure):
    """A model cannot read this prompt, such as one that is too long; where it reads others, the sample is invalid."""


@dataclass(frozen=True)
class Budget:
    """What a run may spend. tokens: prompts and replies together. money: by the prices. seconds: of wall time.

    prompt_price, completion_price: money a million tokens.
    """

    tokens: int | None = None
    money: float | None = None
    seconds: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0

    def of(self, usage: Mapping[str, int | None]) -> float:
        """Money for so many tokens."""
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        return (prompt * self.prompt_price + completion * self.completion_price) / 1e6


@dataclass(frozen=True)
class Settings:
    """seed: of the samples' own generators. max_samples: the first so many after the shuffle. epochs: how often each is
    asked. concurrency: samples at a time. reducer: of a sample's epochs."""

    seed: int = SEED
    max_samples: int | None = None
    epochs: int = 1
    concurrency: int = 64
    budget: Budget = Budget()
    reducer: str = "mean"


def run_eval(
    eval: Eval,
    fns: Sequence[CompletionFn],
    log: Path,
    settings: Settings | None = None,
    *,
    cache: Cache | None = None,
    user: str = "",
    command: str = "",
    report: Report = silent,
) -> RunLog:
    """Judge the samples of an eval and write the log; what a journal beside it has is not asked again.

    fns: models; where the eval has a grader it is the last, or the only one. Raises EvalError where a model fails for
    good or the budget is spent: all that was finished is kept, and the same call goes on.
    """
    settings = settings or Settings()
    samples = eval.samples()
    chosen = order(len(samples), settings.max_samples)
    spec = _spec(eval, fns, settings, user, command)
    total = len(chosen) * settings.epochs
    journal = Journal(log, spec, identity(eval, fns, settings), total)
    try:
        calls = _Calls(journal, cache, settings.budget)
        work = _Work(eval, fns, samples, chosen, settings, calls, journal, report)
        run_sync(work.all())
        return _finish(eval, journal, log, work)
    finally:
        journal.close()
        if cache is not None:
            cache.flush()


def identity(eval: Eval, fns: Sequence[CompletionFn], settings: Settings) -> str:
    """Digest of all that decides a run's numbers: what a journal must share with the run that goes on."""
    asked = {
        "eval": eval.spec.name, "class": eval.spec.cls, "args": dict(eval.spec.args), "changed": eval.args,
        "models": [getattr(fn, "identity", fn.name) for fn in fns],
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("concurrency", "budget", "reducer")},
    }  # fmt: skip
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


class _Calls:
    """What stands between a trial and its models: answers of a run that was cut off, the cache, the budget."""

    def __init__(self, journal: Journal, cache: Cache | None, budget: Budget) -> None:
        self.journal, self.cache, self.budget = journal, cache, budget
        self.tokens, self.money, self.began = 0, 0.0, time.monotonic()

    async def __call__(self, trial: Trial, key: Mapping[str, Any], call: Callable[[], Any]) -> Completion:
        if self.journal.answers:
            known = self.journal.answers.get((trial.id, trial.epoch), {}).get(_digest(key, trial))
            if known is not None:
                return _completion(known)
        for earlier, answer in trial.unsaved:  # only now is it known that one answer is not all of the sample
            self.journal.answered(trial.id, trial.epoch, _digest(earlier, trial), _plain(answer))
        trial.unsaved.clear()
        cached = ""
        if self.cache is not None:
            drawn = key["params"].get("temperature") not in (0, 0.0)
            cached = _digest(key, trial) if drawn else _digest({**key, "call": 0})
            if (known := self.cache.get(cached)) is not None:
                return _completion(known)
        self._afford()
        try:
            done: Completion = await call()
        except ForetellError as error:
            barred = isinstance(error, ConversationError | ImageError)  # such as pictures before a model of text
            if barred or (isinstance(error, GenerationError) and getattr(error, "status", 400) in _UNREADABLE):
                raise Unreadable(str(error), getattr(error, "lasting", False)) from error
            raise ModelFailure(str(error), getattr(error, "lasting", False)) from error
        except Exception as error:  # a caller's own function may raise anything
            raise ModelFailure(f"{key['model']} raised {error!r} ({_where(error)}).") from error
        self._pay(done.usage or {})
        if self.cache is not None:
            self.cache.put(cached, _plain(done))
        trial.unsaved.append((key, done))
        return done

    def _pay(self, usage: Mapping[str, int]) -> None:
        self.tokens += (usage.get("prompt_tokens") or 0) + (usage.get("completion_tokens") or 0)
        self.money += self.budget.of(usage)

    def _afford(self) -> None:
        spent = {"tokens": self.tokens, "money": self.money, "seconds": time.monotonic() - self.began}
        for name, value in spent.items():
            most = getattr(self.budget, name)
            if most is not None and value >= most:
                raise _Spent(f"The budget of {most:g} {name} is spent ({value:.6g}).")


class _Spent(Exception):
    pass


class _Work:
    """The samples of one run, and how far it is."""

    def __init__(
        self,
        eval: Eval,
        fns: Sequence[CompletionFn],
        samples: Sequence[Any],
        chosen: Any,
        settings: Settings,
        calls: _Calls,
        journal: Journal,
        report: Report,
    ) -> None:
        self.eval, self.fns, self.samples, self.chosen = eval, fns, samples, chosen
        self.settings, self.calls, self.journal, self.report = settings, calls, journal, report
        self.total = len(chosen) * settings.epochs
        self.failures: list[tuple[str, str]] = []
        self.spent = ""
        self._row = 0  # failures one after another
        self._reads = journal.done > 0  # whether the model has read any prompt
        self._unread: list[tuple[int, Trial, str | None, str]] = []
        self._base = ".".join(eval.spec.name.split(".")[:2])
        self._told = 0.0

    async def all(self) -> None:
        places = (place for place in range(self.total) if place not in self.journal)
        count = min(self.settings.concurrency, self.total - self.journal.done)
        self._tell(now=True)
        tasks = [asyncio.ensure_future(self._worker(places)) for _ in range(count)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._settle()
        self.failures += [(trial.id, message) for _, trial, _, message in self._unread]
        self._tell(now=True)

    async def _worker(self, places: Iterator[int]) -> None:
        for number, place in enumerate(places):
            if self.spent or self._row >= _GIVE_UP:
                return
            if number % _BREATH == 0:
                await asyncio.sleep(0)
            await self._judge(place)
            self._tell()

    async def _judge(self, place: int) -> None:
        epoch, at = divmod(place, len(self.chosen))
        index = self.chosen[at]
        id = f"{self._base}.{index}"
        rng = random.Random(f"{id}:{self.settings.seed}{f':{epoch}' if epoch else ''}".encode())
        trial, group = Trial(id, self.fns, rng, epoch, self.calls), None
        try:
            sample = self.samples[index]
            group = sample.get("group")
            await self.eval.eval_sample(sample, trial)
            self._row, self._reads = 0, True
        except Unreadable as error:
            self._unread.append((place, trial, group, str(error)))
            self._row = _GIVE_UP if error.lasting or (not self._reads and len(self._unread) >= _GIVE_UP) else self._row
            return
        except ModelFailure as error:
            self.failures.append((id, str(error)))
            self._row = _GIVE_UP if error.lasting else self._row + 1
            return
        except _Spent as error:
            self.spent = str(error)
            return
        except EvalError as error:
            trial.record(BAD_SAMPLE, {"message": str(error)})
        except ForetellError:
            raise  # nothing of this sample's own, such as a sandbox that is missing
        except Exception as error:
            raise EvalError(
                f"{self.eval.spec.cls} failed on {id}: {error!r} ({_where(error)}). What is finished is kept; mend the "
                "class and run again."
            ) from error
        self.journal.add(place, id, trial.events, epoch, group)

    def _settle(self) -> None:
        """Prompts that a model did not read are faults of the samples once it has read another."""
        while self._reads and self._unread:
            place, trial, group, message = self._unread.pop()
            trial.record(BAD_SAMPLE, {"message": message})
            self.journal.add(place, trial.id, trial.events, trial.epoch, group)

    def _tell(self, now: bool = False) -> None:
        if now or time.monotonic() > self._told + 0.2:
            self._told = time.monotonic()
            note = f"{len(self.failures)} without an answer" if self.failures else ""
            self.report(self.eval.spec.name, self.journal.done, self.total, note)


def _finish(eval: Eval, journal: Journal, log: Path, work: _Work) -> RunLog:
    done = f"{journal.done} of {work.total} samples are kept in {journal.path}"
    if work.spent:
        raise EvalError(f"{work.spent} {done}: raise the budget and run again to go on.")
    if work.failures:
        id, message = work.failures[-1]
        raise EvalError(
            f"{len(work.failures)} samples have no answer; the last is {id}: {message} {done}: run again to go on."
        )
    tally = Tally(eval.kept)

    def final() -> dict[str, Any]:
        report = eval.report(tally)
        report |= {f"usage_{k}": v for k, v in tally.usage.items() if f"usage_{k}" not in report}
        report |= {"invalid_samples": tally.invalid} if tally.invalid else {}
        last: dict[str, Any] = {"final_report": report, **eval.details(tally)}
        prices = work.settings.budget
        if prices.prompt_price or prices.completion_price:
            last["cost"] = {"money": prices.of(tally.usage)}
        if work.settings.epochs > 1:
            last["reducer"] = work.settings.reducer
        return last

    write_log(log, journal, tally.add, final)
    return read_log(log)


def _spec(eval: Eval, fns: Sequence[CompletionFn], settings: Settings, user: str, command: str) -> dict[str, Any]:
    """The first line of the log, in upstream's form."""
    now, names = datetime.now(UTC), [fn.name for fn in fns]
    parts = [*eval.spec.name.split("."), ""]
    suffix = base64.b32encode(os.urandom(5)).decode()
    weights = [getattr(fn, "weights", "") for fn in fns]
    eval_spec = {"cls": eval.spec.cls, "registry_path": str(eval.spec.root), "args": dict(eval.spec.args)}
    return {
        "completion_fns": names,
        "eval_name": eval.spec.name,
        "base_eval": parts[0],
        "split": parts[1],
        "run_config": {
            "completion_fns": names,
            "eval_spec": eval_spec | {"key": eval.spec.name, "group": eval.spec.group},
            "seed": settings.seed,
            "max_samples": settings.max_samples,
            "epochs": settings.epochs,
            "command": command,
            "foretell": code_version(),
            **({"weights": weights} if any(weights) else {}),
            "initial_settings": {"visible": settings.max_samples is None},
        },
        "created_by": user,
        "run_id": now.strftime("%y%m%d%H%M%S") + suffix,
        "created_at": str(now.replace(tzinfo=None)),
    }


def _digest(key: Mapping[str, Any], trial: Trial | None = None) -> str:
    """Of a question; with the trial it is that sample's own."""
    asked = {**key, "sample": trial.id, "epoch": trial.epoch} if trial else key
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode("utf-8", "surrogatepass")).hexdigest()


def _plain(done: Completion) -> dict[str, Any]:
    return asdict(done)


def _completion(raw: Mapping[str, Any]) -> Completion:
    return Completion(tuple(raw["texts"]), raw["prompt"], raw["model"], raw["usage"], tuple(raw["logprobs"]))


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown place"
