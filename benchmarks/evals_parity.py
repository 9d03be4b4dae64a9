"""OpenAI's evals as its own tool judged them: how many reports, event counts and digests are the same here?

    FORETELL_DATA=FOLDER python benchmarks/evals_parity.py

FOLDER/evals holds the registry and what upstream reported with a deterministic model. The comparison is the one of
tests/evals/test_parity.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from common import ROOT, figure, write_result

sys.path.insert(0, str(ROOT / "tests" / "evals"))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if (place := os.environ.get("FORETELL_DATA")) is None:
        print("Nothing was compared: FORETELL_DATA names no folder.")
        return
    from goldenkit import fault, golden_model, golden_rows, unpacked

    data = Path(place) / "evals"
    golden, rows = golden_model(data), golden_rows(data)
    with tempfile.TemporaryDirectory() as folder:
        registry = unpacked(data, Path(folder))
        wrong = {row["eval"]: found for row in rows if (found := fault(registry, golden, row, Path(folder)))}
    for name, found in wrong.items():
        print(f"{name}: {found[:300]}")
    figures = {
        "agree": figure(len(rows) - len(wrong), "evals whose report, event counts and digest equal upstream's", 281),
        "of": figure(len(rows), "evals"),
    }
    print(write_result("evals_parity", "FORETELL_DATA=FOLDER python benchmarks/evals_parity.py", figures))


if __name__ == "__main__":
    main()
