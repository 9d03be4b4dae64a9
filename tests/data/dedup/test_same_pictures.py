"""Image duplicates: changes that the eye does not see, pictures that only look alike at a glance, and what goes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dedupkit import document, run
from foretell.data.curate.steps import Removed
from foretell.data.dedup.pictures import ImagesPass, perceptual_hash
from foretell.data.document import Document, Segment


def picture(seed: int, side: int = 160) -> Image.Image:
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, w = rng.integers(0, side - 20, 3)
        draw.ellipse((int(x), int(y), int(x + w // 3 + 5), int(y + w // 3 + 5)), fill=tuple(rng.integers(0, 255, 3)))
    return image


def coded(image: Image.Image, form: str = "PNG", **settings: int) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **settings)
    return out.getvalue()


def test_recoded_and_resized_pictures_go_and_others_stay(tmp_path: Path) -> None:
    pictures = [picture(seed) for seed in range(40)]
    shards = [[document(f"a{i}", "text", coded(p), "more") for i, p in enumerate(pictures)]]
    shards += [[document(f"b{i}", "other", coded(p, "JPEG", quality=60), "rest") for i, p in enumerate(pictures[:20])]]
    shards[1] += [document(f"c{i}", coded(p.resize((90, 90))), "caption") for i, p in enumerate(pictures[20:30])]
    shards[1] += [document(f"d{i}", "new", coded(picture(100 + i)), "rest") for i in range(20)]
    out = run(ImagesPass(), shards, tmp_path)
    assert out[0] == shards[0] and out[1][30:] == shards[1][30:]
    changed = [each for each in out[1][:20] if isinstance(each, Document)]
    assert [len(each.segments) for each in changed] == [2] * 20
    assert changed[3].labels["dedup.images"] == "1 of 1 images like those of web/a3"
    assert all(isinstance(each, Removed) for each in out[1][20:30])
    assert run(ImagesPass(), shards, tmp_path / "again", backwards=True) == out


def test_a_caption_stays_where_the_picture_was(tmp_path: Path) -> None:
    image = coded(picture(1))
    told = (Segment("before"), Segment(image=image, caption="Figure 1"), Segment("after"))
    shards = [[document("a", "x", image, "y"), Document("b", told, "web", "CC0-1.0")]]
    (_, changed) = run(ImagesPass(drop="all"), shards, tmp_path)[0]
    assert isinstance(changed, Document) and [s.text for s in changed.segments] == ["before", "Figure 1", "after"]


def test_a_figure_stays_in_each_language_and_a_logo_does_not(tmp_path: Path) -> None:
    def page(id: str, *segments: Segment) -> Document:
        return Document(id, (Segment("before"), *segments, Segment("after")), "web", "CC0-1.0")

    figure, again, logo = coded(picture(1)), coded(picture(1), "JPEG"), coded(picture(2))
    head = Segment(image=logo, alt="Logo of the Press")
    shard = [
        page("en", head, Segment(image=figure, alt="A cell and its parts")),
        page("es", head, Segment(image=again, alt="Una célula y sus partes")),
        page(
            "pl", Segment(image=logo, alt=" logo of the  press"), Segment(image=figure, caption="Komórka i jej części")
        ),
        page("bare", Segment(image=figure, alt="image_12.png")),
    ]

    def left(**settings: str) -> list[int]:
        out = run(ImagesPass(**settings), [shard], tmp_path / "".join(settings.values()))[0]
        return [sum(s.image is not None for s in each.segments) for each in out if isinstance(each, Document)]

    assert left() == [2, 1, 1, 0]
    assert left(drop="all") == [2, 0, 0, 0]


def test_blank_and_damaged_pictures_are_near_to_nothing(tmp_path: Path) -> None:
    white = coded(Image.new("RGB", (50, 50), "white"))
    assert perceptual_hash(white) is None and perceptual_hash(b"no image") is None
    shards = [[document("a", "x", white, b"damaged", "y"), document("b", "x", white, b"damaged", "y")]]
    assert run(ImagesPass(), shards, tmp_path) == shards
