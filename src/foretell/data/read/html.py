"""The main text of a page, taken out in a process of its own with bounded time, depth and memory."""

from __future__ import annotations

import re
from codecs import lookup
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import TracebackType
from typing import Any, Self

import numpy as np

from foretell.data.read.sections import Extractor, WebSection
from foretell.errors import MissingExtraError

MEMORY = 4 << 30  # address space that extraction may add
VOID = frozenset(
    b"area base br col embed hr img input link meta param source track wbr keygen frame basefont bgsound".split()
)
SELF_CLOSING = frozenset(b"p li dt dd option optgroup tr td th thead tbody tfoot rp rt colgroup".split())
TAG = re.compile(rb"<(/?)([a-zA-Z][a-zA-Z0-9]*)")
RAW = re.compile(rb"<!--|<(script|style)\b", re.IGNORECASE)
RAW_ENDS = {
    name: re.compile(end, re.I) for name, end in ((b"", rb"-->"), (b"script", b"</script"), (b"style", b"</style"))
}
# A tag and what it says are looked for apart, each in a bounded piece, so that no page takes more than linear time.
LINK = re.compile(rb"<(?:a|link)\b([^<>]{0,1000})", re.I)
LICENSE = re.compile(rb"\brel\s*=\s*[\"']?[^\"'>]{0,100}\blicense\b", re.I)
ADDRESS = re.compile(rb"\bhref\s*=\s*[\"']?([^\"'\s>]+)", re.I)
META = r"<meta\b(?=[^>]{0,300}\bname\s*=\s*[\"']?%s\b)[^>]{0,300}?\bcontent\s*=\s*[\"']?([^\"'>]{1,200})"
ROBOTS = re.compile((META % "robots").encode(), re.I)
RESERVED = re.compile((META % "tdm-reservation").encode(), re.I)
LANGUAGE = re.compile(rb"<html\b[^>]{0,500}?\blang\s*=\s*[\"']?([a-zA-Z]{2,3}(?:-[a-zA-Z0-9]{1,8})*)", re.I)
CREATIVE = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)")
NAMES = {"zero": "CC0", "mark": "CC-PDM"}


@dataclass(frozen=True)
class Refused(Exception):
    """A page that gives no text. reason: of the removal."""

    reason: str
    detail: str = ""


@dataclass(frozen=True)
class Page:
    """text: the main text. license, language, robots, reserved (of text and data mining): what the page states, empty
    without it."""

    text: str
    license: str = ""
    language: str = ""
    robots: str = ""
    reserved: str = ""

    @property
    def labels(self) -> dict[str, str]:
        told = {"robots": self.robots, "tdm-reservation": self.reserved}
        return {name: value for name, value in told.items() if value}


class Pages:
    """Takes main texts out of pages; a context manager, which ends its process.

    The process, datatrove's, is started with the first page. It is killed and started anew behind a page that takes
    longer than allowed, or more memory.
    """

    def __init__(self, section: WebSection) -> None:
        self._section, self.limits = section, section.limits
        self._sandbox: Any = None
        self._extract = partial(EXTRACTORS[section.extractor], section.favor_precision)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._sandbox is not None:
            self._sandbox.__exit__(None, None, None)
            self._sandbox = None

    def read(self, data: bytes, charset: str = "") -> Page:
        """data: the page as it came. charset: what HTTP said. Raises Refused."""
        limits = self._section.limits
        if len(data) > limits.page_bytes:
            raise Refused("read.too-large", f"{len(data):,} bytes; at most {limits.page_bytes:,} of a page are read")
        if too_deep(data, limits.depth):
            raise Refused("read.nesting", f"elements nested deeper than {limits.depth}")
        html = decoded(data, charset)
        try:
            text = self._process().process_document(html, self._extract)
        except TimeoutError as error:
            raise Refused("read.timeout", f"its main text took over {limits.seconds:g} s") from error
        except EOFError as error:
            raise Refused("read.html", "extraction ran out of memory or crashed") from error
        if not isinstance(text, str):
            raise Refused("read.html", "extraction failed")
        if not text.strip():
            raise Refused("read.empty", "no main text")
        return Page(text, license_in(data), _language(data), _meta(ROBOTS, data), _meta(RESERVED, data))

    def _process(self) -> Any:
        if self._sandbox is None:
            try:
                from datatrove.pipeline.extractors.base import ExtractorSandbox
                from datatrove.utils.logging import logger

                import_module(self._section.extractor)  # there, what is missing would look like a page without text
            except ImportError as error:
                raise MissingExtraError(f"Reading web pages with {self._section.extractor}", "data") from error
            logger.disable("datatrove.pipeline.extractors.base")  # tells at each end how its process went
            self._sandbox = ExtractorSandbox(timeout=self._section.limits.seconds, warmup_text="<p>a</p>")
        return self._sandbox


def _resiliparse(precise: bool, html: str) -> str | None:
    return _safely(partial(_with_resiliparse, precise), html)


def _with_resiliparse(precise: bool, html: str) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    # As DataComp-LM calls it: the whole main content, with lists and without alternative texts.
    text: str = extract_plain_text(html, main_content=True, alt_texts=False, comments=not precise, links=False)
    return text


def _trafilatura(precise: bool, html: str) -> str | None:
    return _safely(partial(_with_trafilatura, precise), html)


def _with_trafilatura(precise: bool, html: str) -> str:
    from trafilatura import extract

    return extract(html, favor_precision=precise, include_comments=False) or ""


def _safely(extract: Callable[[str], str], html: str) -> str | None:
    """Run in the extraction's own process, whose memory it bounds; None for any failure."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        from pathlib import Path

        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, hard))
    try:
        return extract(html)
    except Exception:  # parsers of hostile bytes raise nearly anything
        return None


EXTRACTORS: dict[Extractor, Callable[[bool, str], str | None]] = {
    "resiliparse": _resiliparse,
    "trafilatura": _trafilatura,
}


def too_deep(data: bytes, limit: int) -> bool:
    """Whether elements are nested deeper than `limit`, or unclosed ones would be copied as often, in linear time."""
    if data.count(b"<") <= limit:
        return False
    raw = np.frombuffer(data, np.uint8)
    following = raw[1:][raw[:-1] == ord("<")]
    steps = (following == ord("/")) * np.int8(-1) + ((following | 32) - ord("a") < 26)
    height = np.cumsum(steps, dtype=np.int64)
    # More than the true depth, since void and unclosed elements count: most pages need no second look.
    if height.size == 0 or int((height - np.minimum.accumulate(np.minimum(height, 0))).max()) <= limit:
        return False
    open_tags: list[bytes] = []
    counts: Counter[bytes] = Counter()
    for match in TAG.finditer(without_raw(data)):
        closing, name = match.group(1), match.group(2).lower()
        if name in VOID:
            continue
        if closing:
            while counts[name]:
                last = open_tags.pop()
                counts[last] -= 1
                if last == name:
                    break
        elif not (name in SELF_CLOSING and counts[name] and open_tags[-1] in SELF_CLOSING):
            open_tags.append(name)
            counts[name] += 1
            if len(open_tags) > limit:
                return True
    return False


def without_raw(data: bytes) -> bytes:
    """Without comments, scripts and styles; one that does not end stays, with all behind it."""
    parts, at, endless = list[bytes](), 0, set[bytes]()
    for begin in RAW.finditer(data):
        kind = (begin[1] or b"").lower()
        if begin.start() < at or kind in endless:
            continue
        if end := RAW_ENDS[kind].search(data, begin.end()):
            parts.append(data[at : begin.start()])
            at = end.end()
        else:
            endless.add(kind)
    return b"".join([*parts, data[at:]])


def decoded(data: bytes, charset: str = "") -> str:
    """A page as text: UTF-8 if it is that, else by what HTTP said, else by what its bytes look like."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        from resiliparse.parse.encoding import bytes_to_str, detect_encoding
    except ImportError as error:
        raise MissingExtraError("Reading web pages", "data") from error
    try:
        told = lookup(charset).name if charset else ""
    except LookupError:
        told = ""
    if told in ("utf-8", ""):
        told = detect_encoding(data, from_html_meta=True) or "windows-1252"
    text: str = bytes_to_str(data, told, errors="replace")
    return text


def license_in(data: bytes) -> str:
    """The SPDX name of the Creative Commons licence that a page links to as its own."""
    if b"license" not in data and b"LICENSE" not in data:
        return ""
    for link in LINK.findall(data):
        address = ADDRESS.search(link) if LICENSE.search(link) else None
        if address and (told := CREATIVE.search(address.group(1).decode("latin-1").lower())):
            name = NAMES.get(told.group(2), f"CC-{told.group(2).upper()}")
            return f"{name}-{told.group(3)}"
    return ""


def _language(data: bytes) -> str:
    told = LANGUAGE.search(data[:20_000])
    return told.group(1).decode() if told else ""


def _meta(pattern: re.Pattern[bytes], data: bytes) -> str:
    told = pattern.search(data)
    return told.group(1).decode("latin-1").strip() if told else ""
