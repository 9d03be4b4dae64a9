"""Questions with listed answers, from files of the Inverse Scaling Prize and from the world, and what their scores say.

A soft metric moves while accuracy is still at chance: the log-odds of the right answer, and its probability among
those listed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from foretell.chat import Conversation, ImagePart, Message
from foretell.data.world import KINDS, Item, make_items
from foretell.data.world.base import png
from foretell.errors import ForecastError
from foretell.forecast.capability import log_odds
from foretell.forecast.logs import Row, read_rows

BLIND = " (blind)"  # ends the name of a group whose images are grey


@dataclass(frozen=True)
class Question:
    """prompt: text that an answer continues, or a conversation that one replies to.

    choices: the answers; one alone is a text whose probability is measured. right: index of the right one.
    other: a second prompt, whose log-odds are subtracted. group: what it is counted under.
    """

    group: str
    prompt: str | Conversation
    choices: tuple[str, ...]
    right: int = 0
    other: str | None = None


@dataclass(frozen=True)
class Answer:
    """What one model makes of a question. logprobs: of each choice, in nats; other: the same after the other prompt."""

    group: str
    right: int
    logprobs: tuple[float, ...]
    other: tuple[float, ...] | None = None

    @property
    def value(self) -> float:
        """Log-odds of the right answer (less those after the other prompt), or the log-probability of the only one."""
        if len(self.logprobs) == 1:
            return self.logprobs[0]
        shift = log_odds(self.other, self.right) if self.other else 0.0
        return log_odds(self.logprobs, self.right) - shift

    @property
    def log_probability(self) -> float:
        """Of the right answer among those listed; of the only one as it stands."""
        return self.logprobs[self.right] - (float(np.logaddexp.reduce(self.logprobs)) if len(self.logprobs) > 1 else 0)

    @property
    def correct(self) -> bool | None:
        """Whether the right answer is the likeliest; after the other prompt where there is one, as upstream counts."""
        if len(self.logprobs) == 1:
            return None
        return int(np.argmax(self.other or self.logprobs)) == self.right


def read_questions(path: Path) -> list[Question]:
    """Questions of a task in the form of the Inverse Scaling Prize, as CSV or JSON lines.

    Columns prompt, classes (a list) and answer_index make a classification; with other_prompt, whose two classes are
    compared across both prompts, log-odds; prompt and completion, sequence probability. Other columns are passed over.
    Raises ForecastError naming the row of what is none of them.
    Source: McKenzie et al. (2023), arXiv 2306.09479, and the data release of the prize.
    """
    found = [_question(path, where, row) for where, row in _rows(path)]
    if not found:
        raise ForecastError(f"{path} holds no questions. A row has prompt, classes and answer_index.")
    return found


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows with their text as it stands: a class begins with a space, a prompt may end with one."""
    if path.suffix.lower() != ".csv":
        yield from read_rows(path)
        return
    import csv

    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            for row in reader:
                yield f"line {reader.line_num}", {key: value for key, value in row.items() if value is not None}
    except (OSError, ValueError, csv.Error) as error:
        raise ForecastError(f"{path} cannot be read as CSV ({error}). Check the path, or save it as UTF-8.") from error


def _question(path: Path, where: str, row: Row) -> Question:
    def fault(column: str, expected: str) -> ForecastError:
        shown = repr(row[column])[:80] if column in row else "missing"
        return ForecastError(f"{path}, {where}, column {column}: {shown}; expected {expected}. Mend or remove the row.")

    for column in ("prompt", *(name for name in ("other_prompt", "completion") if name in row)):
        if not isinstance(row.get(column), str) or not row[column]:
            raise fault(column, "text")
    prompt, group = row["prompt"], path.stem
    if "classes" not in row and "completion" in row:
        return Question(group, prompt, (row["completion"],))
    classes = _texts(row.get("classes"))
    if len(set(classes)) < max(len(classes), 2):
        raise fault("classes", "a list of two or more different texts")
    index = str(row.get("answer_index")).removesuffix(".0")
    if not index.isdecimal() or int(index) >= len(classes):
        raise fault("answer_index", f"a whole number from 0 to {len(classes) - 1}")
    if "other_prompt" in row and len(classes) != 2:
        raise fault("classes", "two texts, where there is an other_prompt")
    return Question(group, prompt, tuple(classes), int(index), row.get("other_prompt"))


def _texts(classes: object) -> list[str]:
    """A list of texts, also where CSV holds it as Python writes one; empty for anything else."""
    if isinstance(classes, str):
        try:
            classes = ast.literal_eval(classes)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            return []
    texts = list(classes) if isinstance(classes, list | tuple) else []
    return texts if all(isinstance(text, str) and text for text in texts) else []


def world_questions(name: str, count: int = 200, seed: int = 0, **options: Any) -> list[Question]:
    """Held-out questions with listed answers of a world kind, or of one of its tasks ("scenes.color").

    count: of each task. options: of the kind, as in the models' recipe. Every visual question comes a second time with
    a grey image, in the group "TASK (blind)".
    Raises ForecastError where nothing of it is answered by one of its choices, RecipeError for a wrong option.
    """
    kind = name.partition(".")[0]
    tasks = [name] if name != kind else sorted({i.task for i in make_items(kind, "heldout", 400, seed, **options)})
    found = [q for task in tasks for q in _asked(kind, task, count, seed, options)]
    if not found:
        raise ForecastError(
            f"{name} asks nothing that is answered by one of listed choices. Try scenes, or facts.choice."
        )
    return found


def _asked(kind: str, task: str, count: int, seed: int, options: dict[str, Any]) -> Iterator[Question]:
    asked = 0
    for item in make_items(kind, "heldout", 4 * count, seed, **{**options, "tasks": [task]}):
        if asked == count or not _is_choice(item):
            continue
        asked += 1
        prompt = Conversation(item.content.conversation().messages[:-1])
        question = Question(task, prompt, item.choices, item.choices.index(item.answer or ""))
        yield question
        if KINDS[kind].visual:  # type: ignore[attr-defined]
            yield replace(question, group=task + BLIND, prompt=_grey(prompt))


def _is_choice(item: Item) -> bool:
    """Whether the reply that was trained is one of the choices, not a sentence that ends in one."""
    return item.answer in item.choices and item.content.segments[-1].text == item.answer


def _grey(conversation: Conversation) -> Conversation:
    from PIL import Image

    def without(message: Message) -> Message:
        return replace(message, parts=tuple(blank(p) if isinstance(p, ImagePart) else p for p in message.parts))

    def blank(part: ImagePart) -> ImagePart:
        with Image.open(BytesIO(part.data)) as image:
            return replace(part, data=png(Image.new("RGB", image.size, (128, 128, 128))))

    return Conversation(tuple(map(without, conversation.messages)))


def find_questions(task: str, count: int = 200, options: dict[str, Any] | None = None) -> list[Question]:
    """Of a file, or of a world kind or task by name.

    Raises ForecastError for what is neither, and as `read_questions` and `world_questions` do.
    """
    if task.partition(".")[0] in KINDS:
        return world_questions(task, count, **(options or {}))
    if not Path(task).exists():
        raise ForecastError(f"There is no file {task}, nor a world kind of that name; kinds are {', '.join(KINDS)}.")
    return read_questions(Path(task))


def world_options(checkpoint: Path, kind: str) -> dict[str, Any]:
    """The options that a model's own recipe gives a world kind; none where it has no recipe, or none that says so."""
    from foretell.recipe import WorldSource
    from foretell.recipes import load_recipe

    file = checkpoint / "recipe.yaml"
    sources = load_recipe(file).data.sources if file.is_file() else ()
    return next((dict(s.options.get(kind, {})) for s in sources if isinstance(s, WorldSource)), {})
