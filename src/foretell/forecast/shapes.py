"""Shapes by name or file: a run's model, batch and tokens without a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from foretell.errors import ForecastError
from foretell.forecast.job import Job
from foretell.forecast.rungs import DataShape
from foretell.model.describe import parameter_count
from foretell.recipe import ModelConfig, Recipe
from foretell.recipes import check_section, read_yaml
from foretell.sections import Positive, Section

BUILT_IN = Path(__file__).with_name("shapes.yaml")
_AGREES = 0.05  # how far counted parameters may be from those that a file states

Count = Annotated[float, Field(ge=1)]


class Shape(Section):
    """A run in a few numbers. ffn: width of the MLP, of three matrices if `gated`, else of two, counted as three of
    two thirds the width. context: tokens of a row; batch_tokens: of a step. parameters: checked against the count."""

    layers: Positive
    width: Positive
    heads: Positive
    kv_heads: Positive | None = None
    head_dim: Positive | None = None
    ffn: Positive
    gated: bool = True
    vocabulary: Positive
    tied: bool = False
    context: Positive
    batch_tokens: Count
    tokens: Count
    parameters: Count | None = None

    @model_validator(mode="after")
    def _heads(self) -> Self:
        if self.head_dim is None and self.width % self.heads:
            raise ValueError(
                f"width is {self.width}, which heads ({self.heads}) does not divide; change one of them, or give "
                "head_dim"
            )
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(
                f"kv_heads is {self.kv_heads}, which does not divide heads ({self.heads}); give a divisor of it, or "
                "leave kv_heads out, for as many as heads"
            )
        return self

    def job(self, name: str, where: str) -> Job:
        """where: it was described. Raises RecipeError for a model that cannot be, ForecastError where the parameters
        that were stated are not those of the shape."""
        described = {
            "vocab_size": self.vocabulary,
            "width": self.width,
            "depth": self.layers,
            "head_dim": self.head_dim or self.width // self.heads,
            "q_heads": self.heads,
            "kv_heads": self.kv_heads,
            "ffn": self.ffn if self.gated else 32 * max(1, round(2 * self.ffn / 96)),
            "max_length": self.context,
            "tie_embeddings": self.tied,
        }
        model = check_section(ModelConfig, described, where)
        counted = parameter_count(model)
        if self.parameters is not None and abs(counted / self.parameters - 1) > _AGREES:
            raise ForecastError(
                f"{where} states {self.parameters:.4g} parameters, but its shape has {counted:.4g}. Correct ffn, "
                "gated, tied or vocabulary, or leave parameters out."
            )
        data = DataShape((self.context + 1) / 2)
        return Job(name, model, self.context, round(self.batch_tokens), round(self.tokens), data)


def shapes() -> list[str]:
    """Names of the shapes that come with the package."""
    return list(read_yaml(BUILT_IN.read_text(encoding="utf-8"), BUILT_IN.name))


def find_shape(named: str) -> Job | None:
    """A shape by built-in name, or by a YAML file with a shape's keys; None for anything else, such as a recipe.

    Raises RecipeError for a shape with mistakes, ForecastError for a file that cannot be read or states other
    parameters than it has.
    """
    known = read_yaml(BUILT_IN.read_text(encoding="utf-8"), BUILT_IN.name)
    if named in known:
        return check_section(Shape, known[named], named).job(named, named)
    path = Path(named)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        try:
            raw = read_yaml(path.read_text(encoding="utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ForecastError(f"{path} cannot be read as text ({error}). Give a YAML file in UTF-8.") from error
        if isinstance(raw, dict) and _describes(raw):
            return check_section(Shape, raw, str(path)).job(path.stem, str(path))
    return None


def _describes(raw: dict[Any, Any]) -> bool:
    """Whether a file is meant as a shape: it has more keys of one than of a recipe, of which one may be misspelt."""
    own, recipe = (len(raw.keys() & kind.model_fields.keys()) for kind in (Shape, Recipe))
    return own > recipe
