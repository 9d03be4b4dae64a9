"""How good and how fast the curation steps are, on real documents and public labels.

    FORETELL_DATA=FOLDER python benchmarks/data_filters.py [--megabytes N] [--parts PART ...]

Sexual and toxic text: OpenAI's moderation set of 1,680 texts in five folds, by their hash; the classifier of each fold
learns from the other four and from plain documents, as the packaged one learned from all. Average precision of the
lexicon alone, the classifier alone, and both as the step takes them; precision and recall at the step's own threshold;
intervals are bootstrapped over texts. No other public set here has people's labels of these kinds, and the lexicon, the
step's threshold and the weight of its parts were chosen on the same texts, so that the figures are a little too good.
The packaged filter, which learned from all of them, is asked only where nothing is of either kind, so that what it
removes is wrong: documents held out of the corpus, and the questions of MMLU, those on medicine and sexuality apart. Of
replies of HH-RLHF, which nobody labelled, the share that it finds toxic.

Language: documents held out of the corpus (long), the last 50 problems a language of MGSM and the last fifth of
Global-MMLU-Lite (short), none of which the packaged model has seen. Personal data: 100 strings a kind planted in
documents held out, and what is found there that was not planted. Rules: the share of documents on which our step and
plain datatrove agree in verdict, reason and text. Quality: a classifier trained to tell textbooks from documentation.
Speed: megabytes of UTF-8 a second on one core, of --megabytes of mixed documents.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from common import figure, write_result
from foretell.data.curate.catalog import STEPS
from foretell.data.curate.harm import LEXICON, Lexicon, SexualStep, ToxicStep
from foretell.data.curate.harm_train import KINDS, read_labelled, read_plain, train
from foretell.data.curate.language import LanguageModel
from foretell.data.curate.pii import find_pii
from foretell.data.curate.pii_numbers import is_iban, luhn
from foretell.data.curate.quality import train_quality
from foretell.data.curate.rules import judge, simple_words
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment

FOLDS, RESAMPLES = 5, 199
HARM = {"sexual": SexualStep, "toxic": ToxicStep}
CORPUS = ("textbooks-en", "textbooks-es", "textbooks-pl", "docs-en", "books-en")
Figures = dict[str, dict[str, Any]]
RULES = {
    "gopher_quality": "GopherQualityFilter",
    "gopher_repetition": "GopherRepetitionFilter",
    "c4_quality": "C4QualityFilter",
    "fineweb_quality": "FineWebQualityFilter",
}


def documents(data: Path, name: str, split: str | None = None, images: bool = False) -> Iterator[Document]:
    """Documents of one file of the corpus."""
    columns = ["id", "source", "license", "lang", "split", "texts", *(["images"] if images else [])]
    for batch in pq.ParquetFile(data / "corpus" / f"{name}.parquet").iter_batches(64, columns=columns):
        for row in batch.to_pylist():
            if split is not None and row["split"] != split:
                continue
            pictures = row.get("images") or [None] * len(row["texts"])
            segments = tuple(
                Segment(text) if text is not None else Segment(image=picture["bytes"], alt=picture["alt"])
                for text, picture in zip(row["texts"], pictures, strict=True)
                if text is not None or picture is not None
            )
            yield Document(row["id"], segments, row["source"], row["license"], row["lang"])


def average_precision(truth: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, scores))


def interval(
    measure: Callable[[npt.NDArray[np.int64]], float], count: int, rng: np.random.Generator
) -> tuple[float, float]:
    """95 % by the bootstrap."""
    found = [measure(rng.integers(0, count, count)) for _ in range(RESAMPLES)]
    return float(np.nanpercentile(found, 2.5)), float(np.nanpercentile(found, 97.5))


def harm(data: Path, figures: Figures, _: float) -> None:
    """On people's labels, by cross-validation."""
    texts, truth = read_labelled(data / "benchmarks/openai_moderation-api-release/data/samples-1680.jsonl.gz")
    plain = read_plain([data / "corpus" / f"{name}.parquet" for name in CORPUS])
    fold = np.array([int(hashlib.sha256(text.encode()).hexdigest(), 16) % FOLDS for text in texts])
    both, alone = np.zeros(truth.shape), np.zeros(truth.shape)
    with tempfile.TemporaryDirectory() as folder:
        for k in range(FOLDS):
            path = Path(folder) / f"{k}.npz"
            classifier = train([texts[i] for i in np.flatnonzero(fold != k)], truth[fold != k], plain)
            classifier.save(path)
            for i in np.flatnonzero(fold == k):
                alone[i] = classifier.probabilities([texts[i]])[0]
                both[i] = [HARM[kind](classifier=path).score(texts[i]) for kind in KINDS]
    rng = np.random.default_rng(0)
    for j, kind in enumerate(KINDS):
        lexicon, y = Lexicon.load(LEXICON, kind), truth[:, j]
        density = np.array([lexicon.weight(text) / max(len(text.split()), 50) for text in texts])
        for name, scores in (("lexicon", density), ("classifier", alone[:, j]), ("both", both[:, j])):
            ends = interval(lambda rows, s=scores, t=y: average_precision(t[rows], s[rows]), len(y), rng)
            figures[f"{kind}_auprc_{name}"] = figure(average_precision(y, scores), "AUPRC", interval=ends)
        for level in (0.5, HARM[kind]().at_least, 0.9):
            flagged = both[:, j] >= level
            suffix = f"at_{round(level * 100)}"
            for name, part, of in (("precision", y, flagged), ("recall", flagged, y)):
                ends = interval(lambda rows, p=part, o=of: float(p[rows][o[rows]].mean()), len(y), rng)
                figures[f"{kind}_{name}_{suffix}"] = figure(float(part[of].mean()), "share", interval=ends)
    figures["moderation_texts"] = figure(len(texts), "texts")


def harmless(data: Path, figures: Figures, _: float) -> None:
    """What the packaged filter removes of documents held out, and of replies of HH-RLHF."""
    held = [document for name in CORPUS for document in documents(data, name, "heldout")]
    for kind in KINDS:
        step = HARM[kind]()
        gone = [document.id for document in held if isinstance(step(document), Removed)]
        figures[f"{kind}_removed_of_heldout"] = figure(len(gone) / len(held), "share")
    figures["heldout_documents"] = figure(len(held), "documents")
    delicate, other = questions(data / "benchmarks/HaeChan0305_MLILAB-FedLLM/data/mmlu/test")
    for name, texts in (("delicate", delicate), ("other", other)):
        for kind in KINDS:
            step = HARM[kind]()
            wrong = [step.score(text) >= step.at_least for text in texts]
            figures[f"{kind}_removed_of_mmlu_{name}"] = figure(float(np.mean(wrong)), "share")
        figures[f"mmlu_{name}_questions"] = figure(len(texts), "questions")
    with gzip.open(data / "benchmarks/anthropics_hh-rlhf/harmless-base/test.jsonl.gz", "rt") as stream:
        rows = [json.loads(line) for line in stream]
    step = ToxicStep()
    for side in ("chosen", "rejected"):
        replies = [row[side].rsplit("\n\nAssistant:", 1)[-1] for row in rows]
        figures[f"hh_{side}_toxic"] = figure(
            float(np.mean([step.score(text) >= step.at_least for text in replies])), "share"
        )
    figures["hh_replies"] = figure(len(rows), "pairs")


def questions(folder: Path) -> tuple[list[str], list[str]]:
    """MMLU's questions with their choices: those on bodies and sexuality, and every fifth of the others."""
    delicate, other = list[str](), list[str]()
    for path in sorted(folder.glob("*_test.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            texts = [" ".join(row[:5]) for row in csv.reader(stream)][1:]
        near = any(word in path.stem for word in ("sexuality", "anatomy", "medic", "clinical", "virology", "biology"))
        if near:
            delicate += texts
        else:
            other += texts[::5]
    return delicate, other


def language(data: Path, figures: Figures, _: float) -> None:
    model, at_least = LanguageModel.load(), 0.65
    long = [(name[-2:], text) for name in CORPUS for text in map(whole, documents(data, name, "heldout"))]
    short = list[tuple[str, str]]()
    for path in sorted((data / "benchmarks/google-research_url-nlp/mgsm").glob("mgsm_*.tsv")):
        short += [(path.stem[-2:], line) for line in path.read_text(encoding="utf-8").splitlines()[-50:] if line]
    folder = data / "benchmarks/aisingapore_SEA-HELM/seahelm_tasks/knowledge/global_mmlu_lite"
    for code in ("id", "ms", "tl", "vi", "zh"):
        lines = (folder / f"global_mmlu_lite_{code}_test.jsonl").read_text(encoding="utf-8").splitlines()
        for line in lines[-(len(lines) // 5) :]:
            prompt = json.loads(line)["prompts"][0]
            short.append((code, " ".join(text for text in prompt.values() if isinstance(text, str) and len(text) > 1)))
    for name, pairs in (("long", long), ("short", short)):
        found = [(code, *model.identify(text)) for code, text in pairs]
        said = [(code, guess) for code, guess, probability in found if probability >= at_least]
        figures[f"language_right_{name}"] = figure(sum(a == b for a, b in said) / len(found), "share")
        figures[f"language_wrong_{name}"] = figure(sum(a != b for a, b in said) / len(found), "share")
        figures[f"language_{name}_texts"] = figure(len(found), "texts")


def whole(document: Document) -> str:
    return "\n\n".join(segment.text for segment in document.segments if segment.text)


def makers(draw: random.Random) -> dict[str, Callable[[], str]]:
    def digits(n: int) -> str:
        return "".join(draw.choices("0123456789", k=n))

    def card() -> str:
        start = (draw.choice(["4", "51", "55", "2221"]) + digits(15))[:15]
        number = next(start + d for d in "0123456789" if luhn(start + d))
        joint = draw.choice(["", " ", "-"])
        return joint.join(number[i : i + 4] for i in (0, 4, 8, 12))

    def iban() -> str:
        country, n = draw.choice([("DE", 18), ("ES", 20), ("PL", 24), ("NL", 0)])
        account = f"ABNA{digits(10)}" if country == "NL" else digits(n)
        number = next(f"{country}{c:02}{account}" for c in range(2, 99) if is_iban(f"{country}{c:02}{account}"))
        return draw.choice([number, " ".join(re.findall(".{1,4}", number))])

    def phone() -> str:
        a, b = draw.randint(201, 989), draw.randint(200, 999)
        form = draw.choice(["({}) {}-{}", "{}-{}-{}", "+1 {} {} {}", "{}.{}.{}"])
        abroad = draw.choice(
            [f"+48 {a} {b} {digits(3)}", f"+34 6{digits(2)} {digits(3)} {digits(3)}", f"+44 20 {digits(4)} {digits(4)}"]
        )
        return draw.choice([form.format(a, b, digits(4)), abroad])

    names, hosts = (
        ["anna.k", "john_d", "m.garcia", "p-nowak", "info87", "lee"],
        ["mail.com", "uni.edu", "firma.pl", "correo.es", "post.de"],
    )
    return {
        "email": lambda: f"{draw.choice(names)}{draw.choice(['@', '@', '@', ' [at] '])}{draw.choice(hosts)}",
        "phone": phone,
        "ip": lambda: ".".join(map(str, (draw.choice([8, 52, 93, 151]), *(draw.randint(64, 254) for _ in range(3))))),
        "card": card,
        "iban": iban,
        "ssn": lambda: f"{draw.randint(100, 665)}-{draw.randint(10, 99)}-{draw.randint(1000, 9999)}",
    }


def personal(data: Path, figures: Figures, _: float, each: int = 100) -> None:
    """Planted between two words, in documents that had nothing, and what else is found in the whole corpus."""
    draw = random.Random(5)
    hosts = [whole(document)[:4000] for name in CORPUS for document in documents(data, name, "heldout")]
    hosts = [text for text in hosts if not find_pii(text)]
    found = planted = extra = 0
    for kind, make in makers(draw).items():
        hits = 0
        for i in range(each):
            text, string = hosts[i % len(hosts)], make()
            gaps = [at.start() for at in re.finditer(r"(?<=[a-z]) (?=[a-z])", text)]
            at = draw.choice(gaps)
            marked = f"{text[:at]} {string} {text[at + 1 :]}"
            items = [(item.kind, marked[item.start : item.end]) for item in find_pii(marked)]
            hits += (kind, string) in items
            extra += sum(1 for item in items if item != (kind, string))
        figures[f"pii_recall_{kind}"] = figure(hits / each, "share")
        found, planted = found + hits, planted + each
    figures["pii_recall"] = figure(found / planted, "share", 0.95)
    figures["pii_precision"] = figure(found / (found + extra), "share", 0.95)


def agreement(data: Path, figures: Figures, _: float, most: int = 40) -> None:
    from datatrove.pipeline import filters

    some = [document for name in CORPUS for document in list(documents(data, name))[:most]]
    for step_name, filter_name in RULES.items():
        step = STEPS.validate_python({"step": step_name}).build()
        peer: Any = getattr(filters, filter_name)(language=simple_words())
        same = 0
        for document in some:
            if step_name == "gopher_quality" and document.language != "en":
                continue  # there our step knows other stop words, by intent
            single = Document(
                document.id, (Segment(whole(document)),), document.source, document.license, document.language
            )
            text, why = judge(peer, whole(document))
            ours = step(single)
            same += (
                why == ours.reason.split(".", 1)[1] if isinstance(ours, Removed) else (not why and whole(ours) == text)
            )
        of = sum(document.language == "en" for document in some) if step_name == "gopher_quality" else len(some)
        figures[f"agree_datatrove_{step_name}"] = figure(same / of, "share", 1.0)


def quality(data: Path, figures: Figures, _: float, most: int = 400) -> None:
    good, bad = list(documents(data, "textbooks-en"))[:most], list(documents(data, "docs-en"))[:most]
    with tempfile.TemporaryDirectory() as folder:
        report = train_quality(good, bad, Path(folder) / "q.npz", heldout=0.2)
    figures["quality_auc_textbooks_vs_docs"] = figure(report.auc, "AUC")
    figures["quality_heldout_documents"] = figure(report.heldout_good + report.heldout_bad, "documents")


def speed(data: Path, figures: Figures, megabytes: float) -> None:
    mixed = list[Document]()
    for name in CORPUS:
        left = megabytes * 1e6 / len(CORPUS)
        for document in documents(data, name, images=True):
            mixed.append(document)
            left -= len(whole(document).encode())
            if left <= 0:
                break
    size = sum(len(whole(document).encode()) for document in mixed) / 1e6
    names = ["unicode", "boilerplate", "language", *RULES, "sexual", "toxic", "pii", "images", "licence"]
    for name in names:
        step = STEPS.validate_python({"step": name}).build()
        step(mixed[0])
        start = time.process_time()
        for document in mixed:
            step(document)
        figures[f"mb_s_{name}"] = figure(size / max(time.process_time() - start, 1e-9), "MB/s of CPU time")


PARTS: dict[str, Callable[[Path, Figures, float], None]] = {
    "language": language,
    "personal": personal,
    "agreement": agreement,
    "quality": quality,
    "harmless": harmless,
    "harm": harm,
    "speed": speed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--folder", type=Path, default=None, help="where the result is written")
    options = parser.parse_args()
    data = Path(os.environ["FORETELL_DATA"])
    figures: Figures = {}
    for name in options.parts:
        began = time.monotonic()
        PARTS[name](data, figures, options.megabytes)
        print(f"{name}: {time.monotonic() - began:.0f} s, {time.process_time():.0f} s of a core so far", flush=True)
    if "speed" in options.parts:
        figures["speed_megabytes"] = figure(options.megabytes, "MB")
    command = f"FORETELL_DATA=… python benchmarks/data_filters.py --megabytes {options.megabytes:g}"
    print(write_result("data_filters", f"{command} --parts {' '.join(options.parts)}", figures, options.folder))


if __name__ == "__main__":
    main()
