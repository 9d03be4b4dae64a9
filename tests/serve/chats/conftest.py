from __future__ import annotations

from collections.abc import Iterator

import pytest
from chatkit import Person, Place, chatting

from foretell.serve.store import Store


@pytest.fixture
def chat(store: Store) -> Iterator[Place]:
    """Without accounts: for whoever sits at this machine."""
    with chatting(store) as place:
        yield place


@pytest.fixture
def person(chat: Place) -> Person:
    return chat.person()
