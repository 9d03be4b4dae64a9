"""Small benchmarks in their published file forms, with pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

SHADES = {"red": (220, 30, 30), "green": (30, 150, 50), "blue": (30, 80, 230)}


def picture(path: Path, color: str = "red", form: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 8), SHADES[color]).save(path, form)
    return path


def color_of(data: bytes) -> str | None:
    """Which of SHADES a picture shows."""
    pixel = Image.open(BytesIO(data)).convert("RGB").getpixel((5, 5))
    near = {name: sum(abs(a - b) for a, b in zip(pixel, shade, strict=True)) for name, shade in SHADES.items()}
    best = min(near, key=near.__getitem__)
    return best if near[best] < 60 else None


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, rows: list[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def vqav2(folder: Path, colors: tuple[str, ...] = ("red", "green", "blue", "red")) -> Path:
    """Which color is shown; the annotators agree but for two. Also one question of a yes or no."""
    asked, told = [], []
    for i, color in enumerate(colors):
        picture(folder / f"val2014/COCO_val2014_{i:012d}.jpg", color)
        asked.append({"image_id": i, "question": "Which color is this?", "question_id": 10 * i})
        said = [color] * 8 + ["pink", "grey"]
        told.append(
            {
                "question_id": 10 * i, "image_id": i, "question_type": "which", "answer_type": "other",
                "multiple_choice_answer": color,
                "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(said, 1)],
            }
        )  # fmt: skip
    asked.append({"image_id": 0, "question": "Is this red?", "question_id": 1})
    answers = [{"answer": "yes", "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
    told.append({"question_id": 1, "image_id": 0, "question_type": "is", "answer_type": "yes/no", "answers": answers})
    write(folder / "v2_mscoco_val2014_annotations.json", {"annotations": told, "data_subtype": "val2014"})
    held = {"questions": asked, "data_subtype": "val2014", "task_type": "Open-Ended"}
    return write(folder / "v2_OpenEnded_mscoco_val2014_questions.json", held)


def textvqa(folder: Path) -> Path:
    picture(folder / "train_images/abc123.jpg", "green")
    row = {
        "question": "What is written?", "image_id": "abc123", "question_id": 34602, "set_name": "val",
        "answers": ["Nokia"] * 6 + ["nokia", "the nokia", "phone", "a phone"], "image_classes": ["Phone"],
    }  # fmt: skip
    return write(folder / "TextVQA_0.5.1_val.json", {"dataset_type": "val", "data": [row]})


def chartqa(folder: Path) -> Path:
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        picture(folder / "png" / name, color)
    human = [{"imgname": "a.png", "query": "What is the value?", "label": "14.5", "rationale": "The bar ends at 14.5."}]
    machine = [{"imgname": "b.png", "query": "Which country leads?", "label": "Peru"}]
    write(folder / "test_augmented.json", machine)
    return write(folder / "test_human.json", human)


def ai2d(folder: Path) -> Path:
    for i, color in enumerate(("red", "green")):
        picture(folder / f"images/{i}.png", color)
    first = {
        "What eats the plant?": {"answerTexts": ["fox", "hare", "owl", "bear"], "correctAnswer": 1,
                                 "questionId": "0.png-0", "abcLabel": False},
        "Which letter is the root?": {"answerTexts": ["C", "A", "D", "B"], "correctAnswer": 2,
                                      "questionId": "0.png-1", "abcLabel": True},
    }  # fmt: skip
    second = {"What is shown?": {"answerTexts": ["a cell", "a leaf"], "correctAnswer": 0, "questionId": "1.png-0"}}
    write(folder / "questions/0.png.json", {"imageName": "0.png", "questions": first})
    write(folder / "questions/1.png.json", {"imageName": "1.png", "questions": second})
    return folder


def docvqa(folder: Path) -> Path:
    picture(folder / "documents/xnbl0037_1.png", "red")
    row = {
        "questionId": 49153, "question": "What is the date?", "question_types": ["form"], "docId": 14465,
        "image": "documents/xnbl0037_1.png", "ucsf_document_id": "xnbl0037", "data_split": "val",
        "answers": ["January 8", "Jan 8"],
    }  # fmt: skip
    return write(folder / "val_v1.0_withQT.json", {"dataset_name": "SP-DocVQA", "data_split": "val", "data": [row]})


def infographicvqa(folder: Path) -> Path:
    picture(folder / "infographicsvqa_images/30266.jpeg", "blue", "JPEG")
    row = {
        "questionId": 98313, "question": "How many people?", "image_local_name": "30266.jpeg", "answers": ["1,200"],
        "ocr_output_file": "30266.json", "data_split": "val", "answer_type": ["single span"],
    }  # fmt: skip
    return write(folder / "infographicsVQA_val_v1.0_withQT.json", {"data": [row]})


def nlvr(folder: Path, count: int = 4) -> Path:
    rows: list[Mapping[str, Any]] = []
    for i in range(count):
        picture(folder / f"images/0/dev-7-{i}-0.png", "red" if i % 2 else "green")
        rows.append(
            {
                "sentence": "There is a red box.", "label": "true" if i % 2 else "false", "identifier": f"7-{i}",
                "directory": "0", "evals": {"r0": "true"}, "structured_rep": [],
            }
        )  # fmt: skip
    return write_lines(folder / "dev.json", rows)


def mathvision(folder: Path) -> Path:
    for i, color in enumerate(("red", "green", "blue")):
        picture(folder / f"images/{i}.jpg", color)
    shared = {"solution": "Count them: 2 + 3.", "level": 1}
    rows: list[Mapping[str, Any]] = [
        {"id": "1", "question": "How many?\n<image1>", "options": [], "image": "images/0.jpg", "answer": "\\frac{1}{2}",
         "subject": "counting", **shared},
        {"id": "2", "question": "Which is it? <image1>", "options": ["A", "B", "C", "D", "E"], "image": "images/1.jpg",
         "answer": "D", "subject": "logic", **shared},
        {"id": "3", "question": "How long?", "options": ["3 cm", "4 cm"], "image": "images/2.jpg", "answer": "B",
         "subject": "logic", "solution": None, "level": 2},
    ]  # fmt: skip
    return write_lines(folder / "data/test.jsonl", rows)
