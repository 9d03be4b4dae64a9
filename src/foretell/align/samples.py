"""What a reward is given: a reply with what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from foretell.align.examples import PromptRow
from foretell.chat import Conversation
from foretell.template import Encoded


@dataclass(frozen=True)
class Sample:
    """A reply that is to be rewarded.

    prompt: what it answers. reply: its text, of the last turn where there were several. conversation: all that was
    said. fields: what else the prompt's row holds, such as the right answer. tokens: as the policy read and wrote them.
    finished: whether the reply ended by itself.
    """

    prompt: Conversation
    reply: str
    conversation: Conversation
    fields: Mapping[str, Any] = field(default_factory=dict)
    tokens: Encoded | None = None
    finished: bool = True


RewardFunction = Callable[[Sequence[Sample]], Sequence[float]]
"""Samples -> one finite number each."""

RowCheck = Callable[[PromptRow], bool]
"""Whether a reward judges the replies to a row. Raises RowError where it should, and cannot."""
