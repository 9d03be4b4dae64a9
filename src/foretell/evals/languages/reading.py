"""Questions from files in their published forms; every mistake is named with file and line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from foretell.errors import EvalError
from foretell.evals.languages.codes import NAMES, find_language, language_code, name_of
from foretell.evals.languages.forms import Raw, Row, checked, form_of, mgsm_options
from foretell.evals.languages.published import MMLU_SUBJECTS
from foretell.evals.languages.questions import LETTERS, Question, QuestionSet, Source, with_shots
from foretell.evals.samples import placed, read_samples
from foretell.files import sha256_file

_ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl")
_SHOTS, _ASKED, _LEFT = ("dev", "shots", "exemplars"), ("test",), ("val", "validation", "train")
_PART = re.compile(r"\d+|of|lite")
_SPELLED = frozenset(name.lower() for name in NAMES.values())
_AT_MOST = 2  # odd rows that a warning names


def read_questions(sources: Sequence[str | Path], shots: int = 3, only: Sequence[str] = ()) -> QuestionSet:
    """The questions of files and folders, with worked ones for every language.

    sources: paths, or CODE=PATH where neither the file, its name nor its folder tells its language. A file or folder
    with dev in its name holds worked questions; one with val or train is left out. only: codes of languages; files
    whose name or folder tells another are not opened. Empty for all.
    Raises EvalError, naming file and line, for: other columns than those of `forms`; a row without gold, with an option
    too few, or a letter beyond them; two rows with one id; an empty file; a language that is unknown.
    """
    asked: list[Question] = []
    worked: list[Question] = []
    told: list[Source] = []
    warnings: list[str] = []
    names = []
    for source in map(str, sources):
        code, path = _named(source)
        names.append(path.name)
        files = _files(path)
        for file in files:
            split = split_of(file)
            if only and (code or language_of(file) or only[0]) not in only:
                continue
            if split in _LEFT:
                warnings.append(f"{file.name} is left out, as its name says {split}")
                continue
            form, found = read_file(file, code)
            (worked if split in _SHOTS else asked).extend(found)
            told.append(Source(str(file), form, len(found), sha256_file(file)))
    name = ", ".join(dict.fromkeys(names))
    if not told:
        raise EvalError(f"{name} has no file in {', '.join(only) or 'any language'}. Check the path, or the languages.")
    if not asked:
        raise EvalError(f"{name} has no questions to ask, only worked ones. Give the test files, too.")
    _no_doubles(asked)
    _no_doubles(worked)
    return with_shots(name, asked, worked, shots, told, [*warnings, *_odd(asked), *_uneven(asked)])


def read_file(path: Path, code: str | None = None) -> tuple[str, list[Question]]:
    """The form of a file, and its questions. code: of the language, where it is known from elsewhere.

    Raises EvalError as `read_questions`.
    """
    try:
        rows = list(_mgsm(path) if path.suffix == ".tsv" else _raw(path))
    except OSError as error:
        raise EvalError(f"{path} cannot be read ({error.strerror or error}). Check the path.") from error
    if not rows:
        raise EvalError(f"{path} is empty. Fetch it again, or leave it out.")
    found = []
    whole = code or language_of(path)
    subject_of_file = _subject(path)
    for number, (form, raw, place) in enumerate(rows):
        question, options, gold = checked(raw, place)
        language = code or (language_code(raw.language, place) if raw.language else whole)
        if language is None:
            raise EvalError(
                f"{path} does not say its language: it has no column language, and neither its name nor its folder is "
                f"a code. Give CODE=PATH, such as de={path}."
            )
        subject = raw.subject or subject_of_file
        id = raw.id or f"{subject or path.stem}/{split_of(path) or 'test'}/{number}"
        grouped = raw.group if raw.group is not None or form in ("MGSM", "Foretell") else subject or None
        found.append(Question(id, language, question, options, gold, subject, grouped, place, raw.instruction,
                              tuple(raw.flags)))  # fmt: skip
    return rows[0][0], found


def language_of(path: Path) -> str | None:
    """The language that a file's name ends in, or that its folder is called: mgsm_de, mmlu_PT-BR, de/test-00000."""
    stem = re.sub(r"[_.-](of[_.-])?\d+(?=$|[_.-])", "", path.name.split(".")[0])
    words = [word for word in re.split(r"[_ ]", stem) if word]
    while words and (words[-1].lower() in (*_SHOTS, *_ASKED, *_LEFT) or _PART.fullmatch(words[-1].lower())):
        words.pop()
    # Two words may be one locale, as in mmlu_pt_br.
    tried = ["-".join(words[-2:])] if len(words) > 2 and len(words[-1]) == 2 and len(words[-2]) == 2 else []
    tried += words[-1:] if len(words) > 1 or (words and len(words[0]) in (2, 3, 5)) else []
    for word in (*tried, *(folder.name for folder in list(path.absolute().parents)[:2])):
        short = re.fullmatch(r"[a-zA-Z]{2,3}([-_][a-zA-Z]{2,4})?", word)
        if (short or word.lower() in _SPELLED) and (found := find_language(word)):
            return found
    return None


def split_of(path: Path) -> str:
    """Which part of a benchmark a file is, by its name or its folder's; "" where neither says."""
    words = re.split(r"[_.\- ]", path.name.lower())
    for word in (*reversed(words), path.absolute().parent.name.lower()):
        if word in (*_SHOTS, *_ASKED, *_LEFT):
            return word
    return ""


def _named(source: str) -> tuple[str | None, Path]:
    """CODE=PATH, or a path."""
    before, sign, after = source.partition("=")
    if sign and not Path(source).exists():
        return language_code(before, source), Path(after).expanduser()
    return None, Path(source).expanduser()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in _ENDINGS:
            raise EvalError(f"{path} ends in {path.suffix or 'nothing'}; expected one of {', '.join(_ENDINGS)}.")
        return [path]
    if not path.is_dir():
        raise EvalError(f"There is no {path}. Give a file or a folder of questions, or world.")
    found = sorted(file for file in path.rglob("*") if file.suffix in _ENDINGS and not file.name.startswith("."))
    if not found:
        raise EvalError(f"{path} holds no files that end in {', '.join(_ENDINGS)}. Check the path.")
    return found


def _raw(path: Path) -> Iterator[tuple[str, Raw, str]]:
    """Form, row and place of each row."""
    if path.suffix == ".csv":
        yield from _csv(path)
        return
    rows: Iterator[tuple[Row, str]]
    if path.suffix == ".parquet":
        rows = ((row, f"{path}, row {number}") for number, row in enumerate(read_samples(path), 1))
    else:
        rows = iter(placed(path))
    for row, place in rows:
        form, read = form_of(list(row), place)
        yield form, read(row), place


def _csv(path: Path) -> Iterator[tuple[str, Raw, str]]:
    """Rows of CSV with their first lines; MMLU's own files have no header."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        table, begins = csv.reader(stream), 1
        columns: list[str] | None = None
        try:
            for cells in table:
                place, begins = f"{path}, line {begins}", table.line_num + 1
                if not any(cell.strip() for cell in cells):
                    continue
                if columns is None:
                    plain = len(cells) == 6 and cells[-1].strip() in tuple(LETTERS)
                    columns = ["question", *LETTERS, "answer"] if plain else [cell.strip() for cell in cells]
                    form, read = form_of(columns, place)
                    if not plain:
                        continue
                if len(cells) != len(columns):
                    advice = "Quote what holds commas" if len(cells) > len(columns) else "Fill in what is missing"
                    raise EvalError(
                        f"{place}: the row has {len(cells)} columns; expected {len(columns)} "
                        f"({', '.join(columns)[:120]}). {advice}, or take the row out."
                    )
                yield form, read(dict(zip(columns, cells, strict=True))), place
        except (UnicodeDecodeError, csv.Error) as error:
            raise EvalError(f"{path}, line {begins}: not readable CSV in UTF-8 ({error}). Save it again.") from error


def _mgsm(path: Path) -> Iterator[tuple[str, Raw, str]]:
    number = 0
    with path.open(encoding="utf-8-sig") as stream:
        try:
            for line, text in enumerate(stream, 1):
                if not text.strip():
                    continue
                place = f"{path}, line {line}"
                question, tab, answer = text.rstrip("\r\n").rpartition("\t")
                if not tab:
                    raise EvalError(f"{place}: there is no tab; expected MGSM's form, question, tab, number. Mend it.")
                options, gold = mgsm_options(answer, number, place)
                yield "MGSM", Raw(question, options, LETTERS[gold], f"mgsm/test/{number}", "mgsm"), place
                number += 1
        except UnicodeDecodeError as error:
            raise EvalError(f"{path} is not UTF-8 ({error}). Save it again.") from error


def _subject(path: Path) -> str:
    """Of MMLU's own files, which are named by it."""
    name = re.sub(r"_(test|dev|val)$", "", path.name.split(".")[0])
    return name if name in MMLU_SUBJECTS else ""


def _no_doubles(questions: Sequence[Question]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for q in questions:
        key = (q.language, q.id)
        if key in seen:
            raise EvalError(
                f"{q.place}: the id {q.id!r} stands in {seen[key]}, too, for {name_of(q.language)}. Give each question "
                "its own, or leave one of the files out."
            )
        seen[key] = q.place


def _odd(questions: Sequence[Question]) -> Iterator[str]:
    """What published files have, and what yet spoils a question."""
    same = [q for q in questions if len(set(q.options)) < len(q.options)]
    if same:
        places = "; ".join(_short(q) for q in same[:_AT_MOST]) + (" …" if len(same) > _AT_MOST else "")
        yield f"{len(same)} questions have two options that are equal ({places})"


def _uneven(questions: Sequence[Question]) -> Iterator[str]:
    """Languages that lack questions which others have, or have another gold for them."""
    by: dict[str, dict[str, Question]] = {}
    for q in questions:
        by.setdefault(q.language, {})[q.id] = q
    every = {id for own in by.values() for id in own}
    for code, own in by.items():
        if lacking := len(every - own.keys()):
            yield f"{code} lacks {lacking} of {len(every)} questions"
    first: dict[str, Question] = {}
    other = [(q, first[q.id]) for q in questions if first.setdefault(q.id, q).gold != q.gold]
    if other:
        q, was = other[0]
        yield (
            f"{len(other)} questions have another gold than in the first language that has them, such as {q.id}: "
            f"{was.letter} in {was.language}, {q.letter} in {q.language} ({_short(q)})"
        )


def _short(q: Question) -> str:
    """The place of a question without its folders."""
    file, comma, line = q.place.rpartition(", ")
    return f"{Path(file).name}{comma}{line}"
