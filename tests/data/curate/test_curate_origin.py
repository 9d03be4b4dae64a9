"""Licences as SPDX expressions, dates by day, and owners' wishes as RFC 9309 has them."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from pydantic import ValidationError

from foretell.data.curate.origin import CutoffStep, LicenceStep, OptOutStep
from foretell.data.curate.robots import Robots
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.errors import DataError


def document(license: str = "MIT", date: str | None = None, **labels: str) -> Document:
    return Document(
        "a", (Segment("text"),), "s", license, date=date, labels={k.replace("_", "-"): v for k, v in labels.items()}
    )


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("MIT", True),
        ("mit", True),
        ("CC-BY-4.0", True),
        ("CC-BY-NC-4.0", False),
        ("CC-BY-ND-4.0", False),
        ("CC-BY-SA-3.0", True),
        ("GPL-3.0-only", False),
        ("GPL-2.0-only OR MIT", True),
        ("GPL-2.0-only AND MIT", False),
        ("(GPL-2.0-only OR MIT) AND Apache-2.0", True),
        ("GPL-2.0-only OR MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("unknown", False),
        ("", False),
        ("(MIT", False),
        ("MIT Apache-2.0", False),
        ("OR", False),
    ],
)
def test_licences(expression: str, kept: bool) -> None:
    assert isinstance(LicenceStep().build()(document(expression)), Document) == kept


def test_a_removed_licence_is_told() -> None:
    assert LicenceStep().build()(document("GPL-3.0-only")) == Removed("a", "licence.not_allowed", "GPL-3.0-only")
    assert LicenceStep().build()(document("unknown")) == Removed("a", "licence.unknown", "unknown")
    assert isinstance(LicenceStep(allow=("unknown",)).build()(document("unknown")), Document)


@pytest.mark.parametrize(
    ("date", "kept"),
    [
        ("2021-09-30", True),
        ("2021-10-01", False),
        ("2021-09", True),
        ("2021", False),
        ("2020", True),
        ("1851-10-18T10:00Z", True),
    ],
)
def test_cutoff(date: str, kept: bool) -> None:
    assert isinstance(CutoffStep(last="2021-09-30").build()(document(date=date)), Document) == kept


def test_documents_without_a_date() -> None:
    assert isinstance(CutoffStep(last="2021").build()(document()), Document)
    assert CutoffStep(last="2021", missing="remove").build()(document()) == Removed("a", "cutoff.no_date")
    with pytest.raises(ValidationError, match="is no date"):
        CutoffStep(last="September")


# The example of RFC 9309, 5.1, and its rules of the longest match (2.2.2) and of special characters (2.2.3).
RFC = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""


@pytest.mark.parametrize(
    ("agent", "path", "allowed"),
    [
        ("FooBot", "/example/page.html", True),
        ("foobot", "/example/page2.html", False),
        ("bazbot", "/example/page.html", False),
        ("barbot", "/example/other.html", True),
        ("quxbot", "/example/page.html", True),
        ("other", "/example/page.html", False),
        ("other", "/a.gif", False),
        ("other", "/a.gif?x", True),
        ("other", "/publications/x", True),
    ],
)
def test_robots(agent: str, path: str, allowed: bool) -> None:
    assert Robots.parse(RFC).allows(agent, path) == allowed


def test_the_longest_rule_counts_and_allow_wins_a_tie() -> None:
    rules = Robots.parse("user-agent: a\nallow: /p\ndisallow: /\ndisallow: /p/q\nallow: /p/q\n")
    assert rules.allows("a", "/p/q")
    assert not rules.allows("a", "/x")
    assert Robots.parse("nonsense\n<html>").allows("a", "/")


def test_opt_out_by_robots_hosts_and_headers(tmp_path: Path) -> None:
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "no.example.txt").write_text("User-agent: GPTBot\nDisallow: /\n")
    (tmp_path / "robots" / "art.example.ai.txt").write_text("User-Agent: *\nDisallow: *.png\n")
    (tmp_path / "hosts").write_text("# asked by mail\nprivate.example\n")
    step = OptOutStep(robots=tmp_path / "robots", hosts=tmp_path / "hosts").build()
    step = pickle.loads(pickle.dumps(step))
    assert step(document(url="https://no.example/a")) == Removed("a", "opt_out.robots", "GPTBot https://no.example/a")
    assert isinstance(step(document(url="https://art.example/b.html")), Document)
    assert isinstance(step(document(url="https://art.example/b.png")), Removed)
    assert step(document(url="http://www.private.example/")) == Removed("a", "opt_out.host", "www.private.example")
    assert isinstance(step(document(url="http://notprivate.example/")), Document)
    assert step(document(tdm_reservation="1")) == Removed("a", "opt_out.tdm_reservation")
    assert step(document(x_robots_tag="noindex, NoAI")) == Removed("a", "opt_out.x_robots_tag", "noindex, NoAI")
    for harmless in (
        document(),
        document(url="http://[bad"),
        document(tdm_reservation="0"),
        document(x_robots_tag="none"),
    ):
        assert step(harmless) is harmless


def test_missing_lists_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of robots"):
        OptOutStep(robots=tmp_path / "none").build()
    with pytest.raises(DataError, match="list of hosts"):
        OptOutStep(hosts=tmp_path / "none").build()
