"""Small text classifiers: logistic regression on hashed words and letter groups, trained in seconds, kept as npz."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from foretell.errors import DataError
from foretell.files import atomic_path

Floats = npt.NDArray[np.float64]
Text = str | tuple[str, ...]
"""One text, or several fields of one sample (such as prompt and reply), whose words are kept apart."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[?!…%$€]")


@dataclass(frozen=True)
class TextClassifier:
    """classes: in the order of the columns. weights: (buckets, classes); bias: (classes,).

    exclusive: each text is of exactly one class (softmax); otherwise each class holds or not, by itself (sigmoid).
    """

    classes: tuple[str, ...]
    weights: npt.NDArray[np.float32]
    bias: Floats
    exclusive: bool = True

    def probabilities(self, texts: Sequence[Text]) -> Floats:
        """(N, classes); rows sum to 1 where classes are exclusive."""
        logits = np.empty((len(texts), len(self.classes)))
        for i, text in enumerate(texts):  # by hand, since a sparse matrix takes longer to be made than to be used
            found, row = _row(text, len(self.weights))
            logits[i] = row @ self.weights[found].astype(np.float64) + self.bias
        return _softmax(logits) if self.exclusive else _sigmoid(logits)

    def save(self, path: Path) -> None:
        """Write as npz, whole or not at all; rows of weights that are zero are left out."""
        rows = np.flatnonzero(self.weights.any(axis=1))
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                classes=np.array(self.classes),
                rows=rows,
                weights=self.weights[rows],
                bias=self.bias,
                buckets=np.array(len(self.weights)),
                exclusive=np.array(self.exclusive),
            )

    @classmethod
    def load(cls, path: Path) -> TextClassifier:
        """Raises DataError for a file that is missing, damaged, or no classifier."""
        try:
            with np.load(path, allow_pickle=False) as saved:
                weights = np.zeros((int(saved["buckets"]), len(saved["classes"])), np.float32)
                weights[saved["rows"]] = saved["weights"]
                classes = tuple(str(name) for name in saved["classes"])
                bias = saved["bias"].astype(np.float64)
                if bias.shape != (len(classes),) or not (np.isfinite(weights).all() and np.isfinite(bias).all()):
                    raise ValueError("its numbers do not fit its classes")
                return cls(classes, weights, bias, bool(saved["exclusive"]))
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, zlib.error, BadZipFile) as error:
            raise DataError(f"{path} cannot be read as a text classifier ({error}). Train it again.") from error


def fit_classifier(
    texts: Sequence[Text],
    targets: Sequence[str] | npt.NDArray[np.bool_],
    classes: Sequence[str] | None = None,
    *,
    l2: float = 1e-3,
    balanced: bool = False,
    buckets: int = 1 << 16,
) -> TextClassifier:
    """The classifier of least mean log-loss plus l2 / 2 · ‖weights‖², the bias free.

    targets: one class a text; or (N, classes) of true and false, and then `classes` names the columns.
    classes: in the order wanted; sorted targets where it is missing. balanced: each class weighs the same, and so do
    true and false of one that holds or not.
    Raises DataError for no texts, targets of another length, an unknown target, or a single class.
    """
    from scipy.optimize import minimize

    truth, names, exclusive = _targets(texts, targets, classes)
    features = hashed_features(texts, buckets)
    seen = np.unique(features.indices)  # the rest stays zero
    x, back = _within_span(features[:, seen])
    weight = _sample_weights(truth, exclusive) if balanced else np.ones_like(truth)
    shape = x.shape[1] + 1, len(names)

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(shape)
        logits = x @ w[:-1] + w[-1]
        if exclusive:
            losses = truth * (_logsumexp(logits) - logits)
            slope = weight.max(axis=1, keepdims=True) * (_softmax(logits) - truth)
        else:
            losses = np.logaddexp(0, logits) - truth * logits
            slope = weight * (_sigmoid(logits) - truth)
        gradient = np.vstack([x.T @ slope / len(truth) + l2 * w[:-1], slope.mean(axis=0)])
        return float((weight * losses).sum() / len(truth) + l2 / 2 * (w[:-1] ** 2).sum()), gradient.ravel()

    found = minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    w = found.x.reshape(shape)
    weights = np.zeros((buckets, len(names)), np.float32)
    weights[seen] = back @ w[:-1]
    return TextClassifier(names, weights, w[-1], exclusive)


def hashed_features(texts: Sequence[Text], buckets: int) -> Any:
    """Sparse rows of length 1, (N, buckets): words, pairs of words, and groups of 3 to 5 letters, hashed by CRC-32.

    A count n weighs 1 + log n. Signs are not hashed: collisions add, which few texts in many buckets hardly feel.
    Source: Weinberger et al. (2009), Feature Hashing for Large Scale Multitask Learning.
    """
    from scipy.sparse import csr_matrix

    indptr, indices, values = [0], list[npt.NDArray[np.int64]](), list[Floats]()
    for text in texts:
        found, row = _row(text, buckets)
        values.append(row)
        indices.append(found)
        indptr.append(indptr[-1] + len(found))
    data = np.concatenate(values) if values else np.zeros(0)
    at = np.concatenate(indices) if indices else np.zeros(0, np.int64)
    return csr_matrix((data, at, indptr), shape=(len(texts), buckets))


def _row(text: Text, buckets: int) -> tuple[npt.NDArray[np.int64], Floats]:
    """Which features a text has, ascending, and what each weighs."""
    found, counts = np.unique(_hashes(text) % buckets, return_counts=True)
    row = 1 + np.log(counts)
    return found, row / max(float(np.sqrt(row @ row)), 1e-12)


def _hashes(text: Text) -> npt.NDArray[np.int64]:
    """CRC-32 of everything in a text that counts."""
    found = list[int]()
    for i, part in enumerate((text,) if isinstance(text, str) else text):
        words = _WORD.findall(part.lower())
        found.append(zlib.crc32(f"{i}^{len(words).bit_length()}".encode()))  # how long it is, in octaves
        for word, following in zip(words, [*words, "$"][1:], strict=True):
            found.append(zlib.crc32(f"{i}w{word} {following}".encode()))
            found += _of_word(i, word)
    return np.array(found, np.int64)


@lru_cache(1 << 15)
def _of_word(field: int, word: str) -> tuple[int, ...]:
    """Of a word and its groups of letters; texts repeat their words."""
    padded = f"<{word}>"
    groups = [f"{field}w{word}"]
    groups += [f"{field}c{padded[at : at + n]}" for n in (3, 4, 5) for at in range(len(padded) - n + 1)]
    return tuple(zlib.crc32(group.encode()) for group in groups)


def _targets(
    texts: Sequence[Text], targets: Sequence[str] | npt.NDArray[np.bool_], classes: Sequence[str] | None
) -> tuple[Floats, tuple[str, ...], bool]:
    """Truth (N, classes) as 0 and 1, the classes' names, and whether they exclude each other."""
    if not len(texts) or len(texts) != len(targets):
        raise DataError(f"{len(texts)} texts have {len(targets)} targets; expected as many, and at least one.")
    if isinstance(targets, np.ndarray):
        if targets.ndim != 2 or classes is None or targets.shape[1] != len(classes):
            raise DataError(f"Targets have shape {targets.shape}; expected (texts, classes), and the classes' names.")
        return targets.astype(np.float64), tuple(classes), False
    names = tuple(sorted(set(targets)) if classes is None else classes)
    unknown = sorted(set(targets) - set(names))
    if unknown or len(names) < 2:
        raise DataError(
            f"Targets are {', '.join(unknown)}, which is no class; classes are {', '.join(names)}."
            if unknown
            else f"All targets are {names[0]}; expected two classes or more."
        )
    index = {name: i for i, name in enumerate(names)}
    return np.eye(len(names))[[index[target] for target in targets]], names, True


def _within_span(x: Any, most: int = 2000) -> tuple[Any, Any]:
    """Rows (N, d) in an orthonormal basis of their span, (N, r), and the map of weights back to the features, (d, r).

    The best weights lie in the span of the texts, and few texts span far fewer dimensions than they have features.
    Above `most` texts the features are kept as they are.
    """
    if x.shape[0] > min(most, x.shape[1]):
        from scipy.sparse import identity

        return x, identity(x.shape[1], format="csr")
    values, vectors = np.linalg.eigh((x @ x.T).toarray())
    kept = values > 1e-10 * values[-1]
    roots, vectors = np.sqrt(values[kept]), vectors[:, kept]
    return vectors * roots, x.T @ (vectors / roots)


def _sample_weights(truth: Floats, exclusive: bool) -> Floats:
    """(N, classes): those of one class together weigh as much as those of another."""
    count = np.maximum(truth.sum(axis=0), 1)
    if exclusive:
        share = truth / (count * (truth.any(axis=0).sum() / len(truth)))
        return np.asarray(share.max(axis=1, keepdims=True) * np.ones_like(truth))
    other = np.maximum(len(truth) - truth.sum(axis=0), 1)
    return np.asarray(np.where(truth > 0, len(truth) / (2 * count), len(truth) / (2 * other)))


def _logsumexp(logits: Floats) -> Floats:
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))


def _softmax(logits: Floats) -> Floats:
    return np.asarray(np.exp(logits - _logsumexp(logits)))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))
