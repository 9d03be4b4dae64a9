"""The run page tells what the run's files tell, whatever is missing, damaged or hostile in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fake_run import TASKS, fake_run

from foretell.errors import RunError
from foretell.pages import number
from foretell.report.record import read_run
from foretell.report.run_page import write_page
from foretell.report.training import smooth, thin
from test_pages import HOSTILE, Balanced, check_page


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return fake_run(tmp_path, steps=320)


def page_of(run: Path) -> tuple[str, Balanced]:
    html = write_page(run).read_text(encoding="utf-8")
    return html, check_page(html)


def edit(path: Path, change: Any) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_numbers_are_those_of_the_files(run: Path) -> None:
    html, found = page_of(run)
    text = found.text
    assert "1.87" in text and "5 of 6" in text
    assert "5 min 12 s" in text and "2.00\u202fM" in text and "1,625,952" in text
    assert "19.3\u202fTFLOP" in text and "0.174 core-hours" in text
    for name, accuracy, blind, *_ in TASKS:
        assert name in text and f"{100 * accuracy:.1f}" in text and f"{100 * (accuracy - blind):.1f}" in text
    last = json.loads((run / "pretrain/log.jsonl").read_text().splitlines()[-3])
    assert last["event"] == "eval" or last["event"] == "train"
    assert "812,345" in text and "1,190,002" in text and "PSF-2.0, MIT" in text and "1,843" in text
    assert number(0.4 + 1.1) in text  # the examination's held-out loss on facts
    assert "spike" in text and "sigmas 9.40" in text
    assert "foretell chat" in text and "foretell.load(" in text
    assert text.count("✓ right") == 6 and text.count("✗ wrong") == 6
    assert html.count('class="pixels"') == 12
    assert len(html) < 500_000


def test_page_goes_where_it_is_told(run: Path, tmp_path: Path) -> None:
    assert write_page(run) == run / "page" / "index.html"
    assert write_page(run, tmp_path / "x.html") == tmp_path / "x.html"
    assert write_page(run, tmp_path) == tmp_path / "index.html"


def test_a_second_page_of_the_same_run_is_the_same(run: Path) -> None:
    assert page_of(run)[0] == page_of(run)[0]


@pytest.mark.parametrize("kept", [(), ("data",), ("data", "tokenizer", "pack"), ("pretrain",), ("examine",)])
def test_partial_runs_say_what_is_missing(run: Path, kept: tuple[str, ...]) -> None:
    for stage in ("data", "tokenizer", "pack", "pretrain", "examine"):
        if stage not in kept:
            shutil.rmtree(run / stage)
    text = page_of(run)[1].text
    assert "This run is incomplete" in text
    assert ("Missing: pre-training has not logged a step." in text) == ("pretrain" not in kept)
    assert ("Missing: the run has not been examined." in text) == ("examine" not in kept)


def test_a_run_without_visual_tasks_is_told_from_one_not_examined(run: Path) -> None:
    path = run / "examine" / "examine.json"
    told = {"prompt": "Name one.", "text": "Two.", "chat": True}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tasks": [], "shown": [], "samples": [told]}))
    html, parsed = page_of(run)
    assert "has not been examined" not in parsed.text and "no visual tasks in this run" in parsed.text
    assert '<span class="given">Name one.</span>\nTwo.' in html


def test_a_run_without_recipe_or_with_an_open_stage_gives_a_page(run: Path) -> None:
    (run / "recipe.yaml").unlink()
    (run / "pretrain" / "manifest.json").rename(run / "pretrain" / "partial.json")
    text = page_of(run)[1].text
    assert "recipe.yaml is missing" in text and "not finished: pretrain" in text


@pytest.mark.parametrize("junk", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"null", b"[" * 5_000])
@pytest.mark.parametrize("name", ["data/manifest.json", "examine/examine.json", "recipe.yaml", "pretrain/log.jsonl"])
def test_damaged_files_are_named_not_raised(run: Path, name: str, junk: bytes) -> None:
    (run / name).write_bytes(junk)
    text = page_of(run)[1].text
    if name.endswith(".json"):
        assert f"{name} could not be read" in text


@pytest.mark.parametrize("value", [None, [], {}, "text", 3, True, [1], {"a": 1}, [None], float("nan"), "9" * 400])
def test_values_of_the_wrong_type_do_no_harm(run: Path, value: Any) -> None:
    def spoil(place: dict[str, Any]) -> None:
        for key in place:
            place[key] = value

    for key in ("tasks", "shown"):
        edit(run / "examine/examine.json", lambda e, key=key: spoil(e[key][0]))
    edit(run / "examine/examine.json", lambda e: e.update(samples=value, text=value))
    for stage in ("data", "pack", "pretrain"):
        edit(run / stage / "manifest.json", lambda m: spoil(m["metrics"]))
    edit(run / "tokenizer/manifest.json", lambda m: spoil(m))
    with (run / "pretrain/log.jsonl").open("a") as log:
        for event in ("train", "eval", "spike"):
            line = {
                "event": event,
                "step": value,
                "tokens": value,
                "loss": value,
                "loss_by_kind": value,
                "by_kind": value,
            }
            log.write(json.dumps(line) + "\n")
    page_of(run)


@pytest.mark.parametrize("payload", HOSTILE)
def test_hostile_text_never_becomes_markup(run: Path, payload: str) -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {f"{k}": poison(v) for k, v in value.items()} | {payload: payload}
        if isinstance(value, list):
            return [poison(v) for v in value]
        return payload if isinstance(value, str) and not value.startswith("data:image/png") else value

    for path in (run / "examine/examine.json", *run.glob("*/manifest.json")):
        path.write_text(json.dumps(poison(json.loads(path.read_text()))))
    log = run / "pretrain/log.jsonl"
    hostile = [{"event": payload, "utc": payload, "step": payload, payload: payload}]
    hostile += [{"event": "train", "step": s, "loss": 1.0, "loss_by_kind": {payload: 1.0}} for s in (900, 901)]
    log.write_text(
        log.read_text() + "".join(json.dumps(line) + "\n" for line in hostile) + payload.replace("\ud800", "")
    )
    (run / "recipe.yaml").write_text(
        "name: x\ndescription: " + json.dumps(payload) + "\ndata: {sources: [{name: a}]}\n"
    )
    (run / payload.replace("/", "_").replace("\x00", "").replace("\ud800", "")).mkdir()
    html, found = page_of(run)
    assert not {tag for tag, _ in found.tags} & {"b", "i", "script"}
    assert "onerror=alert(1)>" not in html and "<svg onload" not in html


def test_pictures_that_are_no_pictures_are_left_out(run: Path) -> None:
    def change(exam: dict[str, Any]) -> None:
        exam["shown"][0]["image"] = "https://evil.example/x.png"
        exam["shown"][1]["image"] = "data:image/png;base64," + "A" * 2_000_000
        del exam["shown"][2]["image"]

    edit(run / "examine/examine.json", change)
    html, found = page_of(run)
    assert html.count("<img") == 9 and len(html) < 500_000
    assert "not an embedded picture" in found.text and "left out" in found.text and "no image stored" in found.text


def test_long_runs_stay_small(run: Path) -> None:
    lines = [
        {"event": "train", "step": i, "tokens": i * 8192, "loss": 2 + 5 / i, "tokens_per_s": 100.0,
         "loss_by_kind": {f"kind-{k}": 2.0 + k / 10 + 5 / i for k in range(30)}}
        for i in range(1, 2000)
    ]  # fmt: skip
    lines += [{"event": "spike", "step": i, "loss": 9.0} for i in range(500)]
    (run / "pretrain/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html, found = page_of(run)
    assert len(html) < 600_000
    assert "The last 60 of 500" in found.text


def test_steps_done_twice_count_once(run: Path) -> None:
    log = run / "pretrain/log.jsonl"
    before = read_run(run)
    first = next(line for line in before.train if line["step"] == 100)
    log.write_text(log.read_text() + json.dumps(first | {"loss": 1.2345}) + "\n")
    after = read_run(run)
    assert len(after.train) == len(before.train)
    assert next(line for line in after.train if line["step"] == 100)["loss"] == 1.2345


def test_no_run_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="There is no run"):
        write_page(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no run"):
        write_page(tmp_path / "empty")


def test_smoothing_keeps_a_line_and_thinning_keeps_the_ends() -> None:
    assert smooth([3.0] * 400) == pytest.approx([3.0] * 400)
    assert smooth([]) == []
    assert thin(list(range(1000)), 10)[0] == 0 and thin(list(range(1000)), 10)[-1] == 999
    assert len(thin(list(range(1000)), 10)) == 10
