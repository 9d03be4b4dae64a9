"""Planted duplicates, leaks and personal data in real documents: what curation finds, and what it takes wrongly.

    FORETELL_DATA=… python benchmarks/data_planted.py [--exact 1000] [--near 1000] [--leaks 500] [--pii 300]
        [--only passes|pii]

Into the text documents of FORETELL_DATA/corpus are planted: exact copies (half of them with other white space); copies
edited in seven ways (KINDS); items of FORETELL_DATA/benchmarks, in documents that are otherwise left as they are (in
full, with other punctuation, or the longer half of it); and strings of personal data with valid check digits. The
copies stand in a source of their own behind the corpus. The passes run one after the other, as in a recipe.

Rules, set before the first run. Recall: of the copies, those that go by the exact (near: exact or near) pass; of the
documents with an item, those that the decontamination takes; of the personal strings, those that no longer stand in
their document. Precision: a removal is right if it is of a planted document, or else if its claim holds by a plain
comparison that shares no code with the pass: exact, the texts are equal with white space as single spaces; near, the
Jaccard similarity of their sets of five words in a row is at least the pass's setting (0.5), by regular expression and
Python sets, and of planted copies too; leak, 13 words in a row of the item that is named, or 50 letters and digits,
stand in the document by Python's own `in`. So a natural duplicate in the corpus counts as right only if it is one.
Of personal data a stretch that is found is right if it was planted, or has the plain form of its kind (PLAIN).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common import RESULTS, figure, write_result
from foretell.data.curate.passes import Pass
from foretell.data.curate.steps import Removed
from foretell.data.dedup.benchmarks import Item, read_items
from foretell.data.dedup.decontaminate import DecontaminatePass
from foretell.data.dedup.exact import ExactPass
from foretell.data.dedup.near import NearPass
from foretell.data.document import Document, Segment
from foretell.data.parquet import read_documents

FILES = ("books-en", "docs-en", "textbooks-en", "textbooks-es", "textbooks-pl")
MIN_WORDS = 200
Shards = list[list[Document]]


def text_of(document: Document) -> str:
    return "\n\n".join(segment.text for segment in document.segments if segment.text)


def with_text(document: Document, id: str, source: str, text: str) -> Document:
    return replace(document, id=id, source=source, segments=(Segment(text),))


def substituted(rng: random.Random, words: list[str]) -> list[str]:
    return [rng.choice(words) if rng.random() < 0.05 else word for word in words]


def deleted(rng: random.Random, words: list[str]) -> list[str]:
    return [word for word in words if rng.random() >= 0.05]


def inserted(rng: random.Random, words: list[str]) -> list[str]:
    return [each for word in words for each in ((word, rng.choice(words)) if rng.random() < 0.05 else (word,))]


def shortened(rng: random.Random, words: list[str]) -> list[str]:
    start = rng.randrange(len(words) // 5 + 1)
    return words[start : start + len(words) * 4 // 5]


def framed(rng: random.Random, words: list[str]) -> list[str]:
    added = [rng.choice(words) for _ in range(len(words) // 4)]
    return added[: len(added) // 2] + words + added[len(added) // 2 :]


def reordered(rng: random.Random, words: list[str]) -> list[str]:
    cuts = sorted(rng.sample(range(1, len(words)), 4))
    blocks = [words[a:b] for a, b in zip([0, *cuts], [*cuts, len(words)], strict=True)]
    rng.shuffle(blocks)
    return [word for block in blocks for word in block]


def restyled(rng: random.Random, words: list[str]) -> list[str]:
    return [rng.choice((word.upper(), word.lower(), f"«{word}»", word + ",")) for word in words]


KINDS: dict[str, Callable[[random.Random, list[str]], list[str]]] = {
    "substituted": substituted, "deleted": deleted, "inserted": inserted, "shortened": shortened, "framed": framed,
    "reordered": reordered, "restyled": restyled,
}  # fmt: skip


@dataclass
class Planted:
    """What was planted where. copies: id of the copy -> (kind, id of the original)."""

    shards: Shards
    copies: dict[str, tuple[str, str]]
    leaks: dict[str, str]
    strings: dict[str, str]


def read_corpus(folder: Path) -> Shards:
    """Text alone; documents of several sources in a file are told apart by the file."""
    return [
        [
            replace(document, id=f"{name}/{document.id}")
            for document in read_documents(folder / f"{name}.parquet", images=False)
        ]
        for name in FILES
    ]


def plant(shards: Shards, items: Sequence[Item], counts: argparse.Namespace, rng: random.Random) -> Planted:
    places = [
        (s, i) for s, shard in enumerate(shards) for i, d in enumerate(shard) if len(text_of(d).split()) >= MIN_WORDS
    ]
    rng.shuffle(places)
    drawn = iter(places)
    made = Planted(shards, {}, {}, {})
    copies: list[Document] = []
    for number in range(counts.exact + counts.near):
        s, i = next(drawn)
        document, id = shards[s][i], f"copy-{number}"
        words = text_of(document).split()
        if number < counts.exact:
            kind = "exact"
            copies.append(replace(document, id=id, source="planted"))
            if number % 2:
                segments = (replace(x, text=re.sub(r"\s+", "  \n", x.text or "")) for x in document.segments)
                copies[-1] = replace(copies[-1], segments=tuple(segments))
        else:
            kind = list(KINDS)[number % len(KINDS)]
            copies.append(with_text(document, id, "planted", " ".join(KINDS[kind](rng, words))))
        made.copies[id] = kind, document.id
    for number, item in enumerate(rng.sample(items, counts.leaks)):
        s, i = next(drawn)
        told = item.text
        if number % 3 == 1:
            told = re.sub(r"[ \n]+", " - ", told)
        elif number % 3 == 2 and len(letters(told)) >= 150:
            told = told[len(told) // 2 :] if number % 2 else told[: len(told) // 2]
        made.leaks[shards[s][i].id] = item.id
        shards[s][i] = put_in(shards[s][i], told, rng)
    for number in range(counts.pii):
        s, i = next(drawn)
        told = personal(number, rng)
        made.strings[shards[s][i].id] = told
        shards[s][i] = put_in(shards[s][i], f"Contact: {told} for more.", rng)
    half = len(copies) // 2
    rng.shuffle(copies)
    shards += [copies[:half], copies[half:]]
    return made


def put_in(document: Document, told: str, rng: random.Random) -> Document:
    """Between two words of one of its texts."""
    at = rng.choice([n for n, segment in enumerate(document.segments) if segment.text])
    text = document.segments[at].text or ""
    space = rng.choice([m.end() for m in re.finditer(r"\s", text)] or [len(text)])
    changed = replace(document.segments[at], text=f"{text[:space]}\n{told}\n{text[space:]}")
    return replace(document, segments=(*document.segments[:at], changed, *document.segments[at + 1 :]))


def personal(number: int, rng: random.Random) -> str:
    """An e-mail address, a phone number, an IP address, a card number (Luhn), an IBAN or a social security number."""
    digits = "".join(str(rng.randrange(10)) for _ in range(24))
    kind = number % 6
    if kind == 0:
        name, host = rng.choice(("ana", "jan.kos", "r_diaz", "mo")), rng.choice(("mailbox", "corp", "uni"))
        return f"{name}{digits[:3]}@{host}{digits[3]}.{rng.choice(('com', 'pl', 'es'))}"
    if kind == 1:
        return f"+1 (212) {2 + int(digits[0]) % 8}{digits[1:3]}-{digits[3:7]}"
    if kind == 2:
        return ".".join(str(rng.randrange(low, 99)) for low in (11, 1, 1, 1))  # none of a private network
    if kind == 3:
        body = "4" + digits[:14]
        total = sum((d * 2 - 9 if d > 4 else d * 2) if n % 2 == 0 else d for n, d in enumerate(map(int, body)))
        return body + str(-total % 10)
    if kind == 4:
        account = "37040044" + digits[:10]
        return f"DE{98 - int(account + '131400') % 97:02d}{account}"
    return f"{rng.choice([212, 345, 501, 618])}-{rng.randrange(10, 99)}-{rng.randrange(1000, 9999)}"


def letters(text: str) -> str:
    return "".join(c for c in text if c.isalnum())


def five_grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def jaccard(a: str, b: str) -> float:
    one, two = five_grams(a), five_grams(b)
    return len(one & two) / len(one | two)


def holds(text: str, item: str) -> bool:
    """By a plain search: 50 letters of the item in a row, or 13 words."""
    body, asked = letters(text), letters(item)
    if any(asked[i : i + 50] in body for i in range(max(0, len(asked) - 49))):
        return True
    told, words = (" ".join(re.findall(r"\w+", each.casefold())) for each in (text, item))
    row = words.split()
    return any(f" {' '.join(row[i : i + 13])} " in f" {told} " for i in range(max(0, len(row) - 12)))


def run(made: Pass, shards: Shards, scratch: Path) -> tuple[Shards, list[Removed]]:
    for shard, documents in enumerate(shards):
        made.sketch(iter(documents), shard, scratch)
    made.merge(len(shards), scratch)
    kept: Shards = []
    gone: list[Removed] = []
    for shard, documents in enumerate(shards):
        kept.append([])
        for each in made.apply(iter(documents), shard, scratch):
            if isinstance(each, Removed):
                gone.append(each)
            else:
                kept[-1].append(each)
    return kept, gone


def named(removed: Removed, known: dict[str, Document]) -> str:
    """The document that a removal names: `SOURCE/ID`, by the end of its detail."""
    tail = removed.detail.rpartition(" like ")[2] if " like " in removed.detail else removed.detail.partition("as ")[2]
    parts = tail.split("/")
    return next(id for n in range(len(parts)) if (id := "/".join(parts[n:])) in known)


PLAIN = {
    "email": r"[^@\s]+@[^@\s]+\.\w+",
    "ip": r"(\d{1,3}\.){3}\d{1,3}|[0-9a-fA-F:]+:[0-9a-fA-F:]+",
    "phone": r"(\+|00|\(?\d{3}\)?[ .-]?\d{3}[ .-]).*",
    "card": r"(\d[ -]?){13,19}",
    "iban": r"[A-Z]{2}\d{2}[ A-Z0-9]{11,}",
}
OTHERS = 1500  # documents without a planted string in which false finds are counted


def pii_figures(made: Planted) -> dict[str, dict[str, object]]:
    """Of the masking step. A find is right if it is (part of) a planted string, or has its kind's plain form."""
    from foretell.data.curate.pii import PiiStep, find_pii

    step, masked, right, found = PiiStep(), 0, 0, 0
    wrong: list[str] = []
    documents = [document for shard in made.shards for document in shard]
    others = random.Random(1).sample([d for d in documents if d.id not in made.strings], min(OTHERS, len(documents)))
    for document in [d for d in documents if d.id in made.strings] + others:
        planted = made.strings.get(document.id, "")
        if planted:
            after = step(document)
            masked += isinstance(after, Document) and planted not in text_of(after)
        text = text_of(document)
        for item in find_pii(text):
            told = text[item.start : item.end]
            found += 1
            if (planted and (told in planted or planted in told)) or re.fullmatch(PLAIN.get(item.kind, "$"), told):
                right += 1
            else:
                wrong.append(f"{item.kind} {told!r} in {document.id}")
    print(*wrong[:20], sep="\n")
    return {
        "pii_recall": share(masked, len(made.strings), 0.95, "planted strings"),
        "pii_precision": share(right, found, 0.95, f"stretches found in {len(made.strings) + len(others):,} documents"),
    }


def share(found: int, of: int, aim: float, unit: str) -> dict[str, object]:
    return figure(found / max(1, of), f"share of {of:,} {unit}", aim)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, count in (("exact", 1000), ("near", 1000), ("leaks", 500), ("pii", 300)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--only", choices=("passes", "pii"), help="measure these; the others' figures stay")
    parser.add_argument("--results", type=Path, help="where the result is written; default benchmarks/results")
    asked = parser.parse_args()
    place = Path(os.environ["FORETELL_DATA"])
    benchmarks = (str(place / "benchmarks"),)
    items = {item.id: item for item in read_items(benchmarks)}
    fit = [item for item in items.values() if len(letters(item.text)) >= 60]
    made = plant(read_corpus(place / "corpus"), fit, asked, random.Random(0))
    folder = asked.results or RESULTS
    path = folder / "data_planted.json"
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"] if asked.only and path.is_file() else {}
    if asked.only != "pii":
        figures |= pass_figures(made, items, benchmarks)
    if asked.only != "passes":
        figures |= pii_figures(made)
    for key, value in figures.items():
        print(key, value)
    print(write_result("data_planted", "python benchmarks/data_planted.py", figures, folder))


def pass_figures(made: Planted, items: dict[str, Item], benchmarks: tuple[str, ...]) -> dict[str, dict[str, object]]:
    known = {document.id: document for shard in made.shards for document in shard}
    near = NearPass()
    figures: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as name:
        seconds = time.process_time()
        left, exact = run(ExactPass(), made.shards, Path(name))
        left, close = run(near, left, Path(name))
        _, leaked = run(DecontaminatePass(benchmarks=benchmarks), left, Path(name))
        print(f"{time.process_time() - seconds:.1f} s of a processor for three passes")
    gone_exact, gone_close = {each.id for each in exact}, {each.id for each in exact + close}
    kinds = {kind: [id for id, (of, _) in made.copies.items() if of == kind] for kind in ("exact", *KINDS)}
    edited = [id for kind in KINDS for id in kinds[kind]]
    same = [
        " ".join(text_of(known[each.id]).split()) == " ".join(text_of(known[named(each, known)]).split())
        for each in exact
    ]
    true = {each.id: jaccard(text_of(known[each.id]), text_of(known[named(each, known)])) for each in close}
    held = [
        each for each in leaked if each.id in made.leaks or holds(text_of(known[each.id]), items[item_of(each)].text)
    ]
    # What another pass took before is no longer there to be found.
    leaks = [id for id in made.leaks if id not in gone_close]
    taken = {each.id for each in leaked}
    figures["exact_recall"] = share(sum(id in gone_exact for id in kinds["exact"]), len(kinds["exact"]), 0.99, "copies")
    figures["exact_precision"] = share(sum(same), len(same), 0.95, "removals")
    figures["near_recall"] = share(sum(id in gone_close for id in edited), len(edited), 0.95, "edited copies")
    right = sum(j >= near.similarity for j in true.values())
    figures["near_precision"] = share(right, len(true), 0.95, "removals")
    for kind in KINDS:
        likeness = [jaccard(text_of(known[id]), text_of(known[made.copies[id][1]])) for id in kinds[kind]]
        spread = np.quantile(likeness, [0.05, 0.95]).tolist()
        figures[f"near_recall_{kind}"] = share(
            sum(id in gone_close for id in kinds[kind]), len(kinds[kind]), 0.95, "copies"
        )
        figures[f"jaccard_{kind}"] = figure(
            float(np.median(likeness)), "median, 5th to 95th percentile", None, tuple(spread)
        )
    figures["natural_near"] = figure(sum(id not in made.copies for id in true), "near duplicates that the corpus had")
    figures["leak_recall"] = share(sum(id in taken for id in leaks), len(leaks), 0.99, "planted items")
    figures["leak_precision"] = share(len(held), len(leaked), 0.95, "removals")
    figures["natural_leaks"] = figure(sum(id not in made.leaks for id in taken), "documents that held items before")
    for each in [r for r in leaked if r not in held][:10]:
        print("wrong leak", each)
    for each in [r for r in close if true[r.id] < near.similarity][:10]:
        print("wrong near", true[each.id], each)
    return figures


def item_of(removed: Removed) -> str:
    return removed.detail.partition(" in a row of ")[2].partition(": '")[0].partition(': "')[0]


if __name__ == "__main__":
    main()
