"""The viewer: what it tells of runs, what it serves and to whom, and that no text of a log becomes more than text."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from viewerkit import HOSTILE, PIXEL, is_harmless, match, only, write

from foretell.errors import EvalError
from foretell.evals.local import encode
from foretell.evals.log import index_path
from foretell.evals.viewer import html, pieces, serve
from foretell.evals.viewer.runs import Shelf, parse
from foretell.evals.viewer.server import PACKAGE, make_server
from foretell.measure.machine import is_loopback
from foretell.pages.documents import static_files

Ask = Callable[..., tuple[int, Mapping[str, str], bytes]]


def test_a_run_is_told_with_its_score_and_error_bar(tmp_path: Path) -> None:
    samples = [match(i % 4 != 0) for i in range(40)]
    samples.append([("invalid_sample", {"message": "no ideal"})])
    write(tmp_path / "deep" / "r1.jsonl", samples)
    run = only(tmp_path)
    assert (run.key, run.name, run.eval, run.model, run.version) == ("r1", "deep/r1.jsonl", "e", "m", "m-1")
    assert run.summary and run.summary.estimate == 0.75 and run.summary.n == 40
    assert run.summary.interval.low == pytest.approx(0.5981, abs=1e-4)  # Wilson, 30 of 40
    assert run.invalid == 1 and run.cost.seconds and run.cost.seconds > 0
    told = pieces.head(run)
    assert told["scores"][:2] == [0, 1] and told["scores"][40] is None and told["invalid"] == [40]
    assert told["ids"] == {"prefix": "e.test.", "numbers": list(range(41))}
    json.loads(encode(told))


def test_epochs_of_a_sample_count_once(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [match(i % 2 == 0) for i in range(10)] * 3, each=10)
    run = only(tmp_path)
    assert run.summary and run.summary.n == 10 and pieces.head(run)["epochs"] == [0] * 10 + [1] * 10 + [2] * 10


def test_rows_hold_question_answer_and_expected(tmp_path: Path) -> None:
    asked = [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": PIXEL}}, {"type": "text", "text": "How?"}],
        },
    ]
    write(
        tmp_path / "r.jsonl",
        [match(True, asked, " yes\n", ["yes", "Yes"]), match(True, "x" * 999 + "\n\nHow many?\n"), []],
    )
    first, long, empty = pieces.rows(only(tmp_path), 0)
    assert first == ["[image_url] How?", "yes", "yes | Yes"]
    assert long[0] == "…How many?"
    assert empty == ["", "", ""]


def test_search_finds_texts_and_not_the_form_of_the_log(tmp_path: Path) -> None:
    said = ["Größe 5", 'a "quoted" word', "line\nbreak", "back\\slash", "plain", PIXEL, "\x07bell"]
    write(tmp_path / "r.jsonl", [match(True, "q", text) for text in said])
    run = only(tmp_path)

    def find(*terms: str) -> list[int]:
        hits, after = run.search(terms, 0, 60.0)
        assert after == len(said)
        return hits

    assert find("grösse") == [] and find("GRÖSSE") == [] and find("GRÖßE") == [0]
    assert find('"quoted"') == [1] and find("line\nbreak") == [2] and find("BACK\\slash") == [3]
    assert find("created_at") == find("sampled") == find("image/png") == []
    assert find("q") == list(range(7)) and find("q", "plain") == [4] and find("\x07BELL") == [6]
    assert find("e.test.4") == [4]  # the id is searched, too
    assert run.search(["q"], 5, 60.0)[0] == [5, 6]


def test_a_search_stops_when_its_time_is_over_and_goes_on_from_there(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [match(True, "q", str(i)) for i in range(600)])
    run, start, found, steps = only(tmp_path), 0, [], 0
    while start < 600:
        hits, start = run.search(["q"], start, 0.0)
        found, steps = found + hits, steps + 1
    assert found == list(range(600)) and steps > 2


def test_numbers_that_json_does_not_have_reach_the_page(tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", [[("metrics", {"score": math.nan, "high": math.inf, "choice": "A"})]])
    run = only(tmp_path)
    assert json.loads(encode(run.samples(0, 1)))[0][0]["data"] == {"score": "NaN", "high": "Infinity", "choice": "A"}
    assert pieces.head(run)["scores"] == [None] and run.summary is None
    assert parse(b'{"a": 1e999}') == {"a": "1e999"} and parse(b"[1]") == {}
    assert run.choices() == {"names": ["A"], "codes": [0]}


def test_runs_are_paired_by_sample(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [match(i < 10) for i in range(30)])
    write(tmp_path / "b.jsonl", [match(i < 25) for i in range(30)])
    runs = Shelf(tmp_path).runs()
    told = pieces.difference(runs["a"], runs["b"])
    assert told["estimate"] == 0.5 and told["n"] == 30 and 0 < told["low"] < 0.5 < told["high"] and told["p"] < 0.001
    write(tmp_path / "c.jsonl", [[]])
    runs = Shelf(tmp_path).runs()
    assert "problem" in pieces.difference(runs["a"], runs["c"])


def test_a_hundred_thousand_samples_cost_a_megabyte_to_open(tmp_path: Path) -> None:
    """Texts are read when they come in sight: a page of the list costs its own samples, whatever the run's length."""
    many, path = 100_000, tmp_path / "r.jsonl"
    line = {"run_id": "r", "event_id": 0, "type": "sampling", "data": {"prompt": "q" * 50, "sampled": ["a" * 500]}}
    text = json.dumps(line).encode() + b"\n"
    first = json.dumps({"spec": {"eval_name": "big", "run_id": "r", "completion_fns": ["m"]}}).encode() + b"\n"
    path.write_bytes(first + text * many + json.dumps({"final_report": {}, "run_id": "r"}).encode() + b"\n")
    columns = {
        "begin": len(first) + len(text) * np.arange(many), "length": np.full(many, len(text)),
        "score": np.arange(many) % 2.0, "epoch": np.zeros(many, np.int64), "group": np.full(many, -1),
        "invalid": np.zeros(many, np.int8),
        "id": np.array([f"big.test.{i}" for i in range(many)], np.bytes_), "groups": np.array([], np.bytes_),
    }  # fmt: skip
    np.savez(index_path(path), **columns)  # type: ignore[arg-type]
    run = only(tmp_path)
    head = encode(pieces.head(run))
    assert path.stat().st_size > 50_000_000 and len(head) < 1_000_000
    assert len(encode(pieces.rows(run, 999))) < 100 * 400
    assert run.ids[-1] == "big.test.99999" and pieces.rows(run, 999)[99][1].startswith("aaa")
    assert run.summary and run.summary.n == many


def test_logs_that_cannot_be_shown_are_named(tmp_path: Path) -> None:
    write(tmp_path / "good.jsonl", [match(True)])
    (tmp_path / "bad.jsonl").write_text("{")
    (tmp_path / "bad.jsonl.npz").write_bytes(b"no")
    (tmp_path / "on.jsonl.part").write_text("")
    shelf = Shelf(tmp_path)
    assert list(shelf.runs()) == ["good"]
    assert {place for place, _ in shelf.problems} == {"bad.jsonl", "on.jsonl.part"}
    assert list(Shelf(tmp_path / "good.jsonl").runs()) == ["good"]
    assert "2 logs are not shown" in html.runs_page(list(shelf.runs().values()), shelf.problems, live=True)
    with pytest.raises(EvalError, match="There is no"):
        Shelf(tmp_path / "none")


def test_a_log_that_is_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [match(True)])
    shelf = Shelf(tmp_path)
    assert len(shelf.runs()["r"].log) == 1
    path.unlink()
    write(path, [match(True)] * 3)
    assert len(shelf.runs()["r"].log) == 3


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        (["e.t.7", "e.t.12", "e.t.0"], {"prefix": "e.t.", "numbers": [7, 12, 0]}),
        (["10", "12"], {"prefix": "", "numbers": [10, 12]}),
        (["a.01", "a.1"], {"list": ["a.01", "a.1"]}),
        (["a.1", "b.1"], {"list": ["a.1", "b.1"]}),
        (["a.", "a.1"], {"list": ["a.", "a.1"]}),
        (["a.²", "a.1"], {"list": ["a.²", "a.1"]}),
        ([], {"list": []}),
    ],
)
def test_ids_reach_the_page_as_they_are(tmp_path: Path, ids: list[str], told: dict[str, object]) -> None:
    write(tmp_path / "r.jsonl", [match(True) for _ in ids], ids=ids)
    assert pieces.head(only(tmp_path))["ids"] == told


def test_runs_of_one_id_and_odd_ids_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [match(True)], run_id="same")
    write(tmp_path / "b.jsonl", [match(True)], run_id="same")
    write(tmp_path / "c.jsonl", [match(True)], run_id='../"><script>')
    keys = list(Shelf(tmp_path).runs())
    assert len(set(keys)) == 3 and all(re.fullmatch("[A-Za-z0-9]+", key) for key in keys)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(tmp_path: Path, text: str) -> None:
    for name in ("a", "b"):
        spec = {"eval_name": text, "completion_fns": [text], "created_at": text, "run_config": text}
        write(tmp_path / f"{name}.jsonl", [match(True, text, text)], **spec, run_id=text + name)
    runs = list(Shelf(tmp_path).runs().values())
    is_harmless(html.runs_page(runs, [(text, text)], live=True))
    is_harmless(html.eval_page(runs, live=False))


def test_policy_allows_own_files_alone() -> None:
    for live in (True, False):
        told = dict(part.split(" ", 1) for part in html.policy(live).split("; "))
        assert told["default-src"] == "'none'" and told["script-src"] == told["style-src"] == "'self'"
        assert told["img-src"] == "'self' data:" and told["require-trusted-types-for"] == "'script'"
        assert told["connect-src"] == ("'self'" if live else "'none'")
        assert "unsafe" not in html.policy(live) and "http" not in html.policy(live)


def test_scripts_never_make_markup_of_text() -> None:
    """Texts of logs reach the page by append and textContent; the one place that sets addresses checks them."""
    barred = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc|https?://"
    barred += r"|createContextualFragment|setHTML|javascript:|import\("
    for name, text in static_files(PACKAGE).items():
        source = text.decode()
        if name.endswith(".js"):
            assert not re.search(barred, source), name
            assert "setAttribute(name" not in source or name == "dom.js"
            assert re.findall(r"\.src = (.+);", source) == {
                "dom.js": ["url"], "store.js": ["policy.createScriptURL(`data/${name}.js`)"],
            }.get(name, [])  # fmt: skip
            assert ".href = " not in source.replace('location.href = "index.html"', "")
        else:
            assert "url(" not in source and "@import" not in source


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    """A running viewer of a folder with two runs."""
    logs = tmp_path / "logs"
    write(logs / "r.jsonl", [match(i % 2 == 0, said=text) for i, text in enumerate(HOSTILE)])
    write(logs / "s.jsonl", [match(True) for _ in HOSTILE])
    with make_server(logs) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def asked(path: str, host: str = "localhost:1", method: str = "GET") -> tuple[int, Mapping[str, str], bytes]:
            line = HTTPConnection("127.0.0.1", server.server_port)
            line.request(method, path, headers={"Host": host})
            answer = line.getresponse()
            found = answer.status, answer.headers, answer.read()
            line.close()
            return found

        yield asked
        server.shutdown()
        thread.join()


def test_server_gives_pages_and_pieces(ask: Ask) -> None:
    for page in ("/", "/index.html", "/view.html", "/" + html.eval_page_name("e")):
        status, headers, body = ask(page)
        assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
        assert (
            headers["X-Content-Type-Options"] == "nosniff"
            and "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        )
        is_harmless(body.decode())
    for name in static_files(PACKAGE):
        assert ask("/" + name)[0] == 200
    assert {run["key"] for run in json.loads(ask("/data/runs.json")[2])} == {"r", "s"}
    assert len(json.loads(ask("/data/r/head.json")[2])["scores"]) == len(HOSTILE)
    assert len(json.loads(ask("/data/r/rows-0.json")[2])) == len(HOSTILE)
    events = json.loads(ask("/data/r/samples-0.json")[2])
    assert events[0]["data"]["sampled"] == [HOSTILE[0]] and set(events[0]) == {"type", "data", "created_at"}
    assert json.loads(ask("/data/r/search.json?from=0&t=onerror")[2]) == {"hits": [1], "next": len(HOSTILE)}
    assert json.loads(ask("/data/compare-r-s.json")[2])["n"] == len(HOSTILE)
    assert ask("/", method="HEAD")[2] == b""


@pytest.mark.parametrize(
    "path",
    ["/data/none/head.json", "/data/r/samples-99.json", "/../pyproject.toml", "/data/../r.jsonl", "/data/r/head.jsonx",
     "/eval-000000000000.html", "/runs.py", "/data/r/rows-x.json", "/data/r/search.json?from=x"],
)  # fmt: skip
def test_server_gives_nothing_else(ask: Ask, path: str) -> None:
    status, _, body = ask(path)
    assert status in (404, 500) and json.loads(body)["problem"]


def test_server_answers_this_machine_alone(ask: Ask, tmp_path: Path) -> None:
    assert ask("/", host="evil.example")[0] == 403  # a name that was made to resolve to this machine
    assert ask("/", host="127.0.0.1.evil.example")[0] == 403
    assert ask("/", host="[::1]:80")[0] == 200
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")
    with pytest.raises(EvalError, match="loopback"):
        serve(tmp_path, "0.0.0.0")
    with make_server(tmp_path) as taken, pytest.raises(EvalError, match=str(taken.server_port)):
        make_server(tmp_path, port=taken.server_port)
