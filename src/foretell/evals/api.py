"""Run evals from Python: `foretell.evals.run("test-match", model, samples=200)`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from foretell.errors import EvalError, ForetellError
from foretell.evals.base import CompletionFn, Eval
from foretell.evals.cache import Cache
from foretell.evals.classes import make_eval
from foretell.evals.log import PART, RunLog, read_log
from foretell.evals.models import as_model
from foretell.evals.rates import Probe, write_rates
from foretell.evals.registry import OWN, Registry
from foretell.evals.results import scores_of, summary_of
from foretell.evals.runner import SEED, Budget, Settings, identity, run_eval
from foretell.evals.scores import Scores, Summary
from foretell.evals.summaries import write_summary
from foretell.files import digest, write_json
from foretell.measure.fanout import Where, fan_out
from foretell.run import Report, silent

LOGS = Path("runs") / "evals"


@dataclass(frozen=True)
class EvalReport:
    """What came of a run. report: the final report, in upstream's names. log: the file. reducer: of epochs."""

    log: RunLog
    summary: Summary
    reducer: str = "mean"

    @cached_property
    def scores(self) -> Scores:
        """Sample by sample."""
        return scores_of(self.log, None, self.reducer)

    @property
    def report(self) -> Mapping[str, Any]:
        return self.log.report

    @property
    def accuracy(self) -> float:
        """Mean score of the samples that could be judged."""
        return self.summary.estimate

    @property
    def stderr(self) -> float:
        return self.summary.stderr


def open_registry(paths: Sequence[str | Path] = ()) -> Registry:
    """The evals that come with Foretell, and those of further registry folders.

    Raises EvalError for a folder that is not there.
    """
    given = [Path(path).expanduser() for path in paths]
    if missing := next((path for path in given if not path.is_dir()), None):
        raise EvalError(f"There is no registry {missing}. Give a folder that holds evals/ and data/.")
    return Registry((OWN, *given))


def run(
    name: str,
    model: Any,
    *,
    grader: Any = None,
    samples: int | None = None,
    epochs: int = 1,
    reducer: str = "mean",
    seed: int = SEED,
    concurrency: int = 64,
    budget: Budget | None = None,
    registry: Registry | None = None,
    args: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    cache: str | Path | None = None,
    user: str = "",
    command: str = "",
    fresh: bool = False,
    folder: Path = LOGS,
    report: Report = silent,
) -> EvalReport:
    """Run one eval on a model, or go on with a run of the same settings that was cut off.

    name: of the registry. model: a reference (see `models.make_model`), a loaded model, a generator, a function, or
    several of these, for evals that compare them. grader: judges where the eval asks for one; else the model itself.
    samples: the first so many, after upstream's shuffle. args: settings in place of the registry's. out: the log's
    file; default a new one in `folder`. fresh: whether a run that was cut off is left alone.
    Raises EvalError where the eval, its samples or the model cannot be used; what was finished is kept.
    """
    Scores.reduced("", "", name, "", {name: [0.0] * epochs}, reducer)  # refused before anything is asked
    registry = registry or open_registry()
    made = make_eval(registry, name, **(args or {}))
    models = list(model) if isinstance(model, list | tuple) else [model]
    fns = [as_model(each, registry, concurrency) for each in models]
    if grader is not None:
        fns.append(as_model(grader, registry, concurrency))
    settings = Settings(seed, samples, epochs, concurrency, budget or Budget(), reducer)
    path = Path(out) if out is not None else log_path(folder, made, fns, settings, fresh)
    store = Cache(Path(cache)) if cache is not None else None
    log = run_eval(made, fns, path, settings, cache=store, user=user, command=command, report=report)
    if isinstance(made, Probe):
        write_rates(log)
    else:
        write_summary(log)
    return EvalReport(log, summary_of(log, reducer), reducer)


def run_set(
    names: Sequence[str],
    model: Any,
    *,
    exit_on_error: bool = True,
    fresh: bool = False,
    folder: Path = LOGS,
    progress: Callable[[], AbstractContextManager[Report]] = lambda: nullcontext(silent),
    workers: int | None = 1,
    on: Where = "local",
    **settings: Any,
) -> Iterator[tuple[str, EvalReport | ForetellError]]:
    """Run evals with `run`'s settings; each comes out with its report as soon as it is finished.

    A set that was cut off goes on: what it finished is read from its logs. exit_on_error: whether the first eval that
    cannot be run ends the set; else its error comes out in place of a report. folder: where it is noted what is done.
    progress: told of each eval. workers, on: evals at a time, and where (see `measure.fanout`); by default here, one
    after another. Elsewhere models are references, such as `models.ModelRef`, since every worker loads its own.
    """
    models = model if isinstance(model, list | tuple) else [model]
    told = [getattr(each, "identity", repr(each)) for each in (*models, settings.get("grader"))]
    what = {k: settings.get(k) for k in ("samples", "epochs", "seed", "args")}
    note = folder / f".set-{digest([sorted(names), told, repr(what)])[:16]}.json"
    logs: dict[str, str] = {}
    if note.is_file() and not fresh:
        with suppress(OSError, ValueError):
            logs = {k: v for k, v in json.loads(note.read_bytes()).items() if Path(v).is_file()}
    reducer = settings.get("reducer", "mean")
    for name in names:
        if name in logs:
            yield name, _report_of(Path(logs[name]), reducer)
    place = folder if on == "local" else folder.absolute()
    asked = [
        _Asked(name, tuple(models), {"fresh": fresh, "folder": place, **settings}) for name in names if name not in logs
    ]
    failed = False
    for i, log in _spread(asked, workers, on, progress) if workers != 1 or on != "local" else _in_turn(asked, progress):
        name = asked[i].name
        if isinstance(log, ForetellError):
            if exit_on_error:
                raise log
            failed = True
            yield name, log
            continue
        if len(names) > 1:
            logs[name] = str(log.absolute())
            write_json(note, logs)
        yield name, _report_of(log, reducer)
    if not failed:
        note.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Asked:
    """One eval of a set, for any process to run."""

    name: str
    models: tuple[Any, ...]
    settings: dict[str, Any]


def _ask(asked: _Asked, report: Report = silent) -> Path | ForetellError:
    """The log's path, or why there is none."""
    try:
        return run(asked.name, asked.models, report=report, **asked.settings).log.path
    except ForetellError as error:
        return error


def _in_turn(
    asked: Sequence[_Asked], progress: Callable[[], AbstractContextManager[Report]]
) -> Iterator[tuple[int, Path | ForetellError]]:
    for i, each in enumerate(asked):
        with progress() as report:
            found = _ask(each, report)
        yield i, found


def _spread(
    asked: Sequence[_Asked], workers: int | None, on: Where, progress: Callable[[], AbstractContextManager[Report]]
) -> Iterator[tuple[int, Path | ForetellError]]:
    if on != "local" and any(each.settings.get("cache") for each in asked):
        raise EvalError("A cache of answers is one machine's file, which others cannot share. Leave out --cache.")
    done = 0
    with progress() as report:
        report("evals", 0, len(asked))
        for i, found in fan_out(_ask, asked, workers=workers, on=on, tell=lambda said: report("evals", 0, 0, said)):
            done += 1
            report("evals", done, len(asked), asked[i].name)
            yield i, found


def _report_of(log: Path, reducer: str) -> EvalReport:
    read = read_log(log)
    return EvalReport(read, summary_of(read, reducer), reducer)


def log_path(folder: Path, made: Eval, fns: Sequence[CompletionFn], settings: Settings, fresh: bool = False) -> Path:
    """Where a run writes its log: that of one with the same settings that was cut off, else a new file."""
    digest = identity(made, fns, settings)
    for part in sorted(folder.glob(f"*.jsonl{PART}")) if not fresh else ():
        try:
            with part.open("rb") as stream:
                if json.loads(stream.readline())["digest"].startswith(digest):
                    return part.with_name(part.name.removesuffix(PART))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # not ours, or hardly begun
    names = "_".join(re.sub(r"[^\w.-]+", "-", fn.name).strip("-.")[-40:] for fn in fns)
    now = datetime.now(UTC).strftime("%y%m%d-%H%M%S-%f")
    return folder / f"{now}_{names}_{made.spec.name}.jsonl"
