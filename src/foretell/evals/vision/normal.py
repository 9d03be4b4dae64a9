"""How the VQA evaluation writes an answer before it is compared.

Source: VQA's evaluation code (github.com/GT-Vision-Lab/VQA), its slips included, since scores are compared by it: a
full stop is kept before a digit only, and an answer that holds "1,000" loses all punctuation without a space in its
place. TextVQA's evaluator (MMF) first sets commas and question marks aside and parts "'s" from its word.
"""

from __future__ import annotations

import re

_PUNCTUATION = (
    ";",
    "/",
    "[",
    "]",
    '"',
    "{",
    "}",
    "(",
    ")",
    "=",
    "+",
    "\\",
    "_",
    "-",
    ">",
    "<",
    "@",
    "`",
    ",",
    "?",
    "!",
)
_FULL_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # the code passes a flag where the count stands, and so strips so many
_GROUPED = re.compile(r"\d,\d")
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6"} | {
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
_ARTICLES = ("a", "an", "the")
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't
    would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one(word: str) -> list[str]:
    """The word with each of its apostrophes left out in turn."""
    return [word[:i] + word[i + 1 :] for i, letter in enumerate(word) if letter == "'"]


_CONTRACTIONS = {short: word for word in _CONTRACTED.split() for short in _without_one(word)} | {
    "somebody'd": "somebodyd"
}


def vqa_punctuation(text: str) -> str:
    """Without punctuation: left out beside a space, else a space in its place."""
    plain, grouped = text, _GROUPED.search(text) is not None
    for mark in _PUNCTUATION:
        beside = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside or grouped else " ")
    return _FULL_STOP.sub("", plain, count=_MOST_STOPS)


def vqa_words(text: str) -> str:
    """Lower case, numbers up to ten as digits, no articles, apostrophes put back."""
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_normal(text: str) -> str:
    """A model's answer as VQA compares it."""
    return vqa_words(vqa_punctuation(text.replace("\n", " ").replace("\t", " ").strip()))


def textvqa_normal(text: str) -> str:
    """An answer, a model's or an annotator's, as TextVQA compares it."""
    return vqa_normal(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip())
