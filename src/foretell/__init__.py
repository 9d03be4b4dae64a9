"""Foretell: know your model before you train it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretell import evals, forecast
    from foretell.loading import load

__all__ = ["evals", "forecast", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # on first use: importing foretell stays instant
        from foretell.loading import load

        return load
    if name in ("evals", "forecast"):
        from importlib import import_module

        return import_module(f"foretell.{name}")
    raise AttributeError(f"module 'foretell' has no attribute {name!r}")
