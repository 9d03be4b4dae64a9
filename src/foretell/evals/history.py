"""A store of runs over models, versions, evals and products: SQLite, or PostgreSQL by URL."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, fields, replace
from datetime import datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from foretell.errors import EvalError, MissingExtraError
from foretell.evals.compare import Verdict, no_worse_than
from foretell.evals.log import RunLog, read_log
from foretell.evals.results import Cost, Result, result_of, samples_of, scores_of
from foretell.evals.scores import Scores

SCHEMA = 1
_AT_ONCE = 10_000  # scores that are written together
_LOCK = 0x666F7265  # of PostgreSQL, held while tables are made
_TYPES = {
    "str": "TEXT", "float": "DOUBLE PRECISION", "int": "BIGINT", "datetime": "TIMESTAMP", "bool": "BOOLEAN",
    "Mapping[str, Any]": "TEXT",
}  # fmt: skip
_COLUMNS = [f.name for f in fields(Result)]
_ROW = f"SELECT {', '.join(_COLUMNS)} FROM foretell_eval_runs"  # noqa: S608 (names of ours)


def _tables() -> list[str]:
    """What makes the tables and their index, of SQLite and PostgreSQL alike."""
    columns = []
    for f in fields(Result):
        type, _, optional = str(f.type).partition(" | ")
        key = " PRIMARY KEY" if f.name == "run" else ""
        columns.append(f"{f.name} {_TYPES[type]}{'' if optional else ' NOT NULL'}{key}")
    return [
        f"CREATE TABLE IF NOT EXISTS foretell_eval_runs ({', '.join(columns)}, scores BYTEA NOT NULL)",
        "CREATE INDEX IF NOT EXISTS foretell_eval_runs_by_eval ON foretell_eval_runs (eval, created)",
        "CREATE TABLE IF NOT EXISTS foretell_eval_schema (version INTEGER PRIMARY KEY)",
        f"INSERT INTO foretell_eval_schema VALUES ({SCHEMA}) ON CONFLICT DO NOTHING",  # noqa: S608 (a number)
    ]


class History:
    """A results store. place: a file of SQLite, made where there is none, or a URL such as
    postgresql://user:password@host/database. wait: seconds for which a database that others write is waited for.

    Raises EvalError for one that is locked, damaged, not to be reached, made by a newer version or without its driver.
    """

    def __init__(self, place: str | Path, wait: float = 30.0) -> None:
        self._driver: Any = sqlite3
        self._place, self._wait = str(place), wait
        self.name, self._secret = self._place, ""
        if "://" in self._place:
            self._place, self._secret = _url(self._place)
            self.name = self._clean(self._place)
            try:
                import psycopg
            except ImportError as error:
                raise MissingExtraError("A results store in PostgreSQL", "postgres") from error
            self._driver = psycopg
        with self._told():
            if self._driver is sqlite3:
                Path(place).parent.mkdir(parents=True, exist_ok=True)
            self._prepare()

    def add(
        self,
        log: RunLog | str | Path,
        *,
        model: str | None = None,
        model_version: str | None = None,
        product: str = "",
        metric: str | None = None,
        reducer: str | None = None,
        cost: Cost | None = None,
    ) -> Result:
        """Store a run; what is there already stays as it is. model, model_version, cost: other than the log says.

        Raises EvalError where another log is stored under the run's id.
        """
        log = log if isinstance(log, RunLog) else read_log(Path(log))
        scores = None if (metric, reducer) == (None, None) and not log.epoch.any() else scores_of(log, metric, reducer)
        row = result_of(log, scores, model=model, model_version=model_version, product=product, cost=cost)
        values = asdict(row) | {"report": json.dumps(dict(row.report), default=str), "scores": _pack(log, scores)}
        marks = ", ".join(["%s"] * len(values))
        query = f"INSERT INTO foretell_eval_runs ({', '.join(values)}) VALUES ({marks}) ON CONFLICT DO NOTHING"  # noqa: S608
        self._ask(query, *values.values())
        stored = self.run(row.run)
        if stored.log_sha256 != row.log_sha256:
            raise EvalError(
                f"{self.name} has run {row.run} from another log ({stored.log_path}), which differs from {log.path}. "
                "Give the one that is right another store."
            )
        return stored

    def run(self, run: str) -> Result:
        """A stored run. Raises EvalError where there is none of that id."""
        found = self._results(f"{_ROW} WHERE run = %s", run)
        if not found:
            if run.endswith(".jsonl"):
                raise EvalError(f"There is no log {run}. Check the path, or give a run's id.")
            raise EvalError(f"{self.name} has no run {run}. List what it has with: foretell eval history")
        return found[0]

    def runs(
        self,
        eval: str | None = None,
        *,
        model: str | None = None,
        model_version: str | None = None,
        product: str | None = None,
        metric: str | None = None,
        since: datetime | None = None,
        complete: bool | None = None,
    ) -> list[Result]:
        """Stored runs in order of time. eval: its name, or a base name that stands for all splits and versions."""
        wanted = {"model": model, "model_version": model_version, "product": product, "metric": metric}
        tests: dict[str, Any] = {f"{name} = %s": value for name, value in {**wanted, "complete": complete}.items()}
        tests |= {"created >= %s": since, f"substr(eval || '.', 1, {len(eval or '') + 1}) = %s": eval and f"{eval}."}
        tests = {test: value for test, value in tests.items() if value is not None}
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        return self._results(f"{_ROW}{where} ORDER BY created, run", *tests.values())

    def history(self, eval: str, *, model: str | None = None, product: str | None = None) -> list[Result]:
        """The runs of an eval in order of time."""
        return self.runs(eval, model=model, product=product)

    def scores(self, run: str) -> Scores:
        """The scores of a stored run, sample by sample."""
        result = self.run(run)
        ((packed,),) = self._ask("SELECT scores FROM foretell_eval_runs WHERE run = %s", run)
        try:
            stored = json.loads(zlib.decompress(packed))
            return Scores(run, result.model, result.eval, result.metric, **stored)
        except (zlib.error, ValueError, TypeError) as error:
            raise EvalError(
                f"The scores of run {run} in {self.name} are damaged ({error}). Restore a copy, or add the log again "
                f"to another store: {result.log_path}"
            ) from error

    def baseline(
        self, which: str, eval: str, metric: str, *, model: str, product: str | None = None, but: str = ""
    ) -> Result:
        """The "best" or "last" complete run of a model on an eval. but: a run that is not meant.

        The best of many runs is in part the luckiest: as a baseline it is a little too strict.
        Raises EvalError where there is none.
        """
        runs = self.runs(eval, model=model, product=product, metric=metric, complete=True)
        runs = [run for run in runs if run.eval == eval and run.run != but and run.value is not None]
        if not runs:
            tagged = f" for {product}" if product is not None else ""
            raise EvalError(
                f"{self.name} has no other run of {model} on {eval}{tagged} to compare with. Add one first."
            )
        return runs[-1] if which == "last" else max(runs, key=lambda run: run.value or 0.0)

    def gate(
        self,
        candidate: str | Path | RunLog,
        baseline: str | Path | RunLog,
        *,
        product: str | None = None,
        margin: float = 0.0,
        level: float = 0.95,
        power: float = 0.8,
    ) -> Verdict:
        """Whether a candidate is no worse than a baseline, by `no_worse_than`.

        candidate: a run's id, or a log, which need not be stored. baseline: likewise, or "best" or "last" of the
        candidate's model, or "best:MODEL" or "last:MODEL". product: where given, of that product's runs.
        """
        new, new_digest = self._resolve(candidate)
        which, _, model = baseline.partition(":") if isinstance(baseline, str) else ("", "", "")
        if which in ("best", "last"):
            found = self.baseline(which, new.eval, new.metric, model=model or new.model, product=product, but=new.run)
            old, old_digest = self.scores(found.run), found.eval_digest
        else:
            old, old_digest = self._resolve(baseline)
        if old.run == new.run:
            raise EvalError(f"Run {new.run} is candidate and baseline at once. Name another baseline.")
        verdict = no_worse_than(new, old, margin, level, power)
        if new_digest != old_digest:
            note = f"The settings of {new.eval} changed between {old.run} and {new.run}, which may be the difference."
            return replace(verdict, reason=f"{verdict.reason} {note}")
        return verdict

    def _resolve(self, what: str | Path | RunLog) -> tuple[Scores, str]:
        """Scores and the eval's digest of a run by its id, or of a log."""
        if isinstance(what, str) and not Path(what).is_file():
            stored = self.run(what)
            return self.scores(what), stored.eval_digest
        log = what if isinstance(what, RunLog) else read_log(Path(what))
        scores = scores_of(log)
        return scores, result_of(log, scores).eval_digest

    def _prepare(self) -> None:
        """Make the tables where they are not, which other processes may be doing at this moment."""
        sqlite = self._driver is sqlite3
        listed = "sqlite_master WHERE name" if sqlite else "pg_tables WHERE tablename"
        with self._connected() as connection:
            if not connection.execute(f"SELECT 1 FROM {listed} = 'foretell_eval_schema'").fetchone():  # noqa: S608
                connection.execute("BEGIN IMMEDIATE" if sqlite else f"SELECT pg_advisory_xact_lock({_LOCK})")
                for statement in _tables():
                    connection.execute(statement)
            ((version,),) = connection.execute("SELECT max(version) FROM foretell_eval_schema").fetchall()
        if version != SCHEMA:
            raise EvalError(
                f"{self.name} was made by a newer Foretell (its form is {version}, this one knows {SCHEMA}). Upgrade "
                "with pip install --upgrade foretell, or give another store."
            )

    def _results(self, query: str, *values: Any) -> list[Result]:
        with self._told():
            return [_result(row) for row in self._ask(query, *values)]

    def _ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """One statement in a transaction of its own, and the rows that it gives. %s: the values, one after another."""
        if self._driver is sqlite3:
            query, values = query.replace("%s", "?"), tuple(map(_as_text, values))
        with self._told(), self._connected() as connection:
            cursor = connection.execute(query, values)
            return list(cursor.fetchall()) if cursor.description else []

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """A connection of this transaction alone: nothing is held open between two calls."""
        options = {"timeout": self._wait} if self._driver is sqlite3 else {"connect_timeout": max(2, int(self._wait))}
        with closing(self._driver.connect(self._place, **options)) as connection, connection:
            yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._driver.Error as error:
            raise EvalError(f"{self.name} {_advice(self._clean(' '.join(str(error).split())))}") from error
        except (ValueError, TypeError) as error:  # what a row holds cannot be read
            raise EvalError(f"{self.name} {_advice(f'malformed: {error}')}") from error
        except OSError as error:
            raise EvalError(f"{self.name} cannot be made ({error.strerror}). Give another place.") from error

    def _clean(self, text: str) -> str:
        return text.replace(f":{self._secret}@", ":***@") if self._secret else text


def _url(place: str) -> tuple[str, str]:
    """A URL of PostgreSQL as its driver takes it, and the password in it."""
    try:
        parts = urlsplit(place)
        ok, password = bool(parts.scheme) and parts.port != 0, parts.password or ""
    except ValueError:
        ok, password = False, ""
    if not ok:
        raise EvalError(
            "The store's URL is not of the form postgresql://user:password@host/database. Give one such, or a file."
        )
    if parts.scheme not in ("postgres", "postgresql", "postgresql+psycopg"):
        raise EvalError(f"A store cannot be of {parts.scheme}://. Give a file, or a URL of postgresql://.")
    return f"postgresql{place[len(parts.scheme) :]}", password


def _as_text(value: Any) -> Any:
    return f"{value:%Y-%m-%d %H:%M:%S.%f}" if isinstance(value, datetime) else value  # SQLite has no type of times


def _advice(cause: str) -> str:
    if "locked" in cause:
        return "is being written by another process, for longer than was waited. Run the command again."
    if "not a database" in cause or "malformed" in cause or "file is encrypted" in cause:
        return f"is no SQLite database, or is damaged ({cause}). Restore a copy, or give another place."
    if "readonly" in cause or "unable to open" in cause:
        return f"cannot be opened or written ({cause}). Check its folder and permissions, or give another place."
    if "full" in cause:
        return f"cannot be written ({cause}). Make room and run the command again: the log itself is kept."
    return f"does not answer as a store of runs should ({cause}). Check the place, and that its server runs."


def _pack(log: RunLog, scores: Scores | None) -> bytes:
    """Scores, or those of a log as it has them, a few at a time: a million need not be held as text."""
    if scores is None:
        values: Iterable[tuple[str, Any]] = ((id, value) for id, value, _ in samples_of(log))
        groups: Iterable[tuple[str, Any]] = ((id, group) for id, _, group in samples_of(log) if group is not None)
    else:
        values, groups = scores.values.items(), scores.groups.items()
    packer, draws = zlib.compressobj(), scores.invalid_draws if scores is not None else 0
    end = f'}},"invalid_draws":{draws}}}'
    pieces = chain(['{"values":{'], _pairs(values), ['},"groups":{'], _pairs(groups), [end])
    return b"".join([*(packer.compress(piece.encode("utf-8", "surrogatepass")) for piece in pieces), packer.flush()])


def _pairs(items: Iterable[tuple[str, Any]]) -> Iterator[str]:
    comma, rest = "", iter(items)
    while some := dict(islice(rest, _AT_ONCE)):
        yield comma + json.dumps(some, separators=(",", ":"), allow_nan=False)[1:-1]
        comma = ","


def _result(row: tuple[Any, ...]) -> Result:
    values = dict(zip(_COLUMNS, row, strict=True))
    created = values["created"]
    values["created"] = datetime.fromisoformat(created) if isinstance(created, str) else created
    return Result(**values | {"report": json.loads(values["report"]), "complete": bool(values["complete"])})
