"""Ids made unique and images given to a shard: against the plain way, over shards in parts."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from collectionkit import picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretell.data.collection import pictures
from foretell.data.collection.examples import Sampler, change, pieces
from foretell.data.collection.ids import UniqueIds
from foretell.data.collection.ledger import Row
from foretell.data.collection.tally import Tally
from foretell.data.collection.view import _change
from foretell.data.document import Document, Segment
from foretell.data.image_store import member_name

shards = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "a~2", "a~2~2", "b~1", "c~"]), max_size=6), min_size=1, max_size=4
)
anew = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(shards)
@anew
def test_ids_are_unique_in_the_order_of_the_shards(tmp_path: Path, found: list[list[str]]) -> None:
    step = UniqueIds()
    documents = [[Document(id, (Segment(id),), "s", "MIT") for id in shard] for shard in found]
    for number, shard in enumerate(documents):
        step.sketch(iter(shard), number, tmp_path)
    step.merge(len(found), tmp_path)
    seen: Counter[str] = Counter()
    names = set[str]()
    for number, shard in enumerate(documents):
        for before, after in zip(shard, step.apply(iter(shard), number, tmp_path), strict=True):
            assert isinstance(after, Document)
            seen[before.id] += 1
            count = seen[before.id]
            plain = count == 1 and before.id[-1] not in "12"
            assert after.id == (before.id if plain else f"{before.id}~{count}")
            names.add(after.id)
    assert len(names) == sum(map(len, found))


@given(st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=4))
@anew
def test_the_first_shard_with_an_image_keeps_it(tmp_path: Path, found: list[list[int]]) -> None:
    for number, shard in enumerate(found):
        documents = [Document(str(i), (Segment(image=picture(red)),), "s", "MIT") for i, red in enumerate(shard)]
        pictures.survey(iter(documents), number, tmp_path)
    pictures.decide(len(found), tmp_path)
    for number, shard in enumerate(found):
        owners = pictures.owners(number, tmp_path)
        for red in shard:
            first = next(n for n, other in enumerate(found) if red in other)
            assert owners[pictures.key(member_name(picture(red)))] == first


def test_a_step_and_a_pass_of_one_name_may_change_the_same_document() -> None:
    for most in (1, 3):
        sampler = Sampler(most)
        for turn in range(2):
            for i in range(6):
                sampler.offer("changed images", str(i), lambda turn=turn: {"turn": turn})  # type: ignore[misc]
        found = [(one["id"], one["turn"]) for one in sampler.taken()]
        assert found == [(found[0][0], 0), (found[0][0], 1), (found[-1][0], 0)][:most]


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 30))
def test_examples_of_parts_joined_are_those_of_the_whole(ids: list[int], cut: int) -> None:
    whole, parts = Sampler(3), [Sampler(3), Sampler(3)]
    for i, id in enumerate(dict.fromkeys(ids)):
        for sampler in (whole, parts[i >= cut]):
            sampler.offer("g", str(id), dict)
    joined = Sampler(3)
    for part in parts:
        joined.join(part.taken())
    assert joined.taken() == whole.taken()


rows = st.builds(
    Row,
    id=st.text(max_size=3),
    source=st.sampled_from("ab"),
    license=st.sampled_from(["MIT", ""]),
    language=st.sampled_from(["en", "de"]),
    date=st.sampled_from([None, "2020-01-02"]),
    chars_in=st.integers(0, 5000),
    chars_out=st.integers(0, 5000),
    reason=st.sampled_from(["", "", "x.y", "z"]),
)


@given(st.lists(rows, max_size=20), st.integers(0, 20))
def test_tallies_add_up_over_shards(found: list[Row], cut: int) -> None:
    whole, parts = Tally(), [Tally(), Tally()]
    for i, row in enumerate(found):
        whole.add(row, row.source)
        parts[i >= cut].add(row, row.source)
    assert whole.balanced
    joined = Tally()
    for part in parts:
        joined.join(part.plain())
    assert joined.plain() == whole.plain()
    assert sum(whole.lengths_in.values()) == len(found)
    assert sum(whole.lengths.values()) == whole.documents_kept


@given(st.text("ab \n.", max_size=40), st.text("ab \n.", max_size=40))
def test_pieces_put_together_are_both_texts(before: str, after: str) -> None:
    found = pieces(before, after)
    assert "".join(same + old for same, old, _ in found) == before
    assert "".join(same + new for same, _, new in found) == after


def test_where_an_excerpt_ends_is_shown_as_no_change() -> None:
    words = " ".join(f"w{i}" for i in range(400))
    before, after = (Document("x", (Segment(f"{who} {words}"),), "s", "MIT") for who in ("ada@example.org", "[EMAIL]"))
    shown = str(_change(change(before, after, "pii")))
    assert shown.count("<del>") == shown.count("<ins>") == 1
    assert "<del>ada@example.org</del>" in shown
    whole = str(_change({**change(before, after, "pii"), "before": "one", "after": "one two"}))
    assert "<ins> two</ins>" in whole
