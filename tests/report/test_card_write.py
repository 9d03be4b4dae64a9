"""A whole card: every number with its source, what is missing by name, and no digit that came from nowhere."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import card_run
import pytest
from card_run import write
from test_card_forms import sit

from clikit import invoke
from foretell.errors import CardError
from foretell.pages import number
from foretell.report.card.blocks import Card, Chart, Facts, Grid, Heading, Paragraph, Section
from foretell.report.card.evidence import Evidence
from foretell.report.card.figures import Document, Figure, Given, Prose
from foretell.report.card.markdown import to_markdown
from foretell.report.card.parts import PARTS
from foretell.report.card.render import render
from foretell.report.card.sources import Sources
from foretell.report.card.subject import Subject
from foretell.report.card.write import Assumed, write_card

_VOID = {"br", "hr", "img", "meta", "col", "wbr", "input", "link"}
_SILENT = {"style", "title", "svg"}


class Told(HTMLParser):
    """The text of a page, parted into what comes from files (figures and quotes) and what is the page's own."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.own: list[str] = []
        self.figures: list[tuple[str, str]] = []
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.texts: list[str] = []
        self._stack: list[str] = []
        self._figure = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.add(found.get("id") or "")
        kind = found.get("class") or ""
        if tag == "section" and found.get("id") == "sources":
            kind = "sources"
        if kind == "fig":
            self._figure = (found.get("href") or "").removeprefix("#")
            assert found.get("title")
        elif tag == "a":
            self.links.append(found.get("href") or "")
        if tag not in _VOID:
            self._stack.append("fig" if kind == "fig" else kind if kind in ("said", "sources") else tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            self._stack.pop()

    def handle_data(self, data: str) -> None:
        if _SILENT & set(self._stack):
            return
        self.texts.append(data)
        if "fig" in self._stack:
            self.figures.append((self._figure, data))
        elif not {"said", "sources", "h1"} & set(self._stack):
            self.own.append(data)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return card_run.card_run(tmp_path / "runs")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, every measurement that has a form, and the card of both."""
    folder = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        card_run.card_run(folder / "runs")
        measure_all(folder / "made")
        write_card("runs/quickstart", [Path("made")])
    return folder


@pytest.fixture
def full(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page of that card."""
    monkeypatch.chdir(finished)
    return Path("runs/quickstart/card/index.html")


def measure_all(made: Path) -> None:
    card_run.contamination(made)
    card_run.languages(made)
    card_run.calibration(made, "runs/quickstart/pretrain/checkpoint", "runs/quickstart")
    for part in ("vision", "factuality", "safety", "redteam", "arena", "benchmarks"):
        card_run.summary(made, part)
    sit(made / "exam.jsonl")
    sit(made / "exam-before.jsonl", "runs/quickstart/pretrain/checkpoint")


def shown(page: Path) -> Told:
    return Told(page.read_text(encoding="utf-8"))


def test_no_digit_is_the_page_s_own(full: Path) -> None:
    own = " ".join(shown(full).own)
    for name in ("GPT-4", "GPT-3.5", "SHA-256"):
        own = own.replace(name, "")
    assert not re.findall(r"\w*\d\w*", own)


def test_every_figure_links_to_a_source_that_is_there(full: Path) -> None:
    found = shown(full)
    assert len(found.figures) > 150
    assert {target for target, _ in found.figures} <= found.ids
    assert all(link.startswith("#") or (full.parent / link).exists() for link in found.links)


def test_sources_hold_what_the_files_hold(full: Path) -> None:
    """Fields are walked again in the files themselves, by their text on the page."""
    text = (full.parent / "card.md").read_text(encoding="utf-8")
    checked = 0
    for block in re.split(r"\n- `", text[text.index("## Sources") :])[1:]:
        name, _, rest = block.partition("`")
        path = Path("runs") / name
        if not path.exists():
            path = next(iter(Path("made").glob(Path(name).name)), path)
        if not path.exists():
            continue  # published figures come with the package
        value = json.loads(path.read_text()) if path.suffix == ".json" else None
        for field, stored in re.findall(r"^  - s\d+: `([^`;]+)(?:;[^`]*)?` = ([^,\n]+)", rest, re.M):
            if value is None:
                continue
            at = value
            for key, quoted, index in re.findall(r'\.?([^.\[\]]+)|\["([^"]+)"\]|\[(\d+)\]', field):
                at = at[int(index)] if index else at[key or quoted]
            assert repr(at) == stored, (name, field)
            checked += 1
    assert checked > 100


def test_markdown_says_the_same(full: Path) -> None:
    text = (full.parent / "card.md").read_text(encoding="utf-8")
    body, _, sources = text.partition("\n## Sources\n")
    defined = set(re.findall(r"^\[(s\d+)\]: ", sources, re.M))
    used = re.findall(r"\[([^\[\]]+)\]\[(s\d+)\]", body)
    assert {target for _, target in used} <= defined
    page = "".join(shown(full).texts)
    assert len(used) > 150 and all(number.partition(" (")[0] in page for number, _ in used)
    assert "## Safety and over-refusal" in body and "```bash" not in body.partition("## Exams")[0]


def test_what_the_measurements_say_is_on_it(full: Path) -> None:
    text = "".join(shown(full).texts)
    for told in (
        "25.0\u202f%", "1.75", "hit: inside the interval",
        "A quiz of letters", "Before and after post-training", "quiz.holdout.v1", "790", "world.holdout.v1",
        "Swahili", "85.5\u202f%", "0.078", "0.007", "Attacks of ten families", "Red team", "48",
    ):  # fmt: skip
        assert told in text, told


def test_a_card_of_the_run_alone_lists_what_is_missing(run: Path) -> None:
    text = "".join(shown(write_card("runs/quickstart")).texts)
    for what in (
        "no exam was sat", "no benchmark was run", "the same questions in several languages were not asked",
        "what of the evals stood in the training data was not looked for", "hallucination, adversarial questions",
    ):  # fmt: skip
        assert f"Not measured: {what}" in text
        assert text.count(what) == 2  # in its part, and in the list at the end
    assert "foretell exam run runs/quickstart world --holdout" in text
    assert "foretell contamination index runs/quickstart" in text


def test_a_run_without_alignment_or_forecast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    card_run.card_run(tmp_path / "runs", aligned=False, forecast=False)
    text = "".join(shown(write_card("runs/quickstart")).texts)
    assert "no forecast of the final loss was registered" in text
    assert "how the model treats requests that it should refuse" in text
    assert "after RLHF" not in text


def test_energy_and_cost_follow_from_time_and_assumptions(run: Path) -> None:
    page = write_card("runs/quickstart", assumed=Assumed(watts=100.0, price=3.0, currency="EUR"))
    seconds = sum(json.loads(path.read_text())["seconds"] for path in run.glob("*/manifest.json"))
    text = "".join(shown(page).texts)
    assert f"{number(seconds * 100 / 3.6e6)} kWh" in text and f"{number(seconds * 3 / 3600)} EUR" in text
    assert "as stated by whoever made this card" in text
    stored = json.loads((run / "card/computed/assumptions.json").read_text())
    assert stored["watts"] == 100.0 and stored["currency"] == "EUR"
    assert "assumed, not measured" in text


def test_default_assumptions_say_on_what_they_rest(run: Path) -> None:
    text = "".join(shown(write_card("runs/quickstart")).texts)
    assert "20 W" in text or "20.0 W" in text  # two cores
    assert "a server processor of 64 cores" in text


def test_the_same_run_makes_the_same_card(run: Path) -> None:
    first = write_card("runs/quickstart").read_bytes()
    assert write_card("runs/quickstart").read_bytes() == first


def test_an_unfinished_run_is_refused(run: Path) -> None:
    (run / "examine/manifest.json").rename(run / "examine/partial.json")
    with pytest.raises(CardError, match="still in progress: its stage examine is not finished"):
        write_card("runs/quickstart")
    (run / "card").mkdir()
    (run / "examine/partial.json").rename(run / "examine/manifest.json")
    write(run / "card/partial.json", {"key": "", "started": "", "seconds": 0.0})
    assert write_card("runs/quickstart", building="card").is_file()


@pytest.mark.parametrize("name", ["data/manifest.json", "examine/examine.json", "outcomes/rbrm/outcomes.json"])
def test_a_damaged_file_of_the_run_is_named(run: Path, name: str) -> None:
    path = run / name
    path.write_text(path.read_text()[:40])
    with pytest.raises(CardError, match=rf"{path.name} is damaged"):
        write_card("runs/quickstart")


def test_a_run_without_a_manifest_of_its_data_says_so(run: Path) -> None:
    shutil.rmtree(run / "data")
    text = "".join(shown(write_card("runs/quickstart")).texts)
    assert "Not measured: the sources of its data and their licences" in text and "foretell run runs/quickstart" in text


def test_open_weights_have_a_card_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "vocab_size": 49152}
    write(tmp_path / "open/config.json", config)
    (tmp_path / "open/model.safetensors").write_bytes(b"weights")
    sit(tmp_path / "made/exam.jsonl", "open")
    page = write_card("open", [Path("made")])
    assert page == Path("runs/cards/open/index.html")
    text = "".join(shown(page).texts)
    assert "576" in text and "49,152" in text and "The model was not trained here" in text and "7 B" in text


def test_a_model_s_words_never_become_markup(run: Path) -> None:
    path = run / "data/manifest.json"
    value = json.loads(path.read_text())
    value["metrics"]["sources"]["<script>alert(1)</script>"] = {"documents": 1, "licenses": {"<b>": 1}}
    write(path, value)
    html = write_card("runs/quickstart").read_text(encoding="utf-8")
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html and "default-src 'none'" in html


REFUSED: list[Any] = [
    Paragraph((86.4,)),  # type: ignore[arg-type]
    Paragraph(("reached 86.4",)),  # type: ignore[arg-type]
    Grid([Prose("a")], [[0.5]]),  # type: ignore[list-item]
    Grid(["2023"], []),  # type: ignore[list-item]
    Facts([(Prose("a"), "7 of 8")]),  # type: ignore[list-item]
    Heading("99"),  # type: ignore[arg-type]
    Chart(Prose("a"), [Prose("b")], [(Prose("c"), [0.5])]),  # type: ignore[list-item]
    Chart(Prose("a"), [Prose("b")], [("c 5", [])]),  # type: ignore[list-item]
    "0.5",
]


@pytest.mark.parametrize("block", REFUSED)
def test_a_bare_number_or_text_cannot_be_shown(tmp_path: Path, block: Any) -> None:
    card = Card(Given("x"), None, (), [Section(Prose("Part"), [block])])
    with pytest.raises(CardError):
        render(card, Sources(None, tmp_path))
    if not isinstance(block, Chart):  # which Markdown leaves out
        with pytest.raises(CardError):
            to_markdown(card, Sources(None, tmp_path))


def test_a_headline_must_be_a_figure(tmp_path: Path) -> None:
    card = Card(Given("x"), None, (), [Section(Prose("Part"), [], headline=[(Prose("a"), 5, None)])])  # type: ignore[list-item]
    with pytest.raises((CardError, AttributeError)):
        render(card, Sources(None, tmp_path))


def test_a_further_part_needs_only_a_function(run: Path, tmp_path: Path) -> None:
    write(tmp_path / "more.json", {"toxic": 0.0073})

    def toxicity(evidence: Evidence) -> Section:
        figure = Figure(Document(tmp_path, "more.json"), ("toxic",), "share")
        return Section(Prose("Toxicity"), [Paragraph((Prose("Toxic: "), figure))])

    section = (*PARTS, toxicity)[-1](Evidence(Subject("x", None, "x"), tmp_path))
    html = render(Card(Given("x"), None, (), [section]), Sources(None, tmp_path))
    assert "0.7\u202f%" in html and "more.json" in html


def table_of(run: Path, rows: list[dict[str, Any]]) -> str:
    """The factuality part of a card whose summary has these rows, as Markdown without its links."""
    card_run.summary(Path("made"), "factuality", rows=rows)
    text = write_card("runs/quickstart", [Path("made")]).with_name("card.md").read_text(encoding="utf-8")
    part = text[text.index("## Factuality") : text.index("## Safety")]
    return re.sub(r"\[([^\[\]]+)\]\[s\d+\]", r"\1", part)


def test_what_was_before_stands_beside_the_result(run: Path) -> None:
    row = {"measure": "made_up", "title": "Makes something up", **card_run.interval(0.25), "n": 40, "form": "share"}
    arms = {"before": 0.5, "change": -0.25, "history": 0.125}
    rows = [row, *(row | {"arm": arm, "estimate": v, "low": v - 0.125, "high": v + 0.125} for arm, v in arms.items())]
    told = table_of(run, rows)
    assert "| Measure | Arm | Before | Result | Change | Asked |" in told
    assert "| Makes something up | – | 50.0\u202f% (37.5 to 62.5\u202f%) | 25.0\u202f% (18.8 to 31.2\u202f%) | " in told
    assert "| −25.0\u202fpoints (−37.5 to −12.5\u202fpoints) | 40 |" in told
    assert "| Makes something up | history | – | 12.5\u202f% (0.0 to 25.0\u202f%) | – | 40 |" in told


def test_rows_that_are_all_arms_become_columns(run: Path) -> None:
    rows = [
        {"title": title, "arm": arm, "estimate": value, "low": None, "high": None, "n": 40}
        for title in ("VQAv2", "NLVR")
        for arm, value in (("with its image", 0.75), ("blind", 0.5))
    ]
    told = table_of(run, rows)
    assert "| Measure | with its image | blind | Asked |" in told
    assert "| VQAv2 | 75.0\u202f% | 50.0\u202f% | 40 |" in told and "| NLVR |" in told


def test_the_command_writes_the_card_and_tells_errors_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = invoke(capsys, "card", "runs/quickstart", "--watts", "50", "--out", "told")
    assert code == 0 and str(tmp_path / "told/index.html") in out and str(tmp_path / "told/card.md") in out
    card_run.summary(tmp_path / "made", "safety", "gpt-4")
    code, _, err = invoke(capsys, "card", "runs/quickstart", "--with", "made")
    assert code == 2 and err.startswith("Error: made/safety.json measures gpt-4") and "Traceback" not in err
    code, _, err = invoke(capsys, "card", "runs/none")
    assert code == 2 and "There is no run or model runs/none" in err


def test_a_limit_is_named_by_what_its_share_is(run: Path) -> None:
    text = write_card("runs/quickstart").with_name("card.md").read_text(encoding="utf-8")
    assert "| Hallucination: it states what is not so | not measured |" in text
    for name in ("base", "rbrm"):
        path = run / "outcomes" / name / "outcomes.json"
        value = json.loads(path.read_text())
        more = [{"measure": m, **card_run.interval(0.75), "n": 64} for m in ("choices.right", "conflicts.won")]
        write(path, value | {"rates": value["rates"] + more})
    text = write_card("runs/quickstart").with_name("card.md").read_text(encoding="utf-8")
    assert "| Answers rightly | [75.0" in text and "| The system message wins | [75.0" in text
    assert "Hallucination: it" not in text and "overrules the system" not in text


def test_one_measurement_does_not_hide_that_others_are_missing(run: Path) -> None:
    card_run.summary(Path("made"), "factuality", eval="grounded.texts.v0")
    card_run.summary(Path("made"), "safety", eval="toxicity.continuations.v0")
    text = "".join(shown(write_card("runs/quickstart", [Path("made")])).texts)
    for what in ("what it says of things after its data ends", "bias in decisions"):
        assert text.count(what) == 2 and f"Not measured: {what}" in text
    assert "eval run runs/quickstart cutoff --record-path measured/cutoff.jsonl" in text
    assert "keeps to a text" not in text and "measured: toxic continuations" not in text
    assert "memorised" not in text  # nothing was planted in this run


def test_nothing_planted_is_no_result(run: Path) -> None:
    rows = [{"measure": "extracted", "title": "Given back", "estimate": 0.0, "low": 0.0, "high": 0.125, "n": 40}]
    card_run.summary(Path("made"), "safety", eval="memorised.planted.v0", rows=rows)
    text = write_card("runs/quickstart", [Path("made")]).with_name("card.md").read_text(encoding="utf-8")
    assert "| nothing was planted |" in text and "Nothing was planted in the training data" in text
    assert "12.5\u202f%)" not in text[text.index("## Limits") : text.index("## Sources")]
