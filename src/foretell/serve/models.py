"""Which models there are: names, aliases, adapters, and engines that are loaded when first asked for."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from foretell.errors import GenerationError, RequestError
from foretell.loading import Model
from foretell.serve.refusals import refuse


@dataclass(frozen=True)
class Served:
    """A model that can answer. name: its own, which replies carry also where an alias was asked for."""

    name: str
    generator: Any
    sampling: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    fingerprint: str = ""


def unknown_model(name: str) -> RequestError:
    text = f"The model '{name}' does not exist. GET /v1/models lists those that do."
    return refuse(text, 404, param="model", code="model_not_found")


class Models:
    """What is served, in one process.

    refs: what `load` reads, by the name it is served under. aliases: another name, to the one it stands for (name to
    name-2026-11-20, to pin a version behind it). adapters: LoRA folders of the first model, by name. load: called on a
    thread of its own, once a model, when it is first asked for.
    Raises GenerationError for aliases that lead nowhere, and for names given twice.
    """

    def __init__(
        self,
        refs: Mapping[str, str],
        load: Callable[[str], Model],
        *,
        aliases: Mapping[str, str] | None = None,
        adapters: Mapping[str, str] | None = None,
    ) -> None:
        self._refs, self._load = dict(refs), load
        self._aliases, self._adapters = dict(aliases or {}), dict(adapters or {})
        self._loaded: dict[str, Model] = {}
        self._served: dict[str, Served] = {}
        self._tasks: dict[str, asyncio.Task[Model]] = {}
        names = [*self._refs, *self._aliases, *self._adapters]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise GenerationError(f"The name {twice[0]} is given twice. Each model, alias and adapter has its own.")
        for alias in self._aliases:
            self._resolve(alias)

    @property
    def names(self) -> list[str]:
        """Every name that may be asked for."""
        return [*self._refs, *self._adapters, *self._aliases]

    @property
    def engines(self) -> dict[str, Any]:
        """The engines that are loaded, by model."""
        return {name: model.generator for name, model in self._loaded.items()}

    def _resolve(self, name: str) -> str:
        for _ in range(len(self._aliases) + 1):
            if name not in self._aliases:
                break
            name = self._aliases[name]
        if name not in self._refs and name not in self._adapters:
            known = ", ".join([*self._refs, *self._adapters])
            raise GenerationError(f"An alias leads to {name}, which is not served. Served are {known}.")
        return name

    def resolve(self, name: str) -> str:
        """The name that an alias stands for. Raises RequestError, 404, for an unknown one."""
        if name not in self._refs and name not in self._aliases and name not in self._adapters:
            raise unknown_model(name)
        return self._resolve(name)

    def base(self, name: str) -> str | None:
        """The model that a name, also an alias's or an adapter's, is of; None for an unknown one."""
        if name not in self.names:
            return None
        name = self._resolve(name)
        return next(iter(self._refs)) if name in self._adapters else name

    def place(self, base: str) -> str:
        """What a model is loaded from."""
        return self._refs[base]

    async def get(self, name: str) -> Served:
        """The model of this name, loaded. Raises as `resolve`, and what `load` raises."""
        name = self.resolve(name)
        if name in self._served:
            return self._served[name]
        adapter = name if name in self._adapters else None
        base = next(iter(self._refs)) if adapter else name
        model = self._loaded.get(base) or await self._load_once(base)
        told = f"{version('foretell')} {base} {model.path} {adapter}"
        fingerprint = "fp_" + hashlib.sha256(told.encode()).hexdigest()[:10]
        self._served[name] = Served(name, model.generator, model.sampling, adapter, fingerprint)
        return self._served[name]

    async def _load_once(self, base: str) -> Model:
        if base not in self._tasks:  # callers that come meanwhile wait for the same one
            self._tasks[base] = asyncio.create_task(asyncio.to_thread(self._open, base))
        try:
            self._loaded[base] = await asyncio.shield(self._tasks[base])
        finally:
            if base in self._tasks and self._tasks[base].done():  # a failure is not kept: the next call tries again
                del self._tasks[base]
        return self._loaded[base]

    def _open(self, base: str) -> Model:
        model = self._load(self._refs[base])
        if base == next(iter(self._refs)):
            for name, folder in self._adapters.items():
                model.generator.add_adapter(name, Path(folder).expanduser())
        return model

    def close(self) -> None:
        for engine in self.engines.values():
            if hasattr(engine, "close"):
                engine.close()
