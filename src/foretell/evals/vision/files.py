"""Reading the files of visual benchmarks: rows and pictures, each with its place, so that what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foretell.chat import ImagePart
from foretell.errors import EvalError, ImageError
from foretell.evals.samples import placed
from foretell.images import open_image


@dataclass(frozen=True)
class Row:
    """A row of a file. place: "FILE, line N" or "FILE, entry N", counted from 1."""

    value: Mapping[str, Any]
    place: str

    def get(self, key: str) -> Any:
        """A column that has to be there. Raises EvalError naming the place and what is there instead."""
        if key not in self.value:
            has = ", ".join(list(self.value)[:12]) or "nothing"
            raise EvalError(f"{self.place} has no {key!r}; it has {has}. Use the published file.")
        return self.value[key]

    def text(self, key: str) -> str:
        """A column of text that is not empty."""
        value = self.get(key)
        if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
            raise EvalError(f"{self.place}: {key} is {str(value)[:60]!r}; expected text. Use the published file.")
        return str(value)

    def texts(self, key: str) -> list[str]:
        """A column of a list of texts, one at least."""
        value = self.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, str | int | float) for one in value):
            raise EvalError(f"{self.place}: {key} is {str(value)[:60]!r}; expected a list of texts.")
        return [str(one) for one in value]


@dataclass(frozen=True)
class Question:
    """A question about pictures, in the one form that all benchmarks are read into.

    id: unique within its file. images: files, in the order in which they are shown; MARK in the text says where, else
    they come first. ideal: right answers (VQA: what each annotator said). options: of a closed question; gold: which of
    them is right. part: what a mean is taken over, such as an answer's type. group: questions that share a picture (or
    a sentence) are not independent. worked: reasoning that leads to the answer, where the file has it.
    """

    id: str
    text: str
    images: tuple[Path, ...]
    ideal: tuple[str, ...]
    place: str
    options: tuple[str, ...] = ()
    gold: int | None = None
    part: str = ""
    group: str = ""
    worked: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


def read_json(file: Path) -> Any:
    """A JSON file. Raises EvalError, naming line and column, for one that is missing or damaged."""
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise EvalError(f"{file} cannot be read ({error.strerror}). Check the path.") from error
    except json.JSONDecodeError as error:
        raise EvalError(
            f"{file}, line {error.lineno}, column {error.colno} is not JSON ({error.msg}). Fetch it again."
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise EvalError(f"{file} is not JSON ({error}). Fetch it again.") from error


def listed(file: Path, key: str = "") -> list[Row]:
    """The entries of a JSON list, or of the list below a key of an object."""
    held = read_json(file)
    if key:
        if not isinstance(held, dict) or key not in held:
            has = ", ".join(list(held)[:8]) if isinstance(held, dict) else f"a {type(held).__name__}"
            raise EvalError(f"{file} has no list {key!r}; it holds {has or 'nothing'}. Use the published file.")
        held = held[key]
    if not isinstance(held, list) or not held:
        raise EvalError(f"{file} holds no list of entries{f' under {key!r}' if key else ''}. Use the published file.")
    return [_row(one, f"{file}, entry {number}") for number, one in enumerate(held, 1)]


def lines(file: Path) -> list[Row]:
    """The objects of a file of JSON lines."""
    found = [Row(row, place) for row, place in placed(file)]
    if not found:
        raise EvalError(f"{file} is empty. Fetch it again.")
    return found


def _row(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise EvalError(f"{place} is a {type(value).__name__}; expected an object. Use the published file.")
    return Row(value, place)


def unique(questions: Sequence[Question]) -> Sequence[Question]:
    """The questions. Raises EvalError, naming both places, where two have one id."""
    seen: dict[str, str] = {}
    for question in questions:
        if (other := seen.setdefault(question.id, question.place)) is not question.place:
            raise EvalError(f"{question.place} has the id {question.id} of {other}. Remove one of them.")
    return questions


def picture(file: Path, place: str) -> ImagePart:
    """A picture, whose header can be read. Raises EvalError, naming the row that asks for it, for one that is not."""
    try:
        part = ImagePart(file.read_bytes())
        open_image(part.data)
    except OSError as error:
        raise EvalError(f"{place}: its image {file} cannot be read ({error.strerror}). Fetch it.") from error
    except ImageError as error:
        raise EvalError(f"{place}: its image {file} is broken. {error}") from error
    return part
