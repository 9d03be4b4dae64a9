"""Web archives: pages out of WARC responses, texts out of WET conversions, behind damage from the next record on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.data.read.compressed import CHUNK, Damaged, GzipMembers, Readable, Unpacked
from foretell.data.read.files import PACKED
from foretell.data.read.html import Pages, Refused
from foretell.data.read.rows import Defaults, Place, day_of
from foretell.data.read.sections import Limits
from foretell.errors import MissingExtraError

HEADER = 1 << 20  # bytes of one record's headers
PAGES = ("text/html", "application/xhtml+xml")
RESERVATIONS = ("x-robots-tag", "tdm-reservation")  # headers that may ask not to be trained on
ASIDE = ("warcinfo", "request", "metadata", "revisit", "continuation")  # about documents, and none themselves


def read_warc(
    stream: IO[bytes], name: str, limits: Limits, pages: Pages, fill: Defaults
) -> Iterator[Document | Removed]:
    """A document or reason for each response, conversion and resource. Locators are file@byte of the record's gzip
    member, or file#number where the archive is not packed by record."""
    packed = PACKED.search(name)
    if packed and packed.group().lower() == ".gz":
        for member in GzipMembers(stream, limits, lambda head: head.startswith((b"WARC/", b"filedesc:"))):
            if isinstance(member, Damaged):
                yield Place(name, name).removed(member.reason, member.detail)
                continue
            at = f"{name}@{member.start}"
            for number, record in enumerate(_records(member, limits)):
                yield from _document(record, Place(f"{at}#{number}" if number else at, name), pages, fill)
        return
    source: Readable = Unpacked(stream, packed.group().lower(), limits) if packed else stream
    for number, record in enumerate(_records(source, limits), 1):
        yield from _document(record, Place(f"{name}#{number}", name), pages, fill)


class _Reader:
    """What warcio reads from: lines of bounded length."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._buffer, self._at, self._told, self.header = stream, b"", 0, 0, 0

    def _fill(self) -> bool:
        data = self._stream.read(CHUNK)
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        return bool(data)

    def read(self, length: int | None = None) -> bytes:
        if self._at >= len(self._buffer) and not self._fill():
            return b""
        end = len(self._buffer) if length is None or length < 0 else self._at + length
        data = self._buffer[self._at : end]
        self._at += len(data)
        self._told += len(data)
        return data

    def readline(self, length: int | None = None) -> bytes:
        while (end := self._buffer.find(b"\n", self._at) + 1) == 0:
            if len(self._buffer) - self._at > HEADER or not self._fill():
                end = len(self._buffer)
                break
        if length is not None and length >= 0:
            end = min(end, self._at + length)
        line = self._buffer[self._at : end]
        self._at = end
        self._told += len(line)
        self.header += len(line)
        if self.header > HEADER:
            raise Damaged("read.warc", f"headers over {HEADER:,} bytes")
        return line

    def tell(self) -> int:
        return self._told


def _records(stream: Readable, limits: Limits) -> Iterator[tuple[Any, bytes] | Damaged]:
    """(record of warcio's, its payload), or the damage in its place."""
    try:
        from warcio.exceptions import ArchiveLoadFailed
        from warcio.recordloader import ArcWarcRecordLoader
    except ImportError as error:
        raise MissingExtraError("Reading web archives", "data") from error
    loader, reader = ArcWarcRecordLoader(), _Reader(stream)
    lost = False
    while True:
        try:
            reader.header = 0
            line = reader.readline()
            if not line:
                return
            if not line.startswith((b"WARC/", b"filedesc:", b"http")):
                if line.strip() and not lost:  # told once; then on to the next record
                    lost = True
                    yield Damaged("read.warc", f"no record begins with {line[:40]!r}")
                continue
            lost = False
            record = loader.parse_record_stream(reader, statusline=line.decode("latin-1").rstrip("\r\n"))
            payload = _payload(record, limits)
            left = getattr(record.raw_stream, "limit", 0)
            yield (
                (record, payload)
                if not left
                else Damaged("read.truncated", f"{left:,} bytes of the record are missing")
            )
        except Damaged as error:
            if not lost:
                yield error
            lost = error.reason == "read.warc"
            if not lost:
                return
        except (ArchiveLoadFailed, EOFError, ValueError, AttributeError, UnicodeError) as error:
            lost = True
            yield Damaged("read.warc", str(error) or type(error).__name__)


def _payload(record: Any, limits: Limits) -> bytes:
    """The content as it was sent, unpacked; of a larger one a byte more than the limit, and the rest passed over."""
    parts: list[bytes] = []
    size = 0
    if record.rec_type not in ASIDE:
        content = record.content_stream()
        while size <= limits.document_bytes and (part := content.read(CHUNK)):
            parts.append(part)
            size += len(part)
    while record.raw_stream.read(CHUNK):
        pass
    return b"".join(parts)


def _document(
    found: tuple[Any, bytes] | Damaged, place: Place, pages: Pages, fill: Defaults
) -> Iterator[Document | Removed]:
    if isinstance(found, Damaged):
        yield place.removed(found.reason, found.detail)
        return
    record, data = found
    if record.rec_type in ASIDE or record.rec_type not in ("response", "conversion", "resource"):
        return
    head = record.rec_headers.get_header
    try:
        text, labels = _text(record, data, pages)
    except Refused as error:
        yield place.removed(error.reason, error.detail, head("WARC-Record-ID") or "")
        return
    labels |= {"locator": place.id, "path": place.path}
    if url := head("WARC-Target-URI") or head("uri"):
        labels["url"] = url
    yield Document(
        id=head("WARC-Record-ID") or place.id,
        segments=(Segment(text=text),),
        source=fill.source,
        license=labels.pop("license", "") or fill.license,
        language=labels.pop("language", "") or fill.language,
        date=day_of(head("WARC-Date")) or fill.date,
        kind=fill.source,
        labels=labels,
    )


def _text(record: Any, data: bytes, pages: Pages) -> tuple[str, dict[str, str]]:
    """The text of a record, and what it states about itself. Raises Refused."""
    limits = pages.limits
    if len(data) > limits.document_bytes:
        raise Refused("read.too-large", f"over {limits.document_bytes:,} bytes")
    sent, charset, labels = record.content_type or "", "", {}
    if record.http_headers is not None:
        status = record.http_headers.get_statuscode()
        if status != "200":
            raise Refused("read.http-status", status)
        sent = record.http_headers.get_header("Content-Type") or ""
        for name in RESERVATIONS:
            if said := record.http_headers.get_header(name):
                labels[name] = said
    kind, _, rest = sent.partition(";")
    kind = (record.rec_headers.get_header("WARC-Identified-Payload-Type") or kind).strip().lower()
    if "charset=" in rest.lower():
        charset = rest.lower().partition("charset=")[2].split(";")[0].strip(" \"'")
    if kind in PAGES or (not kind and data[:2000].lstrip()[:1] == b"<"):
        page = pages.read(data, charset)
        told = {"license": page.license, "language": page.language}
        return page.text, {key: value for key, value in told.items() if value} | page.labels | labels
    if kind != "text/plain":
        raise Refused("read.not-text", kind or "no content type")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("read.encoding", error.reason) from error
    if not text.strip():
        raise Refused("read.empty")
    if languages := record.rec_headers.get_header("WARC-Identified-Content-Language"):
        labels["identified_language"] = languages
    return text, labels
