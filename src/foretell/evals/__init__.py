"""How a model is examined: OpenAI's registry and our own, any model, with error bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretell.evals.api import EvalReport, open_registry, run
    from foretell.evals.base import Eval, Trial

__all__ = ["Eval", "EvalReport", "Trial", "open_registry", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on first use: importing the room stays instant
        from importlib import import_module

        return getattr(import_module(f"foretell.evals.{'base' if name in ('Eval', 'Trial') else 'api'}"), name)
    raise AttributeError(f"module 'foretell.evals' has no attribute {name!r}")
