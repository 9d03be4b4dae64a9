"""Function words by language: English as Gopher has them, and as plain ones of other languages."""

from __future__ import annotations

_WORDS = {
    "en": "the be to of and that have with",
    "es": "el la de que y en los con una por para",
    "pl": "i w na z do nie się że jest o",
    "de": "der die und in den von zu das mit sich",
    "fr": "le la de et les des en que dans une",
    "it": "il di che la e in per una con del",
    "pt": "o de que e a do da em um para",
    "nl": "de van het een en in is dat op te",
    "ru": "и в не на что с как по это для",
    "sv": "och att det som en på är av för med",
    "tr": "bir ve bu için ile da de olarak çok daha",
    "cs": "a v se na je že s z do i",
    "uk": "і в на що не з та як до це",
    "id": "yang dan di dari untuk dengan ini pada adalah dalam",
    "ms": "yang dan di dari untuk dengan ini pada adalah dalam",
    "vi": "và của là có trong cho không được một những",
    "sw": "na ya wa kwa ni katika la za cha kuwa",
    "tl": "ang ng sa na mga ay at ni kung para",
}
STOP_WORDS: dict[str, tuple[str, ...]] = {language: tuple(words.split()) for language, words in _WORDS.items()}
