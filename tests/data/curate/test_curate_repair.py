"""Text that was decoded wrongly is mended as ftfy does it; what is right stays, and code stays code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.data.curate.repair import UnicodeRepair, UnicodeStep
from foretell.data.document import Document, Segment

ftfy = pytest.importorskip("ftfy")
REPAIR = UnicodeRepair()


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("schÃ¶n und gut", "schön und gut"),
        ("itâ€™s", "it’s"),
        ("caf\u0065\u0301", "café"),
        ("a\r\nb", "a\nb"),
        ("nul\x00 and bell\x07", "nul and bell"),
        ("&amp; in HTML", "&amp; in HTML"),
        ("你好，世界！", "你好，世界！"),
        ("“curly” quotes", "“curly” quotes"),
        ("lone \ud83d surrogate", "lone \ufffd surrogate"),
    ],
)
def test_repair(broken: str, mended: str) -> None:
    assert REPAIR.repair(broken) == mended


@given(st.text())
def test_repair_is_that_of_ftfy_line_by_line(text: str) -> None:
    config = ftfy.TextFixerConfig(
        uncurl_quotes=False, unescape_html=False, fix_character_width=False, max_decode_length=100_000, explain=False
    )
    whole = "".join(ftfy.fix_text(line, config) for line in text.splitlines(keepends=True))
    assert REPAIR.repair(text) == whole


def test_all_texts_of_a_document_are_repaired_and_images_stay() -> None:
    document = Document(
        "a", (Segment("schÃ¶n"), Segment(image=b"i", alt="itâ€™s", caption="cafÃ©"), Segment("fine")), "s", "MIT"
    )
    assert UnicodeStep().build()(document) == Document(
        "a", (Segment("schön"), Segment(image=b"i", alt="it’s", caption="café"), Segment("fine")), "s", "MIT"
    )


def test_a_document_that_is_right_is_the_same_object() -> None:
    document = Document("a", (Segment("plain"),), "s", "MIT")
    assert REPAIR(document) is document
