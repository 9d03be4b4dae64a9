"""What a call may come to, before it is read."""

from __future__ import annotations

from typing import Any

import pytest

from foretell.serve.asked import ChatBody, CompletionBody, read
from foretell.serve.limits.prices import ImageRule
from foretell.serve.sizes import most, size

RULE = ImageRule(base=85, tile=170, added=True)
HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"messages": HELLO}, 1024),
        ({"messages": HELLO, "max_tokens": 7, "n": 3}, 21),
        ({"messages": HELLO, "max_completion_tokens": 9}, 9),
        ({"prompt": "x"}, 16),
        ({"prompt": ["x", "y"], "max_tokens": 5, "n": 2}, 20),
        ({"prompt": [1, 2, 3], "max_tokens": 5}, 5),
        ({"prompt": [[1], [2]], "max_tokens": 0}, 0),
    ],
)
def test_the_most_that_replies_may_have(body: dict[str, Any], expected: int) -> None:
    asked: Any = read(ChatBody if "messages" in body else CompletionBody, {"model": "m", **body})
    assert most(asked) == expected


def test_texts_ids_and_images_are_counted() -> None:
    words = "a" * 3000
    assert 1000 <= size({"messages": [{"role": "assistant", "content": words}]}, RULE)[0] <= 1010
    assert 1000 <= size({"prompt": list(range(1000))}, RULE)[0] <= 1010
    assert 1000 <= size({"input": [[1] * 400, [2] * 600]}, RULE)[0] <= 1010
    assert size({"messages": HELLO, "tools": [{"x": words}]}, RULE)[0] > 1000
    image = {"type": "image_url", "image_url": {"url": "data:…", "detail": "low"}}
    assert size({"messages": [{"role": "user", "content": [image, image]}]}, RULE)[1] == 2 * 85
    wide = {"type": "image_url", "image_url": {"url": "data:…"}}
    assert size({"messages": [{"role": "user", "content": [wide]}]}, RULE)[1] == 85 + 4 * 170
