"""Languages by code: what a file, a folder or a user calls a language, and the one code that stands for it here."""

from __future__ import annotations

from difflib import get_close_matches

from foretell.errors import EvalError

NAMES = {  # ISO 639-1 where there is one, else 639-3
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian",
    "bn": "Bengali", "ca": "Catalan", "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish",
    "fil": "Filipino", "fr": "French", "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew",
    "hi": "Hindi", "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "ig": "Igbo",
    "is": "Icelandic", "it": "Italian", "ja": "Japanese", "jv": "Javanese", "ka": "Georgian", "kk": "Kazakh",
    "km": "Khmer", "kn": "Kannada", "ko": "Korean", "ky": "Kyrgyz", "lo": "Lao", "lt": "Lithuanian", "lv": "Latvian",
    "mg": "Malagasy", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay",
    "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "ny": "Chichewa", "or": "Odia",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "si": "Sinhala", "sk": "Slovak", "sl": "Slovenian", "sn": "Shona", "so": "Somali", "sq": "Albanian",
    "sr": "Serbian", "st": "Sesotho", "su": "Sundanese", "sv": "Swedish", "sw": "Swahili", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "xh": "Xhosa", "yo": "Yoruba", "zh": "Chinese", "zu": "Zulu",
}  # fmt: skip
_OTHERWISE = {"cmn": "zh", "zho": "zh", "mandarin": "zh", "iw": "he", "in": "id", "nb": "no", "nn": "no", "farsi": "fa"}
_BY_NAME = {name.lower(): code for code, name in NAMES.items()}
SPACELESS = frozenset(("zh", "ja", "th", "lo", "km", "my"))  # written without spaces between words


def find_language(text: str) -> str | None:
    """The code that is meant by a code, a locale (pt_BR, ZH-CN) or an English name; None where it is none."""
    plain = text.strip().lower().replace("_", "-")
    for tried in (plain, plain.partition("-")[0]):
        if tried in NAMES:
            return tried
        if found := _OTHERWISE.get(tried) or _BY_NAME.get(tried):
            return found
    return None


def language_code(text: str, where: str = "") -> str:
    """As `find_language`. Raises EvalError for an unknown one, naming those that are near."""
    found = find_language(text)
    if found is None:
        near = get_close_matches(text.lower(), [*NAMES, *_BY_NAME], n=3, cutoff=0.5)
        advice = f" Near are {', '.join(near)}." if near else ""
        raise EvalError(
            f"{f'{where}: ' if where else ''}{text!r} is no language that is known here.{advice} Codes are listed by: "
            "foretell exam languages list"
        )
    return found


def name_of(code: str) -> str:
    """Its English name."""
    return NAMES.get(code, code)
