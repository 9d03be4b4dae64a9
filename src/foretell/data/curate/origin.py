"""Where a document comes from: licence allow-list, date cutoff, and what owners have asked not to be used."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import field_validator

from foretell.data.curate.robots import AGENTS, Robots
from foretell.data.curate.steps import Removed, Step
from foretell.data.curate.texts import StepSection, removed
from foretell.data.document import Document
from foretell.errors import DataError

OPEN = (
    "CC0-1.0", "PDDL-1.0", "Unlicense", "0BSD", "public-domain", "CC-BY-[1-4].[05]", "CC-BY-SA-[1-4].[05]",
    "ODC-By-1.0", "MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "PSF-2.0", "Python-2.0*",
    "BSL-1.0", "HPND", "NCSA", "Unicode-3.0", "Unicode-DFS-2016",
)  # fmt: skip
_PART = re.compile(r"[()]|[^\s()]+")
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?")


class LicenceStep(StepSection):
    """allow: SPDX identifiers, with wildcards of shells. Of `A OR B` one is enough, of `A AND B` both are needed; an
    exception after WITH is not looked at, since it only gives more rights. "unknown" is allowed if it is listed."""

    step: Literal["licence"] = "licence"
    allow: tuple[str, ...] = OPEN

    def __call__(self, document: Document) -> Document | Removed:
        if _allowed(document.license, self.allow):
            return document
        unknown = not document.license or document.license == "unknown"
        return removed(document, f"licence.{'unknown' if unknown else 'not_allowed'}", document.license)


@lru_cache(4096)
def _allowed(expression: str, allow: tuple[str, ...]) -> bool:
    """Whether an SPDX expression gives a way to use what it covers; a damaged one gives none."""
    parts = _PART.findall(expression)[::-1]

    def either() -> bool:
        holds = both()
        while parts and parts[-1].upper() == "OR":
            parts.pop()
            holds = both() or holds
        return holds

    def both() -> bool:
        holds = single()
        while parts and parts[-1].upper() == "AND":
            parts.pop()
            holds = single() and holds
        return holds

    def single() -> bool:
        part = parts.pop()
        if part == "(":
            holds = either()
            if parts.pop() != ")":
                raise IndexError
            return holds
        if part == ")" or part.upper() in ("AND", "OR", "WITH"):
            raise IndexError
        if parts and parts[-1].upper() == "WITH":
            parts.pop()
            parts.pop()
        name = part.removesuffix("+").lower()
        return any(fnmatchcase(name, pattern.lower()) for pattern in allow)

    try:
        return either() and not parts
    except (IndexError, RecursionError):
        return False


class CutoffStep(StepSection):
    """last: the last day, ISO 8601, that a document may be of; GPT-4's was 2021-09-30. A document of a year or month
    alone is taken to be of its last day. missing: what becomes of documents without a date."""

    step: Literal["cutoff"] = "cutoff"
    last: str
    missing: Literal["keep", "remove"] = "keep"

    @field_validator("last")
    @classmethod
    def _is_date(cls, last: str) -> str:
        if _last_day(last) is None:
            raise ValueError(f"{last!r} is no date; expected a year, YYYY-MM or YYYY-MM-DD")
        return last

    def __call__(self, document: Document) -> Document | Removed:
        day = _last_day(document.date or "")
        if day is None:
            keep = self.missing == "keep"
            return document if keep else removed(document, "cutoff.no_date", document.date or "")
        last = _last_day(self.last) or ""
        return document if day <= last else removed(document, "cutoff.later", document.date or "")


def _last_day(date: str) -> str | None:
    """YYYY-MM-DD, in which order of letters is order of days."""
    found = _DATE.match(date.strip())
    if not found:
        return None
    year, month = found[1], found[2] or "12"
    days = monthrange(max(int(year), 1), int(month))[1] if 1 <= int(month) <= 12 else 31
    return f"{year}-{month}-{found[3] or days}"


class OptOutStep(StepSection):
    """What owners have asked not to be used for training.

    robots: a folder of robots.txt files by host (`example.org.txt`); a document goes if any of `agents` may not fetch
    its address. hosts: a file of hosts, one a line, that are left out with all their subdomains. headers: heed
    `tdm-reservation: 1` and `noai` in `x-robots-tag`, where the reader of web archives recorded them as labels, and
    ai.txt beside robots.txt (`example.org.ai.txt`, same form).
    """

    step: Literal["opt_out"] = "opt_out"
    robots: Path | None = None
    hosts: Path | None = None
    agents: tuple[str, ...] = AGENTS
    headers: bool = True

    def make(self) -> Step:
        """Raises DataError for a list or a folder that cannot be read."""
        if self.robots is not None and not self.robots.is_dir():
            raise DataError(
                f"{self.robots} is no folder of robots.txt files. Give one with a file `<host>.txt` a host."
            )
        hosts = frozenset[str]()
        if self.hosts is not None:
            try:
                lines = self.hosts.read_text(encoding="utf-8").splitlines()
            except (OSError, ValueError) as error:
                raise DataError(f"{self.hosts} cannot be read as a list of hosts ({error}).") from error
            names = (line.split("#")[0].strip().lower().removeprefix("*.") for line in lines)
            hosts = frozenset(name for name in names if name)
        return OptOut(self.robots, hosts, self.agents, self.headers)


@dataclass(frozen=True)
class OptOut:
    robots: Path | None
    hosts: frozenset[str]
    agents: tuple[str, ...] = AGENTS
    headers: bool = True
    name: str = "opt_out"

    def __call__(self, document: Document) -> Document | Removed:
        labels = document.labels
        if self.headers:
            if labels.get("tdm-reservation", "").strip() == "1":
                return removed(document, "opt_out.tdm_reservation")
            if re.search(r"\bnoai\b", labels.get("x-robots-tag", ""), re.IGNORECASE):
                return removed(document, "opt_out.x_robots_tag", labels["x-robots-tag"])
        address = labels.get("url", "")
        try:
            parts = urlsplit(address)
            host = (parts.hostname or "").lower().rstrip(".")
        except ValueError:
            host = ""
        if not host:
            return document
        names = host.split(".")
        if self.hosts and any(".".join(names[i:]) in self.hosts for i in range(len(names))):
            return removed(document, "opt_out.host", host)
        if self.robots is not None:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            for name in (f"{host}.txt", f"{host}.ai.txt"):
                rules = _robots(self.robots / name)
                refused = next((agent for agent in self.agents if rules and not rules.allows(agent, path)), None)
                if refused is not None:
                    return removed(document, "opt_out.robots", f"{refused} {address}")
        return document


@lru_cache(4096)
def _robots(path: Path) -> Robots | None:
    try:
        return Robots.parse(path.read_bytes()[: 500 * 1024].decode("utf-8", "replace"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error}); without it, what its owner asked for is not known."
        ) from error
