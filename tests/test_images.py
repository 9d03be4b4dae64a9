"""The decode guard against hostile bytes; tiling against the transformers image processor, bit for bit."""

from __future__ import annotations

import contextlib
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from foretell.errors import ImageError
from foretell.images import ORIENTATION, Tiling, decode_image, tile_image


def encode(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def reference(image: Image.Image, longest: int, tile: int, split: bool) -> tuple[np.ndarray, int, int]:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    processor = Idefics3ImageProcessorPil(
        size={"longest_edge": longest},
        max_image_size={"longest_edge": tile},
        do_image_splitting=split,
        do_rescale=False,
        do_normalize=False,
        do_pad=False,
        return_row_col_info=True,
    )
    found = processor(image)
    return np.asarray(found["pixel_values"][0]).transpose(0, 2, 3, 1), found["rows"][0][0], found["cols"][0][0]


@given(
    st.integers(1, 400), st.integers(1, 400), st.sampled_from([(64, 1), (64, 2), (64, 4), (32, 3), (48, 5), (96, 2)])
)
@example(1, 1, (64, 4))
@example(1, 200, (64, 4))
@example(200, 1, (64, 2))
@example(129, 128, (64, 2))
@example(300, 299, (64, 3))
@example(65, 257, (64, 4))
@settings(max_examples=50)
def test_tiles_equal_the_transformers_processor(width: int, height: int, shape: tuple[int, int]) -> None:
    tile, grid = shape
    if max(width, height) > 200 * min(width, height):
        return
    image = noise(width, height)
    data = encode(image)
    for detail, longest, split in (
        ("auto", grid * tile, grid > 1),
        ("high", grid * tile, grid > 1),
        ("low", tile, False),
    ):
        tiles = tile_image(data, Tiling(tile, 8, 2, grid), detail)
        pixels, rows, columns = reference(image, longest, tile, split)
        assert (tiles.rows, tiles.columns) == (rows, columns)
        assert tiles.pixels.dtype == np.uint8
        assert np.array_equal(tiles.pixels, pixels)
        assert rows <= grid and columns <= grid


def test_one_tile_is_what_the_processor_gives_with_splitting_on_too() -> None:
    image = noise(90, 50)
    pixels, rows, columns = reference(image, 64, 64, split=True)
    assert (rows, columns) == (0, 0)
    assert np.array_equal(tile_image(encode(image), Tiling()).pixels, pixels)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_bytes_decide_the_format_and_every_one_decodes(form: str) -> None:
    image = decode_image(encode(noise(20, 10), form))
    assert image.mode == "RGB" and image.size == (20, 10)


@pytest.mark.parametrize("form", ["BMP", "TIFF", "ICO", "PPM"])
def test_other_formats_are_refused(form: str) -> None:
    with pytest.raises(ImageError, match="PNG, JPEG, WebP or GIF"):
        decode_image(encode(noise(16, 16), form))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP", b"GIF89a", b"<svg/>"]
)
def test_what_is_not_an_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError):
        decode_image(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_truncated_images_are_refused(form: str, kept: float) -> None:
    data = encode(noise(100, 80), form)
    with pytest.raises(ImageError):
        decode_image(data[: int(len(data) * kept)])


@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]), st.lists(st.tuples(st.integers(0), st.integers(0, 255))))
@settings(max_examples=200)
def test_damaged_bytes_give_an_image_or_an_image_error(form: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(encode(noise(24, 24), form))
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(ImageError):
        assert decode_image(bytes(data)).mode == "RGB"


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [7_000, 12_000, 60_000])
def test_decompression_bombs_are_refused_by_their_header(side: int) -> None:
    with pytest.raises(ImageError):
        decode_image(png_header(side, side))


def segments(kind: str) -> bytes:
    """Files of many parts that cost a decoder far more than they take bytes."""
    whole = png_header(4, 4)
    if kind == "scans":
        jpeg = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
        return jpeg[:-2] + jpeg[jpeg.rindex(b"\xff\xda") : -2] * 100 + jpeg[-2:]
    return {
        "chunks before the pixels": whole[:33] + chunk(b"abCd", b"") * 2000 + whole[33:],
        "chunks after the pixels": whole[:-12] + chunk(b"abCd", b"") * 2000 + whole[-12:],
        "empty pixels": whole[:33] + chunk(b"IDAT", b"") * 2000 + whole[33:],
        "profiles": whole[:33] + chunk(b"iCCP", b"a\0\0" + zlib.compress(b"a" * 1_000_000)) * 20 + whole[33:],
        "markers": b"\xff\xd8" + b"\xff\xe1\x00\x0aExif\0\0aa" * 2000,
        "fill": b"\xff\xd8" + b"\xff" * 20_000,
        "comments": b"GIF89a\4\0\4\0\0\0\0\x21\xfe" + b"\x01a" * 10_000 + b"\0",
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "scans",
        "chunks before the pixels",
        "chunks after the pixels",
        "empty pixels",
        "profiles",
        "markers",
        "fill",
        "comments",
    ],
)
def test_images_of_endless_parts_are_refused(kind: str) -> None:
    with pytest.raises(ImageError, match="too many segments"):
        decode_image(segments(kind))


def test_a_large_image_in_many_small_parts_is_read() -> None:
    rows = b"".join(b"\0" + noise(500, 1, seed).tobytes() for seed in range(500))
    pixels = zlib.compress(rows)
    parts = b"".join(chunk(b"IDAT", pixels[i : i + 2048]) for i in range(0, len(pixels), 2048))
    assert decode_image(png_header(500, 500)[:33] + parts + chunk(b"IEND", b"")).size == (500, 500)


def test_a_long_strip_is_refused_and_the_rule_stated() -> None:
    with pytest.raises(ImageError, match=r"20000 × 10 pixels; one side may be at most 200 times the other"):
        decode_image(encode(Image.new("RGB", (20_000, 10))))


def test_a_single_pixel_is_read() -> None:
    tiles = tile_image(encode(Image.new("RGB", (1, 1), (9, 8, 7))), Tiling(grid=2))
    assert set(map(tuple, tiles.pixels.reshape(-1, 3))) == {(9, 8, 7)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(noise(7, 5), exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(data)))
    assert np.array_equal(np.asarray(decode_image(data)), np.asarray(expected))


def test_transparency_is_put_on_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    for image in (clear, clear.convert("LA"), clear.quantize()):
        assert np.all(np.asarray(decode_image(encode(image))) == 255)
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert np.asarray(decode_image(encode(half)))[0, 0].tolist() == [255, 127, 127]


def test_palette_grey_sixteen_bit_and_cmyk_become_rgb() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    deep = np.asarray(decode_image(encode(Image.fromarray(ramp))))
    assert np.array_equal(deep[..., 0], ramp >> 8)
    for mode in ("1", "L", "P"):
        image = noise(8, 8).convert(mode)
        assert np.array_equal(np.asarray(decode_image(encode(image))), np.asarray(image.convert("RGB")))
    assert decode_image(encode(noise(8, 8).convert("CMYK"), "JPEG")).mode == "RGB"


def test_an_odd_tile_is_refused() -> None:
    with pytest.raises(ValueError, match="even tiles"):
        Tiling(63, 7, 3, 1)
