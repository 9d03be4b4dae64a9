"""Ladders from files: what is read, what is refused and how it is named, what is set aside."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretell.errors import ForecastError, MissingExtraError
from foretell.forecast.table import LadderTable, Rung, make_table, read_table

FLOPS = [1e12, 4e12, 1.6e13, 6.4e13, 2.56e14]


def law(flops: float) -> float:
    return 1.5 + 20 * flops**-0.1


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def csv_of(path: Path, header: str, *rows: str) -> Path:
    return write(path, "\n".join([header, *rows]) + "\n")


def losses(table: LadderTable) -> list[float]:
    return [rung.loss for rung in table.rungs]


@pytest.mark.parametrize(
    "header",
    ["flops,loss", "C,L", "compute,val_loss", "Training FLOPs,bpb", "config/flops,summary/val/loss", "flops;val-bpb"],
)
def test_the_fields_own_column_names_are_understood(tmp_path: Path, header: str) -> None:
    mark = ";" if ";" in header else ","
    table = read_table(csv_of(tmp_path / "t.csv", header, *(f"{c}{mark}{law(c)}" for c in reversed(FLOPS))))
    assert [rung.flops for rung in table.rungs] == FLOPS
    assert losses(table) == [law(c) for c in FLOPS]
    assert table.unit == ("bits per byte" if "bpb" in header else "loss")


def test_held_out_loss_goes_before_training_loss(tmp_path: Path) -> None:
    table = read_table(csv_of(tmp_path / "t.csv", "flops,train_loss,loss,val_loss", "1e12,1,2,3"))
    assert losses(table) == [3]
    assert table.settings["loss column"] == "val_loss"


def test_a_column_that_is_named_goes_before_all_others(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "t.csv", "compute used,val_loss,eval/c4/bpb", "1e12,3,1")
    table = read_table(path, named={"flops": "compute used", "loss": "eval/c4/bpb"})
    assert losses(table) == [1] and table.unit == "bits per byte" and table.settings["loss column"] == "eval/c4/bpb"
    for named, message in (({"loss": "nll"}, "no column 'nll' for loss"), ({"size": "loss"}, "no field 'size'")):
        with pytest.raises(ForecastError, match=message):
            read_table(path, named=named)


def test_what_spreadsheets_call_unicode_text_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes("flops\tloss\n1e12\t3\n".encode("utf-16"))
    assert losses(read_table(tmp_path / "t.txt")) == [3]


@pytest.mark.parametrize("values", [(math.nan, 2.0), (-1e12, 2.0), (0.0, 2.0), (1e12, -2.0), (1e12, 0.0)])
def test_rungs_made_by_hand_are_checked(values: tuple[float, float]) -> None:
    with pytest.raises(ForecastError, match="expected positive numbers"):
        Rung(*values)
    with pytest.raises(ForecastError, match=r"1e\+12 FLOPs has a loss of nan: it diverged"):
        LadderTable((Rung(1e12, math.nan),))


def test_bits_per_byte_go_before_a_loss_that_a_tokenizer_moves(tmp_path: Path) -> None:
    table = read_table(csv_of(tmp_path / "t.csv", "flops,val_loss,val_bpb", "1e12,3,1"))
    assert losses(table) == [1] and table.unit == "bits per byte"


def test_the_mark_that_spreadsheets_put_first_is_no_part_of_the_name(tmp_path: Path) -> None:
    for text in ("flops,loss\n1e12,3\n", '{"flops": 1e12, "loss": 3}'):
        assert losses(read_table(write(tmp_path / "t", "\ufeff" + text))) == [3]


def test_null_is_missing(tmp_path: Path) -> None:
    rows = [{"N": 1e6, "D": 2e7, "flops": None, "loss": 3, "seed": None}]
    with pytest.raises(ForecastError, match="no column for flops"):
        read_table(write(tmp_path / "t.jsonl", json.dumps({**rows[0], "N": None})))
    (rung,) = read_table(write(tmp_path / "t.jsonl", json.dumps(rows[0]))).rungs
    assert (rung.flops, rung.seed) == (6 * 1e6 * 2e7, 0)


def test_flops_are_counted_where_absent(tmp_path: Path) -> None:
    table = read_table(csv_of(tmp_path / "t.csv", "N,D,loss", "1e6,2e7,3", "2e6,4e7,2.5"))
    assert [rung.flops for rung in table.rungs] == [6 * 1e6 * 2e7, 6 * 2e6 * 4e7]
    assert table.settings["flops"] == "6·params·tokens"


def test_three_formats_are_told_by_content(tmp_path: Path) -> None:
    rows = [{"flops": c, "loss": law(c), "seed": i, "run": f"r{i}"} for i, c in enumerate(FLOPS)]
    lines = write(tmp_path / "a", "\n".join(json.dumps(row) for row in rows))
    array = write(tmp_path / "b", json.dumps(rows))
    comma = csv_of(
        tmp_path / "c", "flops,loss,seed,run", *(f"{r['flops']},{r['loss']},{r['seed']},r{r['seed']}" for r in rows)
    )
    parquet = tmp_path / "d"
    pq.write_table(pa.Table.from_pylist(rows), parquet)
    digests = {read_table(path).digest for path in (lines, array, comma, parquet)}
    assert len(digests) == 1


def test_nested_config_and_summary_of_an_export(tmp_path: Path) -> None:
    rows = [
        {"name": f"r{i}", "config": {"flops": c, "seed": 1}, "summary": {"val": {"loss": law(c)}}}
        for i, c in enumerate(FLOPS)
    ]
    table = read_table(write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    assert losses(table) == [law(c) for c in FLOPS]
    assert table.rungs[0].seed == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("nan,2,a", "row 3, column flops: nan"),
        ("inf,2,a", "row 3, column flops: inf"),
        ("-1e12,2,a", "row 3, column flops: -1e12"),
        ("0,2,a", "row 3, column flops: 0"),
        ("1e12,-2,a", "row 3, column loss: -2"),
        ("1e12,,a", "row 3, column loss: missing"),
        (",2,a", "row 3, column flops: missing"),
        ("1e12,two,a", "row 3, column loss: 'two'"),
        ("1e12,1e200,a", "row 3, column loss: 1e200"),
        ("1e300,2,a", "row 3, column flops: 1e300"),
        ("1e12,2,a,more", r"row 3 has 4 values for the 3 columns of its first line \(flops, loss, run\)"),
        ('1e12,"2,3",a', "row 3, column loss: '2,3'; expected a plain number, as 2.314"),
    ],
)
def test_bad_values_are_named_by_row_and_column(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(ForecastError, match=message):
        read_table(csv_of(tmp_path / "t.csv", "flops,loss,run", "1e11,3,z", row))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("flops,loss\n", "holds no rows"),
        ("flops,accuracy\n1,2\n", "no column for a loss"),
        ("loss,params\n1,2\n", "no column for flops"),
        ("loss,loss,flops\n1,2,3\n", "two columns called 'loss'"),
        ('{"flops": 1e12, "loss": 2}\nnot json\n', "line 2 is not JSON"),
        ("{}\n[1]\n", "line 2 holds a list"),
        ("[1, 2", "is not JSON"),
        ("flops,loss,seed\n1e12,2,x\n", "column seed: 'x'"),
        ("flops,loss,seed\n1e12,2,1.5\n", "column seed: '1.5'"),
        ("flops,loss,run\n1e12,2,a\n1e12,2,a\n", r"row 2 and row 3 are the same run \(a, seed 0, 1e\+12 FLOPs\)"),
        ("flops,loss,step,seed\n1e12,2,9,0\n1e13,2,9,0\n", "no column says which rows are of one run"),
        ("params,tokens,loss,step\n1,9,2,1\n1,9,2,2\n1,9,2,1\n1,9,2,2\n", "several losses at one step"),
        ("flops,loss,seed\n1e12,2,0\n1e13,2,0\n1e12,2,0\n", "row 2 and row 4 are the same run"),
    ],
)
def test_what_is_no_ladder_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ForecastError, match=message):
        read_table(write(tmp_path / "t.csv", text))


def test_runs_without_a_name_may_agree_to_the_digits_kept(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "t.csv", "flops,loss\n1e12,3.4\n1e12,3.4\n"))
    assert [(rung.loss, rung.seed) for rung in table.rungs] == [(3.4, 0), (3.4, 1)]


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "torn").write_bytes(b"PAR1 and no more")
    for name, message in [
        ("absent", "cannot be read"),
        ("bytes", "neither Parquet nor UTF-8"),
        ("torn", "damaged Parquet"),
    ]:
        with pytest.raises(ForecastError, match=message):
            read_table(tmp_path / name)


def test_rungs_of_different_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "t.csv", "flops,loss,tokenizer,host", "1e12,3,bpe-1k,a", "2e12,2,bytes,b")
    with pytest.raises(ForecastError, match=r"tokenizer is 'bpe-1k' in row 2 and 'bytes' in row 3"):
        read_table(path)
    path = csv_of(tmp_path / "t.csv", "flops,loss,eval set,host", "1e12,3,c4,a", "2e12,2,c4,b")
    assert read_table(path).settings["eval_set"] == "c4"
    with pytest.raises(ForecastError, match=r"host is 'a' in row 2 and 'b' in row 3"):
        read_table(path, settings=["host"])
    with pytest.raises(ForecastError, match="no column 'head size'"):
        read_table(path, settings=["head size"])


def test_units_are_stated_or_must_agree(tmp_path: Path) -> None:
    path = csv_of(tmp_path / "t.csv", "flops,loss,unit", "1e12,3,nats per token", "2e12,2,nats per token")
    assert read_table(path).unit == "nats per token"
    with pytest.raises(ForecastError, match="unit is 'nats' in row 2 and 'bits' in row 3"):
        read_table(csv_of(tmp_path / "t.csv", "flops,loss,unit", "1e12,3,nats", "2e12,2,bits"))


def test_steps_become_curves_and_final_rungs(tmp_path: Path) -> None:
    rows = [
        f"{run},{step},{c},{law(c) + 1 / step}" for run, c in zip("abcde", FLOPS, strict=True) for step in (10, 5, 20)
    ]
    table = read_table(csv_of(tmp_path / "t.csv", "run,step,flops,val_loss", *rows))
    assert losses(table) == [law(c) + 1 / 20 for c in FLOPS]
    assert [share for share, _ in table.curves["a"]] == [0.25, 0.5, 1.0]
    assert table.curves["a"][0][1] == law(FLOPS[0]) + 1 / 5


def test_history_with_gaps_and_growing_compute(tmp_path: Path) -> None:
    """As Weights & Biases exports it: the loss stands in some rows only, FLOPs so far in others."""
    lines = [
        {"run": "a", "_step": s, "flops": s * 1e10} | ({"val/loss": 3 - s / 100} if s % 2 == 0 else {})
        for s in range(1, 12)
    ]
    table = read_table(write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, lines))))
    assert table.rungs == (Rung(11e10, 2.9, 0, "a"),)
    assert table.curves["a"][-1] == (10 / 11, 2.9)


def test_a_step_column_of_final_rows_is_no_curve(tmp_path: Path) -> None:
    table = read_table(csv_of(tmp_path / "t.csv", "run,step,flops,loss", "a,100,1e12,3", "b,200,2e12,2.5"))
    assert len(table.rungs) == 2 and not table.curves


def test_chart_export_with_a_column_a_run(tmp_path: Path) -> None:
    header = '"flops","small - val/loss","small - val/loss__MIN","large - val/loss"'
    table = read_table(csv_of(tmp_path / "t.csv", header, "1e12,3,2.9,", "2e12,2.8,2.7,2.9", "8e12,,,2.2"))
    assert table.settings["loss column"] == "val/loss" and len(table.curves["small"]) == 2
    assert [(r.run, r.flops, r.loss) for r in table.rungs] == [("small", 2e12, 2.8), ("large", 8e12, 2.2)]
    with pytest.raises(ForecastError, match="no column for flops"):
        read_table(csv_of(tmp_path / "t.csv", header.replace("flops", "Step"), "1,3,2.9,"))


def test_unfinished_runs_are_set_aside(tmp_path: Path) -> None:
    table = read_table(csv_of(tmp_path / "t.csv", "Name,State,flops,val_loss", "a,finished,1e12,3", "b,crashed,2e12,"))
    assert [rung.run for rung in table.rungs] == ["a"]
    assert [(rung.run, reason) for rung, reason in table.excluded] == [("b", "its run is 'crashed'")]


def test_tensorboard_folder(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for name, flops in (("small", 1e12), ("large", 4e12)):
        writer = EventFileWriter(str(tmp_path / "logs" / name))
        values = [(0, "flops", flops), (5, "val/loss", 3.0), (10, "val/loss", 2.0 if name == "large" else 2.5)]
        for step, tag, value in values:
            writer.add_event(Event(step=step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)])))
        writer.close()
    table = read_table(tmp_path / "logs")
    assert [(r.run, r.loss) for r in table.rungs] == [("small", 2.5), ("large", 2.0)]
    assert table.curves["large"] == ((0.5, 3.0), (1.0, 2.0))
    (tmp_path / "none").mkdir()
    with pytest.raises(ForecastError, match="without TensorBoard event files"):
        read_table(tmp_path / "none")


def test_tensorboard_folder_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "events.out.tfevents.1").touch()
    monkeypatch.setitem(__import__("sys").modules, "tensorboard.backend.event_processing.event_accumulator", None)
    with pytest.raises(MissingExtraError, match="track"):
        read_table(tmp_path)


@pytest.mark.parametrize(("index", "loss"), [(0, 11.0), (2, 6.9), (4, 3.5), (4, math.nan), (0, math.inf)])
def test_diverged_rungs_are_set_aside_with_the_reason(index: int, loss: float) -> None:
    rungs = [Rung(c, loss if i == index else law(c)) for i, c in enumerate(FLOPS)]
    table = make_table(rungs)
    assert [rung.flops for rung, _ in table.excluded] == [FLOPS[index]]
    assert len(table.rungs) == 4
    assert table.excluded[0][1].startswith("its loss")


def test_what_is_little_above_less_compute_stays() -> None:
    for above, kept in ((1.02, True), (1.05, False)):
        rungs = [Rung(c, law(c)) for c in FLOPS[:4]]
        table = make_table([*rungs, Rung(FLOPS[4], above * rungs[3].loss)])
        assert (not table.excluded) is kept


def test_every_rung_of_a_row_that_diverged_is_set_aside() -> None:
    """The second is measured against what last was reached, not against the first."""
    bad = {2: 3.6, 3: 3.59}
    table = make_table([Rung(c, bad.get(i, law(c))) for i, c in enumerate(FLOPS)])
    assert [rung.flops for rung, _ in table.excluded] == FLOPS[2:4]


def test_a_diverged_seed_is_set_aside_and_the_others_kept() -> None:
    rungs = [Rung(c, law(c) * (1 + 0.002 * s), s) for c in FLOPS for s in range(3)]
    rungs[1] = Rung(FLOPS[0], 9.0, 1)
    table = make_table(rungs)
    assert [(rung.flops, rung.seed) for rung, _ in table.excluded] == [(FLOPS[0], 1)]


def test_noise_that_the_seeds_show_is_no_divergence() -> None:
    """Neighbours that change places by seed noise stay, and so does a falling ladder of any steepness."""
    noisy = [Rung(c, law(c) * (1 + s), i) for c in FLOPS for i, s in enumerate((-0.06, 0.0, 0.06, 0.02))]
    close = [Rung(1e12, 2.0), Rung(1.1e12, 2.03), Rung(4e12, 1.9), Rung(1e13, 1.85)]
    steep = [Rung(c, 10 * (c / 1e12) ** -0.5) for c in FLOPS]
    for rungs in (noisy, close, steep):
        assert not make_table(rungs).excluded


def test_digest_changes_with_any_value_and_not_with_order() -> None:
    rungs = [Rung(c, law(c), 1, f"r{c}", 1e6, 1e7) for c in FLOPS]
    table = make_table(rungs, "nats", {"tokenizer": "bpe"}, {"r": ((0.5, 3.0),)})
    assert make_table(rungs[::-1], "nats", {"tokenizer": "bpe"}, {"r": ((0.5, 3.0),)}).digest == table.digest
    assert LadderTable.from_json(json.loads(json.dumps(table.to_json()))) == table
    changed = [Rung(c, law(c) + (1e-15 if c == 1e12 else 0), 1, f"r{c}", 1e6, 1e7) for c in FLOPS]
    assert make_table(changed, "nats", {"tokenizer": "bpe"}, {"r": ((0.5, 3.0),)}).digest != table.digest


def test_excluded_rungs_survive_the_round_trip() -> None:
    table = make_table([Rung(c, law(c)) for c in FLOPS] + [Rung(1e15, math.nan)])
    text = json.dumps(table.to_json(), allow_nan=False)
    again = LadderTable.from_json(json.loads(text))
    assert math.isnan(again.excluded[0][0].loss) and again.digest == table.digest


def test_pairs_of_seeds_tell_how_far_a_sound_run_may_lie_off() -> None:
    """Two seeds a rung, 16 % apart, as tiny models can be: without the worse ones a ladder looks better."""
    pairs = [
        Rung(10 ** (10 + i / 4), 2 * 0.97**i * (1 + sign * 0.08), seed, f"{i}-{seed}")
        for i in range(8)
        for seed, sign in enumerate((1, -1))
    ]
    assert not make_table(pairs).excluded
    wild = Rung(10**11.75, 4.0, 2, "wild")
    assert [rung.run for rung, _ in make_table([*pairs, wild]).excluded] == ["wild"]
