from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from webkit import ORIGIN, Browser

from foretell.serve.store import Store
from foretell.serve.web import Site

Visitor = Callable[..., Browser]


@pytest.fixture
def site(store: Store) -> Site:
    return Site(store, base_url=ORIGIN, sign_up="open", labels=("hate", "violence"))


@pytest.fixture
def visitor(site: Site) -> Iterator[Visitor]:
    """Makes people who are not logged in yet, each with a browser of their own."""
    made: list[Browser] = []

    def make(of: Site = site, **more: str) -> Browser:
        made.append(Browser(of, **more))
        return made[-1]

    yield make
    for browser in made:
        browser.close()
