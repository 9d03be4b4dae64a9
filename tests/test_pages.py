"""The page kit: nothing becomes markup, nothing is loaded, numbers and colours can be read."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import sys
from html.parser import HTMLParser
from importlib import resources
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretell import pages
from foretell.pages import Bar, Interval, Row, Series
from foretell.pages.axes import bounds, log_ticks, power_text, spread, ticks

VOID = {"meta", "img", "br", "hr", "col", "wbr"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><svg onload=alert(1)>",
    "&lt;b&gt;&amp;",
    "]]><![CDATA[<b>",
    "\x00\x1b[31m\ud800",
]


class Balanced(HTMLParser):
    """Collects tags and text; fails on a tag that is not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check_page(html: str) -> Balanced:
    """A page is balanced, has unique ids, and neither loads nor runs anything."""
    found = Balanced(html)
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in found.tags:
        assert tag not in {
            "script",
            "link",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
            "audio",
            "video",
            "foreignobject",
        }
        for name, value in attrs.items():
            assert not name.startswith("on") and name not in {"style", "srcset", "action", "xlink:href", "background"}
            if name == "src":
                assert (value or "").startswith("data:image/")
            if name == "href":
                assert re.match(r"#|https?://|mailto:", value or "")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    return found


@settings(max_examples=30)
@given(st.one_of(st.sampled_from(HOSTILE), st.text()))
def test_text_stays_text(text: str) -> None:
    html = pages.page(
        text,
        [
            pages.section(text, text, pages.table([text], [[text]], caption=text), pages.code(text), note=text),
            pages.section("chart", pages.line_chart([Series(text, [1, 2], [3, 4])], title=text, x_label=text)),
            pages.section("rows", pages.interval_chart([Row(text, [Interval(0.5, 0.4, 0.6)])], [text], title=text)),
            pages.section("bars", pages.bar_chart([Bar(text, 1, text)], title=text), pages.image(text, text)),
        ],
        kicker=text,
        lead=text,
        head=[pages.cards([(text, text, text)]), pages.definitions([(text, text)]), pages.details(text, text)],
        footer=text,
    )
    found = check_page(html)
    html.encode("utf-8")
    assert not {tag for tag, _ in found.tags} & {"b", "img"}


def test_escape_keeps_markup_and_only_markup() -> None:
    bold = pages.el("b", "<")
    assert bold == "<b>&lt;</b>"
    assert pages.escape(bold) == bold
    assert pages.escape(bold + "<i>") == "&lt;b&gt;&amp;lt;&lt;/b&gt;&lt;i&gt;"
    assert pages.escape(f"{bold}") == "&lt;b&gt;&amp;lt;&lt;/b&gt;"


@pytest.mark.parametrize(
    ("tag", "attributes"),
    [
        ("a", {"href": "javascript:alert(1)"}),
        ("a", {"href": " javascript:alert(1)"}),
        ("a", {"href": "data:text/html,x"}),
        ("a", {"href": "//evil.example/x"}),
        ("img", {"src": "https://evil.example/x.png"}),
        ("img", {"src": "data:image/svg+xml;base64,PHN2Zz4="}),
        ("img", {"onerror": "alert(1)"}),
        ("p", {"style": "background:url(x)"}),
        ("p><b", {}),
        ("p", {"x y": "1"}),
    ],
)
def test_elements_refuse_what_could_run_or_load(tag: str, attributes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"not allowed|not a link|embedded picture|not an element"):
        pages.el(tag, **attributes)


def test_policy_holds_the_hash_of_the_stylesheet() -> None:
    html = pages.page("t", [])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy
    body = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert body
    digest = base64.b64encode(hashlib.sha256(body[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy[1] and "script" not in policy[1]
    assert "default-src 'none'" in policy[1]


def test_images_are_enlarged_by_whole_factors_or_replaced_by_a_sentence() -> None:
    def png(width: int, height: int) -> str:
        header = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR"
        return (
            "data:image/png;base64,"
            + base64.b64encode(
                header + width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
            ).decode()
        )

    assert 'width="192" height="192" class="pixels"' in pages.image(png(64, 64), "a")
    assert 'width="180" height="90" class="pixels"' in pages.image(png(60, 30), "a")
    assert 'width="192" height="96">' in pages.image(png(384, 192), "a")
    assert "left out" in pages.image(png(63, 63).rstrip("=") + "A" * 90_000, "a")
    for bad in ("https://evil.example/x.png", "data:text/html;base64,AAAA", 'data:image/png;base64,AA" onload="x'):
        assert "<img" not in pages.image(bad, "a")
    assert "no image" in pages.image(None, "a")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (pages.number(1234567), "1,234,567"),
        (pages.number(0.01234), "0.0123"),
        (pages.number(-2.5), "−2.50"),
        (pages.number(1.23e-9), "1.23e−09"),
        (pages.number(1234.5), "1,234"),
        (pages.number(None), "–"),
        (pages.number(math.nan), "not finite"),
        (pages.compact(1_625_952), "1.63\u202fM"),
        (pages.compact(2_002_944), "2.00\u202fM"),
        (pages.compact(2_000_000), "2\u202fM"),
        (pages.compact(1.93e13), "19.3\u202fT"),
        (pages.compact(999_999), "1.00\u202fM"),
        (pages.compact(12), "12"),
        (pages.percent(0.1234), "12.3\u202f%"),
        (pages.duration(5.25), "5.2 s"),
        (pages.duration(245), "4 min 05 s"),
        (pages.duration(12000), "3 h 20 min"),
        (pages.duration(200_000), "2 d 7 h"),
        (pages.size(3_400_000), "3.4 MB"),
    ],
)
def test_numbers_read_as_people_write_them(made: str, expected: str) -> None:
    assert made == expected


def test_table_sets_numbers_right() -> None:
    html = pages.table(["name", "count"], [["a", 1200], ["b", None]])
    assert '<th scope="col" class="num">count</th>' in html
    assert '<td class="num">1,200</td>' in html
    assert html.count("<td") == 4


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_ticks_are_round_and_inside(low: float, span: float, count: int) -> None:
    high = low + span
    if high - low < 1e-9 * max(abs(low), 1):
        return
    found = ticks(low, high, count)
    slack = 1e-6 * (high - low) + 1e-9 * abs(low)
    assert all(low - slack <= t <= high + slack for t in found)
    assert len(found) <= 2 * count + 1


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e9), st.integers(3, 8))
def test_log_ticks_are_inside(low: float, ratio: float, count: int) -> None:
    found = log_ticks(low, low * ratio, count)
    assert len(found) <= count
    assert all(low * 0.99 <= t <= low * ratio * 1.01 for t in found)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=9))
def test_labels_do_not_overlap_and_stay_in_order(wanted: list[float]) -> None:
    placed = spread(wanted, 15, 0, 200)
    ordered = sorted(placed)
    assert all(b - a >= 15 - 1e-6 for a, b in pairwise(ordered))
    assert max(placed) <= 200 + 1e-6
    by_wish = [p for _, p in sorted(zip(wanted, placed, strict=True), key=lambda pair: pair[0])]
    assert len(set(wanted)) < len(wanted) or by_wish == ordered


def test_bounds_never_collapse() -> None:
    for values, log in (([3.0], False), ([0.0], False), ([3.0, 3.0], True), ([1e-9, 5], True)):
        low, high = bounds(values, log, 0.0)
        assert low < high


def test_lines_run_through_the_points_and_show_their_values() -> None:
    chart = pages.line_chart(
        [Series("loss", [1, 10, 100], [8.0, 4.0, 2.0])],
        title="Loss",
        description="falls",
        x_log=True,
        y_log=True,
    )
    found = Balanced(chart)
    assert "loss 4.00" in found.text and "falls" in found.text
    drawn = re.search(r'<path d="M([^"Z]+)" class="line"/>', chart)
    assert drawn
    points = [tuple(map(float, p.split())) for p in drawn[1].split("L")]
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.2)
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.2)


@pytest.mark.parametrize("y", [[], [math.nan], [math.inf, -math.inf]])
def test_nothing_to_draw_is_said(y: list[float]) -> None:
    assert "nothing to draw" in pages.line_chart([Series("a", list(range(len(y))), y)], title="t")
    assert "nothing to draw" in pages.interval_chart([], [], title="t")
    assert "nothing to draw" in pages.bar_chart([], title="t")
    assert pages.sparkline(y, title="t") == ""


def test_a_long_label_of_a_bar_is_cut_and_told_whole() -> None:
    long, brief = "BSD-3-Clause AND 0BSD AND MIT AND BSL-1.0 AND ISC", "MIT"
    drawn = pages.bar_chart([Bar(long, 2, "2"), Bar(brief, 1, "1")], title="t")
    assert drawn.count(f"<title>{long}</title>") == drawn.count("…</text>") == 2  # wide and narrow
    assert f"<title>{brief}</title>" not in drawn and f">{brief}</text>" in drawn


def _channels(colour: str) -> list[float]:
    code = colour.lstrip("#")
    code = "".join(c * 2 for c in code) if len(code) == 3 else code
    values = [int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def _contrast(a: str, b: str) -> float:
    """WCAG 2.2 contrast ratio."""
    lights = sorted(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), _channels(x), strict=True)) for x in (a, b))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def test_colours_pass_contrast_in_light_dark_and_print() -> None:
    style = resources.files("foretell.pages").joinpath("style.css").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]
    assert len(schemes) == 3
    for scheme in schemes:
        for name in ("ink", "soft", "accent", "good", "bad", "c1", "c2", "c3", "c4", "c5", "c6"):
            assert _contrast(scheme[name], scheme["paper"]) >= 4.5, name
            assert _contrast(scheme[name], scheme["panel"]) >= 4.5, name


def test_kit_needs_no_heavy_import() -> None:
    import subprocess

    code = "import sys, foretell.pages; print([m for m in ('torch', 'numpy', 'matplotlib', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.0, "1"),
        (0.01, "0.01"),
        (250.0, "250"),
        (1e18, "10¹⁸"),
        (2.5e18, "2.5·10¹⁸"),
        (9.99e17, "10¹⁸"),
        (2.04e-4, "2·10⁻⁴"),
        (0.0, "0"),
        (-3.0, "−3"),
    ],
)
def test_powers_of_ten(value: float, shown: str) -> None:
    assert power_text(value) == shown


def test_bands_and_whiskers_lie_within_the_axes() -> None:
    """The bounds count for the range, and a point with a bound that cannot be drawn keeps its dot."""
    band = Series("fit", [1, 10, 100], [3, 2, 1], low=[2.5, 1.5, 0.2], high=[3.5, 2.5, 9.0])
    dots = Series("rungs", [1, 10], [3.1, 2.1], "dots", low=[3.0, math.nan], high=[3.2, 2.2])
    html = pages.line_chart([band, dots], title="t", x_log=True, x_format=power_text, keys_above=True)
    found = check_page(pages.page("p", [pages.section("s", html)]))
    shapes = [attrs for _, attrs in found.tags]
    assert sum(attrs.get("class") == "whisker" for attrs in shapes) == 2  # one, wide and narrow
    areas = [attrs["d"] or "" for attrs in shapes if attrs.get("class") == "band" and "d" in attrs]
    assert len(areas) == 2 and all(area.endswith("Z") and area.count("L") == 5 for area in areas)
    assert all(0 <= float(number) <= 720 for area in areas for number in re.findall(r"[\d.]+", area))
    assert ">8<" in html and "fit" in found.text and "rungs" in found.text
