"""Constraints on a text that can all be kept at once, each checked by a rule of IFEval, and a text that keeps them.

The text is made, not sought: that it passes every check shows that no request asks for what cannot be done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TOPICS = (
    *("a walk in the rain", "an old bridge", "bees", "the moon", "a night train", "baking bread", "a lost key"),
    *(
        "snow in spring",
        "a market square",
        "learning to swim",
        "an island",
        "a broken clock",
        "the first day of school",
    ),
    *("a lighthouse", "mending a bicycle", "a garden in autumn", "a letter", "the smell of coffee", "a river", "maps"),
)
WANTED = ("green", "window", "paper", "stone", "morning", "wooden", "quiet", "letterbox")
REPEATED = ("light", "water", "people", "place")
BANNED = ("very", "really", "suddenly", "beautiful", "perhaps", "nice")
STARTS = ("Dear reader", "Listen closely", "Once more", "Here it is")
ENDS = ("That is all for now.", "So it goes.", "More tomorrow.", "Now you know.")


@dataclass(frozen=True)
class Constraint:
    """text: how it is asked for. rule, args: of `academic_ifeval.RULES`, which checks it."""

    name: str
    text: str
    rule: str
    args: Mapping[str, Any] = field(default_factory=dict)


def _start(rng: random.Random) -> Constraint:
    words = rng.choice(STARTS)
    return Constraint(
        "start", f'Begin with the words "{words}".', "combination:repeat_prompt", {"prompt_to_repeat": words}
    )


def _end(rng: random.Random) -> Constraint:
    words = rng.choice(ENDS)
    return Constraint("end", f'End with the sentence "{words}" and nothing after it.', "startend:end_checker",
                      {"end_phrase": words})  # fmt: skip


def _case(rng: random.Random) -> Constraint:
    if rng.random() < 0.5:
        return Constraint("case", "Write in lowercase letters only.", "change_case:english_lowercase")
    return Constraint("case", "Write in capital letters only.", "change_case:english_capital")


def _wanted(rng: random.Random) -> Constraint:
    a, b = rng.sample(WANTED, 2)
    return Constraint("wanted", f'Use the words "{a}" and "{b}".', "keywords:existence", {"keywords": [a, b]})


def _banned(rng: random.Random) -> Constraint:
    a, b = rng.sample(BANNED, 2)
    return Constraint("banned", f'Do not use the words "{a}" and "{b}".', "keywords:forbidden_words",
                      {"forbidden_words": [a, b]})  # fmt: skip


def _repeated(rng: random.Random) -> Constraint:
    word, times = rng.choice(REPEATED), rng.randint(3, 4)
    args = {"keyword": word, "frequency": times, "relation": "at least"}
    return Constraint("repeated", f'Use the word "{word}" at least {times} times.', "keywords:frequency", args)


def _long(rng: random.Random) -> Constraint:
    least = rng.choice((40, 50, 60))
    return Constraint("long", f"Write at least {least} words.", "length_constraints:number_words",
                      {"num_words": least, "relation": "at least"})  # fmt: skip


def _short(rng: random.Random) -> Constraint:
    most = rng.choice((110, 120, 130))
    return Constraint("short", f"Write fewer than {most} words.", "length_constraints:number_words",
                      {"num_words": most, "relation": "less than"})  # fmt: skip


def _bullets(rng: random.Random) -> Constraint:
    count = rng.randint(2, 4)
    text = f'Include exactly {count} bullet points, each on a line that begins with "- ".'
    return Constraint("bullets", text, "detectable_format:number_bullet_lists", {"num_bullets": count})


def _no_comma(rng: random.Random) -> Constraint:
    return Constraint("no comma", "Use no commas.", "punctuation:no_comma")


def _postscript(rng: random.Random) -> Constraint:
    return Constraint("postscript", 'Add a postscript that begins with "P.S.".', "detectable_content:postscript",
                      {"postscript_marker": "P.S."})  # fmt: skip


def _title(rng: random.Random) -> Constraint:
    return Constraint(
        "title", "Give it a title in double angle brackets, such as <<title>>.", "detectable_format:title"
    )


def _placeholders(rng: random.Random) -> Constraint:
    count = rng.randint(1, 3)
    text = f"Leave at least {count} placeholder{'s' * (count != 1)} in square brackets, such as [name]."
    return Constraint("placeholders", text, "detectable_content:number_placeholders", {"num_placeholders": count})


def _highlights(rng: random.Random) -> Constraint:
    count = rng.randint(1, 3)
    text = f"Highlight at least {count} part{'s' * (count != 1)} of the text with asterisks, such as *this part*."
    return Constraint("highlights", text, "detectable_format:number_highlighted_sections", {"num_highlights": count})


CONSTRAINTS: tuple[Callable[[random.Random], Constraint], ...] = (
    *(_start, _end, _case, _wanted, _banned, _repeated, _long, _short),
    *(_bullets, _no_comma, _postscript, _title, _placeholders, _highlights),
)


def request(rng: random.Random) -> tuple[str, list[Constraint]]:
    """A topic, and all constraints in an order, each with its values."""
    return rng.choice(TOPICS), [make(rng) for make in rng.sample(CONSTRAINTS, len(CONSTRAINTS))]


def example(topic: str, asked: Sequence[Constraint]) -> str:
    """A text about the topic that keeps all the constraints."""
    args = {one.name: one.args for one in asked}
    lines = [str(args["start"]["prompt_to_repeat"])] if "start" in args else []
    if "title" in args:
        lines.append("<<A title>>")
    sentences = [f"This is a text about {topic}."]
    if "wanted" in args:
        sentences.append(f"It tells of {' and '.join(args['wanted']['keywords'])}.")
    if "repeated" in args:
        sentences.append(f"It has {' and '.join([args['repeated']['keyword']] * args['repeated']['frequency'])}.")
    if "placeholders" in args:
        sentences.append(f"It is for {' '.join(['[name]'] * args['placeholders']['num_placeholders'])}.")
    if "highlights" in args:
        sentences.append(f"Look at {' and '.join(['*this part*'] * args['highlights']['num_highlights'])}.")
    if "long" in args:
        told = len(" ".join([*lines, *sentences]).split())
        sentences.append(f"It goes on{' and on' * ((args['long']['num_words'] - told) // 2)}.")
    lines.append(" ".join(sentences))
    if "bullets" in args:
        lines += ["- one thing to see"] * args["bullets"]["num_bullets"]
    if "postscript" in args:
        lines.append("P.S. It is true.")
    if "end" in args:
        lines.append(str(args["end"]["end_phrase"]))
    text = "\n".join(lines)
    rules = {one.rule for one in asked}
    if "change_case:english_capital" in rules:
        return text.upper()
    return text.lower() if "change_case:english_lowercase" in rules else text
