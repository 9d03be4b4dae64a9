"""Images on their way in: a decode guard, and the cut into tiles that the vision tower reads.

Tiling follows the Idefics3 image processor of transformers (its PIL form), so that a model trained here
sees the same pixels when it is served elsewhere.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from foretell.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 40_000_000  # more is taken for a decompression bomb
MAX_ASPECT = 200  # a side ratio past this leaves nothing to see after resizing
MAX_SIDE = 4096  # of a resized image; the processor's own limit
MAX_SCANS = 32  # of a progressive JPEG: each costs a pass over all pixels, however few bytes it takes
MAX_PROFILES = 8  # of a PNG, which may have one: each inflates to a megabyte
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Tiling:
    """How images are cut.

    tile: side of a tile, in pixels. patch: side of a patch. shuffle: pixel-shuffle factor, so a tile becomes
    (tile / patch / shuffle)² tokens. grid: at most grid × grid tiles an image; 1 means the global view alone.
    """

    tile: int = 64
    patch: int = 8
    shuffle: int = 2
    grid: int = 1

    def __post_init__(self) -> None:
        # The processor rounds sides up to even numbers, so an odd tile could need more than grid × grid.
        if self.tile % 2 or self.grid * self.tile > MAX_SIDE:
            raise ValueError(
                f"tile {self.tile} with grid {self.grid}: allowed are even tiles with tile × grid at most {MAX_SIDE}"
            )

    @property
    def tokens_per_tile(self) -> int:
        return (self.tile // self.patch // self.shuffle) ** 2


@dataclass(frozen=True)
class Tiles:
    """pixels: (rows * columns + 1, S, S, 3) uint8 RGB, row by row, the global view last. rows and columns are
    0 when the image was not split."""

    pixels: npt.NDArray[np.uint8]
    rows: int
    columns: int


class _Patience(BytesIO):
    """A file that is read only so often: millions of empty segments would keep a decoder busy for minutes."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = 1000 + len(data) // 512

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many segments")
        return super().read(size)


def open_image(data: bytes) -> Image:
    """Read the header of an untrusted image, and no pixel of it.

    Raises ImageError for what is not PNG, JPEG, WebP or GIF, is a decompression bomb (more than `MAX_PIXELS` pixels by
    its header, or parts repeated beyond use), or has one side more than `MAX_ASPECT` times the other.
    """
    from PIL import Image, UnidentifiedImageError

    repeated, most = (b"iCCP", MAX_PROFILES) if data.startswith(b"\x89PNG") else (b"\xff\xda", MAX_SCANS)
    try:
        if data.startswith((b"\x89PNG", b"\xff\xd8")) and data.count(repeated) > most:
            raise ValueError("too many segments")
        image = Image.open(_Patience(data), formats=FORMATS)
    except Exception as error:  # decoders of hostile bytes raise nearly anything
        why = "of no such kind" if isinstance(error, UnidentifiedImageError) else error
        raise ImageError(
            f"{len(data)} bytes are not an image that can be read ({why}). Use a PNG, JPEG, WebP or GIF file."
        ) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The image is {width} × {height} pixels; at most {MAX_PIXELS:,} pixels are read, since more can be a "
            "decompression bomb. Make it smaller."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageError(
            f"The image is {width} × {height} pixels; one side may be at most {MAX_ASPECT} times the other, since "
            "nothing of a thinner strip is left after resizing. Crop it."
        )
    return image


def decode_image(data: bytes) -> Image:
    """Decode untrusted PNG, JPEG, WebP or GIF bytes to RGB: upright, on white, the first frame.

    Raises ImageError as `open_image` does, and for what is truncated or damaged.
    """
    image = open_image(data)
    try:
        image.load()
        return _to_rgb(_upright(image))
    except Exception as error:
        raise ImageError(
            f"The {image.format} image is damaged ({error}). Copy it again from where it came, or remove it."
        ) from error


def _upright(image: Image) -> Image:
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    orientation = 1
    with suppress(Exception):  # damaged EXIF data leaves the picture usable
        orientation = image.getexif().get(ORIENTATION, 1)
    return image.transpose(turns[orientation]) if orientation in turns else image


def _to_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def tile_image(data: bytes, tiling: Tiling, detail: str = "auto") -> Tiles:
    """Decode, resize and cut an image; detail 'low' gives the global view alone.

    Equals Idefics3ImageProcessorPil with size {"longest_edge": grid * tile} and max_image_size
    {"longest_edge": tile} before rescaling; 'low' and grid 1 have "longest_edge": tile and no splitting.
    Raises ImageError as `decode_image` does.
    """
    from PIL.Image import Resampling

    image = decode_image(data)
    side = tiling.tile
    rows, columns = grid_of(*image.size, tiling, detail)
    image = image.resize(_fit(*image.size, tiling.grid * side if rows else side), Resampling.LANCZOS)
    if not rows:
        return Tiles(np.array(image.resize((side, side), Resampling.LANCZOS))[None], 0, 0)
    image = image.resize((columns * side, rows * side), Resampling.LANCZOS)
    cut = np.asarray(image).reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    view = np.asarray(image.resize((side, side), Resampling.LANCZOS))
    return Tiles(np.concatenate([cut, view[None]]), rows, columns)


def grid_of(width: int, height: int, tiling: Tiling, detail: str = "auto") -> tuple[int, int]:
    """Rows and columns of the tiles that an image is cut into, beside its global view; (0, 0) where it is not split."""
    if tiling.grid == 1 or detail == "low":
        return 0, 0
    width, height = _whole_tiles(*_fit(width, height, tiling.grid * tiling.tile), tiling.tile)
    return height // tiling.tile, width // tiling.tile


def _fit(width: int, height: int, longest: int) -> tuple[int, int]:
    """Size with the longest side given and the other rounded as the processor does."""
    aspect = width / height
    if width >= height:
        other = int(longest / aspect)
        return longest, max(other + other % 2, 1)
    other = int(longest * aspect)
    return max(other + other % 2, 1), longest


def _whole_tiles(width: int, height: int, side: int) -> tuple[int, int]:
    """Size rounded up to whole tiles, as the processor does."""
    aspect = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        return width, math.ceil(int(width / aspect) / side) * side
    height = math.ceil(height / side) * side
    return math.ceil(int(height * aspect) / side) * side, height
