"""Quality rules of Gopher, C4 and FineWeb: datatrove's filters, with their names, their defaults and their reasons."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from operator import is_
from typing import TYPE_CHECKING, Any, Literal

from foretell.data.curate.repetition import in_doubt
from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.stopwords import STOP_WORDS
from foretell.data.curate.texts import StepSection, removed, text_of
from foretell.data.document import Document, Segment
from foretell.errors import MissingExtraError

if TYPE_CHECKING:
    from datatrove.utils.word_tokenizers import WordTokenizer

Cutter = Literal["simple", "spacy"]


class RuleSection(StepSection):
    """What rules share. words: how text is cut into words and sentences; `simple` is ours, for any language and fast,
    `spacy` is what datatrove takes by default (`pip install spacy`). Conversations pass: these are rules for pages."""

    words: Cutter = "simple"


class GopherQualityStep(RuleSection):
    """Gopher's rules (arXiv 2112.11446, table A1). stop_words: None for those of the document's language; where none
    are known of it, that rule is left out."""

    step: Literal["gopher_quality"] = "gopher_quality"
    min_doc_words: int | None = 50
    max_doc_words: int | None = 100_000
    min_avg_word_length: int | None = 3
    max_avg_word_length: int | None = 10
    max_symbol_word_ratio: float | None = 0.1
    max_bullet_lines_ratio: float | None = 0.9
    max_ellipsis_lines_ratio: float | None = 0.3
    max_non_alpha_words_ratio: float | None = 0.8
    min_stop_words: int | None = 2
    stop_words: tuple[str, ...] | None = None

    def make(self) -> Step:
        return Rules("gopher_quality", "GopherQualityFilter", _settings(self), self.words)


class GopherRepetitionStep(RuleSection):
    """Gopher's rules against repetition (arXiv 2112.11446, table A1)."""

    step: Literal["gopher_repetition"] = "gopher_repetition"
    dup_line_frac: float | None = 0.3
    dup_para_frac: float | None = 0.3
    dup_line_char_frac: float | None = 0.2
    dup_para_char_frac: float | None = 0.2
    top_n_grams: tuple[tuple[int, float], ...] = ((2, 0.2), (3, 0.18), (4, 0.16))
    dup_n_grams: tuple[tuple[int, float], ...] = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))

    def make(self) -> Step:
        return Rules("gopher_repetition", "GopherRepetitionFilter", _settings(self), self.words)


class C4QualityStep(RuleSection):
    """C4's rules (JMLR 21, 20-074): bad lines go, and pages with few sentences left, a curly bracket or lorem ipsum."""

    step: Literal["c4_quality"] = "c4_quality"
    remove_citations: bool = True
    filter_no_terminal_punct: bool = True
    min_num_sentences: int = 5
    min_words_per_line: int = 3
    max_word_length: int = 1000
    filter_lorem_ipsum: bool = True
    filter_javascript: bool = True
    filter_curly_bracket: bool = True
    filter_policy: bool = True

    def make(self) -> Step:
        return Rules("c4_quality", "C4QualityFilter", _settings(self), self.words)


class FineWebQualityStep(RuleSection):
    """FineWeb's rules (arXiv 2406.17557)."""

    step: Literal["fineweb_quality"] = "fineweb_quality"
    line_punct_thr: float = 0.12
    line_punct_exclude_zero: bool = False
    short_line_thr: float = 0.67
    short_line_length: int = 30
    char_duplicates_ratio: float = 0.01
    new_line_ratio: float = 0.3

    def make(self) -> Step:
        return Rules("fineweb_quality", "FineWebQualityFilter", _settings(self), self.words)


def _settings(section: RuleSection) -> dict[str, Any]:
    return section.model_dump(exclude={"step", "words", "languages", "kinds"})


@dataclass(frozen=True)
class Rules:
    """A filter of datatrove over a document's text; the reason is `<step>.<datatrove's reason>`.

    A document without text passes if it has images, and goes otherwise.
    """

    name: str
    filter: str
    settings: dict[str, Any]
    words: Cutter = "simple"

    def __call__(self, document: Document) -> Document | Removed:
        if document.is_conversation:
            return document
        text = text_of(document)
        if not text.strip():
            pictured = any(segment.image is not None for segment in document.segments)
            return document if pictured else removed(document, f"{self.name}.empty")
        language = document.language.split("-")[0]
        if self.filter == "C4QualityFilter":
            return self._c4(document, language)
        rules = self._filter(language)
        if self.filter == "GopherRepetitionFilter":
            from datatrove.utils.text import split_into_words

            words = split_into_words(text, rules.language)
            top, twice = in_doubt(words, len(text), rules.top_n_grams, rules.dup_n_grams)
            rules = self._filter(language, top_n_grams=top, dup_n_grams=twice)
        _, why = judge(rules, text)
        return removed(document, f"{self.name}.{why}") if why else document

    def _c4(self, document: Document, language: str) -> Document | Removed:
        """Lines are judged by segment, so that each image stays at its place, and sentences counted over all."""
        from datatrove.utils.text import split_into_sentences

        rules = self._filter(language)
        least, counted = rules.min_num_sentences, 0
        texts = [segment.text for segment in document.segments if segment.text]
        if len(texts) == 1:
            text, why = judge(rules, texts[0])
            kept = {texts[0]: text}
        else:
            rules, why, kept = self._filter(language, min_num_sentences=-1), "", {}
            for text in texts:
                kept[text], why = judge(rules, text)
                if why:
                    break
                counted += sum(
                    len(split_into_sentences(line, rules.language)) for line in kept[text].split("\n") if line
                )
            if not why and least != -1 and counted < least:
                why = "too_few_sentences"
        if why:
            return removed(document, f"{self.name}.{why}")
        segments = list[Segment]()
        for segment in document.segments:
            if not segment.text or kept[segment.text] == segment.text:
                segments.append(segment)
            elif kept[segment.text]:
                segments.append(replace(segment, text=kept[segment.text]))
        unchanged = len(segments) == len(document.segments) and all(map(is_, segments, document.segments))
        return document if unchanged else replace(document, segments=tuple(segments))

    def _filter(self, language: str, **changed: Any) -> Any:
        settings = {**self.settings, **changed}
        if self.filter == "GopherQualityFilter" and settings["stop_words"] is None:
            known = STOP_WORDS.get(language)
            settings["stop_words"] = known or ()
            if not known:
                settings["min_stop_words"] = None
        frozen = tuple(sorted(settings.items()))
        return _made(self.filter, frozen, language if self.words == "spacy" else None)


def judge(rules: Any, text: str) -> tuple[str, str]:
    """The text as a filter of datatrove leaves it, and its reason to remove the document, or ""."""
    from datatrove.data import Document as Page

    page = Page(text=text, id="")
    result = rules.filter(page)
    kept, why = result if isinstance(result, tuple) else (result, "")
    return page.text, "" if kept else (why or "removed")


@lru_cache(256)
def _made(name: str, settings: tuple[tuple[str, Any], ...], language: str | None) -> Any:
    """A filter of datatrove; language: None for words of ours."""
    try:
        from datatrove.pipeline import filters
    except ImportError as error:
        raise MissingExtraError("The quality rules", "data") from error
    cutter: Any = simple_words()
    if language is not None:
        cutter = language if language != "und" else "en"
    return getattr(filters, name)(**dict(settings), language=cutter)


@lru_cache(1)
def simple_words() -> WordTokenizer:
    """Words and sentences by rules that hold in any script, in datatrove's form."""
    import re

    from datatrove.utils.word_tokenizers import WordTokenizer

    # Scripts written without spaces give a word a character, as word lengths and n-grams are counted over characters.
    word = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]|[^\W_]+(?:['’][^\W_]+)*|\S")
    end = re.compile(r"[.!?…]+[\"'”’)\]]*\s+|[。！？।]+[」』”]*")

    class Simple(WordTokenizer):  # type: ignore[misc]  # datatrove has no types
        """Letters and digits are words, and each other sign is one by itself."""

        def word_tokenize(self, text: str) -> list[str]:
            return word.findall(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return [text[a:b].strip() for a, b in self.span_tokenize(text)]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            ends = [found.end() for found in end.finditer(text)]
            if not ends or text[ends[-1] :].strip():
                ends.append(len(text))
            return list(zip([0, *ends[:-1]], ends, strict=True))

    return Simple()
