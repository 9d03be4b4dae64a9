"""Personal data is found in many forms and languages, and numbers that are none stay."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.data.curate.pii import KINDS, PiiStep, find_pii
from foretell.data.curate.pii_numbers import is_card, is_iban, is_phone, luhn
from foretell.data.document import Document, Segment

FOUND = [
    ("email", "Write to jane.doe+news@mail.example.co.uk, please.", "jane.doe+news@mail.example.co.uk"),
    ("email", "bob [at] site [dot] org", "bob [at] site [dot] org"),
    ("email", "(ann (at) uni.edu)", "ann (at) uni.edu"),
    ("email", "mailto:józef@poczta.pl", "józef@poczta.pl"),
    ("phone", "call (212) 555-0187 now", "(212) 555-0187"),
    ("phone", "+1 (415) 555-2671", "+1 (415) 555-2671"),
    ("phone", "or 415-555-2671.", "415-555-2671"),
    ("phone", "Teléfono: 612 345 678", "612 345 678"),
    ("phone", "tel. 600 123 456", "600 123 456"),
    ("phone", "+48 600 123 456", "+48 600 123 456"),
    ("phone", "au 06 12 34 56 78,", "06 12 34 56 78"),
    ("phone", "+44 20 7946 0958", "+44 20 7946 0958"),
    ("phone", "電話: 03-1234-5678", "03-1234-5678"),
    ("card", "4111 1111 1111 1111", "4111 1111 1111 1111"),
    ("card", "amex 378282246310005", "378282246310005"),
    ("card", "5500-0000-0000-0004", "5500-0000-0000-0004"),
    ("iban", "DE89 3704 0044 0532 0130 00 OK", "DE89 3704 0044 0532 0130 00"),
    ("iban", "IBAN GB82WEST12345698765432", "GB82WEST12345698765432"),
    ("ssn", "SSN 123-45-6789", "123-45-6789"),
    ("ssn", "my ssn is 123456789", "123456789"),
    ("ip", "from 93.184.216.34 at noon", "93.184.216.34"),
    ("ip", "2606:2800:220:1:248:1893:25c8:1946", "2606:2800:220:1:248:1893:25c8:1946"),
    ("ip", "2a00:1450:4001:81b::200e", "2a00:1450:4001:81b::200e"),
    ("ip", "[2606:4700::1111]:443", "2606:4700::1111"),
    ("ip", "on 2001:4860:4860::8888, then", "2001:4860:4860::8888"),
    ("ip", "2a02:8109:9a00::/40", "2a02:8109:9a00::"),
    ("phone", "Phone:555-123-4567", "555-123-4567"),
    ("phone", "tel:+1-415-555-2671", "+1-415-555-2671"),
    ("card", "card=4111111111111111", "4111111111111111"),
    ("ssn", "SSN:078-05-1120", "078-05-1120"),
    ("national_id", "DNI 12345678Z", "12345678Z"),
    ("national_id", "PESEL: 44051401359", "44051401359"),
    ("key", "AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
    ("key", 'api_key = "aB3dE5fG7hI9jK1lM3nO5pQ7"', "aB3dE5fG7hI9jK1lM3nO5pQ7"),
]
HARMLESS = [
    "the speed of light is 299 792 458 m/s",
    "6.022 140 76 × 10^23 and 3.14159265358979",
    "ISBN 978-0-306-40615-7",
    "2010-04-10 12:00:00, 1914-1918, 12/24/1999",
    "version 1.2.3.4, kernel 2.6.18.6, section 3.3.9.45",
    "127.0.0.1, 192.168.0.1 and 10.0.0.255",
    "population 7 800 000 000",
    "4111 1111 1111 1112",
    "DE89 3704 0044 0532 0130 01",
    "000-12-3456 and 666-12-3456",
    "git@github.com:python/cpython, logo@2x.png",
    "@decorator\ndef f(a @ b): pass",
    "10:30:45:12 and std::vector::size, face::bad::cafe, 2001:db8::1, 2020:12:31:555-123-4567",
    "password = os.environ.get_password_value",
    "the values 12 34 56 78 90 11 22 33 in a row",
    "0.057 for text, Brown et al. (2020) 0.048, from there up",
]


@pytest.mark.parametrize(("kind", "text", "what"), FOUND)
def test_found(kind: str, text: str, what: str) -> None:
    assert [(item.kind, text[item.start : item.end]) for item in find_pii(text)] == [(kind, what)]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless(text: str) -> None:
    assert find_pii(text) == []


def test_several_numbers_with_nothing_but_spaces_between() -> None:
    text = "415-555-2671 (212) 555-0187 123-45-6789 4111 1111 1111 1111"
    assert [item.kind for item in find_pii(text)] == ["phone", "phone", "ssn", "card"]


def test_planted_in_prose() -> None:
    """Of 200 planted strings of each kind at least 19 of 20 are found, and nothing else."""
    draw = random.Random(3)
    digits: Callable[[int], str] = lambda n: "".join(draw.choices("0123456789", k=n))  # noqa: E731

    def card() -> str:
        start = draw.choice(["4", "51", "55"]) + digits(14)
        start = start[:15]
        return next(start + d for d in "0123456789" if luhn(start + d))

    def iban() -> str:
        account = digits(18)
        return next(f"DE{c:02}{account}" for c in range(2, 99) if is_iban(f"DE{c:02}{account}"))

    makers: dict[str, Callable[[], str]] = {
        "email": lambda: f"user{digits(3)}@{draw.choice(['mail.com', 'uni.edu', 'firma.pl'])}",
        "phone": lambda: f"({draw.randint(200, 999)}) {draw.randint(200, 999)}-{digits(4)}",
        "ip": lambda: (
            f"{draw.choice([8, 52, 93, 151])}.{draw.randint(64, 255)}.{draw.randint(0, 255)}.{draw.randint(1, 254)}"
        ),
        "card": card,
        "iban": iban,
        "ssn": lambda: f"{draw.randint(100, 665)}-{draw.randint(10, 99)}-{draw.randint(1000, 9999)}",
    }
    for kind, make in makers.items():
        hits = extra = 0
        for _ in range(200):
            planted = make()
            text = f"In 1999 the 120 members of the house gave {planted} to chapter 12, and 3.5 million left."
            found = [(item.kind, text[item.start : item.end]) for item in find_pii(text)]
            hits += (kind, planted) in found
            extra += len([one for one in found if one[1] != planted])
        assert hits >= 190, kind
        assert extra == 0, kind


def test_masking_counts_and_leaves_the_rest() -> None:
    document = Document(
        "a",
        (Segment("Mail a@b.com or c@d.org."), Segment(image=b"i", caption="by x@y.net"), Segment("Plain.")),
        "s",
        "MIT",
    )
    assert PiiStep().build()(document) == Document(
        "a",
        (Segment("Mail [EMAIL] or [EMAIL]."), Segment(image=b"i", caption="by [EMAIL]"), Segment("Plain.")),
        "s",
        "MIT",
        labels={"pii": "email:3"},
    )
    only_phones = PiiStep(mask=("phone",)).build()
    assert only_phones(document) is document


@given(st.text(alphabet="0123456789 .-+()@:abcZX/\n", max_size=80))
def test_what_is_found_lies_in_the_text_and_does_not_overlap(text: str) -> None:
    found = find_pii(text)
    assert all(item.kind in KINDS and 0 <= item.start < item.end <= len(text) for item in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    masked = PiiStep().build()(Document("a", (Segment(text),), "s", "MIT"))
    assert isinstance(masked, Document)


def test_hostile_text_takes_no_time_that_grows_with_its_square() -> None:
    for text in (
        "@" * 5_000,
        "a." * 5_000 + "@",
        "1 " * 5_000,
        "1.1." * 3_000,
        "AA11 " * 2_000,
        ":" * 9_000,
        "key=" * 3_000,
        "eyJ-" * 100_000,
    ):
        find_pii(text)


def test_check_digits() -> None:
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert is_card("6011 0009 9013 9424")
    assert not is_card("0000 0000 0000 0000")
    assert is_iban("NO93 8601 1117 947")
    assert not is_phone("1234567", "", "")
