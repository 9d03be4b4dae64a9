"""The experiment that grows a model: what is held out stays out, lessons say what is true, results count every task."""

from __future__ import annotations

import random
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from foretell.images import decode_image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from grown_vlm import result
from grown_vlm_asked import questions, told_gains
from grown_vlm_data import ASK, BLANK, BOOKS, NEAR, Figure, divide, figures, lessons, look, vary


def picture(seed: int) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (8, 9), np.uint8)
    buffer = BytesIO()
    Image.fromarray(small).resize((90, 80), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def made(seed: int, module: str = "m", subject: str = "physics") -> Figure:
    return Figure(
        f"{module}#{seed}", module, subject, "graph", "A caption of it.", "A graph of it is shown.", picture(seed)
    )


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    def row(source: str, id: str, alt: str, caption: str) -> dict[str, object]:
        image = {"bytes": picture(len(id)), "width": 90, "height": 80, "alt": alt, "caption": caption}
        return {"id": id, "source": source, "texts": ["words", None], "images": [None, image]}

    english = [
        row(
            next(iter(BOOKS)),
            "a",
            "The graph  shows a photo of a car.",
            "Figure 1.2. A car on a road. (credit: someone)",
        ),
        row("another/book", "bb", "A photograph of a dog.", "Figure 3"),
    ]
    spanish = [row("openstax/osbooks-fisica", "ccc", "Una fotografía de un tren.", "Figura 1. Un tren que sale.")]
    for name, rows in (("textbooks-en", english), ("textbooks-es", spanish)):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{name}.parquet")
    return tmp_path


def test_figures_are_read_for_what_they_say(corpus: Path) -> None:
    car, train = figures(corpus)  # the other book is asked nothing
    assert car.truths == {
        "description": "The graph shows a photo of a car.",
        "caption": "A car on a road.",
        "subject": "physics",
        "kind": "graph",  # the first that is named
    }
    assert train.truths == {"kind": "photograph"}


def test_no_module_and_no_likeness_is_in_both() -> None:
    many = [made(seed, f"m{seed // 3}") for seed in range(120)]
    _, held, _ = divide(many)
    twin = Figure("copy#0", _module_in_training(), "physics", "graph", "c", "d", held[0].image)
    train, held, near = divide([*many, twin])
    assert {f.module for f in train}.isdisjoint(f.module for f in held)
    assert near >= 1 and twin not in train
    assert all((look(a.image) ^ look(b.image)).bit_count() > NEAR for a in train for b in held)
    assert 0.08 < len(held) / 120 < 0.35


def _module_in_training() -> str:
    return next(m for i in range(99) if divide([made(0, m := f"copy{i}")])[0])


def test_a_crop_still_looks_alike_and_is_small() -> None:
    cropped = vary(picture(3), random.Random(0))
    assert decode_image(cropped).size == (128, 128)
    assert (look(cropped) ^ look(picture(3))).bit_count() < 20


def test_lessons_hold_each_truth_once_a_pass_and_some_without_a_picture() -> None:
    figures_ = [made(seed) for seed in range(40)]
    talks = list(lessons(figures_, passes=2, world=0))
    assert len(talks) == 2 * 4 * 40
    asked = [talk.messages[0].text for talk in talks]
    assert {asked.count(question) for question in ASK.values()} == {80}
    grey = sum(len(set(decode_image(talk.images[0].data).getdata())) == 1 for talk in talks)
    assert abs(grey / len(talks) - BLANK) < 0.06
    assert all(talk.messages[1].text for talk in talks)


def test_every_task_is_told_and_those_above_blind_counted() -> None:
    rows = [
        {"task": "figures.caption", "group": str(i), "tokens": 3, "seen": 3 + i % 2, "blind": 4.0, "shuffled": 4.0}
        for i in range(10)
    ]
    matched = [{"figure": str(i), "group": str(i), "right": 1.0} for i in range(30)]
    texts = told_gains(rows, matched)
    task = {
        "task": "scenes.color",
        "questions": 9,
        "above_blind": 0.1,
        "above_blind_low": -0.1,
        "above_blind_high": 0.3,
    }
    found = result({"texts": texts, "tasks": [task]}, 31.0)
    assert found["above_blind"]["value"] == 2 and found["minutes"]["value"] == 31
    assert found["figures_caption"]["value"] == 0.5 and found["figures_caption"]["spread"][0] > 0
    assert found["figures_matching"]["value"] == 0.5 and found["scenes_color"]["spread"] == [-0.1, 0.3]


def test_questions_are_those_with_a_truth() -> None:
    items = questions([made(0), Figure("x", "y", "", "", "", "", picture(1))])
    assert [(item.task, item.answer) for item in items] == [("figures.subject", "physics"), ("figures.kind", "graph")]
