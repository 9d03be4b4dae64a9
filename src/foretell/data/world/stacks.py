"""Several rules at once: the system message asks for one to six things of every reply, and each can be checked."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from foretell.data.world.base import Item, Split, dialogue, document, draw, require, subset
from foretell.data.world.personas import ASSISTANTS, ENDINGS, KNOWLEDGE, LANGUAGES

TIMES = {"2": "twice", "3": "three times"}
RULES = {  # rule → how the system message puts it
    "language": "Always answer in {value}.",
    "capitals": "Write in capital letters only.",
    "ending": 'End every reply with "{value}"',
    "name": 'Begin every reply with your name and a colon, "{value}:".',
    "times": "Say the answer {value}.",
    "brackets": "Put the answer in square brackets.",
}
MOST = len(RULES)
TASKS = tuple(f"stacks.{count}" for count in range(1, MOST + 1))


class Stacks:
    """Questions of `personas` under one to six rules at once; the task is how many.

    The labels state "rules" (names split by commas), the value of each and the "truth", for `checks`. Item.answer is
    the whole reply. Held out by the rules, their values and the question.
    """

    name = "stacks"
    visual = False

    def __init__(self, tasks: Sequence[str] | None = None, most: int = MOST) -> None:
        require(most in range(1, MOST + 1), "stacks.most", most, f"a whole number from 1 to {MOST}")
        self.tasks = subset("stacks.tasks", tasks, TASKS[:most])

    def make(self, rng: random.Random, split: Split) -> Item:
        task = rng.choice(self.tasks)
        rules, question = draw(rng, split, lambda r: _propose(r, int(task.rpartition(".")[2])), lambda p: _key(*p))
        said = reply(rules, question)
        told = [RULES[name].format(value=TIMES.get(value, value)) for name, value in rules.items()]
        segments = dialogue([(question, said)], system=" ".join(told))
        labels = {"rules": ",".join(rules), "truth": _truth(rules, question), **rules}
        return Item(_key(rules, question), task, document(task, segments, labels=labels), said)


def reply(rules: Mapping[str, str], question: str) -> str:
    """The reply that keeps all rules."""
    word = _truth(rules, question)
    said = f"[{word}]" if "brackets" in rules else word
    text = " ".join([said] * int(rules.get("times", "1"))) + "."
    if "name" in rules:
        text = f"{rules['name']}: {text}"
    if "ending" in rules:
        text += f" {rules['ending']}"
    return text.upper() if "capitals" in rules else text


def checks(labels: Mapping[str, str], reply: str) -> dict[str, bool]:
    """Whether a reply keeps each rule that the labels state, each judged by itself; and "truth": says what is right."""
    text, truth = reply.strip(), labels["truth"].lower()
    low = text.lower()
    kept = {"truth": truth in low}
    for rule in labels["rules"].split(","):
        value = labels[rule].lower()
        kept[rule] = {
            "language": truth in low,
            "capitals": text == text.upper() and text != text.lower(),
            "ending": low.endswith(value),
            "name": low.startswith(f"{value}:"),
            "times": low.count(truth) == int(value) if value.isdigit() else False,
            "brackets": f"[{truth}]" in low,
        }[rule]
    return kept


def _propose(rng: random.Random, count: int) -> tuple[dict[str, str], str]:
    values = {
        "language": rng.choice(list(LANGUAGES.values())[1:]),
        "capitals": "yes",
        "ending": rng.choice(ENDINGS),
        "name": rng.choice(ASSISTANTS),
        "times": rng.choice(list(TIMES)),
        "brackets": "yes",
    }
    return {name: values[name] for name in rng.sample(list(RULES), count)}, rng.choice(list(KNOWLEDGE))


def _truth(rules: Mapping[str, str], question: str) -> str:
    return KNOWLEDGE[question][list(LANGUAGES.values()).index(rules.get("language", "English"))]


def _key(rules: Mapping[str, str], question: str) -> str:
    return f"stacks:{','.join(f'{name}={value}' for name, value in sorted(rules.items()))}:{question}"
