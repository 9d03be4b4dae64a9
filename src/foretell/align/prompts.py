"""Prompts for policies: which of a file's rows a run can learn from, and what its rewards do not judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from foretell.align.examples import PromptRow
from foretell.align.rewarding import Part
from foretell.data.splits import Split, split_of
from foretell.errors import ConversationError, DataError, ImageError, RowError
from foretell.files import digest
from foretell.template import ChatTemplate


def read_split(
    rows: Iterable[PromptRow | RowError],
    template: ChatTemplate,
    room: int,
    share: float,
    skip: bool,
    parts: Sequence[Part] = (),
) -> tuple[dict[Split, list[PromptRow]], Counter[str], Counter[str]]:
    """Prompts of both splits, told apart by what is asked alone; why others were left out; and how many there are that
    a part does not judge, by its name.

    room: tokens that a prompt may have. Raises RowError for the first bad row unless `skip`; DataError for a part that
    judges none.
    """
    found: dict[Split, list[PromptRow]] = {"train": [], "heldout": []}
    skipped, unjudged = Counter[str](), Counter[str]()
    for row in rows:
        try:
            if isinstance(row, RowError):
                raise row
            _check_prompt(row, template, room)
            passed = [part.name for part in parts if part.check is not None and not part.check(row)]
        except RowError as error:
            if not skip:
                raise
            skipped[error.why] += 1
            continue
        unjudged.update(passed)
        found[split_of(digest(json.dumps(row.prompt.to_openai())), share)].append(row)
    count = sum(map(len, found.values()))
    for name, without in unjudged.items():
        if without == count:
            raise DataError(
                f"The reward {name} judges none of the {count:,} prompts: it goes by the row's `kind`, and no row "
                "states one that it knows. Add the field to the data (docs/align.md), or leave the reward out."
            )
    return found, skipped, unjudged


def _check_prompt(row: PromptRow, template: ChatTemplate, room: int) -> None:
    try:
        size = len(template.encode(row.prompt, add_generation_prompt=True, learn="none").ids)
    except (ConversationError, ImageError) as error:
        raise RowError(row.where, "prompt", "cannot be put into the model's chat template", str(error)) from error
    if size > room:
        raise RowError(
            row.where,
            "prompt",
            f"longer than the {room:,} tokens that leave room for a reply",
            f"It takes {size:,}. Shorten it, lower max_tokens, or leave such rows out with --set bad_rows=skip.",
        )
