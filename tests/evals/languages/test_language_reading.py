"""Questions from files: every published form, languages by name and folder, and each mistake with its file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from languagekit import GLOBAL, global_rows, question, write_csv, write_jsonl

from foretell.errors import EvalError
from foretell.evals.languages.codes import NAMES, find_language, language_code
from foretell.evals.languages.forms import mgsm_options
from foretell.evals.languages.published import BASELINES, GPT_4, MMLU_SUBJECTS
from foretell.evals.languages.questions import QuestionSet, to_row, with_shots
from foretell.evals.languages.reading import language_of, read_file, read_questions, split_of

ROW = ["astronomy/test/9", "astronomy", "Which?", "1", "2", "3", "4", "C"]


def test_parquet_and_csv_of_global_mmlu_give_the_same_questions(tmp_path: Path) -> None:
    rows = global_rows(6, "de")
    write_csv(tmp_path / "de" / "test.csv", rows)
    columns = {name: [row[i] for row in rows] for i, name in enumerate(GLOBAL)} | {"is_annotated": [True] * 6}
    (tmp_path / "parquet" / "de").mkdir(parents=True)
    file = tmp_path / "parquet" / "de" / "test-00000-of-00001.parquet"
    pq.write_table(pa.table(columns), file)
    (one, first), (two, second) = read_file(tmp_path / "de" / "test.csv"), read_file(file)
    assert one == two == "Global-MMLU" and first == second and [q.gold for q in first] == [0, 1, 2, 3, 0, 1]
    assert first[1].id == "astronomy/test/1" and first[1].language == "de" and first[1].group == "astronomy"
    assert first[1].place.endswith("test.csv, line 3") and second[1].place.endswith(".parquet, row 2")


def test_mmmlu_by_its_columns_and_locale(tmp_path: Path) -> None:
    head = ["", "Question", "A", "B", "C", "D", "Answer", "Subject"]
    rows = [["7", 'Qual, "dos dois"\nlinhas?', *"1234", "D", "anatomy"], ["8", "E este?", *"1234", "A", "anatomy"]]
    path = write_csv(tmp_path / "mmlu_PT-BR.csv", rows, head)
    form, (first, second) = read_file(path)
    assert (form, first.language, first.letter, first.subject) == ("MMMLU", "pt", "D", "anatomy")
    assert first.id == "mmmlu/7"
    assert first.question == 'Qual, "dos dois"\nlinhas?' and second.place.endswith(", line 4")


def test_mmlus_own_form_with_and_without_a_header(tmp_path: Path) -> None:
    bare = write_csv(tmp_path / "en" / "anatomy_test.csv", [["Which?", "1", "2", "3", "4", "C"]], None)
    later = write_csv(tmp_path / "two" / "anatomy_test.csv", [["Which?", "1", "2", "3", "4", "2"]],
                      ["question", "choice0", "choice1", "choice2", "choice3", "answer"])  # fmt: skip
    (_, [first]), (_, [second]) = read_file(bare), read_file(later, "en")
    assert first == second and (first.id, first.subject, first.letter) == ("anatomy/test/0", "anatomy", "C")


def test_mgsm_gets_options_that_are_the_same_in_every_language(tmp_path: Path) -> None:
    for code, text in (("de", "Wie viele?"), ("th", "กี่ตัว")):
        (tmp_path / f"mgsm_{code}.tsv").write_text(f"{text}\t18\n{text} 2\t114,200\n", encoding="utf-8")
    found = read_questions([tmp_path], shots=0).questions
    german, thai = ([q for q in found if q.language == code] for code in ("de", "th"))
    assert [(q.options, q.gold, q.id) for q in german] == [(q.options, q.gold, q.id) for q in thai]
    assert [q.options[q.gold] for q in german] == ["18", "114200"] and thai[0].question == "กี่ตัว"


@pytest.mark.parametrize("right", [0, 1, 2, 3, 10, 100, 101, 114200, -5])
def test_options_of_a_number_are_four(right: int) -> None:
    for number in range(20):
        options, gold = mgsm_options(str(right), number, "here")
        assert len(set(options)) == 4 and options[gold] == str(right)
        assert right < 0 or all(int(option) >= 0 for option in options)


def test_seahelm_rows(tmp_path: Path) -> None:
    asked = {"question": "Yang mana?", "option_a": "1", "option_b": "2", "option_c": "3", "option_d": "4"}
    row = {"metadata": {"language": "id", "sample_id": "astronomy/test/58", "subject": "astronomy"},
           "prompts": [asked], "label": "B", "id": 0}  # fmt: skip
    form, [found] = read_file(write_jsonl(tmp_path / "a.jsonl", [row]))
    assert form == "SEA-HELM" and (found.language, found.id, found.letter) == ("id", "astronomy/test/58", "B")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    asked = question(3, "cy", 2, instruction="Mae…", flags=("numbers",), group="astronomy")
    form, [found] = read_file(write_jsonl(tmp_path / "x.jsonl", [to_row(asked, chrf=12.5)]))
    assert form == "Foretell" and found == asked


def test_worked_questions_are_found_by_name_and_folder(tmp_path: Path) -> None:
    """dev beside test; validation and train are left out."""
    for split, count in (("test", 8), ("dev", 4), ("validation", 5)):
        rows = [[f"{split}/{row[0]}", *row[1:]] for row in global_rows(count)]
        write_csv(tmp_path / "en" / f"{split}-00000-of-00001.csv", rows)
    found = read_questions([tmp_path], shots=3)
    assert len(found.questions) == 8 and len(found.shots["en"]) == 4 and len(found.sources) == 2
    assert len(found.warnings) == 1 and "validation" in found.warnings[0] and len(found.sources[0].sha256) == 64


def test_without_worked_questions_some_are_taken_the_same_in_every_language(tmp_path: Path) -> None:
    for code in ("en", "sw", "te"):
        write_csv(tmp_path / f"global_{code}_test.csv", global_rows(9, code))
    found = read_questions([tmp_path], shots=3)
    shown = {code: [q.id for q in shots] for code, shots in found.shots.items()}
    assert shown["en"] == shown["sw"] == shown["te"] and len(shown["en"]) == 3
    assert {q.id for q in found.questions}.isdisjoint(shown["en"]) and len(found.questions) == 18
    assert "no worked questions came with en, sw, te" in found.warnings[0]


def test_a_part_is_the_same_questions_in_each_language() -> None:
    asked = [question(i, code) for code in ("en", "de") for i in range(20) if code == "en" or i % 2]
    found = with_shots("x", asked, [], 0).take(6)
    ids = {code: {q.id for q in found.questions if q.language == code} for code in ("en", "de")}
    assert ids["en"] == ids["de"] and len(ids["en"]) == 6
    assert found.take(None) is found and with_shots("x", asked, [], 0).of(["de"]).languages == ("de",)
    with pytest.raises(EvalError, match="has no questions in fr; it has en, de"):
        found.of(["fr"])


def test_files_of_other_languages_are_not_opened(tmp_path: Path) -> None:
    write_csv(tmp_path / "sw" / "test.csv", global_rows(6, "sw"))
    (tmp_path / "te").mkdir()
    (tmp_path / "te" / "test.csv").write_text("damaged")
    assert read_questions([tmp_path], 1, only=["sw"]).languages == ("sw",)
    with pytest.raises(EvalError, match="the columns are damaged"):
        read_questions([tmp_path], 1)
    with pytest.raises(EvalError, match=r"has no file in de\. Check the path"):
        read_questions([tmp_path], 1, only=["de"])


def test_the_digest_sees_every_change() -> None:
    base = QuestionSet("x", (question(0),), {})
    changed = [
        QuestionSet("x", (question(0, gold=2),), {}),
        QuestionSet("x", (question(0, instruction="!"),), {}),
        QuestionSet("x", (question(0),), {"en": (question(1),)}),
    ]
    assert len({base.digest, *(one.digest for one in changed)}) == 4


@pytest.mark.parametrize(
    ("name", "row", "told"),
    [
        ("a few columns", ["Which?", "1", "2", "3", "C"], "line 3: the row has 5 columns; expected 8"),
        ("an unquoted comma", [*ROW, "and"], "line 3: the row has 9 columns; .* Quote what holds commas"),
        ("no gold", [*ROW[:-1], ""], r"line 3: there is no answer. Give the letter of the right option, A–D"),
        ("a letter beyond", [*ROW[:-1], "E"], "line 3: the answer is E, but the 4 options are A–D"),
        ("a number beyond", [*ROW[:-1], "4"], "line 3: the answer is 4, counted from 0, of 4 options"),
        ("a gold that is none", [*ROW[:-1], "Paris"], "line 3: the answer is 'Paris'; expected a letter"),
        ("three of four", [*ROW[:5], "", *ROW[6:]], "line 3: 3 of 4 options are there; C is empty"),
        ("no question", [*ROW[:2], " ", *ROW[3:]], "line 3: the question is empty"),
        ("an id twice", ["astronomy/test/0", *ROW[1:]], "line 3: the id 'astronomy/test/0' stands in .*line 2, too"),
    ],
)
def test_a_damaged_row_is_named_with_file_and_line(tmp_path: Path, name: str, row: list[str], told: str) -> None:
    path = write_csv(tmp_path / "global_de_test.csv", [*global_rows(1, "de"), row])
    with pytest.raises(EvalError, match=told) as error:
        read_questions([path], shots=0)
    assert str(error.value).startswith(str(path)), name


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("x_de.csv", "frage,a,b\n1,2,3\n", r"line 1: the columns are frage, a, b; .* lacks .*Rename the columns"),
        ("x_de.csv", "", "is empty. Fetch it again"),
        ("x_de.csv", "question,option_a,option_b,option_c,option_d,answer\n", "is empty"),
        ("x_de.jsonl", '{"question": "a", "options": ["1", "2", "3"], "answer": "A"}\n', "line 1: there are 3 options"),
        ("x_de.jsonl", '{"question": "a", "answer": "A"}\n', "line 1: the columns are question, answer"),
        ("x_de.jsonl", "\n{broken\n", "line 2 is not JSON"),
        ("x.jsonl", '{"language": "klingon", "question": "a", "options": ["1", "2", "3", "4"], "answer": "A"}\n',
         "line 1: 'klingon' is no language that is known here"),
        ("mgsm_de.tsv", "Frage 12\n", "line 1: there is no tab"),
        ("mgsm_de.tsv", "Frage\tzwölf\n", "line 1: the answer is 'zwölf'; expected a whole number"),
        ("mgsm_de.tsv", "\nFrage\t\n", "line 2: there is no answer behind the tab"),
        ("questions_dev.csv", "de,1,2,3,4,A\n", "does not say its language"),
        ("x_de.txt", "a", "ends in .txt; expected one of .parquet"),
        ("x_de.parquet", "a", "is not readable Parquet"),
        ("x_de.csv", "question,option_a,option_b,option_c,option_d,answer\n\"open,1,2\n", "columns; expected 6"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path: Path, file: str, text: str, told: str) -> None:
    path = tmp_path / file
    path.write_text(text, encoding="utf-8")
    with pytest.raises(EvalError, match=told) as error:
        read_questions([path], shots=0)
    assert str(path) in str(error.value)


def test_what_is_not_utf8_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "x_de.csv").write_bytes(b"question,option_a,option_b,option_c,option_d,answer\n\xff\xfe,1,2,3,4,A\n")
    with pytest.raises(EvalError, match="not readable CSV in UTF-8"):
        read_file(tmp_path / "x_de.csv")
    with pytest.raises(EvalError, match=r"There is no .*gone. Give a file or a folder"):
        read_questions([tmp_path / "gone"])
    (tmp_path / "hollow").mkdir()
    with pytest.raises(EvalError, match=r"holds no files that end in .parquet"):
        read_questions([tmp_path / "hollow"])
    write_csv(tmp_path / "few_de_test.csv", global_rows(3))
    with pytest.raises(EvalError, match="too few questions in de to show 3"):
        read_questions([tmp_path / "few_de_test.csv"])
    write_csv(tmp_path / "de" / "dev.csv", global_rows(3))
    with pytest.raises(EvalError, match=r"only worked ones. Give the test files"):
        read_questions([tmp_path / "de"])


def test_what_is_allowed_but_odd_is_told(tmp_path: Path) -> None:
    write_csv(tmp_path / "x_en_test.csv", [*global_rows(4), [*ROW[:4], "1", *ROW[5:]]])
    write_csv(tmp_path / "x_de_test.csv", [[*row[:-1], "D"] for row in global_rows(3)])
    told = read_questions([tmp_path], shots=0).warnings
    assert [t for t in told if "1 questions have two options that are equal" in t and "line 6" in t]
    assert [t for t in told if t == "de lacks 2 of 5 questions"]
    assert [t for t in told if t.startswith("3 questions have another gold than in the first language")]


@pytest.mark.parametrize(
    ("path", "code", "split"),
    [
        ("Global-MMLU/sw/test-00000-of-00001.parquet", "sw", "test"),
        ("Global-MMLU/fil/dev-00000-of-00001.parquet", "fil", "dev"),
        ("MMMLU/test/mmlu_ZH-CN.csv", "zh", "test"), ("mmlu_ES-LA.csv", "es", ""), ("mmlu_yo_ng.csv", "yo", ""),
        ("mgsm/mgsm_bn.tsv", "bn", ""), ("a/global_mmlu_lite_id_test.jsonl", "id", "test"),
        ("a/German/x.csv", "de", ""),
        ("data/mmlu/test/anatomy_test.csv", None, "test"), ("mmlu/dev/us_foreign_policy_dev.csv", None, "dev"),
        ("some/questions.csv", None, ""), ("x/mmlu_de_dev.jsonl", "de", "dev"), ("cy.csv", "cy", ""),
    ],
)  # fmt: skip
def test_language_and_split_by_name(path: str, code: str | None, split: str) -> None:
    assert (language_of(Path("/data") / path), split_of(Path("/data") / path)) == (code, split)


def test_languages_by_code_locale_and_name() -> None:
    for text, code in (("DE", "de"), ("pt_BR", "pt"), ("Welsh", "cy"), ("cmn-Hans", "zh"), ("zh-Hant-TW", "zh")):
        assert find_language(text) == code
    with pytest.raises(EvalError, match=r"there: 'germn' is no language that is known here. Near are german"):
        language_code("germn", "there")


def test_published_figures_are_those_of_the_report() -> None:
    """Of 26 languages beside English, 24 stand above the best English score of earlier models."""
    assert len(GPT_4) == 27 and set(GPT_4) <= set(NAMES) and GPT_4["en"] == 0.855
    best = max(value for _, value in BASELINES)
    assert best == 0.701 and sum(value > best for code, value in GPT_4.items() if code != "en") == 24
    assert len(MMLU_SUBJECTS) == 57


@pytest.mark.realdata
def test_real_translations_of_mmlu_are_read_whole(real_data: Path) -> None:
    found = read_questions([real_data / "benchmarks/aisingapore_SEA-HELM/seahelm_tasks/knowledge/global_mmlu_lite"])
    assert found.languages == ("en", "id", "ms", "tl", "vi", "zh") and len(found.questions) == 6 * 397
    assert found.is_mmlu and not any("gold" in warning for warning in found.warnings)
    english = {q.id: q for q in found.questions if q.language == "en"}
    files = read_questions([f"en={real_data / 'benchmarks/HaeChan0305_MLILAB-FedLLM/data/mmlu'}"])
    own = {q.id: q for q in files.questions}
    assert len(own) == 14042 and len(files.shots["en"]) == 285 and english.keys() <= own.keys()
    words = [[re.sub(r"\W+", "", q[id].question)[:30] for id in english] for q in (english, own)]
    assert words[0] == words[1]  # an id is the same question in both


@pytest.mark.realdata
def test_real_mgsm_has_the_same_answers_in_eleven_languages(real_data: Path) -> None:
    found = read_questions([real_data / "benchmarks/google-research_url-nlp/mgsm"], shots=0)
    keys: dict[str, set[Any]] = {}
    for q in found.questions:
        keys.setdefault(q.id, set()).add((q.options, q.gold))
    assert len(found.languages) == 11 and len(keys) == 250 and all(len(k) == 1 for k in keys.values())
