"""Readers beside datatrove's plain ones: MB of text a second and core, from JSON lines, WET and WARC.

    python benchmarks/data_read.py [--megabytes 40] [--rounds 3] [--pages 200]

The same files are read in turn by both, in one process, in rounds whose order changes; the time is that of the
processor. datatrove's readers need orjson, faust-cchardet and python-magic, which a comparison has to install. JSON
lines and WET hold generated prose of about 3 kB a document; WARC responses hold it as pages with navigation, whose main
text datatrove takes out with trafilatura in a step of its own, and this reader with resiliparse or trafilatura. Time of
the extraction's own process is counted with both.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from common import alternate, figure, ratios, write_result
from foretell.data.document import Document
from foretell.data.read import read, units
from foretell.data.read.sections import JsonlRead, WarcRead

WORDS = ["".join(random.Random(seed).choices("etaoinshrdlucmfwypvbgk", k=2 + seed % 9)) for seed in range(4000)]


def prose(rng: random.Random) -> str:
    return "\n\n".join(
        " ".join(rng.choices(WORDS, k=rng.randint(30, 120))).capitalize() + "." for _ in range(rng.randint(3, 9))
    )


def write_jsonl(path: Path, size: int, rng: random.Random) -> None:
    with path.open("w", encoding="utf-8") as out:
        number = written = 0
        while written < size:
            row = {"id": f"d{number}", "text": prose(rng), "url": f"http://a/{number}"}
            written += out.write(json.dumps(row) + "\n")
            number += 1


def write_warc(path: Path, kind: str, bodies: Iterable[str]) -> None:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    told = "text/plain" if kind == "conversion" else "text/html"
    with path.open("wb") as stream:
        writer = WARCWriter(stream, gzip=True)
        for number, body in enumerate(bodies):
            http = StatusAndHeaders("200 OK", [("Content-Type", told)], protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    f"http://a/{number}", kind, payload=io.BytesIO(body.encode()),
                    http_headers=http if kind == "response" else None, warc_content_type=told,
                    warc_headers_dict={"WARC-Identified-Payload-Type": told, "WARC-Date": "2021-03-04T05:06:07Z"},
                )
            )  # fmt: skip


def page(text: str) -> str:
    menu = "".join(f"<li><a href='/{n}'>Item {n}</a></li>" for n in range(60))
    body = "".join(f"<p>{part}</p>" for part in text.split("\n\n"))
    return f"<html><head><title>A page</title></head><body><nav><ul>{menu}</ul></nav><main>{body}</main></body></html>"


def ours(source: Any) -> int:
    total = 0
    for unit in units(source):
        for record in read(source, unit):
            total += len(record.segments[0].text or "") if isinstance(record, Document) else 0
    return total


def theirs(*steps: Any) -> int:
    stream = None
    for step in steps:
        stream = step.run(stream, 0, 1)
    return sum(len(document.text) for document in stream or ())


def rate(work: Callable[[], int]) -> float:
    """Million characters a second of processor time."""

    def spent() -> float:
        below = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + below.ru_utime + below.ru_stime

    begun = spent()
    characters = work()
    return characters / (spent() - begun) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None, help="where the result is written")
    options = parser.parse_args()

    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.utils.logging import logger

    logger.remove()
    with tempfile.TemporaryDirectory() as place:
        rng, folder = random.Random(0), Path(place)
        for name in ("jsonl", "gz", "wet", "warc"):
            (folder / name).mkdir()
        write_jsonl(folder / "jsonl/a.jsonl", options.megabytes * 1_000_000, rng)
        (folder / "gz/a.jsonl.gz").write_bytes(gzip.compress((folder / "jsonl/a.jsonl").read_bytes(), 6))
        write_warc(folder / "wet/a.warc.wet.gz", "conversion", (prose(rng) for _ in range(options.megabytes * 150)))
        write_warc(folder / "warc/a.warc.gz", "response", (page(prose(rng)) for _ in range(options.pages)))

        def at(name: str) -> str:
            return str(folder / name)

        cases: dict[str, tuple[Callable[[], int], Callable[[], int]]] = {
            "jsonl": (
                lambda: ours(JsonlRead(path=at("jsonl"))),
                lambda: theirs(JsonlReader(at("jsonl"))),
            ),
            "jsonl_gz": (
                lambda: ours(JsonlRead(path=at("gz"))),
                lambda: theirs(JsonlReader(at("gz"))),
            ),
            "wet_gz": (lambda: ours(WarcRead(path=at("wet"))), lambda: theirs(WarcReader(at("wet")))),
            "warc_trafilatura": (
                lambda: ours(WarcRead(path=at("warc"), extractor="trafilatura")),
                lambda: theirs(WarcReader(at("warc")), Trafilatura(timeout=10)),
            ),
            "warc_resiliparse": (
                lambda: ours(WarcRead(path=at("warc"))),
                lambda: theirs(WarcReader(at("warc")), Trafilatura(timeout=10)),
            ),
        }
        figures = {}
        for name, (mine, peer) in cases.items():
            rates = alternate(partial(rate, mine), partial(rate, peer), options.rounds)
            figures[f"{name}_mb_s"] = figure(rates[0], "MB/s")
            figures[f"{name}_vs_datatrove"] = figure(ratios(*rates), "x")
            print(name, figures[f"{name}_mb_s"], figures[f"{name}_vs_datatrove"], flush=True)
    write_result(
        "data_read", f"python benchmarks/data_read.py --megabytes {options.megabytes}", figures, options.folder
    )


if __name__ == "__main__":
    main()
