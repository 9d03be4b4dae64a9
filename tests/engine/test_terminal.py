from io import BytesIO, StringIO
from pathlib import Path

import pytest
from PIL import Image

from foretell.chat import ImagePart, TextPart
from foretell.engine.terminal import chat_loop, message_parts
from foretell.errors import ContextLengthError, GenerationError, ImageError
from foretell.generate import Request, Result, Sampling


class Echo:
    """Answers with what it was sent, in two deltas; fails on the word FAIL."""

    can_score = False

    def __init__(self):
        self.requests: list[Request] = []

    async def generate(self, requests):
        self.requests += requests
        text = "you said " + requests[0].prompt.messages[-1].text
        if "FAIL" in text:
            raise GenerationError("The prompt is too long.")
        if "FULL" in text:
            raise ContextLengthError("The prompt is 9 tokens long.", 9, 8)
        for piece in (text[:9], text[9:]):
            yield Result(piece, delta=True)
        yield Result(text, (), "stop")

    async def score(self, prompt, continuations):
        raise NotImplementedError


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a picture.png"
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def talk(lines: str, source=StringIO, **options):
    echo, sink = Echo(), StringIO()
    code = chat_loop(echo, source=source(lines), sink=sink, **options)
    return echo, sink.getvalue(), code


def test_piped_lines_are_messages_and_only_replies_are_written():
    echo, out, code = talk("one\n\ntwo\n", sampling=Sampling(max_tokens=7))
    assert out == "you said one\nyou said two\n"
    assert code == 0
    assert [m.text for m in echo.requests[1].prompt.messages] == ["one", "you said one", "two"]
    assert echo.requests[0].sampling.max_tokens == 7


def test_commands_shape_the_conversation():
    echo, _, _ = talk("a\n/system be brief\nb\n/reset\nc\n/system\nd\n/quit\ne\n", system="first")
    said = [[(m.role, m.text) for m in r.prompt.messages] for r in echo.requests]
    assert said == [
        [("system", "first"), ("user", "a")],
        [("system", "be brief"), ("user", "b")],
        [("system", "be brief"), ("user", "c")],
        [("user", "d")],
    ]
    assert "e" not in [m.text for r in echo.requests for m in r.prompt.messages]


def test_an_image_command_goes_with_the_next_message(picture):
    echo, _, code = talk(f"/image {picture}\nwhat is it?\nand now?\n")
    first, second = echo.requests
    assert [type(p) for p in first.prompt.messages[0].parts] == [ImagePart, TextPart]
    assert first.prompt.messages[0].parts[0].data == picture.read_bytes()
    assert len(second.prompt.images) == 1  # it stays in the conversation, and is not attached again
    assert code == 0


@pytest.mark.parametrize("form", ["'{}'", '"{}"', "escaped", "url"])
def test_a_dropped_path_becomes_an_image_where_it_stands(picture, form):
    word = {"escaped": str(picture).replace(" ", "\\ "), "url": picture.as_uri()}.get(form, form.format(picture))
    parts = message_parts(f"look at {word} what is it")
    assert [p.text if isinstance(p, TextPart) else "image" for p in parts] == ["look at ", "image", " what is it"]


def test_text_that_only_looks_like_a_path_stays_text(tmp_path):
    assert message_parts("it's in missing.png, isn't it?") == (TextPart("it's in missing.png, isn't it?"),)
    (tmp_path / "fake.png").write_text("no image")
    with pytest.raises(ImageError):
        message_parts(str(tmp_path / "fake.png"))


def test_a_full_path_of_an_image_that_is_not_there_is_told(tmp_path):
    for form in ("{}", "'{}'", "file://{}"):
        with pytest.raises(ImageError, match=r"none\.png could not be read: No such file"):
            message_parts("what is in " + form.format(tmp_path / "none.png"))
    with pytest.raises(ImageError, match="could not be read"):
        message_parts("./none.png")


def test_what_a_command_lacks_is_told(tmp_path):
    (tmp_path / "fake.png").write_text("no image")
    _, out, code = talk(f"/image\n/imgae x.png\n/image {tmp_path}/fake.png\n/tmp is a folder\n")
    assert "Write /image PATH" in out and "no command /imgae. /help lists" in out
    assert "fake.png cannot be shown to the model. 8 bytes are not an image" in out and "object at" not in out
    assert "you said /tmp is a folder" in out and code == 2


def test_an_error_costs_only_its_own_message(tmp_path):
    echo, out, code = talk(f"one\nFAIL\n/image {tmp_path}/none.png\ntwo\n")
    assert "Error: The prompt is too long.\n" in out
    assert "none.png could not be read" in out
    assert [m.text for m in echo.requests[-1].prompt.messages] == ["one", "you said one", "two"]
    assert code == 2
    assert talk("FAIL\n", Terminal)[2] == 0  # a person has seen it


def test_a_conversation_that_is_too_long_can_be_begun_afresh():
    assert talk("FULL\n")[1] == "Error: The prompt is 9 tokens long.\n"
    assert talk("one\nFULL\n")[1].endswith("Error: The prompt is 9 tokens long. /reset starts afresh.\n")


def test_a_reply_cannot_steer_the_terminal():
    _, out, _ = talk("\x1b[2Jhi\ttab\n")
    assert out == "you said [2Jhi\ttab\n"


def test_an_interrupt_stops_the_reply_and_keeps_what_was_said():
    class Interrupted(Echo):
        async def generate(self, requests):
            self.requests += requests
            yield Result("half", delta=True)
            if len(self.requests) == 1:
                raise KeyboardInterrupt
            yield Result("half", (), "stop")

    echo, sink = Interrupted(), StringIO()
    assert chat_loop(echo, source=Terminal("one\ntwo\n"), sink=sink) == 0
    assert "[stopped]" in sink.getvalue()
    assert [m.text for m in echo.requests[1].prompt.messages] == ["one", "half", "two"]


def test_images_of_every_readable_form_are_taken(tmp_path):
    for form in ("jpeg", "webp", "gif"):
        buffer = BytesIO()
        Image.new("RGB", (9, 7), "blue").save(buffer, format=form)
        (tmp_path / f"x.{form}").write_bytes(buffer.getvalue())
        assert message_parts(f"{tmp_path}/x.{form}") == (ImagePart(buffer.getvalue()),)
