"""What a sample of a benchmark asks, as one text: what is looked for in training data.

Of a sample counts the question with its context, as in the GPT-4 report's appendix C: not the answer, and not what
stands around every question: worked samples, the words "Question:" and "Answer:", and messages that most samples share.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from foretell.errors import EvalError

Part = Literal["question", "options", "all"]
PARTS: tuple[Part, ...] = ("question", "options", "all")
_EXAMPLES = ("example_user", "example_assistant")
_LABEL = re.compile(
    r"(?m)^[ \t]*(?:Question|Q|Passage|Context|Story|Frage|Pregunta|Задача|Swali|問題|问题|ప్రశ్న|প্রশ্ন|โจทย์)\s*[:：]"
)
_CUE = re.compile(r"\n[^\n]{0,60}[:：]\s*\Z|\nA(?:nswer)?:[^\n]*\s*\Z")
_ASKED = ("question", "problem", "prompt", "text", "context", "passage", "story", "word")
_OPTIONS = ("options", "choices", "endings")
_ANSWERS = ("ideal", "answer", "worked", "canonical_solution")


def text_of(
    sample: Mapping[str, Any], part: Part = "question", shared: frozenset[str] = frozenset(), id: str = ""
) -> str:
    """What a sample asks. shared: messages that are left out. Raises EvalError where there is no text."""
    found = [_question(sample, shared)]
    if part != "question":
        found += [text for key in _OPTIONS[: 1 if "options" in sample else None] for text in _texts(sample.get(key))]
    if part == "all":
        found += [text for key in _ANSWERS for text in _texts(sample.get(key))]
    if not any(found):
        there = ", ".join(map(str, sample)) or "nothing"
        raise EvalError(f"Sample {id} holds no question that could be looked for; it has {there}.")
    return "\n".join(filter(None, found))


def _question(sample: Mapping[str, Any], shared: frozenset[str]) -> str:
    if "contexts" in sample and "choices" in sample:  # two wordings of one sentence, of which one is right
        return _common(sample["contexts"]) + " ".join(_texts(sample["choices"]))
    for key in ("ask", "query"):
        if isinstance(sample.get(key), str):
            return _LABEL.sub("", _CUE.sub("", str(sample[key])))
    asked = sample.get("input")
    if isinstance(asked, str):
        return asked
    if isinstance(asked, list):
        messages = [m for m in asked if isinstance(m, Mapping) and m.get("name") not in _EXAMPLES]
        texts = ["\n".join(_texts(m.get("content"))) for m in messages]
        return "\n".join(text for text in texts if text not in shared)
    return "\n".join(text for key in _ASKED for text in _texts(sample.get(key)))


def _common(texts: Sequence[str]) -> str:
    """What all of the texts begin with."""
    first, last = min(texts), max(texts)
    return first[: next((i for i, c in enumerate(first) if last[i : i + 1] != c), len(first))]


def shared_messages(samples: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Messages that stand word for word in more than half of the samples: instructions, and not what is asked."""
    counts: Counter[str] = Counter()
    for sample in samples:
        asked = sample.get("input")
        if isinstance(asked, list):
            counts.update({"\n".join(_texts(m.get("content"))) for m in asked if isinstance(m, Mapping)})
    return frozenset(text for text, count in counts.items() if count > max(1, len(samples) / 2))


def _texts(value: Any) -> list[str]:
    """The texts of a message's content, a list or a single text; images and what else there is have none."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return _texts(value.get("text"))
    return [text for each in value for text in _texts(each)] if isinstance(value, list | tuple) else []
