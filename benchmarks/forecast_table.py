"""Write docs/forecasts.md: every forecast registered so far, hits and misses, from benchmarks/results/forecasts.

    python benchmarks/forecast_table.py [--check]

Each row is read from a bundle, after all of its checks. With --check nothing is written, and the exit code is 1 if the
page is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from common import RESULTS, ROOT
from foretell.forecast.register import BUNDLE, Claim, Record, read

PAGE = ROOT / "docs" / "forecasts.md"
HEAD = """# Every registered forecast

<!-- Written by `make forecasts` from the bundles in benchmarks/results/forecasts. Do not edit by hand. -->

Each row was registered before the first step of the run it speaks of, and is told whatever it came to. *Ratio*: the
target's compute over that of the largest rung it was fitted to. *Forecast*: with its interval. *Error*: forecast less
outcome, as a share of the outcome. A row is named by its bundle, which holds record, ladder table
and outcome: `foretell forecast verify BUNDLE` checks it, here or on another machine.
"""


def page(folder: Path) -> str:
    rows = [row for _, row in sorted(rows_of(folder))]
    if not rows:
        return HEAD + "\nNone is committed yet.\n"
    columns = ("forecast of", "registered (UTC)", "ratio", "forecast", "outcome", "error", "", "SHA-256")
    lines = [f"| {' | '.join(columns)} |", "|---|---|---:|---:|---:|---:|---|---|"]
    return "\n".join([HEAD, *lines, *rows, ""])


def rows_of(folder: Path) -> Iterator[tuple[tuple[str, str, int], str]]:
    """Rows with the key that they are sorted by."""
    for path in sorted(folder.rglob("*.json")):
        if json.loads(path.read_bytes()).get("form") == BUNDLE:
            record = read(path)
            for i, claim in enumerate(record.claims):
                yield (record.utc, path.name, i), row(path.relative_to(folder), record, claim)


def row(path: Path, record: Record, claim: Claim) -> str:
    largest = max(rung.flops for rung in record.table().rungs)
    unit = f" ({record.raw['unit']})" if claim.name == "loss" else ""
    shown = f"{claim.value:.4g} ({claim.low:.4g} to {claim.high:.4g}, {claim.level:.0%})"
    found = [outcome for outcome in record.outcomes if outcome.claim.name == claim.name]
    if not found:
        came, error, verdict = "open", "", ""
    elif (outcome := found[0]).measured is None:
        came, error, verdict = "diverged", "", "miss"
    else:
        came, verdict = f"{outcome.measured:.4g}", "hit" if outcome.hit else "**miss**"
        error = f"{outcome.error:+.2%}" if outcome.error is not None else ""
    name = path.as_posix().removesuffix(".json").removesuffix(".bundle")
    cells = (
        f"{name}: {claim.name}{unit}",
        record.utc[:16].replace("T", " "),
        f"{record.target / largest:,.0f}×",
        shown,
    )
    return f"| {' | '.join((*cells, came, error, verdict, record.sha256[:12]))} |"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--check", action="store_true")
    text = page(RESULTS / "forecasts")
    if options.parse_args().check:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
