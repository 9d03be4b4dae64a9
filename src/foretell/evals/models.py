"""From the name that a user gives to a model that can be asked."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretell.errors import EvalError
from foretell.evals.base import Completion, CompletionFn
from foretell.evals.completion import ChainOfThoughtFn, ModelFn, dummy, from_callable, from_generator
from foretell.evals.prompts import Prompt
from foretell.evals.registry import Registry
from foretell.generate import Generator

if TYPE_CHECKING:
    from foretell.engine.remote import Endpoint

_COMPLETIONS = ("gpt-3.5-turbo-instruct", "gpt-4-base", "davinci", "babbage", "text-", "code-", "curie", "ada")
_COT = ("ChainOfThoughtCompletionFn", "CoTSolver")
_MODELS = ("OpenAIChatCompletionFn", "OpenAICompletionFn", "OpenAISolver", "OpenAIChatCompletionsSolver")


@dataclass(frozen=True)
class ModelRef:
    """A model that is made where it is asked: arguments of `make_model`, `defaults` as JSON."""

    ref: str
    timeout_s: float = 600
    defaults: str = "{}"

    def make(self, registry: Registry, concurrency: int) -> CompletionFn:
        """Kept for the process, so that evals one after another load it once."""
        return _made(self, tuple(registry.paths), concurrency)


@lru_cache(maxsize=4)
def _made(ref: ModelRef, paths: tuple[Path, ...], concurrency: int) -> CompletionFn:
    return make_model(ref.ref, Registry(paths), concurrency, ref.timeout_s, **json.loads(ref.defaults))


def make_model(
    ref: str, registry: Registry, concurrency: int = 64, timeout_s: float = 600, /, **defaults: Any
) -> CompletionFn:
    """A model by reference.

    ref: "dummy"; a completion function of the registry; "URL" or "URL#MODEL" of an OpenAI-compatible endpoint; a run, a
    checkpoint, open weights, a GGUF file, or a hub id where OPENAI_BASE_URL is not set; "module:function" of Python;
    else the name of a model at OPENAI_BASE_URL, or OpenAI's where OPENAI_API_KEY is set.
    timeout_s: of one attempt at an endpoint. defaults: parameters of every question, such as temperature.
    Raises EvalError or GenerationError for what is none of these, MissingExtraError for what needs more packages.
    """
    if ref == "dummy":
        return from_callable(dummy, "dummy")
    if (registered := registry.completion_fn(ref)) is not None:
        return _registered(ref, *registered, registry, concurrency, timeout_s, defaults)
    if ref.startswith(("http://", "https://")):
        url, _, model = ref.partition("#")
        return from_endpoint(_endpoint(url, model or None, concurrency, timeout_s), model or url, defaults)
    # A hub id where no endpoint is named, since endpoints call their models alike.
    if Path(ref).expanduser().exists() or ("/" in ref and not os.environ.get("OPENAI_BASE_URL")):
        from foretell.loading import load, weights_digest

        loaded = load(ref)
        chat = None if loaded.generator.template is not None else False
        identity = {"path": str(loaded.path.resolve())}
        fn = from_generator(loaded.generator, ref, chat=chat, identity=identity, defaults=defaults)
        fn.weights = weights_digest(loaded.path)
        return fn
    if ":" in ref and "/" not in ref:
        return from_callable(import_function(ref), ref)
    if not (os.environ.get("OPENAI_BASE_URL") or os.environ.get("OPENAI_API_KEY")):
        raise EvalError(
            f"There is no model {ref!r} here: no run, file or function of that name. If a server has it, set "
            "OPENAI_BASE_URL (or OPENAI_API_KEY for OpenAI's own), or give URL#MODEL."
        )
    chat = not ref.startswith(_COMPLETIONS)
    return from_endpoint(_endpoint(None, ref, concurrency, timeout_s, chat), ref, defaults)


def as_model(model: Any, registry: Registry, concurrency: int = 64) -> CompletionFn:
    """A model in any of its forms: a reference, a `foretell.load`ed one, a generator, an endpoint, a function."""
    if isinstance(model, ModelRef):
        return model.make(registry, concurrency)
    if isinstance(model, str | Path):
        return make_model(str(model), registry, concurrency)
    generator = getattr(model, "generator", model)
    if hasattr(generator, "ask") and hasattr(generator, "url"):
        return from_endpoint(generator, generator.model or generator.url)
    if isinstance(generator, Generator):
        chat = None if getattr(generator, "template", True) is not None else False
        made = from_generator(generator, str(getattr(model, "path", type(generator).__name__)), chat=chat)
        if isinstance(path := getattr(model, "path", None), Path):
            from foretell.loading import weights_digest

            made.weights = weights_digest(path)
        return made
    if hasattr(model, "can_score") and callable(model):
        fn: CompletionFn = model
        return fn
    if callable(model):
        return from_callable(model)
    raise EvalError(f"A {type(model).__name__} is no model. Give a reference, a loaded model, or a function.")


def from_endpoint(endpoint: Endpoint, name: str, defaults: Mapping[str, Any] | None = None) -> ModelFn:
    """An OpenAI-compatible endpoint as a model; text goes as a system message where it chats, as upstream puts it."""

    async def ask(prompt: Prompt, params: Mapping[str, Any]) -> Completion:
        answer = await endpoint.ask(prompt, **{k: v for k, v in params.items() if v is not None})
        return Completion(answer.texts, prompt, answer.model, answer.usage)

    async def score(prompt: Prompt, continuations: Any) -> list[float]:
        if not isinstance(prompt, str):
            raise EvalError(f"{name} scores text only; this prompt has messages.")
        return await endpoint.score(prompt, continuations)

    identity = {"url": endpoint.url, "model": endpoint.model or "", "chat": endpoint.chat}
    return ModelFn(name, ask, identity, defaults, score if endpoint.can_score else None)


def _endpoint(
    url: str | None, model: str | None, concurrency: int, timeout_s: float, chat: bool | None = None
) -> Endpoint:
    from foretell.engine.remote import Endpoint

    return Endpoint(url, model, concurrency=concurrency, timeout_s=timeout_s, chat=chat, role="system")


def _registered(
    name: str,
    cls: str,
    args: Mapping[str, Any],
    registry: Registry,
    concurrency: int,
    timeout_s: float,
    defaults: Mapping[str, Any],
) -> CompletionFn:
    kind = cls.rpartition(":")[2]
    if kind in _COT:
        think = args.get("cot_completion_fn") or _nested(args.get("cot_solver"))
        if not think:
            raise EvalError(f"{name} thinks step by step with no model. Add cot_completion_fn to its args.")
        answer = args.get("extract_completion_fn") or _nested(args.get("extract_solver")) or think
        first, second = (make_model(str(ref), registry, concurrency, timeout_s, **defaults) for ref in (think, answer))
        words = {key: args[key] for key in ("cot_template", "extract_answer_template") if key in args}
        return ChainOfThoughtFn(first, second, **words)
    if kind in _MODELS:
        named = args.get("completion_fn_options") or args
        model, extra = str(named.get("model", "")), dict(named.get("extra_options") or {})
        if not model:
            raise EvalError(f"{name} names no model. Add one to its args.")
        chat = kind != "OpenAICompletionFn" and not model.startswith(_COMPLETIONS)
        endpoint = _endpoint(named.get("api_base"), model, concurrency, timeout_s, chat)
        return from_endpoint(endpoint, name, {**extra, **defaults})
    if cls.startswith("evals."):
        raise EvalError(
            f"{name} is of upstream's class {cls}, which needs its code. Here are chains of thought and plain models; "
            "write others as a function and give them as module:function."
        )
    made = import_function(cls)(**args)
    return from_callable(made, name)


def _nested(solver: Any) -> str:
    """The model of a solver that is given as class and args."""
    args = solver.get("args", {}) if isinstance(solver, Mapping) else {}
    return str((args.get("completion_fn_options") or args).get("model", ""))


def import_function(place: str) -> Any:
    """The function that "module:function" names. Raises EvalError where there is none."""
    module, _, name = place.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise EvalError(f"{place} cannot be imported ({error}). Put its module on the Python path.") from error
    except AttributeError as error:
        raise EvalError(f"{place} cannot be imported ({error}). Give a function that the module has.") from error
    if not callable(found):
        raise EvalError(f"{place} is a {type(found).__name__}; expected a function: prompt -> text.")
    return found
