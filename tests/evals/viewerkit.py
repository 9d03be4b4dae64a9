"""Logs for the viewer's tests, and what a page may hold."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from foretell.evals.log import Journal, write_log
from foretell.evals.prompts import Prompt
from foretell.evals.viewer.runs import Run, Shelf

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "');alert(1);//",
    "</script><svg onload=alert(1)>\u2028\u2029\\",
    "\x00\x1b[31m\ud800",
    "javascript:alert(1)",
    "__proto__",
]
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG" + b"\0" * 300).decode()


def write(
    path: Path,
    samples: list[list[tuple[str, dict[str, Any]]]],
    each: int = 10**9,
    ids: list[str] | None = None,
    **spec: Any,
) -> Path:
    """A finished log with the given events. each: samples of one epoch."""
    told = {"eval_name": "e", "completion_fns": ["m"], "run_id": path.stem, "created_at": "2026-01-02 03:04:05"} | spec
    journal = Journal(path, told, "d", len(samples))
    for place, events in enumerate(samples):
        journal.add(place, ids[place] if ids else f"e.test.{place % each}", events, epoch=place // each)
    write_log(path, journal, lambda events: None, lambda: {"final_report": {"accuracy": 0.5}})
    return path


def match(correct: bool, asked: Prompt = "q", said: str = "a", expected: Any = "x") -> list[tuple[str, dict[str, Any]]]:
    return [
        ("sampling", {"prompt": asked, "sampled": [said], "model": "m-1"}),
        ("match", {"correct": correct, "expected": expected, "picked": said}),
    ]


def only(folder: Path) -> Run:
    (run,) = Shelf(folder).runs().values()
    return run


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def is_harmless(page: str) -> None:
    """Nothing but the viewer's own script and stylesheets is loaded, nothing runs in line."""
    for tag, attributes in Tags(page).found:
        assert tag not in {"iframe", "object", "embed", "base", "form", "img", "style"}
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        if tag == "script":
            assert attributes["src"] in {"main.js", "viewer.js"}
        if tag == "a":
            assert re.match(r"(index|view|eval-[0-9a-f]{12})\.html(#/[\w/]+)?\Z", attributes["href"] or "")
    page.encode()
