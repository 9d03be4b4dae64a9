"""Text that was decoded wrongly is mended as ftfy does it; what is right stays, and code stays code."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell.data.curate.repair import UnicodeStep
from foretell.data.document import Document, Segment
from foretell.data.parquet import read_documents

ftfy = pytest.importorskip("ftfy")

REPAIR = UnicodeStep()


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


# What ftfy's rule for mojibake is about, and what stands around it.
ODD = "".join(ftfy.badness.MOJIBAKE_CATEGORIES.values()) + "".join(
    char for char in ftfy.badness.BADNESS_RE.pattern if not char.isascii()
)
PIECES = st.lists(
    st.sampled_from(
        [
            *ODD,
            *"ÃÂœŒ×à√≈‚â",
            *"aZ .,?!\n",
            "ГўВЂВ",
            "\u0301",
            "\f",
            "\x1b[0m",
            "\r\n",
            "ﬁ",
            "Ã ",
            "’",
            "Ａ",
            "&amp;",
            "&#233;",
        ]
    ),
    max_size=8,
)


@settings(max_examples=600)
@given(PIECES, st.booleans(), st.booleans(), st.booleans())
def test_what_is_passed_over_ftfy_would_leave_alone(
    pieces: list[str], uncurl: bool, unescape: bool, width: bool
) -> None:
    text, repair = "".join(pieces), UnicodeStep(uncurl=uncurl, unescape=unescape, width=width)
    config = ftfy.TextFixerConfig(
        uncurl_quotes=uncurl,
        unescape_html=unescape,
        fix_character_width=width,
        max_decode_length=100_000,
        explain=False,
    )
    whole = "".join(ftfy.fix_text(line, config) for line in text.splitlines(keepends=True))
    assert repair.repair(text) == whole
    assert not repair.sound(text) or text == whole


@settings(max_examples=400)
@given(st.from_regex(ftfy.badness.BADNESS_RE))
def test_nothing_that_looks_like_mojibake_is_passed_over(text: str) -> None:
    assert not REPAIR.sound(text) or not any(map(ftfy.badness.is_bad, text.splitlines(keepends=True)))


@pytest.mark.realdata
def test_real_text_is_passed_over_or_repaired_as_by_ftfy(real_data: Path) -> None:
    config = ftfy.TextFixerConfig(
        uncurl_quotes=False, unescape_html=False, fix_character_width=False, max_decode_length=100_000, explain=False
    )
    lines = passed = 0
    for path in sorted((real_data / "corpus").glob("*-*.parquet")):
        for document, _ in zip(read_documents(path, images=False), range(12), strict=False):
            for line in (line for s in document.segments for line in (s.text or "").splitlines()[:60]):
                fixed = ftfy.fix_text(line, config)
                assert REPAIR.repair(line) == fixed
                lines, passed = lines + 1, passed + REPAIR.sound(line)
    assert passed > 0.95 * lines > 1000


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
