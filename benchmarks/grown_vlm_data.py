"""What the grown model learns from and is asked about: figures of textbooks, and pictures of the generated world.

A figure is held out with its whole module, so that no neighbour's text tells of it; and a training figure that looks
like a held-out one (an 8 × 8 difference hash within `NEAR` bits) is left out, since books share artwork.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from foretell.chat import Conversation, ImagePart, Message, TextPart
from foretell.data.world import make_items
from foretell.data.world.base import Item, Split
from foretell.evals.visual import grey, with_images

HELDOUT = 0.2  # of the modules
NEAR = 6  # of 64 bits: figures within it count as the same picture
WORDS = 32  # of a description or caption that is learned
SIDE = 128  # of a training picture, in pixels: twice the tile, so that a crop loses nothing
BLANK = 0.12  # share of training pictures that are a grey one, so that a missing picture is nothing new to the model
BOOKS = {
    "openstax/osbooks-physics": "physics",
    "openstax/osbooks-principles-economics-bundle": "economics",
    "openstax/osbooks-introduction-anthropology": "anthropology",
    "openstax/osbooks-introduction-business": "business",
}
KINDS = {  # the first that the description's opening names
    "photograph": r"\b(photos?|photographs?|fotograf\w+|fotos?)\b",
    "graph": r"\b(graphs?|charts?|plots?|gráfic\w+)\b",
    "diagram": r"\b(diagrams?|illustrations?|drawings?|schematic|diagramas?|ilustraci\w+|dibujos?|esquemas?)\b",
}
ASK = {
    "description": "Describe this figure.",
    "caption": "Write the caption of this figure.",
    "subject": "Which subject is this figure from: physics, economics, anthropology or business?",
    "kind": "What kind of figure is this: photograph, graph or diagram?",
}
WORLD = {"scenes": 0.5, "charts": 0.35, "reading": 0.15}


@dataclass(frozen=True)
class Figure:
    """subject: of its book, empty for books that are asked nothing of. kind: of `KINDS`, empty where its description
    does not say. module: what it is held out with."""

    id: str
    module: str
    subject: str
    kind: str
    caption: str
    description: str
    image: bytes

    @property
    def truths(self) -> dict[str, str]:
        """The right reply by task, where there is one."""
        found = {
            "description": self.description if self.subject else "",
            "caption": self.caption if self.subject else "",
            "subject": self.subject,
            "kind": self.kind,
        }
        return {task: text for task, text in found.items() if text}


def figures(corpus: Path) -> list[Figure]:
    """Every figure of the English textbooks asked about, and those of the Spanish one for their kind."""
    found = []
    for name in ("textbooks-en", "textbooks-es"):
        for row in pq.read_table(corpus / f"{name}.parquet").to_pylist():
            for place, image in enumerate(row["images"]):
                if image is None or (name.endswith("en") and row["source"] not in BOOKS):
                    continue
                alt = " ".join((image["alt"] or "").split())
                found.append(
                    Figure(
                        f"{row['id']}#{place}",
                        row["id"],
                        BOOKS.get(row["source"], ""),
                        _kind(alt),
                        _opening(re.sub(r"^Figure [\d.]+\s*|\(?(credit|attribution)\b.*$", "", image["caption"] or "",
                                        flags=re.IGNORECASE)),
                        _opening(alt),
                        image["bytes"],
                    )
                )  # fmt: skip
    return found


def _kind(alt: str) -> str:
    places = {kind: found.start() for kind, p in KINDS.items() if (found := re.search(p, alt[:160], re.IGNORECASE))}
    return min(places, key=lambda kind: places[kind]) if places else ""


def _opening(text: str) -> str:
    """The first words, up to the end of a sentence where one is in reach; empty for what says nothing."""
    words = " ".join(text.split()).split(" ")
    cut = " ".join(words[:WORDS]).strip()
    end = max((m.end() for m in re.finditer(r"[.!?](?=\s|$)", cut) if m.end() > 20), default=0)
    cut = cut[:end] if end else cut
    return cut if len(cut) > 15 else ""


def look(image: bytes) -> int:
    """A 64-bit difference hash of a picture."""
    with Image.open(BytesIO(image)) as opened:
        small = np.asarray(opened.convert("L").resize((9, 8), Image.Resampling.LANCZOS), np.int16)
    bits = (small[:, 1:] > small[:, :-1]).reshape(-1)
    return int("".join("1" if bit else "0" for bit in bits), 2)


def divide(found: Sequence[Figure]) -> tuple[list[Figure], list[Figure], int]:
    """Training and held-out figures, and how many were left out of training for looking like a held-out one."""
    share = {m: int(hashlib.sha256(m.encode()).hexdigest()[:8], 16) / 2**32 for m in {f.module for f in found}}
    held = [f for f in found if f.subject and share[f.module] < HELDOUT]
    hashes = np.array([look(f.image) for f in held], np.uint64)
    train, near = [], 0
    for figure in found:
        if figure.subject and share[figure.module] < HELDOUT:
            continue
        if not figure.truths:
            continue
        apart = np.bitwise_count(hashes ^ np.uint64(look(figure.image)))
        if len(apart) and apart.min() <= NEAR:
            near += 1
        else:
            train.append(figure)
    return train, held, near


def vary(image: bytes, rng: random.Random) -> bytes:
    """The picture slightly cropped, small, as it is trained on."""
    with Image.open(BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    left, top, right, bottom = (rng.uniform(0, 0.08) for _ in range(4))
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)
    return jpeg(picture)


def jpeg(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()


def ask(question: str, image: bytes, reply: str | None = None) -> Conversation:
    """One question about one picture, with its reply if it is given."""
    messages = (Message("user", (ImagePart(image), TextPart(question))),)
    return Conversation(messages if reply is None else (*messages, Message("assistant", (TextPart(reply),))))


def world_items(split: Split, n: int, seed: int) -> list[Item]:
    """Questions about the world's pictures."""
    return [
        item
        for kind, share in WORLD.items()
        for item in make_items(kind, split, round(n * share), seed)
        if item.content.is_conversation and item.answer is not None
    ]


def lessons(train: Sequence[Figure], passes: int, world: int, seed: int = 0) -> Iterator[Conversation]:
    """Training conversations: every truth of every figure once a pass, each time cropped anew, and world pictures."""
    rng = random.Random(seed)
    found: list[tuple[str, bytes | Figure, str]] = []
    for _ in range(passes):
        found += [(ASK[task], figure, truth) for figure in train for task, truth in figure.truths.items()]
    items = [item.content.conversation() for item in world_items("train", world, seed)]
    plain = [*found, *items]
    rng.shuffle(plain)
    for row in plain:
        if isinstance(row, Conversation):
            talk = row
        else:
            question, figure, truth = row
            assert isinstance(figure, Figure)
            talk = ask(question, vary(figure.image, rng), truth)
        yield blank(talk) if rng.random() < BLANK else talk


def blank(talk: Conversation) -> Conversation:
    """The same conversation with a grey picture of the same size."""
    return with_images(talk, [grey(image) for image in talk.images])


def write_lessons(path: Path, talks: Iterator[Conversation]) -> int:
    """As JSON Lines in OpenAI form; returns how many."""
    with path.open("w", encoding="utf-8") as file:
        lines = (json.dumps({"messages": talk.to_openai()}, ensure_ascii=False) + "\n" for talk in talks)
        return sum(1 for line in lines if file.write(line))
