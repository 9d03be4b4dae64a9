"""Published file forms: read as they are, and what is wrong in them is named with its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import formkit
import pytest

from foretell.errors import EvalError
from foretell.evals.vision.files import picture
from foretell.evals.vision.forms import FORMS, Source, read_form

WRITERS: dict[str, Callable[[Path], Path]] = {name: getattr(formkit, name) for name in FORMS}


@pytest.mark.parametrize("name", FORMS)
def test_a_published_form_is_read_with_its_pictures(name: str, tmp_path: Path) -> None:
    found = read_form(name, Source(WRITERS[name](tmp_path)))
    assert found
    for question in found:
        assert question.text and question.ideal and question.group
        for image in question.images:
            assert picture(image, question.place).data
        assert question.gold is None or question.options[question.gold] == question.ideal[0]


def test_vqa_keeps_what_each_annotator_said(tmp_path: Path) -> None:
    first, *_, last = read_form("vqav2", Source(formkit.vqav2(tmp_path)))
    assert first.ideal == ("red",) * 8 + ("pink", "grey") and first.part == "other" and last.part == "yes/no"
    assert first.group == last.group == "0"


def test_chartqas_two_parts_and_one_file_alone(tmp_path: Path) -> None:
    path = formkit.chartqa(tmp_path)
    assert [q.part for q in read_form("chartqa", Source(tmp_path))] == ["human", "augmented"]
    assert [q.part for q in read_form("chartqa", Source(path))] == ["human"]
    assert len(read_form("chartqa", Source(tmp_path), ["augmented"])) == 1


def test_ai2d_of_the_test_ids_alone(tmp_path: Path) -> None:
    folder = formkit.ai2d(tmp_path)
    (tmp_path / "ai2d_test_ids.csv").write_text("1\n")
    assert [q.id for q in read_form("ai2d", Source(folder))] == ["1.png-0"]


def test_math_vision_letters_and_options(tmp_path: Path) -> None:
    free, letters, options = read_form("mathvision", Source(formkit.mathvision(tmp_path)))
    assert free.text == "How many?" and free.options == () and free.worked
    assert letters.ideal == ("D",) and options.ideal == ("4 cm",) and options.gold == 1 and options.worked == ""


def spoil(path: Path, change: Callable[[dict], None]) -> None:
    held = json.loads(path.read_text())
    change(held)
    path.write_text(json.dumps(held))


def test_a_lacking_column_is_named_with_its_entry(tmp_path: Path) -> None:
    path = formkit.docvqa(tmp_path)
    spoil(path, lambda held: held["data"][0].pop("question"))
    with pytest.raises(EvalError, match=r"val_v1.0_withQT.json, entry 1 has no 'question'; it has questionId"):
        read_form("docvqa", Source(path))


def test_json_lines_are_named_by_line(tmp_path: Path) -> None:
    path = formkit.nlvr(tmp_path)
    path.write_text(path.read_text() + '{"sentence": "x", "label": "maybe", "identifier": "8-0", "directory": "0"}\n')
    with pytest.raises(EvalError, match=r"dev.json, line 5: label is 'maybe'"):
        read_form("nlvr", Source(path))
    path.write_text(path.read_text() + "{oops\n")
    with pytest.raises(EvalError, match=r"line 6 is not JSON"):
        read_form("nlvr", Source(path))


def test_two_questions_of_one_id_are_named_both(tmp_path: Path) -> None:
    path = formkit.nlvr(tmp_path, 2)
    path.write_text(path.read_text() * 2)
    with pytest.raises(EvalError, match=r"line 3 has the id 7-0 of .*line 1"):
        read_form("nlvr", Source(path))


def test_an_empty_part_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"no question of the part 'number'; its parts are other, yes/no"):
        read_form("vqav2", Source(formkit.vqav2(tmp_path)), ["number"])


def test_questions_without_annotation_are_counted(tmp_path: Path) -> None:
    path = formkit.vqav2(tmp_path)
    spoil(tmp_path / "v2_mscoco_val2014_annotations.json", lambda held: held["annotations"].pop(0))
    with pytest.raises(EvalError, match=r"1 of 5 questions have no annotation .* question_id 0 of .*entry 1"):
        read_form("vqav2", Source(path))


@pytest.mark.parametrize(
    ("name", "held", "said"),
    [
        ("docvqa", {"rows": []}, "has no list 'data'; it holds rows"),
        ("docvqa", {"data": []}, "holds no list of entries"),
        ("docvqa", {"data": ["x"]}, "entry 1 is a str"),
        ("docvqa", {"data": [{"questionId": 1, "question": "?", "image": "a.png"}]}, "Take the validation split"),
        ("textvqa", {"data": [{"question_id": 1, "question": "?", "image_id": "a", "answers": []}]}, "list of texts"),
        ("textvqa", {"data": [{"question_id": 1, "question": " ", "image_id": "a", "answers": ["b"]}]}, "question is"),
    ],
)
def test_another_form_is_told(name: str, held: object, said: str, tmp_path: Path) -> None:
    path = formkit.write(tmp_path / "x.json", held)
    with pytest.raises(EvalError, match=said):
        read_form(name, Source(path))


def test_damaged_json_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"data": [\n  {"a" 1}]}')
    with pytest.raises(EvalError, match="line 2, column"):
        read_form("docvqa", Source(tmp_path / "x.json"))
    with pytest.raises(EvalError, match="There is no"):
        read_form("docvqa", Source(tmp_path / "y.json"))
    with pytest.raises(EvalError, match="no visual benchmark 'docvqb'"):
        read_form("docvqb", Source(tmp_path / "x.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvalError, match="holds no questions/"):
        read_form("ai2d", Source(tmp_path / "empty"))


def test_pictures_that_are_missing_or_broken_are_named_with_the_row(tmp_path: Path) -> None:
    with pytest.raises(EvalError, match=r"F, line 3: its image .*none.png cannot be read"):
        picture(tmp_path / "none.png", "F, line 3")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(EvalError, match=r"F, line 3: its image .*bad.png is broken"):
        picture(tmp_path / "bad.png", "F, line 3")


@pytest.mark.realdata
def test_nlvr_as_its_repository_holds_it(real_data: Path) -> None:
    path = real_data / "benchmarks/lil-lab_nlvr/nlvr/dev/dev.json"
    found = read_form("nlvr", Source(path))
    there = [q for q in found if q.images[0].is_file()]
    assert (len(found), len(there)) == (989, 165)
    assert sum(q.ideal == ("true",) for q in there) == 90
    assert len({q.group for q in there}) < len(there)
