"""Plain texts that break no policy: what the packaged classifier must leave alone.

They lie on every machine: the standard library's documentation, and conversations of the generated world.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import islice

from foretell.chat import Conversation
from foretell.data.document import Document, SkipCount
from foretell.data.python import STDLIB_LICENSE, python_documents
from foretell.data.splits import Split
from foretell.data.world import generate
from foretell.recipe import PythonSource, WorldSource

_SHORTEST, _LONGEST = 20, 700  # letters


def plain_texts(count: int, split: Split, seed: int = 0) -> list[str]:
    """So many pieces at most, half of them documentation, each once; the splits share no file."""
    rng = random.Random(f"{seed}/{split}")
    halves = [islice(_pieces(texts, rng), count // 2) for texts in (_documentation(split, seed), _talk(split, seed))]
    return list(dict.fromkeys(piece for half in halves for piece in half))


def _documentation(split: Split, seed: int) -> Iterator[str]:
    source = PythonSource(heldout=0.2)
    for document in python_documents(source, split, seed, SkipCount()):
        if document.kind == "python.docs" and document.license == STDLIB_LICENSE:
            yield "\n".join(segment.text for segment in document.segments if segment.text)


def _talk(split: Split, seed: int) -> Iterator[str]:
    for item in generate(WorldSource(documents=3000, heldout_documents=800), split, seed):
        content = item.content
        if isinstance(content, Conversation):
            yield from (message.text for message in content.messages)
        elif isinstance(content, Document):
            yield "\n".join(segment.text for segment in content.segments if segment.text)


def _pieces(texts: Iterator[str], rng: random.Random) -> Iterator[str]:
    """Each text cut at spaces into pieces of many lengths."""
    for text in texts:
        plain, start = " ".join(text.split()), 0
        while start < len(plain):
            end = start + rng.randint(_SHORTEST, _LONGEST)
            gap = plain.find(" ", end)
            piece = plain[start : gap if gap > 0 else len(plain)]
            start += len(piece) + 1
            if len(piece) >= _SHORTEST:
                yield piece
