from hypothesis import given
from hypothesis import strategies as st

from foretell.engine.text import TextStream


def stream(chunks: list[bytes], stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    text = TextStream(stop)
    pieces = [text.push(chunk) for chunk in chunks]
    return [*pieces, text.finish()], text.stopped


def test_half_a_character_waits_for_the_other():
    assert stream([b"caf\xc3", b"\xa9 \xe2", b"\x82", b"\xac"])[0] == ["caf", "é ", "", "€", ""]
    assert stream([b"a\xe2\x82"])[0] == ["a", "\ufffd"]


def test_what_may_become_a_stop_string_waits():
    assert stream([b"one\n", b"\nQ", b": two"], ("\n\nQ:",)) == (["one", "", "", ""], True)
    assert stream([b"one\n", b"\nA"], ("\n\nQ:",)) == (["one", "\n\nA", ""], False)
    assert stream([b"one\n"], ("\n\n",)) == (["one", "\n"], False)


def test_the_stop_string_that_is_complete_first_wins():
    assert stream([b"xabcd"], ("abcd", "bc")) == (["xa", ""], True)
    assert stream([b"xabc"], ("bc", "abc")) == (["x", ""], True)


@given(st.binary(max_size=60), st.data())
def test_pieces_join_to_the_whole_decoding(data, cut):
    at = sorted(cut.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    chunks = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]
    assert "".join(stream(chunks)[0]) == data.decode("utf-8", "replace")


@given(
    st.text("abé", max_size=30),
    st.lists(st.text("abé", min_size=1, max_size=4), min_size=1, max_size=3),
    st.data(),
)
def test_stopping_does_not_depend_on_how_text_was_cut(text, stops, cut):
    data = text.encode()
    at = sorted(cut.draw(st.lists(st.integers(0, len(data)), max_size=10)))
    chunks = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]
    pieces, stopped = stream(chunks, tuple(stops))
    expected = text
    for end in range(len(text) + 1):
        if hits := [s for s in stops if text[:end].endswith(s)]:
            expected = text[: end - len(max(hits, key=len))]
            break
    assert "".join(pieces) == expected
    assert stopped == any(s in text for s in stops)
