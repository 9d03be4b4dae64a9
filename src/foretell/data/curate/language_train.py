"""Train the language model: `python -m foretell.data.curate.language_train de=texts/ en=corpus.parquet --out FILE`.

A language may be named several times. A file is Parquet in our form (rows of another `lang`, and held-out ones, are
left out), JSON lines with `text`, or plain text; a folder stands for its files. What is packaged was trained on
OpenStax textbooks (en, es, pl; CC BY 4.0), Standard Ebooks (en; CC0), MGSM (bn, de, es, fr, ja, ru, sw, te, th, zh;
CC BY 4.0) and Global-MMLU-Lite (id, ms, tl, vi, zh; Apache-2.0): the file has counts of letter groups, no text.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from foretell.data.curate.language import PACKAGED, fit_languages
from foretell.errors import DataError, ForetellError

MOST = 3_000_000  # characters of one file


def texts(path: Path) -> Iterator[str]:
    """The texts of a file, or of all files of a folder, in an order that is the same everywhere.

    Raises DataError for what cannot be read.
    """
    try:
        if path.is_dir():
            for file in sorted(found for found in path.rglob("*") if found.is_file()):
                yield from texts(file)
        elif path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".jsonl":
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                yield " ".join(str(value) for value in row.values() if isinstance(value, str))
        else:
            yield path.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as text of one language ({error}).") from error


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    columns = [name for name in ("texts", "split") if name in file.schema_arrow.names]
    for batch in file.iter_batches(64, columns=columns):
        for row in batch.to_pylist():
            if row.get("split") != "heldout":
                yield "\n".join(text for text in row["texts"] if text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the language model.")
    parser.add_argument("sources", nargs="+", metavar="LANG=PATH")
    parser.add_argument("--out", type=Path, default=PACKAGED)
    options = parser.parse_args(arguments)
    try:
        model = fit_languages(_pairs(options.sources))
        model.save(options.out)
    except ForetellError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: {', '.join(model.languages)}")
    return 0


def _pairs(sources: list[str]) -> Iterator[tuple[str, str]]:
    for source in sources:
        language, found, path = source.partition("=")
        if not found:
            raise DataError(f"{source!r} names no language. Write it as LANG=PATH, such as de=texts/german.")
        left = MOST
        for text in texts(Path(path)):
            yield language, text[:left]
            left -= len(text)
            if left <= 0:
                break


if __name__ == "__main__":
    sys.exit(main())
