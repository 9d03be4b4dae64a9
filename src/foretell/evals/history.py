"""A store of runs over models, versions, evals and products: SQLite, or PostgreSQL by URL."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from foretell.errors import EvalError, MissingExtraError
from foretell.evals.compare import Verdict, no_worse_than
from foretell.evals.log import RunLog, read_log
from foretell.evals.results import Cost, Result, result_of, scores_of
from foretell.evals.scores import Scores

try:
    import sqlalchemy as sa
    from sqlalchemy import exc
    from sqlalchemy.schema import CreateIndex, CreateTable
except ImportError as _error:
    raise MissingExtraError("The history of eval runs", "evals") from _error

SCHEMA = 1
_LOCK = 0x666F7265  # of PostgreSQL, held while tables are made
_tables = sa.MetaData()
_schema = sa.Table("foretell_eval_schema", _tables, sa.Column("version", sa.Integer, primary_key=True))
_TYPES: dict[str, Any] = {
    "str": sa.Text, "float | None": sa.Double, "int": sa.Integer, "int | None": sa.BigInteger, "datetime": sa.DateTime,
    "bool": sa.Boolean, "Mapping[str, Any]": sa.Text,
}  # fmt: skip
_runs = sa.Table(
    "foretell_eval_runs",
    _tables,
    *(
        sa.Column(f.name, _TYPES[str(f.type)], primary_key=f.name == "run", nullable=str(f.type).endswith("None"))
        for f in fields(Result)
    ),
    sa.Column("scores", sa.LargeBinary, nullable=False),
    sa.Index("foretell_eval_runs_by_eval", "eval", "created"),
)
_row = [column for column in _runs.c if column.name != "scores"]


class History:
    """A results store. place: a file of SQLite, made where there is none, or a URL such as
    postgresql://user:password@host/database. wait: seconds for which a database that others write is waited for.

    Raises EvalError for one that is locked, damaged, not to be reached, made by a newer version or without its driver.
    """

    def __init__(self, place: str | Path, wait: float = 30.0) -> None:
        url = _url(place)
        self.name = str(url.database) if _is_file(url) else url.render_as_string(hide_password=True)
        options: dict[str, Any] = {"connect_args": {"connect_timeout": max(2, int(wait))}, "pool_pre_ping": True}
        if _is_file(url):  # nothing is held open between two calls
            options = {"connect_args": {"timeout": wait}, "poolclass": sa.NullPool}
        with self._told():
            if _is_file(url) and url.database:
                Path(url.database).parent.mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(url, **options)
            self._prepare()

    def add(
        self,
        log: RunLog | str | Path,
        *,
        model: str | None = None,
        model_version: str | None = None,
        product: str = "",
        metric: str | None = None,
        reducer: str = "mean",
        cost: Cost | None = None,
    ) -> Result:
        """Store a run; what is there already stays as it is. model, model_version, cost: other than the log says.

        Raises EvalError where another log is stored under the run's id.
        """
        log = log if isinstance(log, RunLog) else read_log(Path(log))
        scores = scores_of(log, metric, reducer)
        row = result_of(log, scores, model=model, model_version=model_version, product=product, cost=cost)
        values = asdict(row) | {"report": json.dumps(dict(row.report), default=str), "scores": _pack(scores)}
        with self._told():
            try:
                with self._engine.begin() as connection:
                    connection.execute(sa.insert(_runs).values(values))
                return row
            except exc.IntegrityError:
                stored = self.run(row.run)
        if stored.log_sha256 != row.log_sha256:
            raise EvalError(
                f"{self.name} has run {row.run} from another log ({stored.log_path}), which differs from {log.path}. "
                "Give the one that is right another store."
            )
        return stored

    def run(self, run: str) -> Result:
        """A stored run. Raises EvalError where there is none of that id."""
        with self._told(), self._engine.connect() as connection:
            row = connection.execute(sa.select(*_row).where(_runs.c.run == run)).one_or_none()
        if row is None:
            raise EvalError(f"{self.name} has no run {run}. List what it has with: foretell eval history")
        return _result(row)

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
        query = sa.select(*_row).order_by(_runs.c.created, _runs.c.run)
        query = query.where(*(_runs.c[name] == value for name, value in wanted.items() if value is not None))
        if eval is not None:
            query = query.where(sa.or_(_runs.c.eval == eval, _runs.c.eval.startswith(f"{eval}.", autoescape=True)))
        if since is not None:
            query = query.where(_runs.c.created >= since)
        if complete is not None:
            query = query.where(_runs.c.complete == complete)
        with self._told(), self._engine.connect() as connection:
            return [_result(row) for row in connection.execute(query)]

    def history(self, eval: str, *, model: str | None = None, product: str | None = None) -> list[Result]:
        """The runs of an eval in order of time."""
        return self.runs(eval, model=model, product=product)

    def scores(self, run: str) -> Scores:
        """The scores of a stored run, sample by sample."""
        result = self.run(run)
        with self._told(), self._engine.connect() as connection:
            packed = connection.execute(sa.select(_runs.c.scores).where(_runs.c.run == run)).scalar_one()
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
        if not sa.inspect(self._engine).has_table(_schema.name):
            with self._engine.begin() as connection:
                if self._engine.dialect.name == "postgresql":
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
                connection.execute(CreateTable(_runs, if_not_exists=True))
                for index in _runs.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
                connection.execute(CreateTable(_schema, if_not_exists=True))
        newest = sa.select(sa.func.max(_schema.c.version))
        with self._engine.connect() as connection:
            version = connection.execute(newest).scalar_one()
        if version is None:
            with suppress(exc.IntegrityError), self._engine.begin() as connection:
                connection.execute(sa.insert(_schema).values(version=SCHEMA))
            version = SCHEMA
        if version != SCHEMA:
            raise EvalError(
                f"{self.name} was made by a newer Foretell (its form is {version}, this one knows {SCHEMA}). Upgrade "
                "with pip install --upgrade foretell, or give another store."
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except exc.NoSuchModuleError as error:
            raise EvalError(f"{self.name}: {error}. Give a file, or a URL of postgresql://.") from error
        except ImportError as error:
            raise EvalError(
                f"{self.name} needs the driver {error.name}, which is not installed. For PostgreSQL: "
                "pip install 'foretell[postgres]'"
            ) from error
        except exc.SQLAlchemyError as error:
            cause = " ".join(str(getattr(error, "orig", None) or error).split())
            raise EvalError(f"{self.name} {_advice(cause)}") from error
        except (ValueError, TypeError) as error:  # what a row holds cannot be read
            raise EvalError(f"{self.name} {_advice(f'malformed: {error}')}") from error
        except OSError as error:
            raise EvalError(f"{self.name} cannot be made ({error.strerror}). Give another place.") from error


def _url(place: str | Path) -> sa.URL:
    """A URL, with psycopg as PostgreSQL's driver where none is named; what has no :// is a file."""
    if "://" not in str(place):
        return sa.URL.create("sqlite", database=str(place))
    try:
        url = sa.make_url(str(place))
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
    except (exc.ArgumentError, ValueError) as error:
        raise EvalError(
            "The store's URL is not of the form postgresql://user:password@host/database. Give one such, or a file."
        ) from error
    return url


def _is_file(url: sa.URL) -> bool:
    return url.get_backend_name() == "sqlite"


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


def _pack(scores: Scores) -> bytes:
    kept = {"values": dict(scores.values), "groups": dict(scores.groups), "invalid_draws": scores.invalid_draws}
    return zlib.compress(json.dumps(kept, separators=(",", ":"), allow_nan=False).encode("utf-8", "surrogatepass"))


def _result(row: sa.Row[Any]) -> Result:
    values = row._asdict()
    return Result(**values | {"report": json.loads(values["report"])})
