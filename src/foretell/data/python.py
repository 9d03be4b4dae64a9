"""The Python installation as training material: the standard library's sources, docstrings as prose, package docs."""

from __future__ import annotations

import ast
import email
import inspect
import re
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from foretell.data.document import Document, Segment, SkipCount
from foretell.data.splits import Split, hash_order, modified, split_of
from foretell.errors import DataError
from foretell.recipe import PythonSource

STDLIB_LICENSE = "PSF-2.0"
REFERENCE = "pydoc_data/topics.py"  # the language reference, as one big dictionary
MIN_CHARACTERS = 200
MAX_FILE = 400_000  # larger files are tables, not prose or code a person wrote
MAX_DIGITS = 0.12  # share of digits in a file past which it is taken for a table
SKIPPED_PARTS = frozenset(
    {"test", "tests", "idle_test", "encodings", "site-packages", "_vendor", "vendor", "_vendored"}
)
NOT_PROSE = re.compile(r"licen[cs]e|copying|notice|authors|sources|top_level|entry_points|requirements|vendor", re.I)
LICENSES = {  # what packages state instead of an SPDX expression, in a classifier or in words
    "Apache 2.0 License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


@dataclass(frozen=True)
class _File:
    path: Path
    license: str


def python_documents(source: PythonSource, split: Split, seed: int, skipped: SkipCount) -> Iterator[Document]:
    """Documents of kind "python.code" and "python.docs"; a file's code and docstrings are in the same split, and every
    page of the language reference, which is one file, counts as a file of its own.

    Raises DataError if this Python carries no sources.
    """
    files = _stdlib() | _packages()
    if not files:
        raise DataError(
            f"Source {source.name!r}: this Python carries no readable sources under "
            f"{sysconfig.get_path('stdlib')}. Use another kind of source."
        )
    for name in hash_order(files, seed):
        if name.endswith(REFERENCE):
            pages = _documents(name, files[name], source.name, skipped)
            yield from (page for page in pages if split_of(page.id, source.heldout) == split)
        elif split_of(name, source.heldout) == split:
            yield from _documents(name, files[name], source.name, skipped)


def _stdlib() -> dict[str, _File]:
    root = Path(sysconfig.get_path("stdlib"))
    return {
        name: _File(path, STDLIB_LICENSE)
        for path in root.rglob("*.py")
        if _wanted(name := path.relative_to(root).as_posix())
    }


def _packages() -> dict[str, _File]:
    """Documentation that installed packages list as theirs, their descriptions included."""
    found: dict[str, _File] = {}
    for root in {Path(sysconfig.get_path(place)) for place in ("purelib", "platlib")}:
        for info in sorted(root.glob("*.dist-info")):
            try:
                license = _license((info / "METADATA").read_text(encoding="utf-8"))
                record = (info / "RECORD").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            for line in record.splitlines():
                name = line.split(",", 1)[0]
                if _wanted(name) and name.endswith((".md", ".rst", ".txt", "/METADATA")):
                    found[f"site-packages/{name}"] = _File(root / name, license)
    return found


def _wanted(name: str) -> bool:
    path = PurePosixPath(name)
    return not (SKIPPED_PARTS & set(path.parts) or ".." in path.parts or name.startswith("/")) and (
        path.suffix == ".py" or not NOT_PROSE.search(path.name)
    )


def _license(metadata: str) -> str:
    """The SPDX expression a package states, or the one its classifier stands for, or "unknown"."""
    header = email.message_from_string(metadata)
    if expression := header["License-Expression"]:
        return str(expression)
    for classifier in header.get_all("Classifier", []):
        if classifier.startswith("License ::") and (name := LICENSES.get(classifier.rsplit(" :: ", 1)[-1])):
            return name
    stated = str(header["License"] or "").strip()
    if stated in LICENSES:
        return LICENSES[stated]
    return stated if re.fullmatch(r"[A-Za-z0-9.+-]{2,30}", stated) and stated.lower() != "unknown" else "unknown"


def _documents(name: str, file: _File, source: str, skipped: SkipCount) -> Iterator[Document]:
    try:
        text = file.path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except OSError:
        skipped.add("unreadable files")
        return
    except UnicodeDecodeError:
        skipped.add("files that are not UTF-8")
        return

    date = modified(file.path)

    def document(kind: str, part: str, body: str) -> Document:
        return Document(f"{name}{part}", (Segment(text=body),), source, file.license, "en", date, f"python.{kind}")

    if name.endswith(REFERENCE):
        for topic, body in _topics(text).items():
            yield document("docs", f"#{topic}", body)
    elif len(text) > MAX_FILE or _is_table(text):
        skipped.add("tables and huge files")
    elif not name.endswith(".py"):
        body = _description(text) if name.endswith("/METADATA") else text
        if len(body) >= MIN_CHARACTERS:
            yield document("docs", "", body)
    else:
        if len(text) >= MIN_CHARACTERS:
            yield document("code", "", text)
        prose = docstrings(text, PurePosixPath(name))
        if len(prose) >= MIN_CHARACTERS:
            yield document("docs", "#docstrings", prose)


def _is_table(text: str) -> bool:
    return sum(map(text.count, "0123456789")) > MAX_DIGITS * len(text)


def _description(metadata: str) -> str:
    payload = email.message_from_string(metadata).get_payload()
    return payload.strip() if isinstance(payload, str) else ""


def _topics(text: str) -> dict[str, str]:
    for node in _parse(text).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            topics = {topic: body.strip() for topic, body in ast.literal_eval(node.value).items()}
            # A page within another one, or twice, would stand in training and held-out alike.
            pages = {body: topic for topic, body in topics.items() if len(body) >= MIN_CHARACTERS}
            inner = {body for body in pages for other in pages if body in other and body != other}
            return {topic: body + "\n" for body, topic in pages.items() if body not in inner}
    return {}


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes in other people's code
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return ast.Module([], [])


def docstrings(text: str, path: PurePosixPath) -> str:
    """The docstrings of a module as one page: a heading for each class and function that has one."""
    module = _parse(text)
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    sections = [f"# {name}\n\n{inspect.cleandoc(doc)}\n"] if (doc := ast.get_docstring(module, clean=False)) else []
    sections += _sections(module, "")
    return "\n".join(sections)


def _sections(parent: ast.Module | ast.ClassDef, prefix: str) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        title = f"{prefix}{node.name}"
        if doc := ast.get_docstring(node, clean=False):
            signature = "" if isinstance(node, ast.ClassDef) else f"({ast.unparse(node.args)})"
            yield f"## {title}{signature}\n\n{inspect.cleandoc(doc)}\n"
        if isinstance(node, ast.ClassDef):
            yield from _sections(node, f"{title}.")
