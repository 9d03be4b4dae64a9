"""Personal data masked: addresses of mail and machines, phone numbers, cards, accounts, national numbers, keys."""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from foretell.data.curate.pii_numbers import is_iban, is_public_ip, kind_of, kinds_within
from foretell.data.curate.steps import Removed
from foretell.data.curate.texts import StepSection, labelled, map_texts
from foretell.data.document import Document

Kind = Literal["email", "phone", "ip", "card", "iban", "ssn", "national_id", "key"]
KINDS: tuple[Kind, ...] = ("email", "phone", "ip", "card", "iban", "ssn", "national_id", "key")

_EMAIL = re.compile(r"[^\W_](?:[\w.+%'-]{0,62}[\w+-])?@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}(?![\w@])")
_SPELT = re.compile(
    r"[A-Za-z0-9][\w.+-]{0,63} ?[\[({<] ?at ?[\])}>] ?[A-Za-z0-9-]+(?:(?: ?[\[({<] ?dot ?[\])}>] ?|\.)"
    r"[A-Za-z0-9-]+){1,4}",
    re.IGNORECASE,
)
_NO_MAIL = re.compile(
    r"(?:git|hg|svn|noreply|no-reply)@|.*@\d+x\.|.*\.(?:png|jpe?g|gif|svg|webp|css|js|py)$", re.IGNORECASE
)
_BRACKETED = re.compile(r"[\[({<] ?[Aa][Tt] ?[\])}>]")
# Each pattern is looked for only near what a fast one finds: a run of digits, an "@", two colons.
_RUN = re.compile(r"\d[\d .()/\u2011-]{4,}\d")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
# One run of digits and what may stand between them; `kind_of` says what it is. IPv4 first, since a dot separates too.
_DIGITS = re.compile(
    r"(?<![\w.])(?P<ip>\d{1,3}(?:\.\d{1,3}){3})(?![\w]|\.\d)"
    r"|(?<![\w.,/-])(?<!\d[:=])(?:\+ ?|\(\+?)?\d(?:[\d]|[ .()/\u2011-](?=[\d (])){5,30}\d(?![\w]|[.,]\d|-\w)"
)
# Of 2000::/3, where all addresses that are given out lie; so a scope of C++ between hexadecimal names is none.
_IPV6 = re.compile(
    r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{1,4}:){0,6}(?::(?:[0-9A-Fa-f]{1,4}:){0,5})?(?:[0-9A-Fa-f]{1,4})?"
    r"(?![\w:])"
)
_IBAN = re.compile(r"[A-Z]{2}\d{2}(?<!\w.{4})(?:[ -]?[A-Z0-9]{2,4}){3,8}(?:[ -]?[A-Z0-9]{1,3})?(?!\w)")
_DNI = re.compile(r"[\dXYZ](?<!\w.)\d{7}-?[A-Z](?!\w)")
_VERSION = re.compile(r"(?:\b(?:v|ver|version|release|section|sec|chapter|§)\W{0,2}|[<>=~]=? ?)$", re.IGNORECASE)
_MACHINE = re.compile(
    r"\b(?:ip|ipv4|address|host|server|ping|ssh|client|dirección|adres|adresse)\b\W{0,4}(?:\w+\W+){0,2}$", re.I
)
_KEYS = re.compile(
    r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]{40,10000}?-----END (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|(?<!\w)(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{60,}|glpat-[\w-]{20,}"
    r"|sk-(?:proj-|ant-)?[\w-]{20,}|[sr]k_(?:live|test)_[A-Za-z0-9]{16,}|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{35}"
    r"|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{40,}|SG\.[\w-]{16,}\.[\w-]{16,}"
    r"|eyJ[\w-]{10,500}\.eyJ[\w-]{10,}\.[\w-]{10,})(?!\w)"
)
_VALUE = re.compile(r"[=:][ \t]{0,4}[\"']?[\w+/.~-]{16}")
_SECRET = re.compile(
    r"(?:(?:api|secret|access|auth|private|client)[_-]?(?:key|token|secret)|password|passwd)"
    r"[\"']?\s*(?::|=|:=)\s*[\"']?(?P<a>[A-Za-z0-9+/_.~-]{16,128})(?![\w(.])|\bbearer (?P<b>[A-Za-z0-9+/_.~-]{20,})",
    re.IGNORECASE,
)
_HINTS = (
    "-----BEGIN", "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "sk-",
    "k_live_", "k_test_", "xox", "AIza", "hf_", "npm_", "pypi-AgE", "SG.", "eyJ",
)  # fmt: skip
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


@dataclass(frozen=True)
class Found:
    """Personal data at text[start:end]."""

    kind: Kind
    start: int
    end: int


def find_pii(text: str, kinds: tuple[Kind, ...] = KINDS) -> list[Found]:
    """All of it, by place; of what overlaps, the kind that is surest (mail, key, account, then runs of digits)."""
    found = list[Found]()
    order = ("email", "key", "iban", "national_id", "ip", "card", "ssn", "phone")
    taken = list[tuple[int, int]]()  # by place; none overlaps
    for item in sorted(_candidates(text, kinds), key=lambda item: order.index(item.kind)):
        at = bisect(taken, (item.start, item.end))
        free = (at == 0 or taken[at - 1][1] <= item.start) and (at == len(taken) or item.end <= taken[at][0])
        if free:
            taken.insert(at, (item.start, item.end))
            found.append(item)
    return sorted(found, key=lambda item: item.start)


def _candidates(text: str, kinds: tuple[Kind, ...]) -> Iterator[Found]:
    if "email" in kinds:
        if "@" in text:
            yield from _emails(text)
        if _BRACKETED.search(text):
            yield from (Found("email", *at.span()) for at in _SPELT.finditer(text))
    if "key" in kinds:
        yield from _keys(text)
    if "iban" in kinds:
        yield from (Found("iban", *span) for at in _IBAN.finditer(text) if (span := _iban_span(at)) is not None)
    if "national_id" in kinds:
        yield from (Found("national_id", *at.span()) for at in _DNI.finditer(text) if _is_dni(at[0]))
    if "ip" in kinds:
        for colons in _COLONS.finditer(text):
            at = _IPV6.search(text, max(0, colons.start() - 5), colons.end() + 45)
            if at and at[0].count(":") > 2 and is_public_ip(at[0]):
                yield Found("ip", *at.span())
    for run in _RUN.finditer(text):
        for at in _DIGITS.finditer(text, max(0, run.start() - 3), run.end() + 3):
            start, end = at.span()
            if at["ip"]:
                if "ip" in kinds and _is_ip(at[0], text[max(0, start - 48) : start]):
                    yield Found("ip", start, end)
                continue
            kind = kind_of(at[0], text[max(0, start - 48) : start], text[end : end + 2])
            if kind is None and " " in at[0]:
                inner = ((name, start + a, start + b) for name, a, b in kinds_within(at[0]))
                yield from (Found(name, a, b) for name, a, b in inner if name in kinds)
            elif kind in kinds:
                yield Found(kind, start, end)


def _emails(text: str) -> Iterator[Found]:
    end = 0
    for sign in re.finditer("@", text):
        at = _EMAIL.search(text, max(end, sign.start() - 64), sign.end() + 256)
        if at and at.start() < sign.start() < at.end() and not _NO_MAIL.match(at[0]):
            end = at.end()
            yield Found("email", at.start(), end)


def _is_ip(text: str, before: str) -> bool:
    """A public IPv4 address; four small numbers are a version or a formula, unless a word before says what they are."""
    if not is_public_ip(text) or _VERSION.search(before[-12:]):
        return False
    return max(map(int, text.split("."))) >= 64 or bool(_MACHINE.search(before))


def _keys(text: str) -> Iterator[Found]:
    if any(hint in text for hint in _HINTS):
        yield from (Found("key", *at.span()) for at in _KEYS.finditer(text))
    near = [(value.start() - 40, value.end() + 128) for value in _VALUE.finditer(text)]
    if "earer " in text:
        near += [(bearer.start() - 2, bearer.end() + 128) for bearer in re.finditer("earer ", text)]
    for start, end in near:
        for at in _SECRET.finditer(text, max(0, start), end):
            group = "a" if at["a"] else "b"
            if _is_random(at[group]):
                yield Found("key", *at.span(group))


def _is_random(value: str) -> bool:
    """Digits and letters of both cases or in hexadecimal, not a path, a name or a placeholder."""
    if re.fullmatch(r"[0-9a-fA-F]{32,}", value):
        return len({*value}) > 6
    mixed = bool(re.search(r"\d", value) and re.search(r"[a-z]", value) and re.search(r"[A-Z]", value))
    return mixed and len({*value}) >= min(12, len(value) * 0.6) and value.count(".") + value.count("/") < 3


def _iban_span(at: re.Match[str]) -> tuple[int, int] | None:
    """The longest beginning that is an IBAN: what follows in capitals may be the next word."""
    text = at[0]
    ends = [len(text), *(i for i in range(len(text) - 1, 14, -1) if text[i] in " -")]
    return next(((at.start(), at.start() + end) for end in ends if is_iban(text[:end])), None)


def _is_dni(text: str) -> bool:
    plain = text.replace("-", "")
    number = plain[:-1].translate(str.maketrans("XYZ", "012"))
    return _DNI_LETTERS[int(number) % 23] == plain[-1]


class PiiStep(StepSection):
    """Masks personal data in text, alt text and captions by `[EMAIL]` and the like.

    mask: kinds to mask. form: what stands in their place, `{kind}` in capitals. What is found is counted in the label
    `pii`, as `email:2 phone:1`. Names of people and street addresses are not found.
    """

    step: Literal["pii"] = "pii"
    mask: tuple[Kind, ...] = KINDS
    form: str = "[{kind}]"

    def __call__(self, document: Document) -> Document | Removed:
        counts = Counter[str]()
        changed = map_texts(document, partial(masked, kinds=self.mask, form=self.form, counts=counts))
        if not counts:
            return document
        return labelled(changed, pii=" ".join(f"{kind}:{count}" for kind, count in sorted(counts.items())))


def masked(
    text: str, kinds: tuple[Kind, ...] = KINDS, form: str = "[{kind}]", counts: Counter[str] | None = None
) -> str:
    """The text with `form` in place of personal data. counts: by kind, added to."""
    parts, at = list[str](), 0
    for item in find_pii(text, kinds):
        parts += [text[at : item.start], form.format(kind=item.kind.upper())]
        at = item.end
        if counts is not None:
            counts[item.kind] += 1
    return "".join([*parts, text[at:]])
