"""Ratings of single replies become preferences where a prompt has replies of both signs.

The form of Ethayarajh et al. 2024 (KTO, arXiv 2402.01306): a conversation and whether its last reply is good. What
people say with a thumb is no comparison; only two thumbs on replies to the same prompt are one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foretell.chat import Conversation
from foretell.files import digest


@dataclass(frozen=True)
class Rating:
    """A reply to a prompt, and whether it was called good. where: file and line."""

    prompt: Conversation
    reply: Conversation
    good: bool
    where: str


def same_prompt(prompt: Conversation) -> str:
    """A digest of what is asked, by which ratings meet."""
    return digest(json.dumps(prompt.to_openai()))


def pair(ratings: Iterable[Rating]) -> tuple[list[tuple[Rating, Rating]], list[tuple[Rating, str]]]:
    """Pairs of a good and a bad reply to one prompt, in the order of the first rating of each prompt; and what cannot
    be paired, with the reason.

    A reply that was rated twice alike counts once, one that was called good and bad not at all. Where there are more of
    one sign, those of the other stand in several pairs, in turn, so that each reply is in one pair at least.
    """
    groups: dict[str, list[Rating]] = {}
    for rating in ratings:
        groups.setdefault(same_prompt(rating.prompt), []).append(rating)
    pairs: list[tuple[Rating, Rating]] = []
    left: list[tuple[Rating, str]] = []
    for group in groups.values():
        signs: dict[Conversation, set[bool]] = {}
        for rating in group:
            signs.setdefault(rating.reply, set()).add(rating.good)
        first: dict[Conversation, Rating] = {}
        for rating in group:
            if len(signs[rating.reply]) > 1:
                left.append((rating, "called good and bad"))
            elif first.setdefault(rating.reply, rating) is not rating:
                left.append((rating, "rated more than once"))
        good, bad = ([r for r in first.values() if r.good == sign] for sign in (True, False))
        if good and bad:
            pairs += [(_nth(good, i), _nth(bad, i)) for i in range(max(len(good), len(bad)))]
        else:
            left += [(rating, "rated, but no reply to the same prompt has the other sign") for rating in good + bad]
    return pairs, left


def _nth(ratings: Sequence[Rating], number: int) -> Rating:
    return ratings[number % len(ratings)]
