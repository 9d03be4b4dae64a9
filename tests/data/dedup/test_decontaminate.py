"""Decontamination: items of every form are found by either rule, and then `foretell contamination` finds none."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pytest

from dedupkit import document, removed, run, words
from foretell.data.curate.steps import Removed
from foretell.data.dedup.benchmarks import read_items
from foretell.data.dedup.decontaminate import DecontaminatePass
from foretell.data.document import Document, Segment
from foretell.errors import DataError
from foretell.measure.overlap import CorpusFile, Index, build, check, normalize


@pytest.fixture
def items(tmp_path: Path) -> dict[str, str]:
    """Forty questions in a file of a registry, by id."""
    rng = random.Random(0)
    asked = [" ".join(words(rng, 10 + i)) + "?" for i in range(40)]
    registry = tmp_path / "registry"
    (registry / "evals").mkdir(parents=True)
    (registry / "data" / "quiz").mkdir(parents=True)
    rows = [
        {
            "input": [{"role": "system", "content": "Answer with one word."}, {"role": "user", "content": q}],
            "ideal": "x",
        }
        for q in asked
    ]
    (registry / "data" / "quiz" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {f"registry/quiz/dev.jsonl:{i}": text for i, text in enumerate(asked, 1)}


def made(tmp_path: Path, **settings: object) -> DecontaminatePass:
    return DecontaminatePass(benchmarks=(str(tmp_path / "registry"),), **settings)  # type: ignore[arg-type]


def test_each_leak_is_found_and_names_its_item(tmp_path: Path, items: dict[str, str]) -> None:
    rng = random.Random(1)
    clean = [document(f"c{i}", " ".join(words(rng, 300))) for i in range(20)]
    leaked = [
        document(
            id, " ".join(words(rng, 50)), f"{' '.join(words(rng, 50))} «{text.replace(' ', ',  ')}»", locator="f:1"
        )
        for id, text in items.items()
    ]
    found = run(made(tmp_path), [clean, leaked], tmp_path)
    assert found[0] == clean
    for each in found[1]:
        assert isinstance(each, Removed) and each.reason == "decontaminate.leak" and each.locator == "f:1"
        assert f" in a row of {each.id}: '" in each.detail


def test_the_edges_of_both_rules(tmp_path: Path, items: dict[str, str]) -> None:
    asked = items["registry/quiz/dev.jsonl:40"].rstrip("?").split()
    letters = "".join(asked)
    shards = [
        [
            document("13 words", " ".join(["before", *asked[20:33], "after"])),
            document("12 words", " ".join(["before", *asked[20:32], "after"])),
            document("50 letters", f"before{letters[40:90]}AFTER"),
            document("49 letters", f"BEFORE{letters[40:89]}AFTER"),
        ]
    ]
    both = set(removed(run(made(tmp_path), shards, tmp_path)))
    assert both == {"13 words", "12 words", "50 letters"}  # twelve words have more than fifty letters
    by_words = set(removed(run(made(tmp_path, words=20), shards, tmp_path)))
    assert by_words == {"13 words", "12 words", "50 letters"}
    assert not removed(run(made(tmp_path), [[document("a", "BEFORE", letters[40:89], "AFTER")]], tmp_path / "b"))


def test_short_items_are_looked_for_as_a_whole_where_asked(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "q.jsonl").write_text('{"question": "Who was the first keeper of the light?"}\n')
    shards = [
        [document("a", "Tell me: who was the first keeper of the light"), document("b", "first keeper of the light")]
    ]
    assert not removed(run(made(tmp_path), shards, tmp_path))
    assert not removed(run(made(tmp_path, shortest=24), shards, tmp_path))  # case is kept
    assert set(removed(run(made(tmp_path, shortest=24, ignore_case=True), shards, tmp_path))) == {"a"}


@pytest.mark.parametrize("action", ["remove", "cut"])
def test_afterwards_the_reports_own_procedure_finds_nothing(tmp_path: Path, items: dict[str, str], action: str) -> None:
    rng = random.Random(2)
    shard = []
    for number, text in enumerate(items.values()):
        start = rng.randrange(len(text) // 2)
        part = text[start : start + rng.randrange(30, len(text))]
        shard.append(document(f"d{number}", " ".join(words(rng, 400)) + " " + part + " " + " ".join(words(rng, 400))))
    out = run(made(tmp_path, action=action, words=0), [shard], tmp_path)
    left = [each for each in out[0] if isinstance(each, Document)]
    texts = [(i, ["\n".join(s.text or "" for s in each.segments)]) for i, each in enumerate(left)]
    if action == "cut":
        assert len(left) == len(shard)
        cut = [each for each in left if "decontaminate" in each.labels]
        assert len(cut) > 20 and all(len(each.segments[0].text or "") > 3000 for each in cut)
    (tmp_path / "rows").write_text("")
    build([CorpusFile("left", tmp_path / "rows", lambda: iter(texts))], tmp_path / "index")
    index = Index(tmp_path / "index")
    long = {id: text for id, text in items.items() if len(normalize(text)) >= 50}
    for seed in range(5):
        assert not any(flag.contaminated for flag in check(index, long, count=10, seed=seed))


def test_a_conversation_goes_as_a_whole_and_a_small_rest_too(tmp_path: Path, items: dict[str, str]) -> None:
    asked = items["registry/quiz/dev.jsonl:30"]
    rest = " ".join(words(random.Random(3), 500))
    chat = Document("chat", (Segment(rest, role="user"), Segment(asked, role="assistant")), "web", "CC0-1.0")
    shards = [[chat, document("small", asked + " and that was it"), document("long", f"{rest}\n{asked}\n{rest}")]]
    out = run(made(tmp_path, action="cut"), shards, tmp_path)
    assert set(removed(out)) == {"chat", "small"}
    (long,) = (each for each in out[0] if isinstance(each, Document))
    assert asked not in (long.segments[0].text or "")
    assert long.labels["decontaminate"].endswith("characters cut, as in registry/quiz/dev.jsonl:30")


def test_other_benchmarks_are_indexed_anew(tmp_path: Path, items: dict[str, str]) -> None:
    text = " ".join(words(random.Random(4), 30))
    shards = [[document("a", text)]]
    assert not removed(run(made(tmp_path), shards, tmp_path))
    (tmp_path / "registry" / "data" / "new.jsonl").write_text(json.dumps({"question": text}))
    assert removed(run(made(tmp_path), shards, tmp_path))


def test_benchmarks_that_change_before_all_shards_were_held_against_them_are_told(
    tmp_path: Path, items: dict[str, str]
) -> None:
    made(tmp_path).merge(1, tmp_path)
    with (tmp_path / "registry" / "data" / "quiz" / "dev.jsonl").open("a") as stream:
        stream.write("\n")
    with pytest.raises(DataError, match="have changed since"):
        list(made(tmp_path).apply(iter([]), 0, tmp_path))


def test_items_of_every_form(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "one"}\n\n{"problem": "two"}\n')
    (tmp_path / "b.json").write_text('{"examples": [{"input": "three", "target": "t"}]}')
    (tmp_path / "c.csv").write_text("What is four?,a,b,c,d,A\n")
    (tmp_path / "d.csv").write_text('Type,Question,Best Answer\nx,"five, or 5?",a\n')
    (tmp_path / "e.tsv").write_text("six?\t6\n")
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(b'{"ctx": "seven", "endings": ["a", "b"]}\n'))
    (tmp_path / "g.jsonl").write_text('{"instruction": "eight", "input": "nine", "output": "x"}\n')
    (tmp_path / "h.jsonl").write_text('{"turns": ["ten", "eleven"]}\n{"prompts": [{"question": "twelve"}]}\n')
    (tmp_path / "README.txt").write_text("not an item")
    told = [item.text for item in read_items([str(tmp_path)])]
    assert told == [
        "one", "two", "three", "What is four?", "five, or 5?", "six?", "seven", "eight\nnine", "ten\neleven", "twelve",
    ]  # fmt: skip
    with_options = [item.text for item in read_items([str(tmp_path / "c.csv")], "options")]
    assert with_options == ["What is four?\na\nb\nc\nd"]


def test_a_folder_without_items_and_a_damaged_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no benchmark"):
        list(read_items([str(tmp_path)]))
    (tmp_path / "a.jsonl").write_text('{"question": "one"}\n{"question": ')
    with pytest.raises(DataError, match=r"a\.jsonl cannot be read as a benchmark"):
        list(read_items([str(tmp_path)]))
