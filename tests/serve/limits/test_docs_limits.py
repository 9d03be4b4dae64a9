"""The page about limits: its tiers file is read, and what it shows is what is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from limitskit import account, reserve
from storekit import HOUR, FakeClock

from foretell.errors import RequestError
from foretell.generate import Usage
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tiers import Tiers, load_tiers
from foretell.serve.store import Store

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (Path(__file__).parents[3] / "docs/limits.md").read_text(), re.DOTALL)


def blocks(kind: str) -> list[str]:
    return [text for name, text in BLOCKS if name == kind]


@pytest.fixture
def tiers(tmp_path: Path) -> Tiers:
    path = tmp_path / "tiers.yaml"
    path.write_text(blocks("yaml")[0])
    return load_tiers(path)


def shown(headers: tuple[tuple[bytes, bytes], ...]) -> str:
    return "".join(f"{name.decode()}: {value.decode()}\n" for name, value in headers)


def test_what_a_caller_is_told(store: Store, clock: FakeClock, tiers: Tiers) -> None:
    limits, who = Limits(store, tiers), account(tier="plus")
    first = reserve(limits, who, prompt_tokens=100, max_tokens=500)
    taken, refused = blocks("http")
    assert shown(first.headers) == taken
    limits.settle(first, Usage(0, 0))
    clock.now += HOUR
    for _ in range(49):
        limits.settle(reserve(limits, who), Usage(0, 0))
    with pytest.raises(RequestError) as caught:
        reserve(limits, who)
    assert shown(caught.value.headers) == refused
    assert f"{caught.value}\n" == blocks("text")[0]


def test_the_fallback_answers_after_the_free_messages(store: Store, tiers: Tiers) -> None:
    limits, who = Limits(store, tiers), account(tier="free")
    models = []
    for _ in range(2):
        models += [reserve(limits, who, "large", max_tokens=1).model for _ in range(13)]
        store.clock.advance(60)  # type: ignore[attr-defined]
    assert models == ["large"] * 25 + ["small"]


def test_the_example_image(tiers: Tiers) -> None:
    assert tiers.images.tokens(1024, 1024) == 765
