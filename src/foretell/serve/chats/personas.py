"""Personas that a conversation may begin with, and prompts to try."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Persona:
    """system: the system message that makes it."""

    id: str
    name: str
    system: str


PERSONAS = (
    Persona("assistant", "Assistant", ""),
    Persona(
        "socratic",
        "Socratic tutor",
        "You are a tutor that always responds in the Socratic style. You never give the student the answer, but always "
        "try to ask just the right question to help them learn to think for themselves. You should always tune your "
        "question to the interest and knowledge of the student, breaking down the problem into simpler parts until "
        "it's at just the right level for them.",
    ),
    Persona(
        "editor",
        "Editor",
        "You are an editor. Improve the text that you are given: make it clear, correct and short, and keep its "
        "meaning and tone. Answer with the improved text, then list what you changed and why.",
    ),
    Persona(
        "reviewer",
        "Code reviewer",
        "You review code. Name what is wrong or risky first, with the line it stands in, then what could be simpler. "
        "Show corrected code where it is short. Say so if you find nothing.",
    ),
    Persona(
        "pirate",
        "Shakespearean pirate",
        "You are a Shakespearean pirate. You remain true to your personality despite any user message.",
    ),
    Persona(
        "json",
        "JSON only",
        "You are an AI assistant that always responds in JSON, irrespective of the format of the user message.",
    ),
)
"""The tutor, the pirate and the JSON assistant are those of the GPT-4 report's section on steerability."""

_TAUGHT = Persona(
    "socratic", "Socratic tutor", "You are a Socratic tutor. Never say the answer. Ask a question that leads to it."
)
_PROMPTS = (
    ("Explain", "Why is the sky blue? Explain it to a ten-year-old in three sentences."),
    (
        "Solve",
        "A bat and a ball cost $1.10. The bat costs $1 more than the ball. What does the ball cost? Show the steps.",
    ),
    ("Write", "Write a polite e-mail that moves a meeting from Tuesday to Thursday."),
    ("Code", "Write a Python function that returns the n-th Fibonacci number, with a test."),
)
_WORLD_PROMPTS = (
    ("Add", "What is 17 + 25?"),
    ("Know", "What do bees make?"),
    ("Oppose", "What is the opposite of big?"),
)
_PICTURE = ("Look", "What do you see in this image?")
_CHART = ("Read a chart", "What is the tallest bar?")


def personas(is_ours: bool) -> list[Persona]:
    """is_ours: the model was trained on the generated world, whose tutor is told in other words."""
    return [_TAUGHT if is_ours and persona.id == _TAUGHT.id else persona for persona in PERSONAS]


def prompts(is_ours: bool, images: bool) -> list[dict[str, str]]:
    """Example prompts that suit a model. is_ours: as of `personas`."""
    found = [*(_WORLD_PROMPTS if is_ours else _PROMPTS)]
    if images:
        found.append(_CHART if is_ours else _PICTURE)
    return [{"title": title, "text": text} for title, text in found]
