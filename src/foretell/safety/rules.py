"""Rules: phrases of a lexicon found in text however it is disguised, whole words only."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from foretell.errors import PolicyError
from foretell.safety.normalize import normalize, spellings

_PACKAGED = Path(__file__).with_name("lexicon.yaml")
_STOPS = "。！？、，；：؟۔।"
_CHUNK = re.compile(rf"[^\s{_STOPS}]+")
_PART = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
LONGEST = 64
"""Characters: what is longer and has no white space is no disguised word."""
_SEEN = 1 << 16  # chunks whose words are remembered
EXEMPT = ""
"""The name of phrases that are harmless though a rule's words are in them."""


@dataclass(frozen=True)
class Rule:
    """Phrases of each of `slots` in turn, at most `within` words between two of them."""

    name: str
    category: str
    slots: tuple[str, ...]
    within: int


@dataclass(frozen=True)
class Hit:
    """A rule found in text[start:end]."""

    rule: Rule
    start: int
    end: int


@dataclass(frozen=True)
class Scan:
    """hits: by start. settled: nothing that may still follow the text can make a hit that starts before this place."""

    hits: tuple[Hit, ...]
    settled: int


@dataclass
class _Node:
    children: dict[str, _Node] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


@dataclass
class _Word:
    """A word at text[start:end]. ways: what it, or it and those after it, may stand for, and how many words that is."""

    start: int
    end: int
    ways: list[tuple[str, int]]


class Lexicon:
    """Named lists of phrases, harmless phrases, and rules made of them."""

    def __init__(self, lists: Mapping[str, Sequence[str]], exempt: Sequence[str], rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self._root, self._words = _Node(), set[str]()
        for name, phrases in [*lists.items(), (EXEMPT, exempt)]:
            for phrase in phrases:
                node = self._root
                for word in _words_of(phrase):
                    self._words.add(word)
                    node = node.children.setdefault(word, _Node())
                node.names.add(name)
        self._longest = max(map(len, self._words), default=0)
        self._seen: dict[str, tuple[str, ...]] = {}

    def scan(self, text: str, final: bool = True) -> Scan:
        """All hits. final: nothing follows `text`; otherwise only hits that no continuation can undo are told.

        Of phrases that start at one word the longest counts, and what it covers belongs to no other phrase.
        """
        normal = normalize(text)
        words, frontier = self._cut(normal.text, final)
        found, at = list[tuple[int, int, set[str]]](), 0
        while at < len(words):
            end, names, is_open = self._longest_phrase(words, at)
            if is_open and not final:
                break
            if names is not None:
                found.append((at, end, names))
            at = max(end, at + 1)
        place = words[at].start if at < len(words) else frontier
        hits, first = self._hits(found, at, final)
        if first is not None:
            place = min(place, words[first].start)
        starts = normal.starts
        return Scan(
            tuple(
                Hit(rule, starts[words[a].start], starts[words[b - 1].end - 1] + 1)
                for rule, a, b in sorted(hits, key=lambda hit: hit[1])
            ),
            starts[place],
        )

    def _cut(self, text: str, final: bool) -> tuple[list[_Word], int]:
        """The words that are whole, and where the part begins that may still change."""
        words, frontier = list[_Word](), len(text)
        for chunk in _CHUNK.finditer(text):
            parts = list(_PART.finditer(text, chunk.start(), chunk.end()))
            short = chunk.end() - chunk.start() <= LONGEST
            if not final and chunk.end() == len(text):  # may go on
                if short or not parts:
                    frontier = chunk.start() if short else len(text)
                    break
                last = parts.pop() if parts[-1].end() == len(text) else None
                frontier = last.start() if last and len(text) - last.start() <= LONGEST else len(text)
            first = len(words)
            words += [_Word(m.start(), m.end(), [(w, 1) for w in self._known(m.group())]) for m in parts]
            if short and parts and (len(parts) > 1 or parts[0].group() != chunk.group()):
                words[first].ways += [(w, len(parts)) for w in self._known(chunk.group())]
        self._join_letters(text, words)
        if not final and words:
            run = len(words)
            while run and words[run - 1].end - words[run - 1].start == 1:
                run -= 1
            if run < len(words) and len(words) - run <= LONGEST:  # letter by letter to the end: a word may be under way
                frontier = min(frontier, words[run].start)
                del words[run:]
        return words, frontier

    def _known(self, chunk: str) -> tuple[str, ...]:
        """Words of the lexicon that a chunk may stand for; texts repeat their words, so they are remembered."""
        known = self._seen.get(chunk)
        if known is None:
            known = tuple(word for word in spellings(chunk) if word in self._words) if len(chunk) <= LONGEST else ()
            if len(self._seen) < _SEEN and len(chunk) <= LONGEST:
                self._seen[chunk] = known
        return known

    def _join_letters(self, text: str, words: list[_Word]) -> None:
        """Words spelled letter by letter, `k i l l`, are the word too."""
        at = 0
        while at < len(words):
            end = at
            while end < len(words) and words[end].end - words[end].start == 1:
                end += 1
            letters = [(spellings(text[w.start : w.end]) or ("",))[-1] for w in words[at:end]]
            for start in range(len(letters)):
                joined = ""
                for stop in range(start, min(len(letters), start + self._longest)):
                    joined += letters[stop]
                    size = stop - start + 1
                    if joined in self._words and (size > 3 or (size == 3 and size == len(letters))):
                        words[at + start].ways.append((joined, size))
            at = max(end, at + 1)

    def _longest_phrase(self, words: Sequence[_Word], at: int) -> tuple[int, set[str] | None, bool]:
        """Where the longest phrase from word `at` ends, its lists, and whether one may go on beyond the last word."""
        best, names, is_open = at, None, False
        stack = [(at, self._root)]
        while stack:
            place, node = stack.pop()
            if node.names and place > best:
                best, names = place, node.names
            if place >= len(words):
                is_open |= bool(node.children)
                continue
            for word, count in words[place].ways:
                if word in node.children and place + count <= len(words):
                    stack.append((place + count, node.children[word]))
        return best, names, is_open

    def _hits(
        self, found: Sequence[tuple[int, int, set[str]]], at: int, final: bool
    ) -> tuple[list[tuple[Rule, int, int]], int | None]:
        """Rules whose slots are filled, from word to word; and the first word of one that what follows may fill."""
        hits, first = list[tuple[Rule, int, int]](), None
        for rule in self.rules:
            for n, (start, end, names) in enumerate(found):
                if rule.slots[0] not in names:
                    continue
                slot = 1
                for later, until, others in found[n + 1 :]:
                    if slot == len(rule.slots) or later - end > rule.within:
                        break
                    if rule.slots[slot] in others:
                        slot, end = slot + 1, until
                if slot == len(rule.slots):
                    hits.append((rule, start, end))
                elif not final and at - end <= rule.within:
                    first = start if first is None else min(first, start)
        return hits, first


def load_lexicon(path: Path = _PACKAGED) -> Lexicon:
    """Read a lexicon file; the package's own by default.

    Raises PolicyError for a file that cannot be read, or a rule whose lists are missing.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        lists = {str(name): [str(phrase) for phrase in phrases] for name, phrases in raw["lists"].items()}
        exempt = [str(phrase) for phrase in raw["exempt"]]
        rules = [_rule(str(name), entry) for name, entry in raw["rules"].items()]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"Lexicon {path} cannot be read ({error!r}). It needs lists, exempt and rules.") from error
    for rule in rules:
        if missing := [slot for slot in rule.slots if not lists.get(slot)]:
            raise PolicyError(f"Lexicon {path}: rule {rule.name} names the list {missing[0]}, which is not there.")
    return Lexicon(lists, exempt, rules)


def _rule(name: str, entry: Any) -> Rule:
    return Rule(name, str(entry["category"]), tuple(map(str, entry["slots"])), int(entry.get("within", 2)))


def _words_of(phrase: str) -> list[str]:
    words = [spellings(match.group())[0] for match in _PART.finditer(normalize(phrase).text)]
    if not words:
        raise PolicyError(f"{phrase!r} of the lexicon holds no word. Remove it.")
    return words
