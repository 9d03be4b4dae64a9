"""Small sources of every form, written for the tests."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

from PIL import Image
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from foretell.data.curate.steps import Removed
from foretell.data.document import Document
from foretell.data.read import read, units

PROSE = "This sentence is long enough to be taken for the main text of the page, and so it is kept. "


def everything(source: Any) -> list[Document | Removed]:
    return [record for unit in units(source) for record in read(source, unit)]


def kept(source: Any) -> list[Document]:
    return [record for record in everything(source) if isinstance(record, Document)]


def reasons(source: Any) -> Counter[str]:
    return Counter(record.reason for record in everything(source) if isinstance(record, Removed))


def text(document: Document) -> str:
    return "".join(segment.text or "[image]" for segment in document.segments)


def png(side: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, "PNG")
    return buffer.getvalue()


def page(body: str, head: str = "") -> bytes:
    return f"<!doctype html><html><head>{head}</head><body>{body}</body></html>".encode()


def article(number: int) -> bytes:
    return page(f"<nav><a href=/>Menu</a></nav><article><h1>Title</h1><p>{PROSE * 2}{number}</p></article>")


def warc(path: Path, records: list[tuple[str, bytes, dict[str, str]]], packed: bool = True) -> list[int]:
    """Responses as (url, page, HTTP headers). Returns the offset of each record."""
    offsets = []
    with path.open("wb") as stream:
        writer = WARCWriter(stream, gzip=packed)
        writer.write_record(writer.create_warcinfo_record(path.name, {"software": "tests"}))
        for url, payload, headers in records:
            offsets.append(stream.tell())
            http = StatusAndHeaders(headers.pop("status", "200 OK"), list(headers.items()), protocol="HTTP/1.1")
            dated = {"WARC-Date": "2021-03-04T05:06:07Z", "WARC-Record-ID": f"<urn:{url}>"}
            writer.write_record(
                writer.create_warc_record(
                    url, "response", payload=io.BytesIO(payload), http_headers=http, warc_headers_dict=dated
                )
            )
    return offsets


def wet(path: Path, texts: dict[str, bytes]) -> None:
    with path.open("wb") as stream:
        writer = WARCWriter(stream, gzip=path.suffix == ".gz")
        for url, content in texts.items():
            writer.write_record(
                writer.create_warc_record(
                    url,
                    "conversion",
                    payload=io.BytesIO(content),
                    warc_content_type="text/plain",
                    warc_headers_dict={"WARC-Date": "2021-03-04T05:06:07Z", "WARC-Record-ID": f"<urn:{url}>"},
                )
            )
