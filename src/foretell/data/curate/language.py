"""Which language a document is in, by groups of one to four letters; trained in seconds on texts of one's own."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from pydantic import Field

from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.texts import StepSection, labelled, pieces, removed, spread, text_of
from foretell.data.document import Document
from foretell.errors import DataError, MissingExtraError
from foretell.files import atomic_path

PACKAGED = Path(__file__).with_name("languages.npz")
BITS = 15
LONGEST_GROUP = 4
WINDOW, WINDOWS = 500, 4
STEP = 1 / 12  # of a stored logarithm
FEWEST = 10  # letters, below which nothing is said
SHARPNESS = 30.0
"""How many groups of letters a text's evidence is taken for; neighbouring groups overlap, so all would be too many."""
STRANGE = 5.0
"""Standard deviations below what texts of a language score, from where a text is of none that is known."""
_NOT_LETTERS = re.compile(r"[\W\d_]+")
_APART = bytes(ord(" ") if _NOT_LETTERS.match(chr(code)) else code for code in range(256))
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LanguageModel:
    """A multinomial naive Bayes over hashed groups of letters.

    languages: BCP 47 tags, in the order of the columns. table: (buckets, languages) int8, in steps of 1/12: log of how
    much likelier a group is in a language than a random one. typical: (languages, 2), mean and deviation of the mean of
    these over held-back windows.
    Source: Lui and Baldwin (2012), langid.py, for the method.
    """

    languages: tuple[str, ...]
    table: npt.NDArray[np.int8]
    typical: npt.NDArray[np.float32]

    def identify(self, text: str) -> tuple[str, float]:
        """The language and its probability; ("und", 0.0) for text with few letters or of no language that is known."""
        windows = spread(pieces(text[:1_000_000], WINDOW), WINDOWS)
        groups = _groups(" ".join(windows))
        if len(groups) < FEWEST * LONGEST_GROUP:
            return "und", 0.0
        # Whole numbers far below 2^24, which float32 adds without rounding.
        rows = np.take(self.table, groups, axis=0).astype(np.float32)
        mean = (np.ones(len(rows), np.float32) @ rows).astype(np.float64) / len(rows) * STEP
        logits = SHARPNESS * (mean - mean.max())
        best = int(mean.argmax())
        usual, deviation = self.typical[best]
        if mean[best] < usual - STRANGE * deviation:
            return "und", 0.0
        return self.languages[best], float(1 / np.exp(logits).sum())

    def save(self, path: Path) -> None:
        """Write as npz, whole or not at all."""
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, languages=np.array(self.languages), table=self.table, typical=self.typical)

    @classmethod
    def load(cls, path: Path = PACKAGED) -> LanguageModel:
        """Raises DataError for a file that is missing, damaged, or no language model."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                languages = tuple(str(name) for name in saved["languages"])
                table, typical = saved["table"], saved["typical"]
            if table.shape != (1 << BITS, len(languages)) or table.dtype != np.int8:
                raise ValueError("its table does not fit its languages")
            if typical.shape != (len(languages), 2):
                raise ValueError("its typical scores do not fit its languages")
        except (OSError, ValueError, KeyError, EOFError, zlib.error, BadZipFile) as error:
            raise DataError(f"{path} cannot be read as a language model ({error}). Train it again.") from error
        return cls(languages, table, typical)


def fit_languages(texts: Iterable[tuple[str, str]]) -> LanguageModel:
    """texts: (language, text). Every language weighs the same however much there is of it.

    Of every ten windows of a language one is held back to learn what such texts score.
    Raises DataError for fewer than two languages, or one with less than 5,000 characters.
    """
    counts, back = dict[str, npt.NDArray[np.int64]](), dict[str, list[npt.NDArray[np.int64]]]()
    seen = dict[str, int]()
    for language, text in texts:
        counts.setdefault(language, np.zeros(1 << BITS, np.int64))
        for i, window in enumerate(pieces(text, WINDOW * WINDOWS), seen.get(language, 0)):
            groups = _groups(window)
            if i % 10 == 9:
                if len(groups) > WINDOW and len(back.setdefault(language, [])) < 200:
                    back[language].append(groups)
            else:
                counts[language] += np.bincount(groups, minlength=1 << BITS)
            seen[language] = i + 1
    few = sorted(language for language, found in counts.items() if found.sum() < 5000 or language not in back)
    if few or len(counts) < 2:
        raise DataError(
            f"Too little text of {', '.join(few)}: at least 20,000 characters a language are needed."
            if few
            else "Texts of one language alone teach nothing; give two or more."
        )
    languages = tuple(sorted(counts))
    columns = [counts[language] / counts[language].sum() * (1 << BITS) for language in languages]
    table = np.clip(np.round(np.log(np.stack(columns, axis=1) + 0.01) / STEP), -127, 127).astype(np.int8)
    typical = np.zeros((len(languages), 2), np.float32)
    for j, language in enumerate(languages):
        scores = [float(table[groups, j].mean()) * STEP for groups in back[language]]
        typical[j] = np.mean(scores), max(float(np.std(scores)), 0.05)
    return LanguageModel(languages, table, typical)


def _groups(text: str) -> npt.NDArray[np.int64]:
    """The buckets of all groups of one to four letters, a space standing for all that is none."""
    low = text.lower()
    if low.isascii():  # the same, in a fraction of the time
        apart = b" ".join(low.encode().translate(_APART).split())
        codes = np.frombuffer(b" " + apart + b" ", np.uint8).astype(np.uint32)
    else:
        letters = f" {_NOT_LETTERS.sub(' ', low).strip()} "
        codes = np.frombuffer(letters.encode("utf-32-le", "replace"), np.uint32)
    rolling, found = codes.copy(), list[npt.NDArray[np.uint32]]()
    for n in range(1, LONGEST_GROUP + 1):
        found.append((rolling + np.uint32(n)) * np.uint32(2654435761) >> np.uint32(32 - BITS))
        rolling = rolling[:-1] * np.uint32(0x01000193) ^ codes[n:]
    return np.concatenate(found).astype(np.int64)


class LanguageStep(StepSection):
    """Finds a document's language, and keeps what is of `keep`.

    keep: BCP 47 tags; None keeps all. at_least: the probability below which nothing is said (FineWeb's 0.65).
    unknown: what becomes of a document of which nothing is said when `keep` is given; its declared language counts if
    it has one. trust: a declared language stands, and only documents without one are looked at. model: a file of one's
    own (`python -m foretell.data.curate.language_train`). fasttext: a language model of fastText instead
    (`pip install fasttext`).
    """

    step: Literal["language"] = "language"
    keep: tuple[str, ...] | None = None
    at_least: float = Field(0.65, ge=0, le=1)
    unknown: Literal["keep", "remove"] = "keep"
    trust: bool = False
    model: Path | None = None
    fasttext: Path | None = None

    def make(self) -> Step:
        """Raises DataError for a model that cannot be read, MissingExtraError without fastText where it is named."""
        self.identify("")
        return self

    def __call__(self, document: Document) -> Document | Removed:
        language, probability = document.language, 1.0
        if not (self.trust and language != "und"):
            found, probability = self.identify(text_of(document))
            if found != "und" and probability >= self.at_least:
                if found != language.split("-")[0]:
                    declared = {"language.declared": language} if language != "und" else {}
                    document = replace(labelled(document, **declared), language=found)
                language = found
        if self.keep is None or language.split("-")[0] in self.keep or language in self.keep:
            return document
        if language == "und":
            return document if self.unknown == "keep" else removed(document, "language.unknown")
        return removed(document, "language.other", f"{language} {probability:.2f}")

    def identify(self, text: str) -> tuple[str, float]:
        """The language of a text, and its probability."""
        if self.fasttext is None:
            return _loaded(self.model or PACKAGED).identify(text)
        labels, probabilities = _fasttext(self.fasttext).predict(" ".join(text[:10_000].split()) or " ")
        if not labels:
            return "und", 0.0
        return str(labels[0]).removeprefix("__label__").split("_")[0], float(probabilities[0])


@lru_cache(4)
def _loaded(path: Path) -> LanguageModel:
    return LanguageModel.load(path)


@lru_cache(2)
def _fasttext(path: Path) -> Any:
    try:
        import fasttext
    except ImportError as error:
        raise MissingExtraError(
            "A language model of fastText (pip install fasttext), or leave `fasttext` out: it", "data"
        ) from error
    try:
        return fasttext.load_model(str(path))
    except (ValueError, OSError) as error:
        raise DataError(f"{path} cannot be read as a fastText model ({error}).") from error
