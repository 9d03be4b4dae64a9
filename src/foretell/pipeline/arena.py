"""An arena's prompts: of a file of prompts as alignment reads them, or of the world, where the truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from foretell.align.examples import PromptRow, read_prompts
from foretell.chat import Conversation
from foretell.data.world import make_items
from foretell.errors import EvalError, RowError
from foretell.evals.arena.folder import Asked
from foretell.files import digest

KINDS = ("facts", "arithmetic", "scenes", "charts")


def file_prompts(path: Path, skip: bool = False) -> tuple[list[Asked], list[str]]:
    """Prompts of a file, and rows that cannot be used, with file, line and reason.

    A row's `answer`, where it has one, is the truth that replies are compared with. skip: whether rows that cannot be
    used are left out.
    Raises RowError for the first of them otherwise, EvalError where no prompt is left.
    """
    found: list[Asked] = []
    bad: list[str] = []
    for row in read_prompts(path):
        try:
            found.append(_asked(row))
        except RowError as error:
            if not skip:
                raise
            bad.append(str(error))
    if not found:
        raise EvalError(f"{path} holds no prompt that can be used. {bad[0] if bad else 'It is empty.'}")
    return found, bad


def _asked(row: PromptRow | RowError) -> Asked:
    if isinstance(row, RowError):
        raise row
    if row.then:
        why = "several turns, and an arena judges one reply"
        raise RowError(row.where, "then", why, "Leave the field out, or put the turns into the prompt.")
    answer = row.fields.get("answer")
    if answer is not None and not isinstance(answer, str | int | float):
        why = "no text or number"
        raise RowError(row.where, "answer", why, f"It is {answer!r:.40}; give the short truth.")
    messages = row.prompt.to_openai()
    task = str(row.fields.get("task") or "")
    return Asked(messages, digest(messages)[:16], None if answer is None else str(answer), task, row.where)


def world_prompts(count: int, kinds: Sequence[str] = (), seed: int = 0) -> list[Asked]:
    """Held-out questions of the world with their answers, kinds in turn; no two are the same.

    Raises RecipeError for a kind that there is not, EvalError for kinds that ask too little.
    """
    chosen = list(kinds or KINDS)
    found: dict[str, Asked] = {}
    streams = [make_items(kind, "heldout", 8 * count + 40, seed) for kind in chosen]
    for place in range(8 * count + 40):
        for items in streams:
            item = items[place]
            said = item.content.conversation().messages if item.content.is_conversation else ()
            if item.answer is None or not said or said[-1].role != "assistant" or len(found) >= count:
                continue
            messages = Conversation(said[:-1]).to_openai()
            asked = Asked(messages, item.key, item.answer, item.task, f"world, {item.content.id}")
            found.setdefault(digest(messages), asked)
    if len(found) < count:
        raise EvalError(
            f"The world's {', '.join(chosen)} gave {len(found)} different questions with an answer; {count} are asked "
            "for. Name more kinds (--kind), or ask for fewer."
        )
    return list(found.values())
