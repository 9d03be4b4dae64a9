"""Near duplicates: the S-curve, exact Jaccard similarities, datatrove's own result, and the choice of what stays."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from dedupkit import document, removed, run, words
from foretell.data.dedup.base import read_removals
from foretell.data.dedup.choose import EDGE, Status, direct
from foretell.data.dedup.minhash import MinHash, likeness, sketch_bytes
from foretell.data.dedup.near import NearPass
from foretell.data.dedup.records import make
from foretell.data.dedup.words import document_grams, grams
from foretell.data.document import Document


def edited(rng: random.Random, told: Sequence[str], share: float) -> list[str]:
    return [rng.choice("qxyz") + word if rng.random() < share else word for word in told]


def jaccard(a: str, b: str, size: int = 5) -> float:
    one, two = set(document_grams([a], size).tolist()), set(document_grams([b], size).tolist())
    return len(one & two) / len(one | two)


def corpus(seed: int, count: int = 120) -> list[list[Document]]:
    """Three shards; every text of the first stands in the others, edited more and more."""
    rng = random.Random(seed)
    texts = [words(rng, rng.randrange(60, 300)) for _ in range(count)]
    shards = [[document(f"{0}.{i}", " ".join(t)) for i, t in enumerate(texts)]]
    for shard in (1, 2):
        changed = [edited(rng, t, 0.3 * i / count) for i, t in enumerate(texts)]
        shards.append([document(f"{shard}.{i}", " ".join(t)) for i, t in enumerate(changed)])
    return shards


@pytest.mark.parametrize("shared", [0.3, 0.5, 0.63, 0.8])
def test_bands_meet_as_often_as_the_curve_says_and_likeness_is_unbiased(shared: float) -> None:
    made, trials = MinHash(bands=16, rows=4), 400
    rng = np.random.default_rng(1)
    met, told = 0, []
    for _ in range(trials):
        union = rng.integers(0, 1 << 63, 600, np.uint64)
        both = int(600 * shared)
        half = (600 - both) // 2
        a, b = union[: both + half], np.concatenate((union[:both], union[both + half :]))
        two = np.stack([made.signature(a), made.signature(b)])
        keys = made.band_keys(two)
        met += bool((keys[0] == keys[1]).any())
        told.append(float(likeness(*np.split(sketch_bytes(two), 2))[0]))
    chance = made.chance(both / 600)
    assert abs(met / trials - chance) < 4 * (chance * (1 - chance) / trials) ** 0.5 + 0.01
    assert abs(np.mean(told) - both / 600) < 0.015
    assert np.std(told) < 1.25 * (shared * (1 - shared) / made.hashes) ** 0.5


def test_removals_are_near_to_what_they_name_and_none_is_missed(tmp_path: Path) -> None:
    shards = corpus(2)
    texts = {d.id: d.segments[0].text or "" for shard in shards for d in shard}
    out = run(NearPass(), shards, tmp_path)
    found = removed(out)
    for id, detail in found.items():
        told, named = float(detail.split()[0]), detail.split("web/")[1]
        assert named not in found  # what is named stays
        true = jaccard(texts[id], texts[named])
        assert true > 0.5 - 0.16 and abs(true - told) < 0.16  # about four standard errors of 128 hashes
    for i in range(120):
        for shard in (1, 2):
            if jaccard(texts[f"{shard}.{i}"], texts[f"0.{i}"]) > 0.66:
                assert f"{shard}.{i}" in found
            if jaccard(texts[f"{shard}.{i}"], texts[f"0.{i}"]) < 0.34:
                assert f"{shard}.{i}" not in found or f"web/0.{i}" not in found[f"{shard}.{i}"]


def test_same_result_whatever_the_order_of_work_and_the_size_of_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = corpus(3, 60)
    for chains in (False, True):
        plain = run(NearPass(chains=chains), shards, tmp_path / f"a{chains}")
        with monkeypatch.context() as patch:
            patch.setattr("foretell.data.dedup.records.BUDGET", 9000)
            patch.setattr("foretell.data.dedup.near._PAIRS", 500)
            assert run(NearPass(chains=chains), shards, tmp_path / f"b{chains}", backwards=True) == plain


def test_a_chain_keeps_its_first_or_whatever_is_near_to_none_that_stays(tmp_path: Path) -> None:
    rng = random.Random(4)
    told = words(rng, 400)
    chain = [document(str(i), " ".join(told[30 * i : 30 * i + 200])) for i in range(6)]  # 0.73 from one to the next
    linked = removed(run(NearPass(bands=128, rows=2, chains=True, similarity=0.63), [chain], tmp_path))
    assert set(linked) == {"1", "2", "3", "4", "5"} and set(linked.values()) == {"linked to web/0"}
    directly = removed(run(NearPass(bands=128, rows=2, similarity=0.63), [chain], tmp_path))
    assert set(directly) == {"1", "3", "5"}
    assert [detail.split()[-1] for detail in directly.values()] == ["web/0", "web/2", "web/4"]


def test_a_chain_of_any_length_is_gone_through_once(tmp_path: Path) -> None:
    """Pages numbered one after the other; once, each link took a look at all pairs."""
    count = 200_000
    (tmp_path / "00000").mkdir()
    np.zeros(count + 1, np.uint64).tofile(tmp_path / "00000" / "names.idx")
    pairs = make(EDGE, key=np.arange(1, count, dtype=np.uint64), low=np.arange(count - 1, dtype=np.uint64), like=0.9)
    pairs.tofile(tmp_path / "edges-000.run")
    with Status(tmp_path / "status.bin", tmp_path, 1) as status:
        direct([tmp_path / "edges-000.run"], status, tmp_path)
    assert read_removals(tmp_path, 0)["key"].tolist() == list(range(1, count, 2))


def test_short_empty_and_spaceless_texts(tmp_path: Path) -> None:
    han = "机器学习是人工智能的一个分支它让计算机从数据中学习规律并据此作出预测"
    shards = [[document("e", ""), document("f", "…"), document("a", "Two words"), document("h", han)]]
    shards += [[document("g", "!"), document("b", "two WORDS."), document("i", han + "。的")]]
    assert set(removed(run(NearPass(), shards, tmp_path))) == {"b", "i"}


def test_grams_of_a_long_text_do_not_depend_on_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(words(random.Random(5), 3000))
    whole = document_grams([text], 5)
    monkeypatch.setattr("foretell.data.dedup.words._BLOCK", 1000)
    assert np.array_equal(document_grams([text], 5), whole)
    assert len(set(whole.tolist())) == len({tuple(text.split()[i : i + 5]) for i in range(len(text.split()) - 4)})


def clusters_of_datatrove(
    shards: Sequence[Sequence[Document]], made: MinHash | None, folder: Path
) -> set[frozenset[str]]:
    """The clusters that datatrove's blocks find: on our signatures, or (None) on its own with 14 bands of 8."""
    blocks = pytest.importorskip("datatrove.pipeline.dedup.minhash")
    hashing = pytest.importorskip("datatrove.utils.hashing")
    data = pytest.importorskip("datatrove.data")

    class Whitespace:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

    blocks.load_word_tokenizer = lambda language: Whitespace()  # its own needs spaCy
    config = blocks.MinhashConfig(
        hash_config=hashing.HashConfig(precision=64, hash_fc="sha1"), num_buckets=made.bands if made else 14,
        hashes_per_bucket=made.rows if made else 8,
    )  # fmt: skip
    for rank, shard in enumerate(shards):
        signature = blocks.MinhashDedupSignature(str(folder / "sig"), config)
        if made is not None:
            signature.get_shingles = lambda text: document_grams([text], made.words)
            signature.get_signature = lambda g: made.signature(g).reshape(made.bands, made.rows).astype("u8").tolist()
        told: Iterator[object] = (data.Document(text=d.segments[0].text or "", id=d.id) for d in shard)
        list(signature.run(told, rank, len(shards)) or ())
    for bucket in range(config.num_buckets):
        blocks.MinhashDedupBuckets(str(folder / "sig"), str(folder / "dups"), config=config).run(
            None, bucket, config.num_buckets
        )
    blocks.MinhashDedupCluster(str(folder / "dups"), str(folder / "out"), config, save_cluster_id=True).run()
    found: dict[int, set[str]] = {}
    for rank, shard in enumerate(shards):
        path = folder / "out" / f"{rank:06d}.clusters"
        for row, cluster in struct.iter_unpack("<2I", path.read_bytes() if path.exists() else b""):
            found.setdefault(cluster, set()).add(shard[row].id)
    return {frozenset(ids) for ids in found.values()}


def our_clusters(shards: Sequence[Sequence[Document]], made: NearPass, scratch: Path) -> set[frozenset[str]]:
    found: dict[str, set[str]] = {}
    for id, detail in removed(run(made, shards, scratch)).items():
        kept = detail.split("web/")[1]
        found.setdefault(kept, {kept}).add(id)
    return {frozenset(ids) for ids in found.values()}


@pytest.mark.parametrize("made", [MinHash(bands=14, rows=8), MinHash(bands=32, rows=4)])
def test_datatrove_finds_the_same_clusters_in_our_signatures(tmp_path: Path, made: MinHash) -> None:
    shards = corpus(6, 80)
    ours = our_clusters(shards, NearPass(**vars(made), similarity=0, chains=True), tmp_path / "ours")
    assert ours == clusters_of_datatrove(shards, made, tmp_path / "theirs")
    assert len(ours) > 10


def test_datatrove_with_hashes_of_its_own_agrees_away_from_the_threshold(tmp_path: Path) -> None:
    rng = random.Random(7)
    texts = [words(rng, 150) for _ in range(60)]
    near = [[*t[:40], "changed", *t[41:]] for t in texts[:30]]  # 0.94 of the 5-grams
    shards = [
        [document(f"0.{i}", " ".join(t)) for i, t in enumerate(texts)],
        [document(f"1.{i}", " ".join(t)) for i, t in enumerate(near)],
    ]
    made = NearPass(bands=14, rows=8, similarity=0, chains=True)
    expected = {frozenset((f"0.{i}", f"1.{i}")) for i in range(30)}
    assert our_clusters(shards, made, tmp_path / "ours") == expected
    assert clusters_of_datatrove(shards, None, tmp_path / "theirs") == expected


def test_grams_of_fewer_words_than_their_size() -> None:
    assert len(grams(document_grams(["a b c"], 1), 5)) == 1
    assert len(document_grams([], 5)) == 0
