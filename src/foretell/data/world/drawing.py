"""What drawn kinds share: text in the font that ships with Pillow, and arrows."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from PIL import ImageDraw, ImageFont

INK = (20, 20, 24)
Point = tuple[float, float]


@lru_cache(maxsize=64)
def font(size: int) -> Any:
    """Pillow's own font, `size` pixels high."""
    return ImageFont.load_default(size=size)


def text_size(text: str, size: int) -> tuple[float, float]:
    """Width and height of a line in pixels."""
    left, top, right, bottom = font(size).getbbox(text)
    return right - left, bottom - top


def centred(canvas: ImageDraw.ImageDraw, at: Point, text: str, size: int) -> None:
    """Write a line around a point."""
    canvas.text(at, text, font=font(size), fill=INK, anchor="mm")


def arrow(canvas: ImageDraw.ImageDraw, start: Point, end: Point, width: int) -> None:
    """A line with a head at its end."""
    (x, y), (to_x, to_y) = start, end
    turn, head = math.atan2(to_y - y, to_x - x), 2.2 * width + 4
    neck = (to_x - head * math.cos(turn), to_y - head * math.sin(turn))
    canvas.line([start, neck], fill=INK, width=width)
    across = (head * 0.55 * math.sin(turn), -head * 0.55 * math.cos(turn))
    canvas.polygon(
        [end, (neck[0] + across[0], neck[1] + across[1]), (neck[0] - across[0], neck[1] - across[1])], fill=INK
    )
