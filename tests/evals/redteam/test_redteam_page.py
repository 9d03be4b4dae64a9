"""The pages of a red team hold what was said, and none of it as markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

from foretell.evals.redteam.journal import Note, Record, Try
from foretell.evals.redteam.page import write_pages

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)><a href='javascript:alert(3)'>x</a>"
PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


class Parsed(HTMLParser):
    """All elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def hostile_record() -> Record:
    head = {
        "model": HOSTILE, "judge": HOSTILE, "created": "2026-01-01", "areas": {f"a/../{HOSTILE}": HOSTILE},
        "families": {"direct": {"title": "Plain", "source": HOSTILE}, "odd": {"title": HOSTILE, "source": "s"}},
    }  # fmt: skip
    area = f"a/../{HOSTILE}"
    seed = {"text": HOSTILE, "group": "g", "refusal": None, "labels": {}}
    picture = [{"type": "image_url", "image_url": {"url": PNG}}, {"type": "text", "text": HOSTILE}]
    outside = [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]
    said = [
        {"role": HOSTILE, "content": HOSTILE},
        {"role": "user", "content": picture},
        {"role": "u", "content": outside},
    ]
    tries = (
        Try("survey/0", "survey", area, ("odd",), (HOSTILE,), seed, said, HOSTILE, "complied"),
        Try("survey/1", "survey", area, ("direct",), ("plain",), seed, said, "\x00\ud800", None, HOSTILE),
        Try("test/a/0/0", "test", area, ("direct",), ("plain",), seed, said, "", "refused"),
        Try("test/a/1/0", "test", area, ("odd",), (HOSTILE,), seed, said, HOSTILE, "complied"),
    )
    note = Note("note/1", HOSTILE, HOSTILE, area, HOSTILE, "high", HOSTILE, True, said, HOSTILE)
    return Record(Path("journal.jsonl"), head, tries, (note,))


def test_hostile_transcripts_are_inert(tmp_path: Path) -> None:
    write_pages(hostile_record(), tmp_path / "page")
    pages = list((tmp_path / "page").iterdir())
    assert len(pages) == 3
    for path in pages:
        text = path.read_text(encoding="utf-8")
        page = Parsed(text)
        assert "script" not in page.tags
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert all((v or "").startswith("data:image/png") for n, v in page.attributes if n == "src")
        links = [value or "" for name, value in page.attributes if name == "href"]
        assert all(re.fullmatch(r"(cell-[0-9a-f]{16}|index)\.html|#[\w%-]*", link) for link in links)
        assert "default-src 'none'" in text
        assert "alert(1)" in text  # shown as it was said


def test_a_cell_of_the_matrix_leads_to_its_transcripts(tmp_path: Path) -> None:
    index = write_pages(hostile_record(), tmp_path / "page").read_text(encoding="utf-8")
    for name in set(re.findall(r"cell-[0-9a-f]{16}\.html", index)):
        assert (tmp_path / "page" / name).is_file()
    assert "100" in index
    assert "no outcome" in index


def test_pages_are_written_anew(tmp_path: Path) -> None:
    write_pages(hostile_record(), tmp_path / "page")
    (tmp_path / "page" / "cell-old.html").touch()
    write_pages(hostile_record(), tmp_path / "page")
    assert not (tmp_path / "page" / "cell-old.html").exists()
