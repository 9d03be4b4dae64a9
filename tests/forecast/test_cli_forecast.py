"""The forecast commands: what they print, what they refuse, and how."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from simulated import shape

import clikit
from foretell.forecast import LadderTable, fit, read_table
from foretell.forecast.register import note, read


def invoke(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of `foretell forecast ARGUMENTS`."""
    return clikit.invoke(capsys, "forecast", *arguments)


@pytest.fixture
def table(tmp_path: Path, ladder: LadderTable) -> Path:
    path = tmp_path / "ladder.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["flops", "loss", "seed"])
        writer.writerows([rung.flops, rung.loss, rung.seed] for rung in ladder.rungs)
    return path


def test_fit_prints_forecast_findings_and_writes_the_page(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    code, out, _ = invoke(capsys, "fit", table, "--target", "1e18", "--out", page)
    loss = fit(read_table(table), target=1e18).predict(1e18).loss
    assert code == 0 and out.startswith("A run of 10¹⁸ FLOPs will reach a loss of 2.1")
    assert abs(loss - 2.13) < 0.02 and "36 runs" in out and str(page) in out
    assert page.read_text().startswith("<!doctype html>")
    code, out, _ = invoke(capsys, "fit", table, "--level", "0.5")
    told = fit(read_table(table)).predict(1e19, 0.5)
    assert code == 0 and "1e+17" in out and f"{told.low:.4g}  {told.high:.4g}" in out


def test_a_forecast_from_registration_to_bundle(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    record, page, bundle = tmp_path / "r" / "run.json", tmp_path / "page.html", tmp_path / "bundle.json"
    code, out, _ = invoke(capsys, "register", table, "--target", "1e18", "--out", record, "--recipe", "quickstart")
    assert code == 0 and read(record).sha256 in out and len(read(record).raw["recipe"]) == 64
    other = record.with_name("wide.json")
    assert invoke(capsys, "register", table, "--target", "1e18", "--out", other, "--level", "0.99")[0] == 0
    assert read(other).claims[0].level == 0.99 and read(other).claims[0].high > read(record).claims[0].high
    code, out, _ = invoke(capsys, "verify", record)
    assert code == 0 and "Whole" in out and "No outcome yet" in out
    claim = read(record).claims[0]
    code, out, _ = invoke(capsys, "verify", record, "--loss", claim.value, "--out", page)
    assert code == 0 and "Hit: loss" in out and "hit" in page.read_text()
    code, out, _ = invoke(capsys, "verify", record, "--loss", "nan")
    assert code == 0 and "Hit: loss" in out and "Miss: loss diverged" in out
    for begun, status, message in (
        ("2020-01-01T00:00+00:00", 2, "not before the run's first step"),
        ("2020-01-01", 2, "no time zone"),
        ("yesterday", 2, "is no time"),
        ("2999-01-01T00:00+00:00", 0, ""),
    ):
        code, _, err = invoke(capsys, "verify", record, "--first-step", begun)
        assert code == status and message in err
    assert invoke(capsys, "bundle", record, "--out", bundle)[0] == 0
    code, out, _ = invoke(capsys, "verify", bundle)
    assert code == 0 and "Hit: loss" in out and "Miss: loss diverged" in out
    code, _, err = invoke(capsys, "verify", bundle, "--loss", "2")
    assert code == 2 and "bundle" in err
    record.chmod(0o644)
    record.write_bytes(record.read_bytes().replace(b'"level":0.9', b'"level":0.8'))
    code, _, err = invoke(capsys, "verify", record)
    assert code == 2 and "claims differs" in err


def test_what_the_data_do_not_support_is_said_first_and_by_the_exit_code(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    asked = ("--target", "1e18", "--precision", "0.0001")
    code, out, _ = invoke(capsys, "fit", table, *asked)
    assert code == 1 and out.startswith("The data do not support") and "Not supported by the data: a run of" in out
    code, out, err = invoke(capsys, "register", table, *asked, "--out", tmp_path / "r.json")
    assert code == 2 and out.startswith("The data do not support") and "do not support" in err
    assert not (tmp_path / "r.json").exists()


def test_columns_can_be_named(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    table.write_text(table.read_text().replace("flops,loss", "work,other"))
    named = ("--column", "flops=work", "--column", "loss=other")
    code, out, _ = invoke(capsys, "fit", table, "--target", "1e18", *named)
    assert code == 0 and "column other of the table" in out
    code, _, err = invoke(capsys, "fit", table, "--column", "work")
    assert code == 2 and "expected FIELD=COLUMN" in err


def test_a_record_is_written_before_anything_is_said(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads the output may close the pipe at its first line."""
    from foretell.cli import forecast

    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(forecast, "_tell", closed)
    monkeypatch.setattr("sys.stderr.close", lambda: None)
    invoke(capsys, "register", table, "--target", "1e18", "--out", tmp_path / "r" / "run.json")
    assert read(tmp_path / "r" / "run.json").target == 1e18


def test_an_anchor_can_be_tried_again(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "r" / "run.json"
    monkeypatch.chdir(tmp_path)  # no repository
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    code, out, err = invoke(capsys, "register", table, "--target", "1e18", "--out", record, "--tag", "v1")
    assert code == 2 and read(record).sha256 in out and f"Try again with: foretell forecast anchor {record}" in err
    code, _, err = invoke(capsys, "anchor", record)
    assert code == 2 and "Name an anchor" in err
    monkeypatch.setattr(
        "foretell.forecast.anchor.tag", lambda path, name: note(read(path), {"kind": "tag", "name": name})
    )
    code, out, _ = invoke(capsys, "anchor", record, "--tag", "v1")
    assert code == 0 and "Signed tag: v1" in out and read(record).own[-1]["kind"] == "tag"


def test_a_table_whose_curves_do_not_serve_is_registered_without(
    capsys: pytest.CaptureFixture[str], ladder: LadderTable, tmp_path: Path
) -> None:
    rows = [(rung.run, rung.flops, rung.seed, step, rung.loss) for rung in ladder.rungs for step in (999, 1000)]
    table, record = write_steps(tmp_path / "t.csv", rows), tmp_path / "r" / "run.json"
    code, out, _ = invoke(capsys, "register", table, "--target", "1e18", "--out", record)
    assert code == 0 and "cannot be watched: The rungs' curves have only" in out
    assert read(record).raw["curve"] is None


def test_an_anchor_that_does_not_hold_is_an_error(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    record = tmp_path / "r" / "run.json"
    assert invoke(capsys, "register", table, "--target", "1e18", "--out", record)[0] == 0
    note(read(record), {"kind": "tag", "name": "v1", "tag": "of something else"})
    code, out, _ = invoke(capsys, "verify", record)
    assert code == 2 and "git tag v1 does not name this record" in out


def write_steps(path: Path, rows: list[tuple[str, float, int, int, float]]) -> Path:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run", "flops", "seed", "step", "loss"])
        writer.writerows(rows)
    return path


def test_a_run_is_watched_against_its_record(
    capsys: pytest.CaptureFixture[str], ladder: LadderTable, tmp_path: Path
) -> None:
    rows = [
        (rung.run, rung.flops, rung.seed, round(1000 * share), loss)
        for rung in ladder.rungs
        for share, loss in ladder.curves[rung.run]
    ]
    table, record, page = write_steps(tmp_path / "t.csv", rows), tmp_path / "r" / "run.json", tmp_path / "p.html"
    assert invoke(capsys, "register", table, "--target", "1e18", "--out", record, "--anyway")[0] == 0
    points = [(round(4000 * share), loss) for share, loss in shape(read(record).claims[0].value, 200)]
    log = write_steps(tmp_path / "log.csv", [("live", 1e18, 0, *point) for point in points[:60]])
    code, out, _ = invoke(capsys, "watch", record, log, "--steps", 4000, "--out", page)
    assert code == 0 and out.startswith("30% of the run, no alarms.") and "No alarm" in page.read_text()
    wrong = [(step, loss * (1.3 if step > 800 else 1.0)) for step, loss in points[:60]]
    log = write_steps(tmp_path / "log.csv", [("live", 1e18, 0, *point) for point in wrong])
    code, out, _ = invoke(capsys, "watch", record, log, "--steps", 4000, "--out", page)
    assert code == 1 and "1 alarm." in out and "leapt at 22%" in out and "leapt" in page.read_text()
    rows_shown = [line for line in out.splitlines() if "●" in line]
    inside = {line.split("%")[0].strip(): "|" in line.split("●")[1] for line in rows_shown}
    assert inside == {"6": True, "10": True, "14": True, "18": True, "22": False, "26": False, "30": False}
    assert "Loss at 30" in page.read_text() and read(record).claims[0].name in page.read_text()
    code, _, err = invoke(capsys, "watch", record, log, "--steps", 400)
    assert code == 2 and "beyond the 400" in err
    code, _, err = invoke(capsys, "watch", record, tmp_path / "r" / "ledger.jsonl", "--steps", 400)
    assert code == 2 and "needs the columns step and loss" in err
    log.write_text("run,flops,seed,step,loss\n")  # nothing is logged yet
    code, out, _ = invoke(capsys, "watch", record, log, "--steps", 4000, "--out", page)
    assert code == 0 and out == f"0% of the run, no alarms.\nPage: {page}\n"


def test_a_record_without_curves_cannot_be_watched(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path
) -> None:
    record = tmp_path / "r" / "run.json"
    assert invoke(capsys, "register", table, "--target", "1e18", "--out", record, "--anyway")[0] == 0
    code, _, err = invoke(capsys, "watch", record, table, "--steps", 10)
    assert code == 2 and "no forecast of the curve" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "{tmp}/none.csv"], "none.csv"),
        (["fit", "{table}", "--target", "-1"], "target"),
        (["register", "{table}", "--target", "1e15", "--out", "{tmp}/r.json"], "beyond the ladder"),
        (["register", "{table}", "--target", "1e18", "--out", "{table}"], "exists"),
        (["register", "{table}", "--target", "1e18", "--out", "{tmp}/r.json", "--recipe", "quikstart"], "quickstart"),
        (["register", "{table}", "--target", "1e18"], "Missing option"),
        (["verify", "{tmp}/none.json"], "is missing"),
        (["verify", "{table}"], "not JSON"),
        (["bundle", "{tmp}/none.json", "--out", "{tmp}/b.json"], "is missing"),
    ],
)
def test_errors_are_one_paragraph_and_exit_with_2(
    capsys: pytest.CaptureFixture[str], table: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, err = invoke(
        capsys, *(a.replace("{tmp}", str(tmp_path)).replace("{table}", str(table)) for a in arguments)
    )
    assert code == 2 and message in err
    assert len(err.strip().splitlines()) == 1
