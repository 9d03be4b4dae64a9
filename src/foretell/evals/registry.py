"""Registries in OpenAI Evals' form: folders of YAML with evals, eval sets, model-graded specs and completion functions.

A registry is a folder with `evals/`, `eval_sets/`, `modelgraded/`, `completion_fns/`, `solvers/` and `data/`. Every
YAML file maps names to specs; a spec that is a name, or has an `id`, stands for another.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from foretell.errors import EvalError

OWN = Path(__file__).parent / "own"
DATA = "data"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where it was compiled


@dataclass(frozen=True)
class Entry:
    """A named spec as its file has it. root: the registry's folder. raw: a mapping, or the name of another entry."""

    name: str
    raw: Mapping[str, Any] | str
    root: Path
    file: Path

    @property
    def alias(self) -> str | None:
        if isinstance(self.raw, str):
            return self.raw
        return str(self.raw["id"]) if "id" in self.raw else None


@dataclass(frozen=True)
class EvalSpec:
    """An eval that can be run. cls: "module:Class". root: where its data lie. metrics: named by its base entry."""

    name: str
    cls: str
    args: Mapping[str, Any]
    root: Path
    group: str = ""
    description: str = ""
    metrics: tuple[str, ...] = ()
    higher_is_better: bool = True

    def path(self, name: str) -> Path:
        """A data file: the path itself where it exists, else below the registry's data folder."""
        return Path(name) if Path(name).is_file() else self.root / DATA / name


@dataclass(frozen=True)
class GradedSpec:
    """How a model grades. prompt: a template, or messages of templates. See `graded.ModelBasedClassify`."""

    name: str
    prompt: str | Sequence[Mapping[str, Any]]
    choice_strings: Sequence[str] | str
    input_outputs: Mapping[str, str]
    eval_type: str | None = None
    choice_scores: Mapping[str, float] | str | None = None
    output_template: str | None = None


@dataclass(frozen=True)
class Registry:
    """Several registry folders as one. What another names, too, takes the place of what comes with Foretell.

    Raises EvalError, naming both files, where two entries have one name.
    """

    paths: Sequence[Path] = field(default=(OWN,))

    @cached_property
    def evals(self) -> dict[str, Entry]:
        return self._load("evals")

    @cached_property
    def sets(self) -> dict[str, Entry]:
        return self._load("eval_sets")

    @cached_property
    def modelgraded(self) -> dict[str, Entry]:
        return self._load("modelgraded")

    @cached_property
    def completion_fns(self) -> dict[str, Entry]:
        both = self._load("completion_fns")
        return both | {name: entry for name, entry in self._load("solvers").items() if name not in both}

    def eval(self, name: str) -> EvalSpec:
        """The eval of a name, behind all its aliases."""
        entry = self._find(self.evals, name, "eval")
        raw = self._mapping(entry)
        if "class" not in raw:
            raise EvalError(
                f"The eval {entry.name} in {entry.file} has no class; one is evals.elsuite.basic.match:Match."
            )
        base = self.evals.get(entry.name.split(".")[0])
        told = base.raw if base is not None and isinstance(base.raw, Mapping) else {}
        metrics = told.get("metrics") or raw.get("metrics") or ()
        return EvalSpec(
            entry.name,
            str(raw["class"]).strip(),
            self._args(entry),
            entry.root,
            entry.file.stem,
            str(told.get("description") or raw.get("description") or ""),
            tuple(map(str, metrics)) if isinstance(metrics, list) else (),
            bool(told.get("higher_is_better", True)),
        )

    def resolve(self, name: str) -> list[str]:
        """The evals that a name, a set's name or a pattern with * stands for, each once, in the registry's order.

        Raises EvalError where there is none. What a set names in vain is told by `unmatched`.
        """
        patterns = self._patterns(name)
        if patterns is None:
            self._find(self.evals, name, "eval")
            return [name]
        # A base entry may stand for a version of its own that the pattern matches as well.
        matched = [match for pattern in patterns for match in self._matching(pattern)]
        if not matched:
            raise EvalError(f"No eval matches {name}. {_close(name, self.evals)}")
        return list(dict.fromkeys(self._find(self.evals, match, "eval").name for match in matched))

    def unmatched(self, name: str) -> list[str]:
        """Entries of a set that no eval matches."""
        return [pattern for pattern in self._patterns(name) or () if not self._matching(pattern)]

    def _patterns(self, name: str) -> list[str] | None:
        """What a set or a pattern asks for; None for the name of an eval."""
        if name in self.sets and name not in self.evals:
            evals = self._mapping(self._find(self.sets, name, "eval set")).get("evals") or ()
            return [str(pattern) for pattern in evals]
        return [name] if "*" in name else None

    def _matching(self, pattern: str) -> list[str]:
        matches = re.compile(".*".join(map(re.escape, pattern.split("*"))) + "$").match
        return [name for name in self.evals if matches(name)]

    def graded(self, name: str) -> GradedSpec:
        """The model-graded spec of a name."""
        entry = self._find(self.modelgraded, name, "model-graded spec")
        raw = self._mapping(entry)
        if lacking := [key for key in ("prompt", "choice_strings", "input_outputs") if key not in raw]:
            raise EvalError(f"The model-graded spec {entry.name} in {entry.file} has no {lacking[0]}. Add it.")
        known = ("prompt", "choice_strings", "input_outputs", "eval_type", "choice_scores", "output_template")
        return GradedSpec(entry.name, **{key: raw[key] for key in known if raw.get(key) is not None})

    def completion_fn(self, name: str) -> tuple[str, dict[str, Any]] | None:
        """Class and arguments of a completion function (or solver); None where the name is not registered."""
        if name not in self.completion_fns:
            return None
        entry = self._find(self.completion_fns, name, "completion function")
        raw = self._mapping(entry)
        return str(raw.get("class", "")).strip(), self._args(entry)

    def _load(self, kind: str) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for root in sorted(self.paths, key=lambda path: path != OWN):  # ours first
            folder = root / kind
            files = sorted(folder.glob("*.yaml")) if folder.is_dir() else [root / f"{kind}.yaml"]
            for file in files:
                for name, raw in _read(file).items():
                    if (other := found.get(name)) is not None and (root == OWN or other.root != OWN):
                        raise EvalError(f"{name} is defined in {other.file} and in {file}. Rename or remove one.")
                    found[name] = Entry(name, raw, root, file)
        return found

    def _find(self, entries: Mapping[str, Entry], name: str, what: str) -> Entry:
        seen = [name]
        while True:
            entry = entries.get(name)
            if entry is None:
                via = f" (through {' → '.join(seen)})" if len(seen) > 1 else ""
                where = ", ".join(str(path) for path in self.paths)
                raise EvalError(f"There is no {what} {name}{via} in {where}. {_close(name, entries)}")
            if entry.alias is None or entry.alias == name:
                return entry
            name = entry.alias
            if name in seen:
                raise EvalError(f"The {what} {seen[0]} is an alias of itself: {' → '.join([*seen, name])}.")
            seen.append(name)

    @classmethod
    def _args(cls, entry: Entry) -> dict[str, Any]:
        args = cls._mapping(entry).get("args") or {}
        if not isinstance(args, Mapping):
            raise EvalError(f"{entry.name} in {entry.file} has args that are a {type(args).__name__}; expected names.")
        return dict(args)

    @staticmethod
    def _mapping(entry: Entry) -> Mapping[str, Any]:
        if not isinstance(entry.raw, Mapping):
            raise EvalError(f"{entry.name} in {entry.file} is an alias of itself. Give its spec.")
        return entry.raw


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        with file.open("rb") as stream:
            raw = yaml.load(stream, Loader=_Loader)  # noqa: S506 (a safe one)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EvalError(f"{file} is not readable YAML: {' '.join(str(error).split())}. Mend it.") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise EvalError(f"{file} holds a {type(raw).__name__}; expected names, each with its spec.")
    for name, spec in raw.items():
        if not isinstance(spec, dict | str):
            raise EvalError(f"{file}: {name} is a {type(spec).__name__}; expected a mapping, or the name of another.")
    return {str(name): spec for name, spec in raw.items()}


def _close(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"Near are {', '.join(near)}." if near else "See: foretell eval list. One of your own needs --registry-path."
