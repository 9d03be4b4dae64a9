"""Foretell: know your model before you train it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foretell.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # on first use: importing foretell stays instant
        from foretell.loading import load

        return load
    raise AttributeError(f"module 'foretell' has no attribute {name!r}")
