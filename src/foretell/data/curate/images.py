"""Images of documents: decode check, size and shape, the worth of their alt text, and a perceptual hash."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Literal

import numpy as np
from pydantic import Field

from foretell.data.curate.steps import Removed
from foretell.data.curate.texts import StepSection, labelled, removed
from foretell.data.document import Document, Segment
from foretell.errors import ImageError
from foretell.images import decode_image

_FILE = re.compile(r"\S+\.(?:jpe?g|png|gif|webp|svg|bmp|tiff?|avif)", re.IGNORECASE)
_EMPTY = re.compile(
    r"(?:(?:an? |the )?(?:image|img|photo|picture|pic|figure|fig|icon|logo|banner|thumbnail|screenshot|avatar|untitled"
    r"|alt|image of|placeholder|spacer|imagen|foto|figura|obraz|zdjęcie|rysunek|bild|abbildung)[\s._-]*\d*"
    r"|(?:img|dsc|dscn|screenshot|image|pict?)[\s._-]*[\d\s._-]+(?:at)?[\d\s._-]*)\W*",
    re.IGNORECASE,
)


class ImageStep(StepSection):
    """Images that cannot be used go, and the text around them stays.

    min_side, max_side: pixels, of the shorter and the longer side. max_aspect: of the longer side to the shorter.
    min_colours: different brightness values; fewer is a blank. min_alt_words: of alt text and caption together, without
    which an image goes; 0 keeps it. alt text that is a file name, or a word such as "image", is emptied. require: a
    document that had images, and of which none is left, goes. What was left out stands in the label `images.removed`,
    as `reason:count`.
    """

    step: Literal["images"] = "images"
    min_side: int = Field(16, gt=0)
    max_side: int = Field(20_000, gt=0)
    max_aspect: float = Field(10.0, ge=1)
    min_colours: int = Field(2, gt=0)
    min_alt_words: int = Field(0, ge=0)
    require: bool = False

    def __call__(self, document: Document) -> Document | Removed:
        if all(segment.image is None for segment in document.segments):
            return document
        kept, gone, changed = list[Segment](), Counter[str](), False
        for segment in document.segments:
            if segment.image is None:
                kept.append(segment)
                continue
            if segment.alt and not alt_quality(segment.alt):
                segment, changed = replace(segment, alt=None), True
            why = self.fault(segment)
            if why:
                gone[why] += 1
            else:
                kept.append(segment)
        if not gone:
            return replace(document, segments=tuple(kept)) if changed else document
        detail = " ".join(f"{why}:{count}" for why, count in sorted(gone.items()))
        pictured = any(segment.image is not None for segment in kept)
        if not kept or (self.require and not pictured):
            return removed(document, "images.none_left", detail)
        return labelled(replace(document, segments=tuple(kept)), **{"images.removed": detail})

    def fault(self, segment: Segment) -> str:
        """Why an image cannot be used: damaged, small, large, thin, blank or no_text; "" where it can."""
        try:
            image = decode_image(segment.image or b"")
        except ImageError:
            return "damaged"
        short, long = sorted(image.size)
        if short < self.min_side:
            return "small"
        if long > self.max_side:
            return "large"
        if long > self.max_aspect * short:
            return "thin"
        if self.min_colours > 1 and len(np.unique(np.asarray(image.convert("L").resize((64, 64))))) < self.min_colours:
            return "blank"
        words = f"{segment.alt or ''} {segment.caption or ''}".split()
        return "no_text" if len(words) < self.min_alt_words else ""


def alt_quality(alt: str) -> float:
    """What an alt text says of its image, from 0 (nothing: a file name, "image", an address) to 1.

    Words of two letters or more count, each once, up to eight: longer descriptions are no better than good ones.
    """
    text = alt.strip()
    if not text or _FILE.fullmatch(text) or _EMPTY.fullmatch(text) or re.match(r"(?:https?|data):\S*\Z", text):
        return 0.0
    words = {word for word in re.findall(r"[^\W\d_]{2,}|[\u3040-\u30ff\u3400-\u9fff]", text.lower())}
    return min(len(words) / 8, 1.0)
