"""From the class that a registry names to the one that runs it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from foretell.errors import EvalError
from foretell.evals.base import Eval
from foretell.evals.registry import EvalSpec, Registry

# Upstream's templates -> ours, imported when one is asked for.
_TEMPLATES = {
    "evals.elsuite.basic.match:Match": "foretell.evals.basic:Match",
    "evals.elsuite.test.match:TestMatch": "foretell.evals.basic:Phrases",
    "evals.elsuite.basic.includes:Includes": "foretell.evals.basic:Includes",
    "evals.elsuite.basic.fuzzy_match:FuzzyMatch": "foretell.evals.basic:FuzzyMatch",
    "evals.elsuite.basic.json_match:JsonMatch": "foretell.evals.basic:JsonMatch",
    "evals.elsuite.translate:Translate": "foretell.evals.basic:Translate",
    "evals.elsuite.multiple_choice:MultipleChoice": "foretell.evals.basic:MultipleChoice",
    "evals.elsuite.modelgraded.classify:ModelBasedClassify": "foretell.evals.graded:ModelBasedClassify",
}


def make_eval(registry: Registry, name: str, **changed: Any) -> Eval:
    """The eval of a name, with its settings. changed: settings in place of the registry's.

    Raises EvalError for a class that is not here or is no eval, or settings that it does not take.
    """
    spec = registry.eval(name)
    spec = replace(spec, args={**spec.args, **changed})  # what a run is told apart by, and what its log says
    found = load_class(spec)
    try:
        return found(spec, registry, **spec.args)
    except TypeError as error:
        raise EvalError(f"{spec.name}: its settings do not fit {spec.cls} ({error}).") from error


def load_class(spec: EvalSpec) -> type[Eval]:
    """The class of an eval."""
    place = _TEMPLATES.get(spec.cls, spec.cls)
    module, colon, name = place.partition(":")
    if not colon:
        raise EvalError(f"{spec.name}: its class is {spec.cls!r}; expected module:Class.")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        own = "It is one of upstream's own evals, which need its code. " if module.startswith("evals.") else ""
        raise EvalError(
            f"{spec.name}: its class {spec.cls} cannot be imported ({error}). {own}Write it as a subclass of "
            "foretell.evals.Eval, and put its module on the Python path."
        ) from error
    if not (isinstance(found, type) and issubclass(found, Eval)):
        raise EvalError(f"{spec.name}: {spec.cls} is no subclass of foretell.evals.Eval.")
    return found
