"""Write docs/results.md from benchmarks/results/*.json, or with --check say whether it is up to date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import ROOT, read_results

PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results

<!-- Written by `make results` from benchmarks/results/*.json. Do not edit by hand. -->

Every figure here was measured by a command in this repository and is committed with it. The value is the median, the
spread the smallest and largest of the rounds, the aim what was asked for before measuring. A figure that was not
measured is absent; a miss stays in the table.
"""


def page(results: list[dict[str, Any]]) -> str:
    """The whole page as Markdown."""
    return "\n".join([HEAD, *map(section, results)]) if results else HEAD + "\nNo result is committed yet.\n"


def section(result: dict[str, Any]) -> str:
    """One result: what was run, on what, and its figures as a table."""
    machine = result["machine"]
    parts = [machine["cpu"], f"{machine['cores']} cores", machine["gpu"], f"torch {machine['torch']}"]
    where = ", ".join(part for part in parts if part)
    lines = [
        f"## {result['file'].removesuffix('.json')}",
        "",
        f"`{result['command']}` at `{result['commit'][:12]}`, {result['utc'][:10]}, on {where}.",
        "",
        "| figure | value | spread | aim | unit |",
        "|---|---:|---:|---:|---|",
        *(row(name, figure) for name, figure in result["figures"].items()),
        "",
    ]
    return "\n".join(lines)


def row(name: str, figure: dict[str, Any]) -> str:
    spread = " to ".join(map(number, figure["spread"])) if "spread" in figure else ""
    aim = number(figure["aim"]) if figure.get("aim") is not None else ""
    return f"| {name} | {number(figure['value'])} | {spread} | {aim} | {figure['unit']} |"


def number(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is out of date")
    text = page(read_results())
    if not options.parse_args().check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/results.md differs from benchmarks/results/*.json; run: make results", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
