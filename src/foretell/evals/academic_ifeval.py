"""IFEval's verifiable instructions: whether a reply keeps each rule, to the letter and loosely.

Source: Zhou et al. (2023), arXiv 2311.07911, and its code. Two checks do without the packages that it needs: sentences
are split by rule and not by a trained splitter, and the language is told by script and frequent words. A mark such as
"!" is counted where that code draws a letter at random.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from foretell.errors import EvalError

_WORDS: dict[str, dict[str, str]] = {  # script -> language -> its frequent words
    "DEVANAGARI": {
        "hi": "है के में की को से और का हैं पर यह एक ने लिए था भी नहीं कि ये वह जो",
        "mr": "आहे आणि या ते हे च्या आहेत मध्ये एक होते तो ती ही म्हणून करून नाही साठी का असे काय",
        "ne": "छ र को मा हो छन् लाई गर्न यो भएको पनि थियो गरेको एक तथा ले हुन्छ बाट लागि छैन",
    },
    "ARABIC": {
        "ar": "في من على إلى أن هذا التي الذي عن مع هو هي كان لا ما هذه كل بعد قد أو",
        "fa": "و در به از که این را با است برای آن یک خود تا بر می های شد هم من",
        "ur": "ہے کے میں کی اور سے کا کو نے پر ہیں یہ کہ ایک بھی وہ نہیں تھا لیے ہو",
    },
    "CYRILLIC": {
        "ru": "и в не на что с я он как это по но из у за от так вы для мы если",
        "bg": "и на да се е за от в не с са това което как но ще може като или си",
        "uk": "і в не на що з та як це до від але за ви для ми є або про якщо",
    },
    "LATIN": {
        "en": "the of and to in is that it for was on are as with be this you not have from or by an a do if we",
        "de": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es ich wie hat er",
        "fr": "de la le et les des en un une du est que dans qui par pour au sur pas plus ce il vous nous je",
        "es": "de la que el en y los se del las un por con no una su para es al lo como más o pero muy hoy está",
        "it": "di e il la che è per un in non sono una del con si le da al come i della gli ha più",
        "pt": "de a o que e do da em um para é com não uma os no se na por mais as dos como mas ao",
        "nl": "de het een van en in is dat op te zijn met voor niet die aan er om ook als bij",
        "fi": "ja on ei se että hän oli mutta ovat kun niin joka tai kuin myös sen mitä olen voi",
        "sw": "ya na wa kwa ni katika za la kuwa hii cha kama ili yake hiyo lakini sana au pia yangu",
        "vi": "và của là có được cho các trong không một những với người này để khi đã tôi bạn cũng",
        "pl": "w i na z nie się do jest to że o od po jak za a dla co są oraz",
        "tr": "ve bir bu da de için ile çok olarak daha gibi olan en ama ne kadar sonra var",
        "id": "yang dan di dari untuk dengan ini pada adalah tidak itu dalam akan saya juga atau ke karena",
        "sv": "och i att det som en på är av för med den till inte har om ett men jag de",
        "da": "og i at det er en til på som af for med den ikke der et har de men jeg",
        "ro": "și de în a la cu pe o că este un din nu pentru mai care sunt se",
    },
}
_SCRIPTS = {  # scripts that tell the language
    "KANNADA": "kn", "GUJARATI": "gu", "GURMUKHI": "pa", "TAMIL": "ta", "TELUGU": "te", "THAI": "th", "HANGUL": "ko",
    "BENGALI": "bn", "HEBREW": "he", "GREEK": "el", "MALAYALAM": "ml", "HIRAGANA": "ja",
    "KATAKANA": "ja", "CJK": "zh-cn",
}  # fmt: skip
_ABBREVIATED = re.compile(r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|vs|etc|e\.g|i\.e|No|Vol|Fig|cf)|\b[A-Z])\.$")
_END = re.compile(r"[.!?]+[\"'”’)\]*]*(?=\s)")
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def follows(rules: Sequence[Sequence[Any]], reply: str) -> tuple[list[bool], list[bool]]:
    """Of each rule, a name with its settings: whether the reply keeps it, and whether it does loosely.

    Loosely: it, or it without asterisks, or either without its first line, its last, or both, keeps the rule. An empty
    reply keeps none. Raises EvalError for an unknown rule.
    """
    lines = reply.split("\n")
    cut = [reply, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    forms = [*cut, *(form.replace("*", "") for form in cut)]
    strict, loose = [], []
    for name, args in rules:
        if name not in RULES:
            raise EvalError(f"IFEval has no instruction {name!r}; known are {', '.join(RULES)}.")
        strict.append(bool(reply.strip()) and RULES[name](reply, args))
        loose.append(any(form.strip() and RULES[name](form, args) for form in forms))
    return strict, loose


def language(text: str) -> str:
    """The language of a text (ISO 639-1; "zh-cn" for Chinese): by its script, then its frequent words; "" if none."""
    scripts: Counter[str] = Counter()
    for letter in filter(str.isalpha, text):
        scripts[unicodedata.name(letter, "?").split()[0]] += 1
    if not scripts:
        return ""
    script = scripts.most_common(1)[0][0]
    if script == "CJK" and scripts["HIRAGANA"] + scripts["KATAKANA"] > 0:
        script = "HIRAGANA"
    if script not in _WORDS:
        return _SCRIPTS.get(script, "")
    told = Counter(
        re.findall(r"[^\W\d_]+[\u0900-\u097f]*" if script != "DEVANAGARI" else r"[\u0900-\u0963]+", text.lower())
    )
    scores = {code: sum(told[word] for word in words.split()) for code, words in _WORDS[script].items()}
    return max(scores, key=lambda code: scores[code])


def sentences(text: str) -> int:
    """How many sentences a text has; what follows the last full stop is one, too."""
    count, start = 0, 0
    plain = text.strip()
    for end in _END.finditer(plain):
        piece = plain[start : end.end()]
        follow = plain[end.end() :].lstrip()
        if _ABBREVIATED.search(piece) or (end[0].startswith("..") and follow[:1].islower()):
            continue
        count, start = count + 1, end.end()
    return count + bool(plain[start:].strip())


def _relation(count: int, args: Mapping[str, Any], limit: str, relation: str = "relation") -> bool:
    return bool(count < args[limit] if args.get(relation) == "less than" else count >= args[limit])


def _highlights(text: str, args: Mapping[str, Any]) -> bool:
    one = re.findall(r"\*[^\n*]*\*", text)
    two = re.findall(r"\*\*[^\n*]*\*\*", text)
    return bool(sum(bool(h.strip("*").strip()) for h in (*one, *two)) >= args["num_highlights"])


def _paragraphs(text: str, args: Mapping[str, Any]) -> bool:
    found = re.split(r"\s?\*\*\*\s?", text)
    inner = found[1:-1]
    kept = [p for p in (found[0], *inner, *found[-1:][: len(found) > 1]) if p.strip()]
    return all(p.strip() for p in inner) and bool(len(kept) == args["num_paragraphs"])


def _first_word(text: str, args: Mapping[str, Any]) -> bool:
    found = text.split("\n\n")
    full, nth = sum(bool(p.strip()) for p in found), args["nth_paragraph"]
    if nth > full or not found[nth - 1].strip():
        return False
    word = re.split(r"[.,?!'\"]", found[nth - 1].split()[0].lstrip("'").lstrip('"'))[0].lower()
    return bool(full == args["num_paragraphs"] and word == args["first_word"].lower())


def _postscript(text: str, args: Mapping[str, Any]) -> bool:
    known = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    marker = args["postscript_marker"]
    return bool(re.search(known.get(marker, rf"\s*{marker.lower()}.*$"), text.lower(), re.MULTILINE))


def _two_replies(text: str, args: Mapping[str, Any]) -> bool:
    found = text.split("******")
    replies = [part.strip() for part in found if part.strip()]
    return all(part.strip() for part in found[1:-1]) and len(replies) == 2 and replies[0] != replies[1]


def _is_json(text: str, args: Mapping[str, Any]) -> bool:
    plain = re.sub(r"^```(?:json|Json|JSON)?", "", text.strip()).removesuffix("```").strip()
    try:
        json.loads(plain)
    except (ValueError, RecursionError):
        return False
    return True


def _is_english(text: str) -> bool:
    return language(text) in ("en", "")


def _capital_words(text: str, args: Mapping[str, Any]) -> bool:
    words = re.findall(r"[^\W_]+(?:[-'’.&/][^\W_]+)*", text)
    return _relation(sum(word.isupper() for word in words), args, "capital_frequency", "capital_relation")


Rule = Callable[[str, Mapping[str, Any]], bool]
RULES: dict[str, Rule] = {
    "punctuation:no_comma": lambda t, a: "," not in t,
    "startend:quotation": lambda t, a: len(t.strip()) > 1 and t.strip()[0] == '"' == t.strip()[-1],
    "startend:end_checker": lambda t, a: t.strip().strip('"').lower().endswith(a["end_phrase"].strip().lower()),
    "combination:repeat_prompt": lambda t, a: t.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    "combination:two_responses": _two_replies,
    "change_case:english_capital": lambda t, a: t.isupper() and _is_english(t),
    "change_case:english_lowercase": lambda t, a: t.islower() and _is_english(t),
    "change_case:capital_word_frequency": _capital_words,
    "detectable_content:number_placeholders": lambda t, a: len(re.findall(r"\[.*?\]", t)) >= a["num_placeholders"],
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": lambda t, a: any(option in t for option in _CONSTRAINED),
    "detectable_format:json_format": _is_json,
    "detectable_format:multiple_sections": lambda t, a: (
        len(re.findall(rf"\s?{a['section_spliter']}\s?\d+\s?", t)) >= a["num_sections"]
    ),
    "detectable_format:number_bullet_lists": lambda t, a: (
        len(re.findall(r"^\s*\*[^\*].*$|^\s*-.*$", t, re.MULTILINE)) == a["num_bullets"]
    ),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:title": lambda t, a: any(x.strip("<> ").strip() for x in re.findall(r"<<[^\n]+>>", t)),
    "keywords:existence": lambda t, a: all(re.search(word, t, re.IGNORECASE) for word in a["keywords"]),
    "keywords:forbidden_words": lambda t, a: (
        not any(re.search(rf"\b{word}\b", t, re.IGNORECASE) for word in a["forbidden_words"])
    ),
    "keywords:frequency": lambda t, a: _relation(
        len(re.findall(a["keyword"].strip(), t, re.IGNORECASE)), a, "frequency"
    ),
    "keywords:letter_frequency": lambda t, a: _relation(
        t.lower().count(a["letter"].lower()), a, "let_frequency", "let_relation"
    ),
    "language:response_language": lambda t, a: language(t) in (a["language"], ""),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_sentences": lambda t, a: _relation(sentences(t), a, "num_sentences"),
    "length_constraints:number_words": lambda t, a: _relation(len(re.findall(r"\w+", t)), a, "num_words"),
}
