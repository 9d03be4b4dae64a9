"""How questions are put: the answer key that a model continues, by appendix A of the GPT-4 report."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Sequence
from pathlib import Path

from foretell.evals.exams.checks import MARK
from foretell.evals.exams.definition import Item, Section
from foretell.evals.prompts import Prompt

HEADING = "ANSWER KEY\n\nHere are the answers for the problems in the exam.\n\n"
CLOSING = "\nThe answer is therefore ["  # ends an explanation; what follows is the letter
_LETTER_ONLY = "Write the letter of the answer, and nothing else."
_SEVERAL = "Write the letters of the answers, split by commas, and nothing else."
_GO_ON = "Write the explanation for the last problem, which reasons its way to one of its options."


def key_text(section: Section, item: Item) -> str:
    """The exam so far as an answer key: worked problems, then this one, up to where its explanation begins.

    Source: GPT-4 Technical Report (2023), appendix A.8.
    """
    parts = [section.spec.instructions.strip() + "\n\n" if section.spec.instructions else "", HEADING]
    for number, shot in enumerate(section.shots, 1):
        parts.append(problem(number, shot))
        if section.spec.explain:
            parts.append(f"\n\nExplanation for Problem {number}: {shot.explanation}\n")
        parts.append(f"{CLOSING}{', '.join(shot.letters)}]\n\n")
    number = len(section.shots) + 1
    parts.append(problem(number, item))
    if section.spec.explain:
        parts.append(f"\n\nExplanation for Problem {number}:")
    return "".join(parts)


def problem(number: int, item: Item) -> str:
    """A problem with its passage and its options."""
    passage = f"{item.passage}\n\n" if item.passage else ""
    options = "".join(f"\n{chr(ord('A') + i)}) {text}" for i, text in enumerate(item.options))
    return f"Problem {number}. {passage}{item.question}{options}"


def explanation_prompt(section: Section, item: Item, chat: bool, vision: bool, base: Path) -> Prompt:
    """What asks for an explanation. chat: one message, for a model that is asked and does not continue."""
    text = key_text(section, item)
    return put(f"{text}\n\n{_GO_ON}" if chat else text, item, chat, vision, base)


def letter_prompt(section: Section, item: Item, explanation: str, chat: bool, vision: bool, base: Path) -> Prompt:
    """What asks for the letter, behind the explanation that was sampled."""
    text = key_text(section, item)
    told = f" {explanation.strip()}\n" if section.spec.explain else ""
    if chat:
        return put(f"{text}{told}\n\n{_SEVERAL if len(item.letters) > 1 else _LETTER_ONLY}", item, chat, vision, base)
    return put(f"{text}{told}{CLOSING}", item, chat, vision, base)


def response_prompt(section: Section, item: Item, chat: bool, vision: bool, base: Path) -> Prompt:
    """A free response or an essay: a plain request, as an instruction."""
    start = section.spec.instructions.strip() + "\n\n" if section.spec.instructions else ""
    passage = f"{item.passage}\n\n" if item.passage else ""
    return put(f"{start}{passage}{item.question}" + ("" if chat else "\n\nAnswer:"), item, chat, vision, base)


def put(text: str, item: Item, chat: bool, vision: bool, base: Path) -> Prompt:
    """Text with an item's images where it shows them (first, where it says nothing), or `IMAGE: <name>` in their place.

    base: folder of images that are files.
    """
    named = MARK.findall(text)
    unplaced = [name for name in item.images if name not in named]
    if not (vision and item.images):
        shown = MARK.sub(lambda match: f"IMAGE: {match[1]}", text) if item.images else text
        if unplaced:
            lines = "\n".join(f"IMAGE: {name}" for name in unplaced)
            at = shown.rfind(item.question)
            shown = f"{shown[:at]}{lines}\n{shown[at:]}"
        return [{"role": "user", "content": shown}] if chat else shown
    parts: list[dict[str, object]] = []
    at = 0
    for match in MARK.finditer(text):
        if match[1] in item.images:
            parts += [*_text(text[at : match.start()]), _image(item.images[match[1]], base)]
            at = match.end()
    first = [_image(item.images[name], base) for name in unplaced]
    return [{"role": "user", "content": [*first, *parts, *_text(text[at:])]}]


def images_of(item: Item, base: Path) -> Sequence[str]:
    """An item's images as data URLs."""
    return [_url(place, base) for place in item.images.values()]


def _text(text: str) -> list[dict[str, object]]:
    return [{"type": "text", "text": text}] if text else []


def _image(place: str, base: Path) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": _url(place, base)}}


def _url(place: str, base: Path) -> str:
    if place.startswith("data:"):
        return place
    kind = mimetypes.guess_type(place)[0] or "image/png"
    return f"data:{kind};base64,{base64.b64encode((base / place).read_bytes()).decode()}"
