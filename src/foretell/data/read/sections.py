"""What can be read: the sections of a curation recipe, one for each kind of source."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from foretell.sections import Name, Positive, Section

Chat = Literal["auto", "openai", "sharegpt", "alpaca"]
Extractor = Literal["resiliparse", "trafilatura"]


class Fields(Section):
    """Which column or key of a row holds what. A list of names: the first that is there and holds something.

    template: a text made of several columns, such as "{problem}\\n\\n{solution}", where each of them holds one. origin
    and author: whom to credit, which becomes the label `attribution`.
    """

    text: tuple[str, ...] = ("text", "content")
    template: str = ""
    id: tuple[str, ...] = ("id",)
    url: tuple[str, ...] = ("url", "source_url")
    path: tuple[str, ...] = ("path", "file_path")
    license: tuple[str, ...] = ("license", "licence")
    language: tuple[str, ...] = ("language", "lang")
    date: tuple[str, ...] = ("date", "created", "timestamp")
    origin: tuple[str, ...] = ("source",)
    author: tuple[str, ...] = ("author", "authors")
    labels: tuple[str, ...] = ()  # kept as labels under their own names


class Limits(Section):
    """What is skipped and counted, so that no input can take all time or memory.

    document_bytes: of one file, line, record, or row. ratio: unpacked over packed size, past `ratio_from` unpacked
    bytes, from which an archive is taken for a bomb. depth: of nested elements in a page (a page of people's writing
    stays below 100, and extraction takes quadratic time in it). seconds: for the main text of one page (trafilatura).
    images: in one document; image_bytes: of one.
    """

    document_bytes: Positive = 64_000_000
    ratio: Positive = 200
    ratio_from: Positive = 64_000_000
    depth: Positive = 400
    page_bytes: Positive = 4_000_000
    seconds: float = Field(10.0, gt=0)
    images: Positive = 256
    image_bytes: Positive = 32_000_000


class ReadSection(Section):
    """Base of all sources.

    path: a file, a folder, or a glob, here or in an object store by its URL (s3://, gs://, hf://, memory://, …, as
    fsspec knows them). license, language and date hold where a record does not state its own. optional: where nothing
    lies at the path the source is left out, and the card says so.
    """

    name: Name
    path: str
    optional: bool = False
    license: str = "unknown"
    language: str = "und"
    date: str | None = None
    limits: Limits = Limits()
    unit_bytes: Positive = 64_000_000  # of input that one piece of work reads, where a source can be cut


class WebSection(ReadSection):
    """extractor: what takes a page's main text out of its HTML. resiliparse is what DataComp-LM used (arXiv
    2406.11794), trafilatura what FineWeb used.
    favor_precision: trafilatura's setting for less text and less noise."""

    extractor: Extractor = "resiliparse"
    favor_precision: bool = True


class WarcRead(WebSection):
    """Web archives, *.warc and *.wet, plain or compressed: pages from responses, texts from conversions."""

    kind: Literal["warc"] = "warc"
    name: Name = "warc"


class FolderRead(WebSection):
    """A folder of one's own files: text, Markdown with its figures, notebooks, code and HTML; JSON lines, Parquet, web
    archives and image–text tars in it are read as their own kinds, zip archives as folders.

    chat: as in `ChatRead`, for the JSON lines.
    """

    kind: Literal["folder"] = "folder"
    name: Name = "folder"
    fields: Fields = Fields()
    chat: Chat = "auto"


class JsonlRead(ReadSection):
    """JSON lines, plain or compressed: an object a line with text, or a conversation in one of the known forms."""

    kind: Literal["jsonl"] = "jsonl"
    name: Name = "jsonl"
    fields: Fields = Fields()
    chat: Chat = "auto"


class ChatRead(ReadSection):
    """Conversations and instructions, as JSON lines, a JSON list, or Parquet.

    chat: the form. openai: `messages` of role and content. sharegpt: `conversations` of from and value. alpaca:
    `instruction`, `input`, `output`. auto: whichever of them a row has.
    """

    kind: Literal["chat"] = "chat"
    name: Name = "chat"
    fields: Fields = Fields(text=())
    chat: Chat = "auto"


class ParquetRead(ReadSection):
    """Parquet: interleaved documents in OBELICS form (`texts`, `images`), or rows with a text column."""

    kind: Literal["parquet"] = "parquet"
    name: Name = "parquet"
    fields: Fields = Fields()
    chat: Chat = "auto"
    images: bool = True


class GitRead(WebSection):
    """A git checkout or bare repository on this machine: the tracked text files of one commit.

    revision: a branch, tag or commit. The licence is what a file's SPDX header says, or the nearest LICENSE file.
    """

    kind: Literal["git"] = "git"
    name: Name = "git"
    revision: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/~^-]*$")] = "HEAD"


class PairsRead(ReadSection):
    """Images with their texts as webdataset tars: `key.jpg`, `key.txt`, `key.json`.

    order: whether the model reads the picture or its text first.
    """

    kind: Literal["pairs"] = "pairs"
    name: Name = "pairs"
    order: Literal["image", "text"] = "image"


class HubRead(ReadSection):
    """A data set of the Hugging Face hub, streamed (the `hub` extra and network), or local files of the same form.

    dataset: such as HuggingFaceFW/fineweb-edu; the known ones (see catalogue.py) bring their column mapping, licence
    and dates. path: a folder or glob of the data set's own Parquet or JSON files in place of the network.
    fields: in place of the known mapping. max_rows: of each unit.
    """

    kind: Literal["hub"] = "hub"
    name: Name = "hub"
    path: str = ""
    dataset: str
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    fields: Fields | None = None
    chat: Chat = "auto"
    images: bool = True
    max_rows: Positive | None = None


class PythonRead(Section):
    """The Python installation on this machine: sources, docstrings and package documentation."""

    kind: Literal["python"] = "python"
    name: Name = "python"
    max_bytes: Positive = 1_000_000_000


ReadSource = Annotated[
    FolderRead | JsonlRead | ChatRead | ParquetRead | WarcRead | GitRead | PairsRead | HubRead | PythonRead,
    Field(discriminator="kind"),
]
FileSource = FolderRead | JsonlRead | ChatRead | ParquetRead | WarcRead | PairsRead
