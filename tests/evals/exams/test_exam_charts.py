"""Score charts and percentile tables: complete, never going down, read with their lower bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretell.errors import EvalError
from foretell.evals.exams.charts import Row, linear_chart, make_chart, make_percentiles, read_rows


def rows(*values: tuple[float, float, float]) -> list[Row]:
    return [Row(low, high, (value, value), f"f, line {i}") for i, (low, high, value) in enumerate(values, 2)]


def test_the_report_s_formula_of_the_gre() -> None:
    """Accuracy times 40 and 130 more (appendix A.4)."""
    chart = linear_chart(0, 40, 130, 170, 1)
    assert [chart(raw) for raw in (0, 20, 40)] == [130, 150, 170]
    assert chart(-3) == 130 and chart(99) == 170


def test_a_linear_chart_rounds_half_up() -> None:
    assert linear_chart(0, 4, 200, 300, 10).scaled == (200, 230, 250, 280, 300)


def test_a_chart_scales_spans() -> None:
    chart = make_chart(rows((0, 2, 120), (3, 3, 121), (4, 5, 125)), 0, 5)
    assert chart.scaled == (120, 120, 120, 121, 125, 125)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([(0, 2, 1), (4, 5, 2)], "no raw 3"),
        ([(0, 3, 1), (3, 5, 2)], "f, line 3: raw 3 stands in f, line 2, too"),
        ([(0, 2, 5), (3, 5, 2)], "f, line 3: raw 3 gives 2, less than the 5 of raw 2"),
        ([(0, 6, 1)], "raw 6 cannot be reached"),
        ([(0, 2.5, 1)], "expected whole points"),
    ],
)
def test_a_damaged_chart_is_refused(table: list[tuple[float, float, float]], told: str) -> None:
    with pytest.raises(EvalError, match=told):
        make_chart(rows(*table), 0, 5)


def test_percentiles_are_the_lower_bounds_of_ranges() -> None:
    table = make_percentiles(
        [Row(0, 150, (0, 5), "a"), Row(151, 162, (40, 44), "b"), Row(163, 180, (88, 99), "c")], range(120, 181)
    )
    assert table(163) == (88, 99) and table(162.0)[0] == 40 and table(120)[0] == 0 and table(180)[0] == 88


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([Row(0, 1, (0, 0), "a"), Row(3, 5, (9, 9), "b")], "gap at 2"),
        ([Row(0, 1, (0, 0), "a"), Row(1, 5, (9, 9), "b")], "b: score 1 stands in a, too"),
        ([Row(0, 2, (50, 60), "a"), Row(3, 5, (40, 70), "b")], "b: the lower percentile of 3-5 is 40, less than"),
        ([Row(0, 2, (50, 60), "a"), Row(3, 5, (55, 58), "b")], "b: the upper percentile"),
        ([Row(0, 5, (60, 50), "a")], "a: percentile is 60 to 50"),
        ([Row(0, 5, (0, 101), "a")], "expected 0 to 100"),
    ],
)
def test_a_damaged_percentile_table_is_refused(table: list[Row], told: str) -> None:
    with pytest.raises(EvalError, match=told):
        make_percentiles(table, range(6))


def test_csv_cells(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("score,percentile\n0-1,<5\n2,31-33\n3,99–100\n4,>99\n")
    found = read_rows("p.csv", "total.percentiles", tmp_path, "score", "percentile")
    assert [(row.low, row.high, row.value) for row in found] == [
        (0, 1, (0, 5)), (2, 2, (31, 33)), (3, 3, (99, 100)), (4, 4, (99, 100)),
    ]  # fmt: skip
    assert found[1].where.endswith("p.csv, line 3")
    (tmp_path / "q.csv").write_text("score,percent\n0,5\n")
    with pytest.raises(EvalError, match=r"q.csv, line 1: there is no column percentile; found score, percent"):
        read_rows("q.csv", "x", tmp_path, "score", "percentile")
    (tmp_path / "r.csv").write_text("score,percentile\n0,\n")
    with pytest.raises(EvalError, match=r"r.csv, line 2: percentile is ''"):
        read_rows("r.csv", "x", tmp_path, "score", "percentile")


def test_negative_points_are_no_span(tmp_path: Path) -> None:
    found = read_rows({-2: 10, "-1-3": 11}, "chart", tmp_path, "raw", "scaled")
    assert [(row.low, row.high) for row in found] == [(-2, -2), (-1, 3)]
