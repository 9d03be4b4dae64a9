"""What a model sees of an image, and whether it sees any: told before the model is loaded, as far as that goes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.errors import ForetellError
from foretell.images import Tiling, grid_of
from foretell.loading import find_checkpoint, is_foreign
from foretell.serve.chats.pictures import Costs
from foretell.serve.limits.prices import ImageRule
from foretell.serve.models import Models

_SIDE = 512  # pixels of a tile by OpenAI's rule


@dataclass(frozen=True)
class ByTiles:
    """A model of ours: so many tokens a tile."""

    tiling: Tiling

    def of(self, width: int, height: int) -> tuple[int, int]:
        rows, columns = grid_of(width, height, self.tiling)
        tiles = rows * columns + 1
        return tiles, tiles * self.tiling.tokens_per_tile


@dataclass(frozen=True)
class ByRule:
    """A model behind another server: as its calls are billed."""

    rule: ImageRule

    def of(self, width: int, height: int) -> tuple[int, int]:
        tokens = self.rule.tokens(width, height)
        return (tokens - self.rule.base) // self.rule.tile if self.rule.tile else 1, tokens


class Sight:
    """Of the models that are served. models None: they are behind another server."""

    def __init__(self, models: Models | None, rule: ImageRule = ImageRule()) -> None:
        self._models, self._rule = models, rule
        self._read: dict[str, dict[str, Any]] = {}

    def costs(self, model: str | None) -> Costs:
        tiling = self.tiling(model) if model else None
        return ByRule(self._rule) if tiling is None else ByTiles(tiling)

    def tiling(self, model: str) -> Tiling | None:
        """None where it is not known, or the model sees nothing."""
        if (template := self._template(model)) is not None:
            return getattr(template, "tiling", None)
        vision = self._config(model).get("vision")
        if not isinstance(vision, dict):
            return None
        try:
            return Tiling(*(int(vision[name]) for name in ("tile", "patch", "shuffle", "grid")))
        except (KeyError, TypeError, ValueError):
            return None

    def sees(self, model: str) -> bool:
        """Whether it reads images; where that is not known, yes."""
        if (template := self._template(model)) is not None:
            return getattr(template, "tiling", None) is not None
        config = self._config(model)
        return not config or any(config.get(name) for name in ("vision", "vision_config"))

    def is_ours(self, model: str) -> bool:
        """Whether it was trained by Foretell on its generated world, which it then knows best."""
        return bool(self._config(model).get("of_world"))

    def _template(self, model: str) -> Any:
        """Of a model that is loaded."""
        if self._models is None or (base := self._models.base(model)) is None:
            return None
        return getattr(self._models.engines.get(base), "template", None)

    def _config(self, model: str) -> dict[str, Any]:
        """Of a model in a folder, read once; empty for another."""
        if self._models is None or (base := self._models.base(model)) is None:
            return {}
        if base not in self._read:
            self._read[base] = _config_of(self._models.place(base))
        return self._read[base]


def _config_of(ref: str) -> dict[str, Any]:
    try:
        folder = Path(ref).expanduser() if is_foreign(ref) else find_checkpoint(ref)
        found = json.loads((folder / "config.json").read_bytes())
    except (ForetellError, OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    recipe = folder / "recipe.yaml"
    return found | {"of_world": recipe.is_file() and "kind: world" in recipe.read_text("utf-8", "replace")}
