"""Folders and recipes that the tests of collections share."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

from PIL import Image

from foretell.data.collection.recipe import CollectionRecipe
from foretell.data.document import Document, Segment
from foretell.data.parquet import write_documents


def picture(red: int) -> bytes:
    """A small PNG whose pixels are not those of another `red`."""
    stream = io.BytesIO()
    image = Image.new("RGB", (80, 64), (red, 20, 30))
    image.putpixel((red % 80, 3), (0, 255, 0))
    image.save(stream, "PNG")
    return stream.getvalue()


def sentences(seed: int, count: int = 12) -> str:
    """English enough for every step, and different for every seed."""
    words = re.findall(
        r"\w+", "the river of a small town that was and with old stone bridge near to have house road light"
    )
    lines = []
    for i in range(count):
        bits = hashlib.sha256(f"{seed}-{i}".encode()).digest()
        lines.append(" ".join(words[b % len(words)] for b in bits[:12]).capitalize() + f" {seed}.")
    return " ".join(lines)


def write_input(folder: Path, texts: int = 12) -> Path:
    """JSON lines with duplicates, broken lines and two licences, and a Parquet file whose images repeat."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        json.dumps(
            {
                "id": f"t{i}",
                "text": sentences(i),
                "license": "CC-BY-4.0" if i % 3 else "MIT",
                "url": f"https://{'a' if i % 2 else 'b'}.example.org/page/{i}",
                "date": f"20{10 + i % 5}-02-03",
            }
        )
        for i in range(texts)
    ]
    rows += [
        "{not json",
        json.dumps({"id": "t1", "text": sentences(1)}),
        json.dumps({"id": "t2", "text": "another " + sentences(77)}),
    ]
    (folder / "a.jsonl").write_text("\n".join(rows) + "\n")
    shared = picture(200)
    for part in range(2):
        documents = [
            Document(
                id=f"p{part}-{i}",
                segments=(
                    Segment(text=sentences(100 + 10 * part + i)),
                    Segment(image=shared if i % 2 else picture(10 * part + i), alt="a square"),
                    Segment(text=sentences(500 + 10 * part + i)),
                ),
                source="pictures",
                license="CC-BY-4.0",
            )
            for i in range(4)
        ]
        write_documents(folder / f"part{part}.parquet", documents)
    return folder


def recipe(folder: Path, **changes: object) -> CollectionRecipe:
    raw: dict[str, object] = {
        "name": "kit",
        "sources": [
            {"kind": "jsonl", "name": "lines", "path": str(folder / "a.jsonl"), "unit_bytes": 2000},
            {"kind": "parquet", "name": "pictures", "path": str(folder / "*.parquet")},
        ],
        "steps": [{"step": "unicode"}, {"step": "pii"}],
        "passes": [{"kind": "exact"}],
        "shard_bytes": 3000,
    }
    return CollectionRecipe.model_validate({**raw, **changes})


def digests(out: Path) -> dict[str, str]:
    """Of every file of a collection whose bytes must not depend on where and how it was built; of collection.json the
    totals and the digest, since it and the card also name the state of the code."""
    state = json.loads((out / "collection.json").read_bytes())
    return {"state": json.dumps([state["totals"], state["digest"], state["key"]])} | {
        str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.parent != out and ".work" not in file.parts
    }
