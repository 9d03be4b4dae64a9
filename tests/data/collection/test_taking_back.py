"""why, remove, view: what is told of a document, and that what is removed is gone from every file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from collectionkit import digests, picture, recipe, sentences, write_input
from PIL import Image

from foretell.data.collection.card import quoted
from foretell.data.collection.remove import remove
from foretell.data.collection.run import build, totals
from foretell.data.collection.selection import Selection
from foretell.data.collection.view import view
from foretell.data.collection.why import told, why
from foretell.data.document import SkipCount
from foretell.data.image_store import member_name
from foretell.data.parquet import read_documents
from foretell.errors import DataError, RunError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("taking")
    folder = write_input(base / "in")
    with (folder / "a.jsonl").open("a") as stream:
        stream.write('{"id": "mail", "text": "' + sentences(900) + ' Write to jane.doe@example.org."}\n')
    build(recipe(folder), base / "out", workers=1)
    return base


@pytest.fixture
def out(built: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(built / "out", tmp_path / "out"))


def test_why_tells_where_a_document_came_from_and_what_was_done(built: Path) -> None:
    (story,) = why(built / "out", "mail")
    lines = dict(told(story, recipe(built / "in")))
    assert "a.jsonl@" in lines["came from"]
    assert lines["unicode"] == "passed"
    assert lines["pii"].startswith("changed")
    assert lines["kept"].endswith(".parquet")
    (broken,) = (s for s in why(built / "out", "https://a.example.org/page/1") if s.row.kept)
    assert broken.row.id == "t1"
    with pytest.raises(DataError, match="The name is empty"):
        why(built / "out", "")
    with pytest.raises(DataError, match="knows no document"):
        why(built / "out", "nothing")
    with pytest.raises(DataError, match="Did you mean 'mail'"):
        why(built / "out", "/some/where/mail")
    with pytest.raises(
        DataError, match=r"'part0.parquet' is a file of 4 records, of which 4 .*such as 'part0.parquet:0'"
    ):
        why(built / "out", "part0.parquet")
    with pytest.raises(RunError, match="no collection"):
        why(built, "mail")


@pytest.mark.parametrize("text", ["", "[]", '{"finished": true}'])
def test_a_file_that_no_build_wrote_is_no_collection(built: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "collection.json").write_text(text)
    for look in (lambda: why(tmp_path, "mail"), lambda: view(tmp_path), lambda: totals(tmp_path)):
        with pytest.raises(RunError, match="holds no collection that can be read"):
            look()
    with pytest.raises(RunError, match="holds no collection that can be read"):
        build(recipe(built / "in"), tmp_path, workers=1)


def test_why_tells_of_each_step_once_and_of_what_it_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG no image")
    for packing, (name, side) in enumerate((("a", 64), ("b", 64), ("tiny", 8))):
        image = Image.radial_gradient("L").resize((side, side))
        image.save(tmp_path / "in" / f"{name}.png", compress_level=packing)
        text = f"{sentences(packing)}\n\n![]({name}.png) ![](bad.png) ![](tiny.png)"
        (tmp_path / "in" / f"{name}.md").write_text(text)
    (tmp_path / "in" / "tiny.md").unlink()
    steps = [{"step": "language"}, {"step": "images"}]
    made = recipe(
        tmp_path, sources=[{"kind": "folder", "path": str(tmp_path / "in")}], steps=steps, passes=[{"kind": "images"}]
    )
    build(made, tmp_path / "out", workers=1)
    for name, same in (("a.md", None), ("b.md", "changed")):
        (story,) = why(tmp_path / "out", name)
        lines = told(story, made)
        names = [step for step, _ in lines]
        assert len(names) == len(set(names))
        found = dict(lines)
        assert found["read"].endswith("and 2 images; 1 more could not be read")
        assert found["language"] == "passed (language und → en)"
        assert "images.removed small:1" in found["images"]
        assert found.get("same_images", "none").split(",")[0] == (same or "none")
    assert "Images that could not be read: 2" in (tmp_path / "out" / "card.md").read_text()


def test_a_kept_document_stands_in_the_row_that_why_names(built: Path) -> None:
    for name in ("t0", "t11", "p1-3", "mail"):
        (story,) = why(built / "out", name)
        ids = pq.read_table(built / "out" / "data" / f"{story.shard:05d}.parquet")["id"].to_pylist()
        assert ids[story.row.row or 0] == name


def test_what_is_removed_is_gone_from_every_file(out: Path) -> None:
    before = digests(out)
    done = remove(out, ["MIT", "p0-0"])
    assert done["documents"] == 5
    assert done["images"] == 1  # the one that p0-0 alone shows
    found = totals(out)
    assert found["removed"]["removed.license"] == 4
    assert found["removed"]["removed.id"] == 1
    assert found["documents_in"] == found["documents_kept"] + sum(found["removed"].values())
    for file in out.rglob("*"):
        if file.is_file() and file.suffix in (".parquet", ".json", ".md", ".html", ".tar"):
            data = file.read_bytes()
            assert sentences(0).encode()[:200] not in data, file
            assert member_name(picture(0)).encode() not in data, file
    changed = {name for name, digest in digests(out).items() if before.get(name) != digest}
    touched = {name.split("/")[1][:5] for name in changed if name.startswith("data/")}
    assert len(touched) < len(list((out / "data").glob("*.parquet")))
    assert all(name.split("/")[1][:5] in touched for name in changed if name.startswith("ledger/"))
    (story,) = why(out, "p0-0")
    assert story.row.reason == "removed.id"
    with pytest.raises(DataError, match="No document"):
        remove(out, ["GPL-3.0"])


def test_an_image_that_another_document_shows_stays(out: Path) -> None:
    shown = member_name(picture(200))
    remove(out, ["p0-1"])
    skipped = SkipCount()
    documents = [d for f in sorted((out / "data").glob("*.parquet")) for d in read_documents(f, skipped=skipped)]
    assert not skipped.counts
    assert sum(s.image is not None and member_name(s.image) == shown for d in documents for s in d.segments) == 3
    remove(out, ["p0-3", "p1-1", "p1-3"])
    assert not any(shown.encode() in tar.read_bytes() for tar in (out / "images").glob("*.tar"))


def test_a_removal_that_was_cut_off_goes_on(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foretell.data.collection import remove as module

    straight = Path(shutil.copytree(out, tmp_path / "straight"))
    remove(straight, ["CC-BY-4.0"])
    settle = module._settle

    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_settle", cut)
    with pytest.raises(KeyboardInterrupt):
        remove(out, ["CC-BY-4.0"])
    monkeypatch.setattr(module, "_settle", settle)
    remove(out, ["CC-BY-4.0"])
    assert digests(out) == digests(straight)


def test_the_page_escapes_what_documents_say(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"id": "<script>", "text": "<img src=x onerror=alert(1)> ' + sentences(1) + '"}\n')
    source = {"kind": "jsonl", "name": "x", "path": str(folder / "a.jsonl")}
    build(recipe(folder, sources=[source]), tmp_path / "out", workers=1)
    text = view(tmp_path / "out").read_text() + (tmp_path / "out" / "card.html").read_text()
    assert "<img src=x" not in text
    assert "<script" not in text
    assert "&lt;img src=x" in text
    assert "<del>" in view(built / "out", step="pii").read_text()
    for wrong in ({"source": "nope"}, {"step": "nope"}):
        with pytest.raises(RunError, match=r"has no (source|step) 'nope'; its"):
            view(built / "out", **wrong)  # type: ignore[arg-type]


def test_words_of_a_selection() -> None:
    url = "https://www.example.org/a/b?c=1"
    for word in (url, "https://www.example.org/a", "https://www.example.org/", "www.example.org", "example.org"):
        assert Selection.of([word]).names("id", "MIT", url) == ("url", word)
    for word in ("https://www.example.org/a/", "MIT-0", "ample.org", "org", ""):
        assert (Selection.of([word]).names("id", "MIT", url) is None) == (word != "https://www.example.org/a/")
    assert Selection.of(["MIT"]).names("id", "MIT", "") == ("license", "MIT")


def test_a_card_names_what_was_harmful_and_does_not_quote_it() -> None:
    example = {"step": "sexual", "before": "what was found", "document": "a", "source": "s", "detail": "0.97"}
    assert quoted(example) == ""
    assert quoted({**example, "step": "near"}) == "what was found"
    assert quoted({**example, "step": "licence", "before": "by ann@uni.edu"}) == "by [EMAIL]"
