"""The one chat type, and the template that turns it into token ids.

The template is written in Python and builds ids part by part: control tokens are looked up by id,
text is encoded with special tokens switched off. So no text, however spelled, becomes a control token.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, get_args

import numpy as np
import numpy.typing as npt

from foretell.errors import ConversationError
from foretell.images import Tiles, Tiling, tile_image

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant", "tool"]
Detail = Literal["auto", "low", "high"]

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
START = "<|im_start|>"
END = "<|im_end|>"
IMAGE = "<image>"
IMAGE_EDGE = "<fake_token_around_image>"
GLOBAL_IMAGE = "<global-img>"

# The text form of `Template` for programs that read a Jinja template. They write images as one <image> and
# expand it later, and they do search text for control tokens, so prefer `Template` for text from outside.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + ('system' if message.role == 'developer' else message.role) -}}"
    "{{ (' name=' + message.name).replace('\\n', ' ') if message.name is string else '' -}}"
    "{{ (' tool_call_id=' + message.tool_call_id).replace('\\n', ' ') if message.tool_call_id is string else '' -}}"
    "{{ '\\n' -}}"
    "{%- if message.content is string -%}{{ message.content -}}"
    "{%- elif message.content -%}"
    "{%- for part in message.content -%}"
    "{{ part if part is string else part.text if part.type == 'text' else '<image>' -}}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{%- for call in message.tool_calls or [] -%}"
    "{{ '\\n<tool_call>' + {'id': call.id, 'name': call.function.name, 'arguments': call.function.arguments}"
    " | tojson + '</tool_call>' -}}"
    "{%- endfor -%}"
    "{{ '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def tile_tag(row: int, column: int) -> str:
    """The tag before the tile at 1-based (row, column)."""
    return f"<row_{row}_col_{column}>"


def special_tokens(grid: int) -> list[str]:
    """Every control token, in id order, for images of at most grid × grid tiles."""
    tags = [tile_tag(r, c) for r in range(1, grid + 1) for c in range(1, grid + 1)]
    return [END_OF_TEXT, PAD, START, END, IMAGE, IMAGE_EDGE, GLOBAL_IMAGE, *tags]


@dataclass(frozen=True)
class TextPart:
    text: str


@dataclass(frozen=True)
class ImagePart:
    """An encoded image (PNG, JPEG, WebP or GIF bytes, as they came)."""

    data: bytes
    detail: Detail = "auto"


Part = TextPart | ImagePart


@dataclass(frozen=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # JSON text, as the model wrote it

    @property
    def text(self) -> str:
        """The call as the template writes it into the assistant's message."""
        fields = {"id": self.id, "name": self.name, "arguments": self.arguments}
        return f"\n<tool_call>{json.dumps(fields, ensure_ascii=False)}</tool_call>"


@dataclass(frozen=True)
class Message:
    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True)
class Conversation:
    messages: tuple[Message, ...] = field(default_factory=tuple)

    @classmethod
    def from_openai(cls, messages: Sequence[Mapping[str, Any]]) -> Conversation:
        """Read a list of messages in OpenAI form.

        Content is a string, None, or a list of parts: {"type": "text"}, {"type": "image_url"} with a data
        URL, and, for callers in Python, plain strings, PIL images, bytes and paths of image files.
        Raises ConversationError naming the message and what was expected.
        """
        if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
            raise ConversationError(
                "A conversation is a list of messages, such as [{'role': 'user', 'content': 'Hello'}]; "
                f"found {type(messages).__name__}."
            )
        return cls(tuple(_read_message(i, message) for i, message in enumerate(messages)))

    def to_openai(self) -> list[dict[str, Any]]:
        """The same conversation as JSON-ready messages; images become data URLs."""
        return [_write_message(message) for message in self.messages]

    def with_reply(self, text: str) -> Conversation:
        """This conversation with an assistant message appended."""
        return Conversation((*self.messages, Message("assistant", (TextPart(text),))))

    @property
    def images(self) -> list[ImagePart]:
        return [part for m in self.messages for part in m.parts if isinstance(part, ImagePart)]


def _read_message(index: int, raw: Mapping[str, Any]) -> Message:
    where = f"Message {index}"
    if not isinstance(raw, Mapping):
        raise ConversationError(f"{where} must be an object with 'role' and 'content'; found {type(raw).__name__}.")
    role = raw.get("role")
    if role == "developer":
        role = "system"
    if role not in get_args(Role):
        raise ConversationError(f"{where} has role {role!r}; allowed are {', '.join(get_args(Role))}.")
    content = raw.get("content")
    if content is None:
        content = []
    elif isinstance(content, str):
        content = [content]
    elif not isinstance(content, Sequence) or isinstance(content, bytes):
        raise ConversationError(f"{where}: content must be a string or a list of parts.")
    parts = tuple(_read_part(where, part) for part in content)
    calls = []
    listed = raw.get("tool_calls") or ()
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ConversationError(f"{where}: tool_calls must be a list; found {type(listed).__name__}.")
    for call in listed:
        try:
            function = call["function"]
            calls.append(ToolCall(str(call["id"]), str(function["name"]), str(function["arguments"])))
        except (KeyError, TypeError) as error:
            raise ConversationError(
                f"{where}: a tool call needs 'id' and 'function' with 'name' and 'arguments'."
            ) from error
    if calls and role != "assistant":
        raise ConversationError(f"{where}: only the assistant calls tools; this message is from the {role}.")
    for key in ("name", "tool_call_id"):
        if not isinstance(raw.get(key), str | None):
            raise ConversationError(f"{where}: {key} must be a string; found {type(raw[key]).__name__}.")
    return Message(cast(Role, role), parts, raw.get("name"), tuple(calls), raw.get("tool_call_id"))


def _read_part(where: str, part: Any) -> Part:
    if isinstance(part, (TextPart, ImagePart)):
        return part
    if isinstance(part, str):
        return TextPart(part)
    if isinstance(part, bytes):
        return ImagePart(part)
    if isinstance(part, Path):
        try:
            return ImagePart(part.read_bytes())
        except OSError as error:
            raise ConversationError(f"{where}: image {part} could not be read: {error.strerror}.") from error
    if isinstance(part, Mapping):
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            return TextPart(part["text"])
        if kind == "image_url":
            spec = part.get("image_url")
            url = spec.get("url") if isinstance(spec, Mapping) else spec
            detail = spec.get("detail", "auto") if isinstance(spec, Mapping) else "auto"
            if detail not in get_args(Detail):
                raise ConversationError(f"{where}: image detail {detail!r}; allowed are auto, low, high.")
            return ImagePart(_read_data_url(where, url), cast(Detail, detail))
        raise ConversationError(f"{where}: part of type {kind!r}; allowed are 'text' and 'image_url'.")
    if hasattr(part, "save") and hasattr(part, "size"):  # a PIL image, without importing Pillow here
        return ImagePart(_png(part))
    raise ConversationError(f"{where}: a part must be text or an image; found {type(part).__name__}.")


def _read_data_url(where: str, url: Any) -> bytes:
    if not isinstance(url, str) or not url.startswith("data:image/") or ";base64," not in url:
        raise ConversationError(
            f"{where}: images are given as data URLs (data:image/png;base64,…); "
            "fetch remote images before they are put in a conversation."
        )
    try:
        return base64.b64decode(url.split(";base64,", 1)[1], validate=True)
    except ValueError as error:  # binascii.Error, or characters that are not ASCII
        raise ConversationError(f"{where}: the image's base64 is damaged ({error}).") from error


def _png(image: Image) -> bytes:
    buffer = BytesIO()
    image = image.convert("RGB") if image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "F") else image
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _media_type(data: bytes) -> str:
    if data.startswith(b"\xff\xd8"):
        return "image/jpeg"
    if data.startswith(b"RIFF"):
        return "image/webp"
    return "image/gif" if data.startswith(b"GIF8") else "image/png"


def _write_message(message: Message) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    for part in message.parts:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
        else:
            url = f"data:{_media_type(part.data)};base64,{base64.b64encode(part.data).decode()}"
            parts.append({"type": "image_url", "image_url": {"url": url, "detail": part.detail}})
    only_text = len(parts) == 1 and parts[0]["type"] == "text"
    raw: dict[str, Any] = {"role": message.role, "content": parts[0]["text"] if only_text else parts}
    if not parts:
        raw["content"] = None if message.tool_calls else ""
    if message.name is not None:
        raw["name"] = message.name
    if message.tool_calls:
        raw["tool_calls"] = [
            {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": c.arguments}}
            for c in message.tool_calls
        ]
    if message.tool_call_id is not None:
        raw["tool_call_id"] = message.tool_call_id
    return raw


class Encoder(Protocol):
    """What the template needs of a tokenizer."""

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a control token, whatever the text spells."""
        ...

    def special(self, token: str) -> int:
        """The id of a control token."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Token ids with what a model must see beside them.

    ids: (T,) int32. loss: (T,) bool, true where the token is to be learned. tiles: (N, S, S, 3) uint8, in
    the order of their slots: the k-th run of `tokens_per_tile` <image> ids is filled by tile k.
    """

    ids: npt.NDArray[np.int32]
    loss: npt.NDArray[np.bool_]
    tiles: npt.NDArray[np.uint8]


class Template:
    """Builds token ids from conversations and from interleaved segments.

    The text form is ChatML; an image takes the Idefics3 form (row and column tags, then a global view),
    so the ids equal those of the transformers processor for the same settings.
    """

    def __init__(self, encoder: Encoder, tiling: Tiling | None) -> None:
        self.encoder = encoder
        self.tiling = tiling
        self._special: dict[str, int] = {}

    def special(self, token: str) -> int:
        if token not in self._special:
            self._special[token] = self.encoder.special(token)
        return self._special[token]

    def encode(
        self,
        conversation: Conversation,
        *,
        add_generation_prompt: bool = False,
        learn: Literal["assistant", "all", "none"] = "assistant",
    ) -> Encoded:
        """Ids of a whole conversation.

        learn: which messages carry loss; an assistant message is learned up to and including its end token.
        Raises ConversationError for an image when the model reads none, ImageError for a bad image.
        """
        builder = Builder(self)
        for message in conversation.messages:
            learned = learn == "all" or (learn == "assistant" and message.role == "assistant")
            self._open(builder, message, learned=learn == "all")
            for part in message.parts:
                if isinstance(part, TextPart):
                    builder.text(part.text, learned)
                else:
                    builder.image(part.data, part.detail)
            for call in message.tool_calls:
                builder.text(call.text, learned)
            builder.control(END, learned)
            builder.text("\n", learn == "all")
        if add_generation_prompt:
            builder.control(START, False)
            builder.text("assistant\n", False)
        return builder.done()

    def _open(self, builder: Builder, message: Message, learned: bool) -> None:
        builder.control(START, learned)
        label = message.role if message.name is None else f"{message.role} name={message.name}"
        if message.tool_call_id is not None:
            label += f" tool_call_id={message.tool_call_id}"
        builder.text(label.replace("\n", " ") + "\n", learned)


class Builder:
    """Collects ids, loss flags and tiles piece by piece."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._ids: list[int] = []
        self._loss: list[bool] = []
        self._text: list[str] = []
        self._text_learned = False
        self._tiles: list[npt.NDArray[np.uint8]] = []

    def text(self, text: str, learned: bool) -> None:
        # Neighbouring texts are encoded as one, so ids do not depend on how a message was cut into parts.
        if learned != self._text_learned:
            self._flush()
        self._text.append(text)
        self._text_learned = learned

    def _flush(self) -> None:
        ids = self._template.encoder.encode(text) if (text := "".join(self._text)) else []
        self._ids += ids
        self._loss += [self._text_learned] * len(ids)
        self._text.clear()

    def control(self, token: str, learned: bool) -> None:
        self._flush()
        self._ids.append(self._template.special(token))
        self._loss.append(learned)

    def image(self, data: bytes, detail: Detail = "auto") -> None:
        tiling = self._template.tiling
        if tiling is None:
            raise ConversationError(
                "This model reads text only, but the conversation holds an image. Remove the image."
            )
        self.tiles(tile_image(data, tiling, detail), tiling.tokens_per_tile)

    def tiles(self, tiles: Tiles, tokens_per_tile: int) -> None:
        """Append the slots of one tiled image; none of them carries loss."""
        self._flush()
        start = len(self._ids)
        slots = [self._template.special(IMAGE)] * tokens_per_tile
        edge = self._template.special(IMAGE_EDGE)
        for row in range(1, tiles.rows + 1):
            for column in range(1, tiles.columns + 1):
                self._ids += [edge, self._template.special(tile_tag(row, column)), *slots]
            # The processor writes "\n" after each row and one more before the global view; a tokenizer
            # that reads the last two together makes one token of them.
            self._ids += self._template.encoder.encode("\n\n" if row == tiles.rows else "\n")
        self._ids += [edge, self._template.special(GLOBAL_IMAGE), *slots, edge]
        self._loss += [False] * (len(self._ids) - start)
        self._tiles.append(tiles.pixels)

    def done(self) -> Encoded:
        self._flush()
        if self._tiles:
            tiles = np.concatenate(self._tiles)
        else:
            side = self._template.tiling.tile if self._template.tiling is not None else 0
            tiles = np.zeros((0, side, side, 3), np.uint8)
        return Encoded(np.asarray(self._ids, np.int32), np.asarray(self._loss, np.bool_), tiles)
