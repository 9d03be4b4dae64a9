"""YAML that people write by hand: read together with the line of every field, so that what is wrong can be named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foretell.errors import EvalError

Place = tuple[Any, ...]  # keys and indices that lead to a field


def read_located(path: Path, what: str) -> tuple[Any, Mapping[Place, int]]:
    """A file's value, and the line of each of its fields. what: what the file is to be, for messages.

    Raises EvalError for a file that cannot be read, is no YAML, or names a field twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        found = [] if root is None else list(lines_of(root))
        raw = None if root is None else loader.construct_document(root)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise EvalError(f"The {what} {path} cannot be read ({why}). Check the path.") from error
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark is not None else ""
        raise EvalError(
            f"{path}{at} is not readable YAML: {' '.join(str(getattr(error, 'problem', error)).split())}. Mend it."
        ) from error
    lines: dict[Place, int] = {}
    for place, line in found:
        if place in lines:
            raise EvalError(
                f"{path}, line {line}: {place[-1]!r} stands twice; first in line {lines[place]}. Remove one."
            )
        lines[place] = line
    return raw, lines


def line_of(lines: Mapping[Place, int], at: Sequence[Any]) -> int:
    """The line of a field, or of the nearest part around it that stands in the file."""
    at = tuple(at)
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at, 1)


def lines_of(node: yaml.Node, at: Place = ()) -> Iterator[tuple[Place, int]]:
    """Every field of a document with its line, counted from 1."""
    yield at, node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*at, key.value), key.start_mark.line + 1
            yield from ((a, n) for a, n in lines_of(value, (*at, key.value)) if a != (*at, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from lines_of(value, (*at, i))
