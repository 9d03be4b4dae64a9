"""The figure and the page: what was forecast stands on them, and nothing else can get in."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from foretell.forecast import Forecast, LadderTable, Prediction, Rung, fit
from foretell.forecast.anchor import Checked
from foretell.forecast.chart import advice, findings, forecast_figures, forecast_page, reading, sentence
from foretell.forecast.fitting import Advice, BackTest, Diagnostics
from foretell.forecast.live_chart import watch_figure
from foretell.forecast.register import Claim, read, register, verify
from foretell.forecast.watch import watch

TARGET = 1e18
HOSTILE = '"><img src=x onerror=alert(1)><script>'


@pytest.mark.parametrize(
    ("loss", "low", "high", "shown"),
    [
        (2.1345678, 2.1, 2.17, ("2.135", "2.100", "2.170")),
        (2.1345678, 2.13, 2.14, ("2.1346", "2.1300", "2.1400")),
        (2.1, 1.0, 9.0, ("2.1", "1.0", "9.0")),
        (2.1, 2.1, 2.1, ("2.100", "2.100", "2.100")),
    ],
)
def test_sentence_shows_the_digits_that_the_interval_leaves(
    loss: float, low: float, high: float, shown: tuple[str, str, str]
) -> None:
    said = sentence(Prediction(2.5e18, loss, low, high, 0.9), "bits per byte")
    assert said == (
        f"A run of 2.5·10¹⁸ FLOPs will reach {shown[0]} bits per byte; with 90\u202f% probability it will lie between "
        f"{shown[1]} and {shown[2]}."
    )


def noisy(d: Diagnostics, low: float, high: float) -> Diagnostics:
    return replace(d, rungs=tuple(replace(rung, noise=high if i else low) for i, rung in enumerate(d.rungs)))


def test_findings_name_bends_misses_and_warnings(forecast: Forecast) -> None:
    tests = (
        BackTest(1e15, 1e16, 1.0, 2.0, 2.02, 1.9, 2.1, 0.01),
        BackTest(1e14, 1e16, 2.0, 2.0, 2.3, 2.2, 2.4, 0.15),
        BackTest(1e15, 1e17, 2.0, 2.0, 1.9, 1.8, 2.1, -0.05),
    )
    d = replace(forecast.diagnostics, bend_p=0.001, bend_flops=2e14, back_tests=tests, warnings=("Something is odd.",))
    said = " ".join(findings(replace(forecast, diagnostics=d)))
    assert "bends near 2·10¹⁴ FLOPs" in said and "2 of 3 back-tests" in said and "15.00\u202f%, 2.0 decades" in said
    assert said.endswith("Something is odd.")
    assert "off by 0.1 to 0.3\u202f% (standard" in " ".join(
        findings(replace(forecast, diagnostics=noisy(d, 0.001, 0.003)))
    )
    assert "off by 0.2\u202f% (standard" in " ".join(findings(replace(forecast, diagnostics=noisy(d, 0.002, 0.002))))
    straight = replace(d, bend_p=0.4, back_tests=())
    said = " ".join(findings(replace(forecast, diagnostics=straight)))
    assert "No bend is seen" in said and "back-test" not in said
    short = replace(d, bend_p=1.0, bend_flops=None, rungs=d.rungs[:5])
    said = " ".join(findings(replace(forecast, diagnostics=short)))
    assert "5 rungs are too few to test" in said and "No bend" not in said


def test_advice_is_silent_unless_the_forecast_is_refused(forecast: Forecast) -> None:
    assert advice(replace(forecast, refusal=None)) == ""
    told = advice(replace(forecast, refusal=Advice("Too few rungs.", ((1e16, 2), (3e16, 1)), 5e16)))
    assert "Too few rungs. Add rungs at 10¹⁶ FLOPs (2 seeds), 3·10¹⁶ FLOPs (1 seed)" in told and "5·10¹⁶ FLOPs" in told


def test_a_page_of_a_refused_forecast_says_so_first(forecast: Forecast, ladder: LadderTable) -> None:
    refused = replace(forecast, refusal=Advice("Too few rungs."))
    html = forecast_page(refused, ladder, TARGET)
    assert (
        html.index("Not supported by the data: a run of") < html.index("Too few rungs.") < html.index("interval</dt>")
    )
    assert "Not supported" not in forecast_page(replace(forecast, refusal=None), ladder, TARGET)


def test_it_is_told_what_the_numbers_were_read_from(ladder: LadderTable) -> None:
    assert list(reading(ladder)) == []
    told = {"loss column": "val_bpb", "flops": "6·params·tokens"}
    (said,) = reading(replace(ladder, settings=told))
    assert "column val_bpb" in said and "compute is 6·params·tokens" in said


def test_a_run_that_is_as_expected_lies_on_the_expected_line(ladder: LadderTable, forecast: Forecast) -> None:
    """The curve is drawn where a bin has its mean, in its middle: at its end a falling curve would look too low."""
    band = watch(ladder, forecast, TARGET)
    curve = [(share - band.width / 2, loss) for share, loss in zip(band.shares, band.centre, strict=True)]
    html = watch_figure(band, curve)
    wide = html[html.index('class="wide"') : html.index('class="narrow"')]
    lines = [points for points in re.findall(r'(?:d|points)="([^"]{200,})"', wide) if "Z" not in points.upper()]
    assert len(lines) == 2 and lines[0] == lines[1]


def shapes(html: str, class_: str) -> int:
    """How often a shape is drawn in the wide variant, its key among the names included."""
    wide = html[html.index('class="wide"') : html.index('class="narrow"')]
    drawn = re.sub(r'<g class="hit">.*?</g></g>', "", wide)
    return len(re.findall(f'class="{class_}"', drawn))


def test_figures_draw_rungs_fit_interval_forecast_and_outcome(forecast: Forecast, ladder: LadderTable) -> None:
    before, _ = forecast_figures(forecast, ladder, TARGET)
    after, differences = forecast_figures(forecast, ladder, TARGET, outcome=9.0)
    assert "outcome" not in before and "outcome" in after and "target = 1" in before
    for figure in (before, differences):
        assert shapes(figure, "band") == 2 and shapes(figure, "line") == 2  # drawn, and in the key
        assert shapes(figure, "whisker") == 12 + 1
        assert shapes(figure, "open") == 2
    assert shapes(after, "dot") == shapes(before, "dot") + 2
    assert ">0.01<" in before and ">10⁻⁴<" in before
    # Differences lie about none; the axes reach as far as an outcome that is far off.
    assert "forecast 0</text>" in differences
    for figure, least in ((after, 8), (differences, 300)):
        assert max(map(float, re.findall(r'class="t e">([\d.]+)<', figure))) >= least


def test_figure_without_a_target_counts_flops(forecast: Forecast, ladder: LadderTable) -> None:
    absolute, _ = forecast_figures(forecast, ladder, TARGET, normalised=False)
    for figure in (forecast_figures(forecast, ladder)[0], absolute):
        assert "training FLOPs" in figure and ">10¹⁶<" in figure


def test_page_tells_record_outcome_and_error(forecast: Forecast, ladder: LadderTable, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    bucket = Claim("pass rate, bucket 1", 0.5, 0.4, 0.6, 0.9)
    register(path, ladder, forecast, target=TARGET, capabilities=[bucket], anyway=True)
    registered = forecast_page(forecast, ladder, record=read(path))
    told = forecast.predict(TARGET)
    assert f"± {50 * (told.high - told.low) / told.loss:.2f}\u202f%" in registered
    assert registered.count("none yet") == 2 and read(path).sha256 in registered
    loss = forecast.predict(TARGET).high * 1.01
    verify(path, loss)
    verify(path, math.nan)
    anchors = [Checked("stamp", True, "by them"), Checked("tag", False, "not"), Checked("tag", None, "maybe")]
    html = forecast_page(forecast, ladder, record=read(path), anchors=anchors)
    assert (
        html.count(">miss<") == 3 and "diverged" in html and html.count("none yet") == 1
    )  # both outcomes, and the card of the first
    assert f"{100 * (forecast.predict(TARGET).loss / loss - 1):.2f}".replace("-", "−") in html
    assert "holds" in html and "does not hold" in html and "unchecked" in html
    assert "not registered" in forecast_page(forecast, ladder, TARGET)


def test_page_needs_no_target(ladder: LadderTable) -> None:
    html = forecast_page(fit(ladder), ladder)
    assert "A ladder and its law" in html and "not registered" not in html


def test_names_from_the_table_never_become_markup(ladder: LadderTable) -> None:
    excluded = ((Rung(1e13, 99.0, 1, HOSTILE), HOSTILE),)
    hostile = LadderTable(ladder.rungs, HOSTILE, {HOSTILE: HOSTILE}, excluded, ladder.curves)
    forecast = fit(hostile, target=TARGET)
    html = forecast_page(forecast, hostile, TARGET) + watch_figure(watch(hostile, forecast, TARGET), [(0.5, 2.0)])
    assert HOSTILE not in html and "<script" not in html and "<img" not in html
    assert "&lt;script&gt;" in html
