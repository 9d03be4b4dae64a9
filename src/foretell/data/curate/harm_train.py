"""Train the classifier of sexual and toxic text: `python -m foretell.data.curate.harm_train LABELS PLAIN… --out FILE`.

LABELS: JSON lines, gzipped or not, with `prompt` and labels in the form of OpenAI's moderation set (S, S3, H, H2, HR,
V2 as 0 or 1; a missing label counts as 0). PLAIN: Parquet files in our form of which nothing is of either kind; rows
held out are left out. What is packaged was trained on OpenAI's moderation evaluation set (1,680 texts, MIT; Markov et
al., 2023, arXiv 2208.03274), and OpenStax, Standard Ebooks and documentation (CC BY, CC0, MIT, BSD, Apache-2.0) as
plain texts: the file has weights of hashed words, no text.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foretell.data.curate.harm import CLASSIFIER
from foretell.data.curate.texts import pieces, spread
from foretell.errors import DataError, ForetellError
from foretell.measure.classify import TextClassifier, fit_classifier

KINDS = {"sexual": ("S", "S3"), "toxic": ("H", "H2", "HR", "V2")}
BUCKETS, L2, EACH, LONGEST = 1 << 14, 1e-4, 400, 3000


def read_labelled(path: Path) -> tuple[list[str], npt.NDArray[np.bool_]]:
    """Texts, and whether each is of each kind, (N, 2). Raises DataError for a file of another form."""
    try:
        data = path.read_bytes()
        lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        truth = [[any(row.get(label) == 1 for label in labels) for labels in KINDS.values()] for row in rows]
        return [row["prompt"][:LONGEST] for row in rows], np.array(truth, np.bool_)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise DataError(f"{path} is not in the form of OpenAI's moderation set ({error!r}).") from error


def read_plain(paths: Sequence[Path]) -> list[str]:
    """One piece of each of at most 400 documents a file, spread over the file."""
    import pyarrow.parquet as pq

    found = list[str]()
    for path in paths:
        try:
            table = pq.read_table(path, columns=["texts", "split"])
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as documents in Parquet ({error}).") from error
        rows = [row["texts"] for row in table.to_pylist() if row["split"] != "heldout"]
        for texts in spread(rows, EACH):
            cut = pieces("\n\n".join(text for text in texts if text))
            found.append(cut[len(cut) // 2])
    return found


def train(texts: Sequence[str], truth: npt.NDArray[np.bool_], plain: Sequence[str]) -> TextClassifier:
    """A logistic regression a kind, on labelled texts and plain ones together."""
    none = np.zeros((len(plain), len(KINDS)), np.bool_)
    return fit_classifier([*texts, *plain], np.vstack([truth, none]), tuple(KINDS), l2=L2, buckets=BUCKETS)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train the classifier of sexual and toxic text.")
    parser.add_argument("labels", type=Path)
    parser.add_argument("plain", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, default=CLASSIFIER)
    options = parser.parse_args(arguments)
    try:
        texts, truth = read_labelled(options.labels)
        classifier = train(texts, truth, read_plain(options.plain))
        # To a sixty-fourth, which no score feels, and the file is a quarter of the size.
        weights = np.asarray(np.round(classifier.weights * 64) / 64, np.float32)
        TextClassifier(classifier.classes, weights, classifier.bias, classifier.exclusive).save(options.out)
    except ForetellError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: {len(texts)} labelled texts, {', '.join(classifier.classes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
