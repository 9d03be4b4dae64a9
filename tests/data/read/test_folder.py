"""Folders of one's own files: text, Markdown with figures, notebooks, code, archives, and files that are none of it."""

from __future__ import annotations

import base64
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from foretell.data.document import Document
from foretell.data.read import read, source_of, units
from foretell.data.read.licenses import license_of_text, spdx_in
from foretell.data.read.sections import FolderRead, GitRead, JsonlRead, Limits, WarcRead
from foretell.errors import DataError
from readkit import article, everything, kept, png, reasons, text


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def one(tmp_path: Path, name: str, content: bytes) -> Document:
    (found,) = kept(FolderRead(path=str(write(tmp_path, {name: content}))))
    return found


def test_every_form_is_read_as_its_own(tmp_path: Path) -> None:
    files = {
        "a.txt": b"plain\r\nwords",
        "b/c.py": b"# SPDX-License-Identifier: MIT OR Apache-2.0\nx = 1\n",
        "d.html": article(1),
        "e.jsonl": b'{"text": "line"}\n',
        "f.txt": "\ufeffutf-16 words".encode("utf-16-le"),
        "bad.txt": b"\xff\xfe\xff",
        "zero.txt": b"a\0b",
        "empty.md": b" \n",
        "lone.png": png(),
        "tool.exe": b"MZ",
        ".hidden/x.txt": b"no",
    }
    source = FolderRead(path=str(write(tmp_path, files)), license="CC0-1.0", language="en")
    found = {d.id: d for d in kept(source)}
    assert set(found) == {"a.txt", "b/c.py", "d.html", "e.jsonl:1", "f.txt"}
    assert text(found["a.txt"]) == "plain\nwords" and text(found["f.txt"]) == "utf-16 words"
    assert found["b/c.py"].license == "MIT OR Apache-2.0" and found["a.txt"].license == "CC0-1.0"
    assert all(d.date and d.labels["locator"] for d in found.values())
    assert reasons(source) == {
        "read.encoding": 2, "read.empty": 1, "read.picture-file": 1, "read.file-kind": 1
    }  # fmt: skip


def test_markdown_shows_its_figures_where_they_stand(tmp_path: Path) -> None:
    head = "---\ntitle: x\nlicense: CC-BY-4.0\nlang: pl\ndate: 2021-02-03\n---\n"
    inline = "data:image/png;base64," + base64.b64encode(png()).decode()
    body = (
        f"before ![a red square](img/a%20b.png 'title') after ![]({inline})\n![gone](none.png) ![far](http://a/b.png)"
    )
    bad = " ![bad](bad.png) ![out](../../../etc/x.png)"
    files = {"doc/a.md": (head + body + bad).encode(), "doc/img/a b.png": png(), "doc/bad.png": b"no image"}
    found = kept(FolderRead(path=str(write(tmp_path, files))))[0]
    assert [s.text or s.image for s in found.segments] == [
        "before ", png(), " after ", png(),
        "\n![gone](none.png) ![far](http://a/b.png) ![bad](bad.png) ![out](../../../etc/x.png)",
    ]  # fmt: skip
    assert found.segments[1].alt == "a red square" and found.labels["images_dropped"] == "1"
    assert (found.license, found.language, found.date) == ("CC-BY-4.0", "pl", "2021-02-03")


def test_marks_that_begin_figures_and_end_none_are_text(tmp_path: Path) -> None:
    content = "![" * 20_000 + "![](" * 20_000
    assert text(one(tmp_path, "a.md", content.encode())) == content


def test_an_image_bomb_is_dropped_from_its_text(tmp_path: Path) -> None:
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    bomb = header + bytes(100)
    found = kept(FolderRead(path=str(write(tmp_path, {"a.md": b"text ![x](b.png)", "b.png": bomb}))))[0]
    assert all(s.image is None for s in found.segments) and found.labels["images_dropped"] == "1"


def test_notebooks(tmp_path: Path) -> None:
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {
            "cell_type": "code",
            "source": "print(1)",
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"data": {"image/png": base64.b64encode(png()).decode(), "text/plain": "<Figure>"}},
                {"data": {"text/plain": "```"}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
        "no cell",
    ]
    book = {"metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "cells": cells}
    found = one(tmp_path, "a.ipynb", json.dumps(book).encode())
    assert [s.text or s.image for s in found.segments] == [
        "# Title\nwords\n\n```python\nprint(1)\n```\n\n```\n1\n```", png(), "````\n```\n````"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "read.json"), (b"[]", "read.notebook"), (b'{"metadata": {}, "cells": 3}', "read.empty"),
        (b'{"metadata": {"language_info": 3}, "cells": [{"cell_type": []}]}', "read.empty"),
        (b"\xff\xff", "read.encoding"), (b"[" * 100_000, "read.json"),
    ],
)  # fmt: skip
def test_damaged_notebooks_are_counted(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reasons(FolderRead(path=str(write(tmp_path, {"a.ipynb": content})))) == {reason: 1}


def test_files_that_vanish_are_forbidden_or_too_large(tmp_path: Path) -> None:
    write(tmp_path, {f"{n}.txt": b"x" * 10 for n in range(4)})
    (tmp_path / "big.txt").write_bytes(b"x" * 5000)
    (tmp_path / "loop.txt").symlink_to("loop.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    source = FolderRead(path=str(tmp_path), limits=Limits(document_bytes=1000))
    (work,) = units(source)
    (tmp_path / "1.txt").unlink()
    (tmp_path / "2.txt").unlink()
    (tmp_path / "2.txt").mkdir()
    found = {r.id: getattr(r, "reason", "kept") for r in read(source, work)}
    assert found == {
        "0.txt": "kept", "1.txt": "read.vanished", "2.txt": "read.unreadable", "3.txt": "kept",
        "big.txt": "read.too-large", "loop.txt": "read.unreadable", "pipe.txt": "read.unreadable",
    }  # fmt: skip


def test_zip_archives(tmp_path: Path) -> None:
    mit = b"Permission is hereby granted, free of charge, ... The above copyright notice and this permission notice ..."
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("p/LICENSE", mit)
        archive.writestr("p/a.md", "words ![x](x.png)")
        archive.writestr("p/x.png", png())
        archive.writestr("p/inner.zip", b"PK")
    found = {d.id: d for d in kept(FolderRead(path=str(tmp_path)))}
    assert set(found) == {"a.zip!p/a.md"} and found["a.zip!p/a.md"].license == "MIT"
    assert found["a.zip!p/a.md"].segments[1].image == png()
    assert reasons(FolderRead(path=str(tmp_path))) == {"read.file-kind": 3}


def test_zip_bombs_and_broken_zips(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(4):
            archive.writestr(f"{n}.txt", b"\0" * 1_000_000)
    with zipfile.ZipFile(tmp_path / "crc.zip", "w") as archive:
        archive.writestr("a.txt", "some words here")
        archive.writestr("b.txt", "more words")
    data = (tmp_path / "crc.zip").read_bytes().replace(b"some words here", b"some wards here")
    (tmp_path / "crc.zip").write_bytes(data)
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 broken")
    source = FolderRead(path=str(tmp_path), limits=Limits(ratio_from=1_000_000))
    assert [d.id for d in kept(source)] == ["crc.zip!b.txt"]
    assert reasons(source) == {"read.bomb": 1, "read.zip": 2}


@pytest.mark.parametrize("packing", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_zip_that_is_damaged_anywhere_is_counted(tmp_path: Path, packing: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", packing) as archive:
        archive.writestr("a.txt", "some words here " * 9)
        archive.writestr("b.txt", "more words")
    whole = (tmp_path / "a.zip").read_bytes()
    source = FolderRead(path=str(tmp_path))
    for place in range(len(whole)):
        (tmp_path / "a.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        assert everything(source)


def test_brackets_may_be_part_of_a_name(tmp_path: Path) -> None:
    write(tmp_path / "[old] files?", {"a.md": b"words ![x](x.png)", "x.png": png(), "b.md": b"words"})
    source = FolderRead(path=str(tmp_path / "[old] files?"))
    assert [text(d) for d in kept(source)] == ["words [image]", "words"]
    assert len(kept(FolderRead(path=str(tmp_path / "[[]old*" / "*.md")))) == 2


def test_units_cover_all_files_in_one_order(tmp_path: Path) -> None:
    write(tmp_path, {f"{n:03}.txt": b"x" * 100 for n in range(50)} | {"a.jsonl": b'{"text": "a"}\n' * 1})
    source = FolderRead(path=str(tmp_path), unit_bytes=1000)
    work = units(source)
    assert work == units(source) and len(work) == 6 and len({unit.key for unit in work}) == 6
    assert len(everything(source)) == 51


def test_what_a_bare_path_stands_for(tmp_path: Path) -> None:
    write(tmp_path, {"j/a.jsonl": b"{}", "w/a.wet": b"", "m/a.txt": b"a", "m/b.jsonl": b"{}", "g/.git/HEAD": b""})
    kinds = {name: type(source_of(tmp_path / name)) for name in "jwmg"}
    assert kinds == {"j": JsonlRead, "w": WarcRead, "m": FolderRead, "g": GitRead}
    assert source_of(tmp_path / "m", "mine").name == "mine"
    with pytest.raises(DataError, match="does not exist"):
        source_of(tmp_path / "none")


def test_a_folder_that_may_not_be_listed_stops(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may list any folder")
    write(tmp_path, {"a/x.txt": b"x"})
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match="could not be listed"):
        units(FolderRead(path=str(tmp_path)))
    (tmp_path / "a").chmod(0o755)


def test_licences_are_told_by_their_words() -> None:
    apache = Path(__file__).parents[3] / "LICENSE"
    assert license_of_text(apache.read_text()) == "Apache-2.0"
    bsd = "Redistribution and use in source and binary forms, with or without\nmodification, are permitted provided"
    assert license_of_text(bsd) == "BSD-2-Clause"
    assert license_of_text(bsd + " may be used to endorse or promote products") == "BSD-3-Clause"
    assert license_of_text("GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007") == "GPL-3.0-only"
    assert license_of_text("All rights reserved.") == "unknown"
    assert spdx_in("/* SPDX-License-Identifier: GPL-2.0-only */") == "GPL-2.0-only"
    assert spdx_in("<!-- SPDX-License-Identifier: CC-BY-4.0 -->") == "CC-BY-4.0"
    assert spdx_in("x" * 5000 + "\nSPDX-License-Identifier: MIT\n") == ""
