"""The tokenizer: byte-level BPE in the file form that transformers reads, with llama.cpp's "qwen2" pre-tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from foretell.data.tokenizer_file import byte_symbols, read_vocabulary
from foretell.errors import CheckpointError, DataError
from foretell.files import read_json, write_json, write_text
from foretell.recipe import TokenizerConfig
from foretell.template import CHAT_TEMPLATE, END, END_OF_TEXT, GLOBAL_IMAGE, IMAGE, IMAGE_EDGE, PAD, special_tokens

PATTERN = (  # llama.cpp's pre-tokenizer "qwen2"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
# A cut of text at places where the pre-tokenizer always cuts too, so pieces can be encoded alone and remembered:
# between a letter and a sign, before white space without a line end, after the last line end of white space.
# \s is spelled out, as Python's holds four characters that the Unicode property White_Space does not.
_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
PIECES = re.compile(
    rf"[{_SPACE}]*[!-@\[-`{{-~]*[A-Za-z]+(?=[!-@\[-`{{-~])|[{_SPACE}]*[^{_SPACE}]+(?:[{_SPACE}]*[\r\n])?|[{_SPACE}]+"
)
MOST_BYTES = 64_000_000  # of a tokenizer.json
REMEMBERED = 4_000_000  # characters of pieces

PAD_TO = 64  # the vocabulary is padded with unused ids to a multiple of this, which matrix products like
_OURS = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
    ],
}
MAX_TOKEN_BYTES = 32  # keeps rules such as "=====…" from filling a small vocabulary


def _clean(text: str) -> str:
    """Text with each lone surrogate, which UTF-8 cannot hold, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Tokenizer:
    """Implements `template.Encoder`. Safe to share between threads and over a fork.

    text: of a tokenizer.json. settings: of its tokenizer_config.json; None stands for those of models trained here.
    ends: ids that end a text, beside the end token that the settings name.

    vocab_size: ids a model needs; a multiple of 64 for tokenizers trained here, where the last ones may stand for
    nothing. token_bytes: (vocab_size,) int32, how many bytes of text each token stands for; 0 for control tokens
    that are left out of replies. added: control tokens, `controls` their ids by text. ends: ids that end a reply.
    pad: an id to fill rows with. prefix: ids that stand before plain text. opening_space: replies lose the space
    that the encoder writes before a text.
    """

    def __init__(self, text: str, settings: Mapping[str, Any] | None = None, ends: Iterable[int] = ()) -> None:
        names = {name: token_text(value) for name, value in (settings or {}).items() if name.endswith("_token")}
        read = read_vocabulary(text, names.values())
        self.text = text
        self.added, self.opening_space = read.added, read.opening_space
        self.controls = {token.content: token.id for token in read.added}
        ours = special_tokens(1)[:-1]
        self._ours = [self.controls.get(token) for token in ours] == list(range(len(ours)))
        self.settings = dict(self._config() if settings is None else settings)
        self._start, self._after, self._inside = read.start, read.after, read.inside
        state = read.state
        self._cut = (state.get("pre_tokenizer"), state.get("normalizer")) in ((_OURS, None), (_OURS, {"type": "NFC"}))
        self._cut &= all(token["content"].strip() for token in state.get("added_tokens", []))
        self._memory: dict[str, list[int]] = {}
        self._remembered = 0
        pieces = dict(read.pieces)
        size = max([*pieces, *self.controls.values()], default=-1) + 1
        self.vocab_size = -(-size // PAD_TO) * PAD_TO if self._ours else size
        self._spelled = {token.id: token.content.encode() for token in read.added}
        pieces |= {token.id: self._spelled[token.id] for token in read.added if not token.special}
        self._bytes = [pieces.get(i, b"") for i in range(self.vocab_size)]
        self.token_bytes: npt.NDArray[np.int32] = np.array([len(piece) for piece in self._bytes], np.int32)
        named = [token_text(self.settings.get("eos_token")), *([END, END_OF_TEXT] if self._ours else [])]
        found = {*ends, *(self.controls[token] for token in named if token in self.controls)}
        self.ends = frozenset(i for i in found if i < size)
        self.pad = self.controls.get(token_text(self.settings.get("pad_token")), min(self.ends, default=0))
        # add_bos_token in the settings says nothing beside a tokenizer.json: transformers drops it too.
        self.prefix = read.prefix

    def encode(self, text: str, start: bool = True) -> list[int]:
        """As `template.Encoder.encode`."""
        return self.encode_batch([text], start)[0]

    def encode_batch(self, texts: Sequence[str], start: bool = True) -> list[list[int]]:
        """`encode` of many texts at once."""
        if not self._cut:
            return _ids(self._start if start else self._after, texts)
        if self._remembered > REMEMBERED:
            self._memory, self._remembered = {}, 0
        memory = self._memory  # kept by this call even if another thread starts a new one
        cut = [PIECES.findall(text) for text in texts]
        new = list({piece for pieces in cut for piece in pieces if piece not in memory})
        self._remembered += sum(map(len, new))
        memory.update(zip(new, _ids(self._start, new), strict=True))
        return [list(chain.from_iterable(map(memory.__getitem__, pieces))) for pieces in cut]

    def encode_inside(self, text: str) -> list[int]:
        """Ids of text that goes on where other text ended: no space is put before it."""
        return _ids(self._inside, [text])[0]

    def encode_spans(self, text: str, start: bool = True) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids as by `encode`, with the first character of each and the one after its last."""
        try:
            found = (self._start if start else self._after).encode(text, add_special_tokens=False)
        except (UnicodeEncodeError, TypeError):
            return self.encode_spans(_clean(text), start)
        return found.ids, found.offsets

    def special(self, token: str) -> int:
        """The id of a control token. Raises DataError for one this tokenizer does not have."""
        try:
            return self.controls[token]
        except KeyError:
            why = (
                "It was trained for a smaller image grid; train it again for this recipe."
                if self._ours
                else "It is another model's: use that model's own chat template, or a tokenizer that `foretell run` "
                "trained."
            )
            raise DataError(f"The tokenizer has no control token {token!r}. {why}") from None

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes the ids stand for; control tokens that replies leave out stand for none."""
        return b"".join(self._bytes[i] for i in ids)

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """The text of the ids, as of a whole reply; bytes that are not UTF-8 become U+FFFD."""
        spelled = {} if skip_special else self._spelled
        text = b"".join(spelled.get(i, self._bytes[i]) for i in ids).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.opening_space else text

    def spell(self, token: int) -> str:
        """One token as text, control tokens too; empty for an id beyond the tokenizer's, which a model may have."""
        piece = self._bytes[token] if token < len(self._bytes) else b""
        return self._spelled.get(token, piece).decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, as transformers' AutoTokenizer reads them."""
        write_text(folder / "tokenizer.json", self.text)
        write_json(folder / "tokenizer_config.json", self.settings)

    def _config(self) -> dict[str, Any]:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "pad_token": PAD,
            "image_token": IMAGE,
            "fake_image_token": IMAGE_EDGE,
            "global_image_token": GLOBAL_IMAGE,
            "additional_special_tokens": [t for t in self.controls if t not in (END, PAD)],
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 10**9,
            "chat_template": CHAT_TEMPLATE,
        }

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read tokenizer.json, or the folder that holds it, with what tells its end tokens beside it.

        Raises CheckpointError if it is missing, damaged, or of a kind that is not read.
        """
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise CheckpointError(
                f"There is no tokenizer at {file}. Expected a folder with tokenizer.json.{_other(path)}"
            )
        if file.stat().st_size > MOST_BYTES:
            raise CheckpointError(
                f"{file} is larger than {MOST_BYTES / 1e6:.0f} MB, as no tokenizer is. Copy it again."
            )
        beside = {
            name: read_json(file.parent / name) if (file.parent / name).is_file() else None
            for name in ("tokenizer_config.json", "generation_config.json", "config.json")
        }
        try:
            return cls(file.read_bytes().decode(), beside["tokenizer_config.json"], _ends(beside))
        except BaseException as error:  # the library raises bare Exception, or a panic that is not even that
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            raise CheckpointError(
                f"The tokenizer {file} cannot be used: {error}. If it worked before, copy it again from where it came."
            ) from error


def token_text(value: Any) -> str:
    """The text of a token named in tokenizer_config.json; empty for none."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else ""


def _ids(backend: Backend, texts: Sequence[str]) -> list[list[int]]:
    try:
        found = backend.encode_batch_fast(list(texts), add_special_tokens=False)
    except (UnicodeEncodeError, TypeError):
        found = backend.encode_batch_fast([_clean(text) for text in texts], add_special_tokens=False)
    return [encoding.ids for encoding in found]


def _ends(beside: Mapping[str, Any]) -> set[int]:
    """End tokens by generation_config.json and config.json."""
    config = beside["config.json"] or {}
    inner = config.get("text_config")
    found: set[int] = set()
    for settings in (beside["generation_config.json"], config, inner):
        value = settings.get("eos_token_id") if isinstance(settings, dict) else None
        found |= {i for i in (value if isinstance(value, list) else [value]) if type(i) is int and i >= 0}
    return found


def _other(folder: Path) -> str:
    """What to do with a tokenizer in another form."""
    if (folder / "tokenizer.model").is_file():
        return (
            " The folder has a SentencePiece tokenizer.model; write it as tokenizer.json with transformers: "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})."
        )
    return ""


def train_tokenizer(texts: Iterator[str], config: TokenizerConfig, grid: int) -> Tokenizer:
    """Learn a vocabulary from the first `config.train_bytes` bytes of texts.

    Ids: control tokens (images of at most grid × grid tiles) first, then the 256 bytes, then merges. A corpus
    with fewer repeated pairs than asked for gives a smaller vocabulary. Raises DataError if there is no text.
    """
    specials = special_tokens(grid)
    alphabet = sorted(byte_symbols())
    least = len(specials) + len(alphabet) + 1
    if config.vocab_size < least:
        raise DataError(
            f"tokenizer.vocab_size {config.vocab_size} does not hold the {len(specials)} control tokens of a "
            f"{grid} × {grid} image grid and the 256 bytes; allowed is at least {least}."
        )
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in specials],
        initial_alphabet=alphabet,
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
    )
    corpus = _Taken(texts, config.train_bytes)
    backend.train_from_iterator(corpus, trainer)
    if not corpus.taken:
        raise DataError(
            "The tokenizer found no text to learn from: every source is empty. Check data.sources in the recipe."
        )
    return Tokenizer(_with_double_newline(backend, config.vocab_size).to_str(pretty=True))


class _Taken:
    """The first `limit` bytes of texts, counted as they go."""

    def __init__(self, texts: Iterator[str], limit: int) -> None:
        self._texts = texts
        self._limit = limit
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            raw = _clean(text).encode()[: self._limit - self.taken]
            self.taken += len(raw)
            yield raw.decode("utf-8", "ignore")
            if self.taken >= self._limit:
                return


def _with_double_newline(backend: Backend, size: int) -> Backend:
    """The template writes two newlines as one token, so a corpus without them may not decide that."""
    state = json.loads(backend.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    newline = next(char for char, byte in byte_symbols().items() if byte == ord("\n"))
    if newline * 2 in vocab:
        return backend
    if len(vocab) >= size:
        del vocab["".join(merges.pop())]  # the rarest merge, on which no other is built
    vocab[newline * 2] = len(vocab)
    merges.append([newline, newline])
    rebuilt: Backend = Backend.from_str(json.dumps(state))
    return rebuilt
