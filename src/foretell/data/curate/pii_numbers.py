"""What a run of digits is: a card, an account, a social security number, a phone number, or nothing of the kind."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

_CONTEXT = re.compile(
    r"(?:\b(?:tel|ph|phone|telephone|mobile|cell|fax|call|text|whatsapp|sms|contact|dial|hotline|telefono|teléfono"
    r"|móvil|movil|celular|llam[ae]\w*|telefon\w*|tel|kom|komórk\w*|handy|mobil\w*|rufnummer|fernsprecher|téléphone|portable"
    r"|appel\w*|cellulare|telefone|telemóvel|телефон\w*|тел|факс|моб)\b|電話|电话|☎|📞)\W{0,4}(?:\w+\W+){0,3}\W*$",
    re.IGNORECASE,
)
_NOT_PHONE = re.compile(
    r"(?:isbn|issn|doi|arxiv|pmid|order|invoice|version|ver|rfc|bug|issue|ticket|serial|model|part|sku|page|pp|no|nr|id"
    r"|n°|chapter|figure|fig|table|equation|≈|≃|=|×|\^|\$|€|£|¥|%|\+/-|±|/)[\s.:#-]*$",
    re.IGNORECASE,
)
_GROUPS = re.compile(r"\d+")
_DATE = re.compile(r"(?:(?:19|20)\d\d[-/. ](?:19|20)?\d\d\b|\d\d?[-/.]\d\d?[-/.](?:19|20)\d\d\b)")
_DECIMAL = re.compile(r"(?<!\S)0\.\d")
_NANP = re.compile(r"(?:\+?1[ .-]?)?(?:\([2-9]\d\d\)[ .-]?|[2-9]\d\d[.-])\d{3}[ .-]\d{4}")
_EUROPEAN = re.compile(
    r"0\d(?: \d\d){4}|0\d(?:\.\d\d){4}|0\d{2,4}[ -/]\d{3,4}[ -]\d{3,4}|\(0\d{2,4}\) ?\d{3,4}[ -]?\d{3,4}|07\d{3} ?\d{6}"
)
_SSN = re.compile(r"(?!000|666|9)\d{3}([- ])(?!00)\d\d\1(?!0000)\d{4}")
_DIALLED = re.compile(r"(?:\+|00)[1-9]\d{0,2}[\d ().-]*\d")
# International prefixes that are given out, by their first digits; +83, +89 and the like lead nowhere.
_COUNTRY = re.compile(
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2[1-69]\d|3[578]\d|42\d|5[09]\d|6[7-9]\d"
    r"|8[058]\d|9[679]\d"
)


def luhn(digits: str) -> bool:
    """Whether the check digit of a card number fits. Source: ISO/IEC 7812-1."""
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + i % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_card(text: str) -> bool:
    """A card number of 13 to 19 digits, of an issuer's range, in usual groups, with a check digit that fits."""
    digits = "".join(_GROUPS.findall(text))
    if not 13 <= len(digits) <= 19 or not re.fullmatch(r"\d+(?:([ -])\d+(?:\1\d+)*)?", text):
        return False
    if len({*digits}) < 2 or not luhn(digits):
        return False
    two, four, six = int(digits[:2]), int(digits[:4]), int(digits[:6])
    length = len(digits)
    if digits[0] == "4":
        known = length in (13, 16, 19)
    elif 51 <= two <= 55 or 2221 <= four <= 2720:
        known = length == 16
    elif two in (34, 37):
        known = length == 15
    elif two in (36, 38, 39) or 300 <= four // 10 <= 305:
        known = length in (14, 16, 19)
    elif four == 6011 or two == 65 or 644 <= four // 10 <= 649 or 622126 <= six <= 622925 or 3528 <= four <= 3589:
        known = 16 <= length <= 19
    else:
        known = two in (62, 67, 60, 81, 50, 56, 57, 58, 63) and length in (16, 18, 19)
    groups = _GROUPS.findall(text)
    return known and (len(groups) == 1 or all(4 <= len(group) <= 6 for group in groups[:-1]))


def is_iban(text: str) -> bool:
    """An IBAN whose remainder is 1. Source: ISO 13616, ISO 7064 (MOD 97-10)."""
    plain = re.sub(r"[ -]", "", text).upper()
    length = IBAN_LENGTHS.get(plain[:2])
    if length != len(plain):
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


IBAN_LENGTHS = {
    code: int(length)
    for length, codes in {
        "15": "NO", "16": "BE", "18": "DK FI FO GL NL SD", "19": "MK SI", "20": "AT BA EE KZ LT LU XK",
        "21": "CH CR HR LI LV", "22": "BG BH DE GB GE IE ME RS VA",
        "23": "AE GI IL IQ OM TL SO", "24": "AD CZ ES MD PK RO SA SE SK TN VG",
        "25": "LY PT ST", "26": "IS TR", "27": "BI DJ FR GR IT MC MR SM", "28": "AL AZ BY CY DO GT HU LB PL SV NI",
        "29": "BR EG PS QA UA", "30": "JO KW MU YE", "31": "MT SC", "32": "LC", "33": "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip


def is_ssn(text: str) -> bool:
    """A social security number of the United States, with hyphens; with spaces only where `kind_of` sees its name."""
    return bool(_SSN.fullmatch(text)) and "-" in text


def is_public_ip(text: str) -> bool:
    """An address that may be somebody's: not of a private, loopback, documentation or other reserved range."""
    try:
        address = IPv6Address(text) if ":" in text else IPv4Address(text)
    except AddressValueError:
        return False
    return address.is_global and not address.is_multicast


def is_phone(text: str, before: str, after: str) -> bool:
    """A phone number: in international form, in a national form that is nothing else, or after a word that says so.

    before, after: the text around it.
    """
    digits = "".join(_GROUPS.findall(text))
    if not 7 <= len(digits) <= 15 or len({*digits}) < 3 or text.count("(") != text.count(")"):
        return False
    if _DATE.match(text) or _DECIMAL.search(text):
        return False
    if _CONTEXT.search(before[-48:]):
        return True
    if _NOT_PHONE.search(before[-12:]) or (after[:1] in ("%", "°", "^", "×", "/") or before[-1:].isalpha()):
        return False
    if _DIALLED.fullmatch(text):
        number = re.sub(r"\A(?:\+|00)", "", digits if text.startswith("+") else digits[2:])
        plus = text.startswith("+")
        return bool(_COUNTRY.match(number)) and (9 if plus else 10) <= len(number) <= 15 and (plus or " " in text)
    return bool(_NANP.fullmatch(text) or (_EUROPEAN.fullmatch(text) and 9 <= len(digits) <= 12))


def kinds_within(text: str) -> list[tuple[str, int, int]]:
    """Cards, social security numbers and North American phone numbers among several numbers between spaces.

    Other forms are not sought there: in a table of numbers something always looks like a phone number.
    """
    starts = [0, *(at.end() for at in re.finditer(r" +", text))]
    ends = [*(at.start() for at in re.finditer(r" +", text)), len(text)]
    found, i = list[tuple[str, int, int]](), 0
    while i < len(starts) <= 40:
        for j in range(min(i + 4, len(ends) - 1), i - 1, -1):
            part = text[starts[i] : ends[j]]
            kind = "ssn" if is_ssn(part) else "card" if is_card(part) else "phone" if _NANP.fullmatch(part) else None
            if kind and (i, j) != (0, len(ends) - 1):
                found.append((kind, starts[i], ends[j]))
                i = j
                break
        i += 1
    return found


_SSN_CONTEXT = re.compile(r"(?:\bssn|social security(?: (?:number|no|#))?)\W{0,4}(?:is\W+)?$", re.IGNORECASE)
_PESEL_CONTEXT = re.compile(r"\bpesel\w*\W{0,4}(?:\w+\W+)?$", re.IGNORECASE)


def kind_of(text: str, before: str, after: str) -> str | None:
    """The kind of a run of digits with separators between them, or None."""
    digits = "".join(_GROUPS.findall(text))
    if len(digits) == 9 and (is_ssn(text) or (_SSN_CONTEXT.search(before[-40:]) and _valid_ssn(digits))):
        return None if _NOT_PHONE.search(before[-12:]) and not _SSN_CONTEXT.search(before[-40:]) else "ssn"
    if len(digits) == 11 and len(text) == 11 and _PESEL_CONTEXT.search(before[-30:]) and _is_pesel(digits):
        return "national_id"
    if len(digits) >= 13 and is_card(text):
        return "card"
    return "phone" if is_phone(text, before, after) else None


def _valid_ssn(digits: str) -> bool:
    return bool(_SSN.fullmatch(f"{digits[:3]}-{digits[3:5]}-{digits[5:]}"))


def _is_pesel(digits: str) -> bool:
    return (
        sum(int(digit) * weight for digit, weight in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), strict=True)) % 10
        == 0
    )
