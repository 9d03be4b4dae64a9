"""A pass that is killed at any point goes on to the result of one that was not."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from dedupkit import document, run, words
from foretell.data.collection.parts import default_passes
from foretell.data.curate.passes import Pass
from foretell.data.dedup import base
from foretell.data.dedup.exact import ExactPass
from foretell.data.dedup.near import NearPass
from foretell.data.dedup.substrings import SubstringsPass
from foretell.data.document import Document

PASSES = [ExactPass(), NearPass(), SubstringsPass()]


def corpus() -> list[list[Document]]:
    rng = random.Random(0)
    stock = [words(rng, 80) for _ in range(8)]
    texts = [" ".join(rng.choice(stock) + rng.choice(stock) + words(rng, 20)) for _ in range(20)]
    return [[document(f"{s}.{i}", rng.choice(texts)) for i in range(15)] for s in range(3)]


def killed(work: Callable[[], object]) -> None:
    """Run in a process of its own, which must end by SIGKILL."""
    if not (child := os.fork()):
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def cut_off(documents: Sequence[Document], after: int) -> Iterator[Document]:
    yield from documents[:after]
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("made", PASSES, ids=lambda made: made.name)
def test_killed_while_it_sketches_and_while_it_merges(
    tmp_path: Path, made: Pass, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = corpus()
    whole = run(made, shards, tmp_path / "whole")
    scratch = tmp_path / "killed"
    made.sketch(iter(shards[0]), 0, scratch)
    killed(lambda: made.sketch(cut_off(shards[1], 9), 1, scratch))
    for shard in (1, 2):
        made.sketch(iter(shards[shard]), shard, scratch)

    def merge() -> None:
        # The last thing before the folder is renamed.
        monkeypatch.setattr("foretell.files.os.fsync", lambda handle: os.kill(os.getpid(), signal.SIGKILL))
        made.merge(3, scratch)

    killed(merge)
    assert run(made, shards, scratch) == whole


def test_no_default_pass_needs_torch_and_all_are_picklable() -> None:
    import pickle

    for section in default_passes():
        made = section.build()
        assert pickle.loads(pickle.dumps(made)) == made and isinstance(made, base.Base)
