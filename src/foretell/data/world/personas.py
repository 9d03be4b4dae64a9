"""Conversations under a system message that the assistant follows, with the rule known and checkable."""

from __future__ import annotations

import random
from collections.abc import Sequence

from foretell.data.document import Segment
from foretell.data.world.base import (
    Item,
    Split,
    dialogue,
    document,
    draw,
    final_answer,
    is_share,
    is_whole,
    require,
    subset,
)

LANGUAGES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pl": "Polish"}
KNOWLEDGE: dict[str, tuple[str, ...]] = {  # question → answer in the order of LANGUAGES
    "What color is grass?": ("green", "grün", "vert", "verde", "verde", "zielony"),
    "What color is snow?": ("white", "weiß", "blanc", "blanco", "bianco", "biały"),
    "What color is blood?": ("red", "rot", "rouge", "rojo", "rosso", "czerwony"),
    "What color is coal?": ("black", "schwarz", "noir", "negro", "nero", "czarny"),
    "What color is a lemon?": ("yellow", "gelb", "jaune", "amarillo", "giallo", "żółty"),
    "How many legs does a dog have?": ("four", "vier", "quatre", "cuatro", "quattro", "cztery"),
    "How many wheels does a bicycle have?": ("two", "zwei", "deux", "dos", "due", "dwa"),
    "How many fingers are on one hand?": ("five", "fünf", "cinq", "cinco", "cinque", "pięć"),
    "Which animal barks?": ("dog", "Hund", "chien", "perro", "cane", "pies"),
    "Which animal meows?": ("cat", "Katze", "chat", "gato", "gatto", "kot"),
    "What do bees make?": ("honey", "Honig", "miel", "miel", "miele", "miód"),
    "What do cows give?": ("milk", "Milch", "lait", "leche", "latte", "mleko"),
    "What is baked from flour?": ("bread", "Brot", "pain", "pan", "pane", "chleb"),
    "What is frozen water?": ("ice", "Eis", "glace", "hielo", "ghiaccio", "lód"),
    "What do fish live in?": ("water", "Wasser", "eau", "agua", "acqua", "woda"),
    "What shines by day?": ("sun", "Sonne", "soleil", "sol", "sole", "słońce"),
    "What shines at night?": ("moon", "Mond", "lune", "luna", "luna", "księżyc"),
    "What is the opposite of day?": ("night", "Nacht", "nuit", "noche", "notte", "noc"),
    "What is the opposite of big?": ("small", "klein", "petit", "pequeño", "piccolo", "mały"),
    "What is the opposite of hot?": ("cold", "kalt", "froid", "frío", "freddo", "zimny"),
    "What do people read?": ("book", "Buch", "livre", "libro", "libro", "książka"),
    "Which day follows Monday?": ("Tuesday", "Dienstag", "mardi", "martes", "martedì", "wtorek"),
}
ENDINGS = ("As you wish.", "Over and out.", "Stay curious.", "That is all.", "Good luck.", "At your service.")
ASSISTANTS = (
    *("Ada", "Bruno", "Clio", "Dara", "Enzo", "Faye", "Goran", "Hana", "Ivo", "Juno", "Kira", "Leo", "Mina", "Nora"),
    *("Otto", "Pia", "Quinn", "Rosa", "Sven", "Tara", "Ugo", "Vera", "Wim", "Xenia", "Yara", "Zeno"),
)
ASK_NAME = ("What is your name?", "Who are you?", "What should I call you?", "What are you called?")
REFUSAL = "I will not say that."
RULES = {
    "personas.language": "Always answer in {value}.",
    "personas.one_word": "You are {value}. Answer with one word.",
    "personas.ending": 'End every reply with "{value}"',
    "personas.capitals": "You are {value}. Write in capital letters only.",
    "personas.name": "Your name is {value}.",
    "personas.refuse": 'Never say the word "{value}". If the answer is that word, reply "{refusal}"',
}
GREETING = "You are a helpful assistant."


class Personas:
    """The system message names a rule (RULES); every reply in the conversation follows it.

    turns: most question turns. The labels "rule" and "value" state the rule, for `adheres`.
    Item.answer is the whole of the last reply. Held out by rule, its value and the question of the last turn; the turns
    before it come from the training part in both splits, as examples.
    words: share of items that are lists of one answer in several languages, and ask nothing (`personas.words`). Without
    them a language is held out with the very words that a reply in it would need.
    """

    name = "personas"
    visual = False

    def __init__(self, turns: int = 2, tasks: Sequence[str] | None = None, words: float = 0.0) -> None:
        require(is_whole(turns, 1, 6), "personas.turns", turns, "a whole number from 1 to 6")
        require(is_share(words), "personas.words", words, "a share from 0 to 1")
        self.turns, self.words = turns, words
        self.tasks = subset("personas.tasks", tasks, list(RULES))

    def make(self, rng: random.Random, split: Split) -> Item:
        if self.words and rng.random() < self.words:
            return _words(rng, split)
        task = rng.choice(self.tasks)
        value, asked = draw(rng, split, lambda r: propose(r, task), lambda pair: _key(task, *pair))
        questions = [asked]
        for _ in range(rng.randint(1, self.turns) - 1):
            _, earlier = draw(rng, "train", lambda r: (value, propose(r, task)[1]), lambda pair: _key(task, *pair))
            if earlier not in questions:
                questions.insert(0, earlier)
        rule = RULES[task].format(value=value, refusal=REFUSAL)
        system = f"{GREETING} {rule}" if rng.random() < 0.5 else rule
        replies = [reply(task, value, question) for question in questions]
        segments = dialogue(list(zip(questions, replies, strict=True)), system=system)
        labels = {"rule": task, "value": value}
        language = _code(value) if task == "personas.language" else "en"
        return Item(_key(task, value, asked), task, document(task, segments, language, labels), replies[-1])


def _words(rng: random.Random, split: Split) -> Item:
    """A question with its answer in several languages. Held out by the question, the languages and their order."""

    def drawn(rng: random.Random) -> tuple[str, ...]:
        return rng.choice(list(KNOWLEDGE)), *rng.sample(list(LANGUAGES.values()), rng.randint(3, len(LANGUAGES)))

    question, *languages = draw(rng, split, drawn, lambda found: _key("personas.words", *found))
    lines = [f"In {language}: {reply('personas.language', language, question)}" for language in languages]
    content = document("personas.words", (Segment(text="\n".join([question, *lines])),))
    return Item(_key("personas.words", question, *languages), "personas.words", content)


def reply(task: str, value: str, question: str) -> str:
    """The reply that follows the rule."""
    if task == "personas.name":
        return f"My name is {value}."
    answers = KNOWLEDGE[question]
    if task == "personas.language":
        return answers[list(LANGUAGES.values()).index(value)]
    if task == "personas.ending":
        return f"{_sentence(answers[0])} {value}"
    if task == "personas.capitals":
        return _sentence(answers[0]).upper()
    if task == "personas.refuse":
        return REFUSAL if answers[0] == value else _sentence(answers[0])
    return answers[0]


def adheres(labels: dict[str, str], reply: str) -> bool:
    """Whether a reply keeps the rule that the labels of its document state, be it right or not."""
    rule, value, text = labels["rule"], labels["value"], reply.strip()
    if rule == "personas.language":
        at = list(LANGUAGES.values()).index(value)
        return text.rstrip(".").lower() in {answers[at].lower() for answers in KNOWLEDGE.values()}
    if rule == "personas.ending":
        return text.endswith(value)
    if rule == "personas.capitals":
        return text == text.upper() and text != text.lower()
    if rule == "personas.refuse":
        return value.lower() not in text.lower()
    if rule == "personas.name":
        return final_answer(text) == value.lower()
    return len(text.split()) == 1


def propose(rng: random.Random, task: str) -> tuple[str, str]:
    """A rule's value (the assistant's name where it has no other) and a question."""
    if task == "personas.name":
        return rng.choice(ASSISTANTS), rng.choice(ASK_NAME)
    question = rng.choice(list(KNOWLEDGE))
    if task == "personas.language":
        return rng.choice(list(LANGUAGES.values())), question
    if task == "personas.ending":
        return rng.choice(ENDINGS), question
    if task == "personas.refuse":  # the forbidden word is the answer half of the time
        return KNOWLEDGE[question if rng.random() < 0.5 else rng.choice(list(KNOWLEDGE))][0], question
    return rng.choice(ASSISTANTS), question


def _sentence(word: str) -> str:
    return f"{word[0].upper()}{word[1:]}."


def _code(language: str) -> str:
    return next(code for code, name in LANGUAGES.items() if name == language)


def _key(*parts: str) -> str:
    return ":".join(parts)
