"""Images on their way in: a decode guard, and the cut into tiles that the vision tower reads.

Tiling follows the Idefics3 image processor of transformers (its PIL form), so that a model trained here
sees the same pixels when it is served elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 40_000_000  # more is taken for a decompression bomb
MAX_ASPECT = 200  # a side ratio past this leaves nothing to see after resizing


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


def decode_image(data: bytes) -> Image:
    """Decode untrusted bytes to RGB.

    Raises ImageError for what is not an image, is truncated, or is a decompression bomb.
    """
    raise NotImplementedError


def tile_image(data: bytes, tiling: Tiling, detail: str = "auto") -> Tiles:
    """Decode, resize and cut an image; detail 'low' gives the global view alone.

    Raises ImageError as `decode_image` does.
    """
    raise NotImplementedError
