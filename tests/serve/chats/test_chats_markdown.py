"""Markdown into blocks: what it shows, what never gets through, and that a text may come in any pieces."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser

import lxml.html
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from payloads import ADDRESSES, ALL

from foretell.serve.chats.markdown import Growing, blocks_of, clean_text, plain_blocks, restored, stored

ALLOWED = {
    "a": {"href", "rel", "target"}, "p": set(), "strong": set(), "em": set(), "s": set(), "code": {"class"},
    "pre": set(), "blockquote": set(), "ul": set(), "ol": {"start"}, "li": set(), "hr": set(), "br": set(),
    "table": set(), "thead": set(), "tbody": set(), "tr": set(), "th": {"class"}, "td": {"class"}, "span": {"class"},
    "div": {"class"}, **{f"h{i}": set() for i in range(1, 7)},
}  # fmt: skip
CLASSES = re.compile(r"left|center|right|math|plain|language-[\w+#.-]{1,40}")


class Tags(HTMLParser):
    """Every element that a second parser finds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.odd: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        self.odd.append(data)

    handle_decl = handle_pi = unknown_decl = handle_comment


def check(html: str) -> None:
    """Nothing but the elements and attributes above, each with a value that cannot do anything."""
    parsed = lxml.html.fragment_fromstring(html, create_parent="main")
    found = [(one.tag, dict(one.attrib)) for one in parsed.iter() if one is not parsed]
    tags = Tags(html)
    assert not tags.odd, tags.odd
    assert [tag for tag, _ in tags.found] == [tag for tag, _ in found]
    for tag, attributes in [*found, *tags.found]:
        assert isinstance(tag, str) and tag in ALLOWED, (tag, html)
        assert set(attributes) <= ALLOWED[tag] | ({"class"} if tag == "p" else set()), (attributes, html)
        if tag == "a" and "href" in attributes:
            assert re.match(r"(https?://|mailto:)", attributes["href"] or "", re.IGNORECASE), attributes
            assert not re.search(r"[\x00-\x20\"<>]", attributes["href"] or ""), attributes
            assert attributes["rel"] == "noreferrer noopener nofollow" and attributes["target"] == "_blank"
        if "class" in attributes:
            assert CLASSES.fullmatch(attributes["class"] or ""), attributes
        if "start" in attributes:
            assert (attributes["start"] or "").isdigit()


def test_the_corpus_is_large() -> None:
    assert len(set(ALL)) >= 100


@pytest.mark.parametrize("payload", ALL)
@pytest.mark.parametrize(
    "around", ["{}", "Text {} text", "- {}\n- b", "> {}", "| a |\n|---|\n| {} |", "**{}**", "[{}](https://e.example)"]
)
def test_nothing_gets_through(payload: str, around: str) -> None:
    for html in (*blocks_of(around.replace("{}", payload)), *plain_blocks(payload)):
        check(html)


@pytest.mark.parametrize("payload", ALL)
def test_nothing_gets_through_in_pieces(payload: str) -> None:
    growing = Growing()
    for letter in f"Look:\n\n{payload}\n\nand `{payload}`.":
        growing.text += letter
        for html in growing.update():
            check(html)
    for html in growing.finish():
        check(html)


@given(st.text(alphabet=st.sampled_from("<>\"'`&;:/\\[]()!*_~#|-$ \n\tabijsx=\x00\u2028"), max_size=80))
@settings(max_examples=60)
def test_nothing_gets_through_by_chance(text: str) -> None:
    for html in blocks_of(text):
        check(html)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_address_but_of_the_web_becomes_a_link(address: str) -> None:
    assert "<a" not in "".join(blocks_of(f"[x]({address})")) or address.startswith("https://")


PAGE = """# A title

Some *text* with `code`, **more**, ~~less~~ and [a link](https://e.example/?a=1&b=2).
Second line.

- one
- two

  inside

  1. three
- four

| a | b | c |
|:--|:-:|--:|
| 1 | 2 | 3 |

> quoted
> more

```python
print("<b>")

# not a title
```

---

$$
a_1
- b
= c
$$

Inline $a_b * c_d$ and \\(x\\) for $5 and $6.
"""


def test_what_is_shown() -> None:
    blocks = blocks_of(PAGE)
    assert [re.match(r"<(\w+)", html)[1] for html in blocks] == [  # type: ignore[index]
        "h1", "p", "ul", "table", "blockquote", "pre", "hr", "div", "p",
    ]  # fmt: skip
    assert '<a href="https://e.example/?a=1&amp;b=2"' in blocks[1] and "<s>less</s>" in blocks[1]
    assert '<th class="left">a</th>' in blocks[3] and '<td class="right">3</td>' in blocks[3]
    assert blocks[5].startswith('<pre><code class="language-python">print("&lt;b&gt;")')
    assert blocks[7] == '<div class="math">$$\na_1\n- b\n= c\n$$</div>'
    assert '<span class="math">$a_b * c_d$</span>' in blocks[8] and "for $5 and $6" in blocks[8]


@pytest.mark.parametrize("seed", range(5))
def test_pieces_come_to_the_same_as_the_whole(seed: int) -> None:
    growing, at = Growing(), 0
    while at < len(PAGE):
        step = 1 + (at * 7 + seed * 3) % 11
        growing.text += PAGE[at : at + step]
        at += step
        growing.update()
    assert growing.update() == blocks_of(PAGE) == growing.finish()
    assert growing.open == len(PAGE)


def test_only_the_end_is_read_again() -> None:
    growing = Growing()
    for i in range(200):
        growing.text += f"Paragraph {i}.\n\n"
        growing.update()
        assert growing.open < 60
    assert len(growing.finish()) == 200


@given(
    st.lists(
        st.sampled_from(
            ["a", "- b\n", "\n", "\n\n", "```\n", "1. c\n", "  d", "> e\n", "| f |\n", "|--|\n", "$$", "# ", "*"]
        ),
        max_size=25,
    )
)
@settings(max_examples=60)
def test_any_pieces_end_in_the_whole(pieces: list[str]) -> None:
    growing = Growing()
    for piece in pieces:
        growing.text += piece
        growing.update()
    assert growing.finish() == blocks_of("".join(pieces))


def test_an_address_that_is_told_later_is_known_in_the_end() -> None:
    growing = Growing()
    for piece in ("See [this][1].\n\n", "More.\n\n", "And more.\n\n", "[1]: https://e.example/\n"):
        growing.text += piece
        growing.update()
    assert "<a" not in growing.blocks[0] and '<a href="https://e.example/"' in growing.finish()[0]


@pytest.mark.parametrize(
    "text",
    ["[" * 20_000, "*a " * 20_000, "`" * 20_001, "> " * 5_000 + "x", "- " * 5_000, "$" * 20_000, "\\[" * 10_000,
     "![" * 10_000, "|" * 20_000 + "\n" + "|-" * 10_000, "<" * 20_000, "[a](" * 5_000, "x" * 400_001],
    ids=lambda text: text[:6],
)  # fmt: skip
def test_hostile_lengths_are_read(text: str) -> None:
    for html in blocks_of(text):
        assert html


def test_blocks_are_kept_by_form() -> None:
    assert restored(stored(["<p>ä</p>", ""])) == ["<p>ä</p>", ""]
    assert restored(None) is None and restored("[0,[]]") is None


def test_text_that_a_database_cannot_hold() -> None:
    assert clean_text("a\r\nb\rc\x00\ud800\x1b\tz") == "a\nb\nc\ufffd\ufffd\ufffd\tz"


def test_threads_share_the_parser() -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: blocks_of(PAGE), range(40)))
    assert all(blocks == found[0] for blocks in found)
