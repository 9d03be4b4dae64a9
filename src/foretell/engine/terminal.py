"""Chat in the terminal: streamed replies, images by path."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote, urlsplit

from foretell.chat import Conversation, ImagePart, Message, Part, TextPart
from foretell.errors import ContextLengthError, ConversationError, ForetellError, ImageError
from foretell.files import expand_home
from foretell.generate import Generator, Request, Sampling
from foretell.images import decode_image

HELP = """/image PATH   attach an image to the next message (or put its path in the message)
/system TEXT  set the system message and start afresh; without TEXT, remove it
/reset        start afresh
/quit         leave (also Ctrl-D); Ctrl-C stops a reply"""

_WORD = re.compile(r"""'[^']+'|"[^"]+"|(?:\\.|\S)+""")
_PLACED = re.compile(r"""['"]?(/|~|\.\.?/|file://)""")  # meant as a path, whether or not it leads anywhere
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # a reply must not steer the terminal


def chat_loop(
    generator: Generator,
    *,
    sampling: Sampling | None = None,
    system: str | None = None,
    name: str = "model",
    source: TextIO | None = None,
    sink: TextIO | None = None,
) -> int:
    """Talk to a generator until /quit or the end of input; what `foretell chat` runs.

    source, sink: standard input and output unless given. When source is a terminal there is a prompt with line
    history; otherwise each line is one message and only replies are written. Errors go to sink, and the talk
    goes on without the message that caused one.
    Returns an exit code: 0, or 2 if input was piped and a line of it failed.
    """
    source, sink = source or sys.stdin, sink or sys.stdout
    sampling = sampling or Sampling()
    tty = source.isatty()
    if tty:
        print(f"Chat with {name}. /help lists the commands.", file=sink)
    talk = Talk(generator, sampling, system, sink)
    failed = False
    for line in _lines(source, sink, tty):
        try:
            if not talk.take(line.strip()):
                break
        except KeyboardInterrupt:
            print("  [stopped]", file=sink)
            if not tty:
                raise
        except ForetellError as error:
            failed = True
            way_out = " /reset starts afresh." if isinstance(error, ContextLengthError) and talk.begun else ""
            print(f"Error: {error}{way_out}", file=sink, flush=True)
    return 2 if failed and not tty else 0


def _lines(source: TextIO, sink: TextIO, tty: bool) -> Iterator[str]:
    if not tty or source is not sys.stdin:
        yield from source
        return
    with suppress(ImportError):  # not on every platform; input() then works without history
        import readline  # noqa: F401  (its import gives input() line editing and history)
    try:
        while True:
            yield input("> ")
    except (EOFError, KeyboardInterrupt):
        print(file=sink)


class Talk:
    """The conversation so far, and the images that wait for the next message."""

    def __init__(self, generator: Generator, sampling: Sampling, system: str | None, sink: TextIO) -> None:
        self._generator = generator
        self._sampling = sampling
        self._system = system
        self._sink = sink
        self._messages: tuple[Message, ...] = ()
        self._waiting: list[Part] = []

    @property
    def begun(self) -> bool:
        return bool(self._messages)

    def take(self, line: str) -> bool:
        """Act on one line; False to leave. Raises ForetellError when it could not be done; nothing then changed."""
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if command == "/quit":
            return False
        if command == "/image" and not rest:
            raise ImageError("/image stands without a path. Write /image PATH, with the path of an image file.")
        if command == "/image":
            self._waiting.append(_image(_path(rest)))
            self._say("[image attached to the next message]")
        elif command == "/system":
            self._system, self._messages = rest or None, ()
            self._say("[system message set]" if rest else "[no system message]")
        elif command == "/reset":
            self._messages, self._waiting = (), []
            self._say("[a new conversation]")
        elif command == "/help":
            self._say(HELP)
        elif re.fullmatch(r"/\w+", command) and not Path(command).exists():
            raise ConversationError(f"There is no command {command}. /help lists those there are.")
        elif line:
            self._answer(Message("user", (*self._waiting, *message_parts(line))))
        return True

    def _say(self, text: str) -> None:
        print(text, file=self._sink, flush=True)

    def _answer(self, message: Message) -> None:
        opening = (Message("system", (TextPart(self._system),)),) if self._system else ()
        messages = (*self._messages, message)
        pieces: list[str] = []

        async def show() -> None:
            request = Request(Conversation((*opening, *messages)), self._sampling)
            async with aclosing(self._generator.generate([request])) as results:  # type: ignore[type-var]
                async for result in results:
                    if result.delta:
                        pieces.append(result.text)
                        print(_HIDDEN.sub("", result.text), end="", file=self._sink, flush=True)

        try:
            asyncio.run(show())
            print(file=self._sink, flush=True)
        finally:
            if pieces:  # also of a reply that was stopped
                self._messages = Conversation(messages).with_reply("".join(pieces)).messages
                self._waiting = []


def message_parts(line: str) -> tuple[Part, ...]:
    """The line as text and images: a word that is the path of an image file becomes the image.

    Paths may be quoted, have escaped spaces, or be file:// URLs, as terminals write them when a file is dropped.
    Raises ImageError for such a file that is no image, and for a path from a root or a dot that leads nowhere.
    """
    parts: list[Part] = []
    at = 0
    for word in _WORD.finditer(line):
        path = _path(word.group())
        if path.suffix.lower() in _SUFFIXES and (path.is_file() or _PLACED.match(word.group())):
            parts += [TextPart(line[at : word.start()]), _image(path)]
            at = word.end()
    parts.append(TextPart(line[at:]))
    return tuple(part for part in parts if not isinstance(part, TextPart) or part.text.strip())


def _path(word: str) -> Path:
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        word = word[1:-1]
    elif word.startswith("file://"):
        word = unquote(urlsplit(word).path)
    elif not sys.platform.startswith("win"):
        word = re.sub(r"\\(.)", r"\1", word)
    return expand_home(word)


def _image(path: Path) -> ImagePart:
    try:
        data = path.read_bytes()
        decode_image(data)
    except OSError as error:
        raise ImageError(
            f"The image {path} could not be read: {error.strerror}. Give the path of a file that can be read."
        ) from error
    except ImageError as error:
        raise ImageError(f"{path} cannot be shown to the model. {error}") from error
    return ImagePart(data)
