"""From the published files of visual benchmarks to questions of one form.

Each takes the file of questions (AI2D: its folder) and says in which layout of folders its pictures are looked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from foretell.errors import EvalError
from foretell.evals.vision.files import Question, Row, lines, listed, read_json, unique

SHORT = "Answer the question with a single word or phrase."
_MATH_MARK = re.compile(r"<image\d*>")


@dataclass(frozen=True)
class Source:
    """Where a benchmark lies. path: its questions. annotations: of VQAv2. images: a folder other than the published
    layout's."""

    path: Path
    annotations: Path | None = None
    images: Path | None = None


def vqav2(source: Source) -> list[Question]:
    """v2_OpenEnded_mscoco_val2014_questions.json, with v2_mscoco_val2014_annotations.json beside it; pictures as
    val2014/COCO_val2014_000000000042.jpg. Parts are answer types. Source: Goyal et al. (2017), arXiv 1612.00837."""
    answers = source.annotations or _annotations(source.path)
    told = {row.text("question_id"): row for row in listed(answers, "annotations")}
    subset = str(read_json(source.path).get("data_subtype") or "val2014")
    folder = source.images or source.path.parent / subset
    rows = listed(source.path, "questions")
    if lacking := [row for row in rows if row.text("question_id") not in told]:
        first = lacking[0]
        raise EvalError(
            f"{len(lacking)} of {len(rows)} questions have no annotation in {answers}, such as question_id "
            f"{first.text('question_id')} of {first.place}. Give the annotations of the same split: annotations=FILE."
        )
    found = []
    for row in rows:
        id, image = row.text("question_id"), row.text("image_id")
        said = told[id]
        entries = said.get("answers")
        if (
            not isinstance(entries, list)
            or not all(isinstance(a, dict) and "answer" in a for a in entries)
            or not entries
        ):
            raise EvalError(f"{said.place}: answers is {str(entries)[:60]!r}; expected objects with an answer each.")
        place = folder / f"COCO_{subset}_{int(image):012d}.jpg"
        ideal = tuple(str(a["answer"]) for a in entries)
        part = str(said.value.get("answer_type") or "")
        found.append(Question(id, row.text("question"), (place,), ideal, row.place, part=part, group=image))
    return found


def _annotations(questions: Path) -> Path:
    name = questions.name.replace("OpenEnded_", "").replace("MultipleChoice_", "").replace("questions", "annotations")
    return questions.with_name(name)


def textvqa(source: Source) -> list[Question]:
    """TextVQA_0.5.1_val.json with train_images/ beside it. Source: Singh et al. (2019), arXiv 1904.08920."""
    folder = source.images or source.path.parent / "train_images"
    return [
        Question(
            row.text("question_id"), row.text("question"), (folder / f"{row.text('image_id')}.jpg",),
            tuple(row.texts("answers")), row.place, group=row.text("image_id"),
        )
        for row in _answered(source.path, listed(source.path, "data"))
    ]  # fmt: skip


def chartqa(source: Source) -> list[Question]:
    """test_human.json and test_augmented.json, or the folder of both, with png/ beside them; parts are the two.

    Source: Masry et al. (2022), arXiv 2203.10244.
    """
    folder = source.path if source.path.is_dir() else source.path.parent
    files = sorted(folder.glob("*_human.json")) + sorted(folder.glob("*_augmented.json"))
    if source.path.is_file():
        files = [source.path]
    if not files:
        raise EvalError(f"{source.path} holds no *_human.json or *_augmented.json. Give ChartQA's folder of a split.")
    images = source.images or folder / "png"
    return [
        Question(
            f"{file.stem}-{n}", row.text("query"), (images / row.text("imgname"),), (row.text("label"),), row.place,
            part=file.stem.rpartition("_")[2], group=row.text("imgname"), worked=str(row.value.get("rationale") or ""),
        )
        for file in files
        for n, row in enumerate(listed(file), 1)
    ]  # fmt: skip


def ai2d(source: Source) -> list[Question]:
    """The folder that holds questions/*.json and images/; only pictures of ai2d_test_ids.csv, where that is there.

    Source: Kembhavi et al. (2016), arXiv 1603.07396.
    """
    folder = source.path / "questions" if (source.path / "questions").is_dir() else source.path
    files = sorted(folder.glob("*.json"))
    if not files:
        raise EvalError(f"{source.path} holds no questions/*.json. Give AI2D's folder.")
    ids = folder.parent / "ai2d_test_ids.csv"
    if ids.is_file():
        test = {line.strip().strip(",") for line in ids.read_text(encoding="utf-8").splitlines()}
        files = [file for file in files if file.name.split(".")[0] in test]
        if not files:
            raise EvalError(f"{ids} names no picture of {folder}. Remove it, or fetch both again.")
    images = source.images or folder.parent / "images"
    found = []
    for file in files:
        held = read_json(file)
        asked = held.get("questions") if isinstance(held, dict) else None
        if not isinstance(asked, dict) or "imageName" not in held:
            raise EvalError(f"{file} has no imageName and questions. Use the published file.")
        for text, entry in asked.items():
            row = Row(entry if isinstance(entry, dict) else {}, f"{file}, question {str(text)[:60]!r}")
            options, gold = row.texts("answerTexts"), row.get("correctAnswer")
            if not isinstance(gold, int) or not 0 <= gold < len(options):
                raise EvalError(f"{row.place}: correctAnswer is {gold!r}; expected 0 to {len(options) - 1}.")
            name = str(held["imageName"])
            found.append(
                Question(
                    row.text("questionId"), str(text), (images / name,), (options[gold],), row.place,
                    tuple(options), gold, "labels" if entry.get("abcLabel") else "text", name,
                )
            )  # fmt: skip
    return found


def docvqa(source: Source) -> list[Question]:
    """val_v1.0_withQT.json with documents/ beside it. Source: Mathew et al. (2021), arXiv 2007.00398."""
    folder = source.images or source.path.parent
    return [
        Question(
            row.text("questionId"), row.text("question"), (_either(folder, row.text("image")),),
            tuple(row.texts("answers")), row.place, group=row.text("image"),
        )
        for row in _answered(source.path, listed(source.path, "data"))
    ]  # fmt: skip


def infographicvqa(source: Source) -> list[Question]:
    """infographicsVQA_val_v1.0_withQT.json with infographicsvqa_images/ beside it.

    Source: Mathew et al. (2022), arXiv 2104.12756.
    """
    folder = source.images or source.path.parent / "infographicsvqa_images"
    return [
        Question(
            row.text("questionId"), row.text("question"), (folder / row.text("image_local_name"),),
            tuple(row.texts("answers")), row.place, group=row.text("image_local_name"),
        )
        for row in _answered(source.path, listed(source.path, "data"))
    ]  # fmt: skip


def nlvr(source: Source) -> list[Question]:
    """dev.json of NLVR (JSON lines), with images/DIRECTORY/dev-IDENTIFIER-0.png beside it: the first of the six orders
    of a picture's boxes. Sentences are asked of several pictures. Source: Suhr et al. (2017), ACL P17-2034."""
    folder = source.images or source.path.parent / "images"
    split = source.path.stem
    found = []
    for row in lines(source.path):
        id, label = row.text("identifier"), row.text("label").lower()
        if label not in ("true", "false"):
            raise EvalError(f"{row.place}: label is {label!r}; expected true or false.")
        place = folder / row.text("directory") / f"{split}-{id}-0.png"
        options, group = ("true", "false"), id.rpartition("-")[0]
        sentence = f"Is this sentence true of the picture? {row.text('sentence').strip()}"
        gold = options.index(label)
        found.append(Question(id, sentence, (place,), (label,), row.place, options, gold, group=group))
    return found


def mathvision(source: Source) -> list[Question]:
    """test.jsonl or testmini.jsonl of MATH-Vision, with images/ beside it or beside its folder; parts are subjects.

    Source: Wang et al. (2024), arXiv 2402.14804.
    """
    here = source.path.parent
    folder = source.images or (here if (here / "images").is_dir() else here.parent)
    found = []
    for row in lines(source.path):
        answer, raw = row.text("answer"), row.get("options")
        options = tuple(map(str, raw)) if isinstance(raw, list) else ()
        gold = None
        if options:
            if not (len(answer) == 1 and 0 <= ord(answer) - ord("A") < len(options)):
                raise EvalError(f"{row.place}: answer is {answer!r}; expected a letter of {len(options)} options.")
            gold = ord(answer) - ord("A")
        image = row.text("image")
        found.append(
            Question(
                row.text("id"), _MATH_MARK.sub("", row.text("question")).strip(), (_either(folder, image),),
                (answer if gold is None else options[gold],), row.place, options, gold,
                str(row.value.get("subject") or ""), image, str(row.value.get("solution") or ""),
            )
        )  # fmt: skip
    return found


def _either(folder: Path, name: str) -> Path:
    """A picture as its row names it, or by its bare name where a folder of pictures was given."""
    return (
        folder / name
        if (folder / name).is_file() or not (folder / Path(name).name).is_file()
        else folder / Path(name).name
    )


def _answered(file: Path, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows. Raises EvalError for a split that was published without answers."""
    if all("answers" not in row.value for row in rows):
        raise EvalError(f"{file} has no answers, as test splits have none. Take the validation split.")
    return rows


@dataclass(frozen=True)
class Form:
    """read: a source's questions. measure: of `measures.MEASURES`, or accuracy where all questions have options; more:
    others that are told beside it. ask: what is said behind a question. listed: whether options are shown."""

    read: Callable[[Source], list[Question]]
    measure: str
    more: tuple[str, ...] = ()
    ask: str = SHORT
    listed: bool = True


FORMS: dict[str, Form] = {
    "vqav2": Form(vqav2, "vqa_score"),
    "textvqa": Form(textvqa, "textvqa_score", ("anls",)),
    "chartqa": Form(chartqa, "relaxed_accuracy", ("exact_match",)),
    "ai2d": Form(ai2d, "accuracy"),
    "docvqa": Form(docvqa, "anls", ("exact_match", "token_f1")),
    "infographicvqa": Form(infographicvqa, "anls", ("exact_match", "token_f1")),
    "nlvr": Form(nlvr, "accuracy", ask="Answer true or false.", listed=False),
    "mathvision": Form(mathvision, "math_match", ask="Answer with the result alone."),
}


def read_form(name: str, source: Source, parts: Sequence[str] = ()) -> list[Question]:
    """The questions of a benchmark, of some of its parts.

    Raises EvalError for an unknown form, a file that is not there or of another form, two questions of one id, and a
    part without questions.
    """
    if name not in FORMS:
        raise EvalError(f"There is no visual benchmark {name!r}; choose from {', '.join(FORMS)}.")
    if not source.path.exists():
        raise EvalError(f"There is no {source.path}. Check the path, or fetch the benchmark.")
    found = list(unique(FORMS[name].read(source)))
    if not parts:
        return found
    there = sorted({question.part for question in found})
    if empty := [part for part in parts if part not in there]:
        has = ", ".join(filter(None, there)) or "none"
        raise EvalError(f"{source.path} has no question of the part {empty[0]!r}; its parts are {has}.")
    return [question for question in found if question.part in parts]
