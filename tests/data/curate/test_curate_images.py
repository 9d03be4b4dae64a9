"""Images that cannot be used go with a count, and the text around them stays."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from foretell.data.curate.images import ImageStep, alt_quality
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """Smooth, so that scaling does not change what it shows."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    stream = BytesIO()
    image.save(stream, form)
    return stream.getvalue()


GOOD = encoded(picture())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD, ""),
        (b"no image", "damaged"),
        (GOOD[: len(GOOD) // 2], "damaged"),
        (encoded(picture(8, 8)), "small"),
        (encoded(picture(400, 20)), "thin"),
        (encoded(Image.new("RGB", (64, 64), "white")), "blank"),
    ],
)
def test_faults(data: bytes, why: str) -> None:
    assert ImageStep().fault(Segment(image=data)) == why


def test_the_document_without_its_bad_images() -> None:
    document = Document("a", (Segment("x"), Segment(image=b"bad"), Segment("y"), Segment(image=GOOD)), "s", "MIT")
    assert ImageStep().build()(document) == Document(
        "a", (Segment("x"), Segment("y"), Segment(image=GOOD)), "s", "MIT", labels={"images.removed": "damaged:1"}
    )
    bad = Document("a", (Segment("x"), Segment(image=b"bad")), "s", "MIT")
    assert isinstance(ImageStep().build()(bad), Document)
    assert ImageStep(require=True).build()(bad) == Removed("a", "images.none_left", "damaged:1")
    assert ImageStep().build()(Document("a", (Segment(image=b"bad"),), "s", "MIT")) == Removed(
        "a", "images.none_left", "damaged:1"
    )
    text = Document("a", (Segment("x"),), "s", "MIT")
    assert ImageStep(require=True).build()(text) is text


def test_alt_text_that_says_nothing_is_emptied_and_words_can_be_asked_for() -> None:
    document = Document(
        "a", (Segment(image=GOOD, alt="IMG_2041.jpg"), Segment(image=GOOD, alt="Two dogs play")), "s", "MIT"
    )
    found = ImageStep().build()(document)
    assert isinstance(found, Document)
    assert [segment.alt for segment in found.segments] == [None, "Two dogs play"]
    strict = ImageStep(min_alt_words=3).build()(document)
    assert isinstance(strict, Document)
    assert [segment.alt for segment in strict.segments] == ["Two dogs play"]


@pytest.mark.parametrize(
    "alt", ["", " ", "image", "Image 3", "logo", "photo.png", "IMG_2041", "https://a.b/c", "figura 2", "..."]
)
def test_alt_text_worth_nothing(alt: str) -> None:
    assert alt_quality(alt) == 0


def test_alt_text_worth_something() -> None:
    assert 0 < alt_quality("A dog") < alt_quality("A brown dog runs over the wet sand") == 1.0 - 1 / 8 + 0
