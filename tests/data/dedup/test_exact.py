"""Exact duplicates: what is the same, which copy stays, and that nothing depends on who works when."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from dedupkit import document, removed, run, words
from foretell.data.curate.passes import Pass
from foretell.data.curate.steps import Removed
from foretell.data.dedup.exact import ExactPass, document_digest
from foretell.data.document import Document, Segment
from foretell.errors import DataError


def test_first_source_keeps_its_copy_and_the_removal_names_it(tmp_path: Path) -> None:
    shards = [
        [
            document("a", "one  text\n", source="books", locator="books.jsonl:1"),
            document("b", "another", source="books"),
        ],
        [document("c", "one text", source="web", locator="web.jsonl:7"), document("d", "a third", source="web")],
    ]
    out = run(ExactPass(), shards, tmp_path)
    assert out[0] == shards[0] and out[1][1] == shards[1][1]
    assert out[1][0] == Removed("c", "dedup.exact", "the same as books/a (books.jsonl:1)", "web.jsonl:7")


def test_keep_order_overrides_that_of_the_shards(tmp_path: Path) -> None:
    shards = [[document("a", "text", source="web")], [document("b", "text", source="curated")]]
    assert removed(run(ExactPass(keep=("curated",)), shards, tmp_path)) == {"a": "the same as curated/b"}


def test_what_is_the_same() -> None:
    def same(a: Document, b: Document) -> bool:
        return document_digest(a) == document_digest(b)

    assert same(document("a", "é x\ty"), document("b", "e\u0301 x", "y"))
    assert not same(document("a", "a+b"), document("b", "a-b"))
    assert not same(document("a", "Text"), document("b", "text"))
    assert not same(document("a", "text", b"1"), document("b", "text", b"2"))
    assert not same(document("a", "text", b"1"), document("b", b"1", "text"))
    asked = Document("a", (Segment("x", role="user"), Segment("y", role="assistant")), "s", "CC0-1.0")
    turned = replace(asked, segments=(Segment("x", role="assistant"), Segment("y", role="user")))
    assert not same(asked, turned)


def test_same_result_whatever_the_order_of_work_and_the_size_of_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    texts = [" ".join(words(rng, 20)) for _ in range(150)]
    shards = [[document(f"{s}.{i}", rng.choice(texts)) for i in range(60)] for s in range(5)]
    plain = run(ExactPass(), shards, tmp_path / "a")
    seen: dict[str, str] = {}
    for d in (d for shard in shards for d in shard):
        seen.setdefault(d.segments[0].text or "", d.id)
    kept = {each.id for shard in plain for each in shard if isinstance(each, Document)}
    assert kept == set(seen.values())
    monkeypatch.setattr("foretell.data.dedup.records.BUDGET", 500)
    assert run(ExactPass(), shards, tmp_path / "b", backwards=True) == plain


def test_a_changed_shard_is_refused(tmp_path: Path) -> None:
    made = ExactPass()
    run(made, [[document("a", "x")], [document("b", "x")]], tmp_path)
    with pytest.raises(DataError, match="the shard has changed"):
        list(made.apply(iter([document("c", "x")]), 1, tmp_path))


def test_a_shard_without_a_sketch_is_refused(tmp_path: Path) -> None:
    made = ExactPass()
    made.sketch(iter([document("a", "x")]), 0, tmp_path)
    with pytest.raises(DataError, match="Shard 1 of 2 was not sketched"):
        made.merge(2, tmp_path)


def test_a_cut_off_sketch_leaves_nothing_and_is_made_again(tmp_path: Path) -> None:
    def breaks() -> object:
        yield document("a", "x")
        raise KeyboardInterrupt

    made = ExactPass()
    assert isinstance(made, Pass)
    with pytest.raises(KeyboardInterrupt):
        made.sketch(breaks(), 0, tmp_path)  # type: ignore[arg-type]
    assert not (made.sketches(tmp_path) / "00000").exists()
    out = run(made, [[document("a", "x"), document("b", "x")]], tmp_path)
    assert removed(out) == {"b": "the same as web/a"}
