"""From the rows of published benchmarks, as their files and the hub hold them, to samples of one form.

A sample has `query`, the question as it is put, and `ideal`, its right answers. `answer` is how a worked sample goes
on. `choices` are continuations of which `gold` is right; `contexts` stand in place of the query where they differ.
`part` is what a mean is taken over (a subject, a task, a language); samples of one `group` are not independent.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from foretell.evals.samples import Sample

FILE, NUMBER = "_file", "_number"  # of a row: its file's name without ending, its place in it

_MGSM = {  # question, cue of the reasoning, as in Shi et al. (2022), arXiv 2210.03057
    "bn": ("প্রশ্ন:", "ধাপে ধাপে উত্তর:"),
    "de": ("Frage:", "Schritt-für-Schritt-Antwort:"),
    "en": ("Question:", "Step-by-Step Answer:"),
    "es": ("Pregunta:", "Respuesta paso a paso:"),
    "fr": ("Question :", "Réponse étape par étape :"),
    "ja": ("問題：", "ステップごとの答え:"),
    "ru": ("Задача:", "Пошаговоерешение:"),
    "sw": ("Swali:", "Jibu la Hatua kwa Hatua:"),
    "te": ("ప్రశ్న:", "దశలవారీగా సమాధానం:"),
    "th": ("โจทย์:", "คำตอบทีละขั้นตอน:"),
    "zh": ("问题：", "逐步解答:"),
}


def gsm8k(row: Sample) -> Sample:
    answer = str(row["answer"])
    right = answer.rpartition("####")[2].strip()
    return {"query": f"Question: {row['question']}\nAnswer:", "answer": f" {answer}", "ideal": [right]}


def mgsm(row: Sample) -> Sample:
    """Rows of the published files hold no reasoning, and so are no worked samples; the hub's training rows are."""
    language = str(row.get("language") or row[FILE].rpartition("_")[2])
    opening, cue = _MGSM.get(language, _MGSM["en"])
    question = str(row["question"])
    query = f"{question if question.startswith(opening) else f'{opening} {question}'}\n{cue}"
    right = row.get("answer_number")
    sample = {"query": query, "part": language, "group": str(row[NUMBER])}
    if right is None:
        return sample | {"ideal": [str(row["answer"])]}
    worked = str(row.get("answer") or "")
    return sample | {"ideal": [str(right)]} | ({"answer": " " + worked.removeprefix(cue).strip()} if worked else {})


def mmlu(row: Sample) -> Sample:
    choices = list(row["choices"]) if "choices" in row else [row[f"choice{i}"] for i in range(4)]
    answer, subject = str(row["answer"]).strip(), str(row.get("subject") or re.sub("_(test|dev|val)$", "", row[FILE]))
    gold = "ABCD".index(answer) if answer in tuple("ABCD") else int(answer)
    preamble = "The following are multiple choice questions (with answers) about"
    return _choice(str(row["question"]).strip(), choices, gold) | {
        "part": subject,
        "group": subject,
        "preamble": f"{preamble} {subject.replace('_', ' ')}.\n\n",
    }


def arc(row: Sample) -> Sample:
    if "query" in row:
        return _choice(str(row["query"]), row["choices"], row["gold"])
    asked = row["question"]
    if isinstance(asked, Mapping):  # the published file
        choices, stem = asked["choices"], asked["stem"]
        labels, texts = [c["label"] for c in choices], [c["text"] for c in choices]
    else:
        labels, texts, stem = list(row["choices"]["label"]), list(row["choices"]["text"]), asked
    return _choice(f"Question: {stem}", texts, labels.index(row["answerKey"]))


def hellaswag(row: Sample) -> Sample:
    label = str(row["activity_label"])
    if "ctx_a" in row:
        context = f"{label}: {row['ctx_a']} {str(row['ctx_b']).capitalize()}"
    else:
        # One text: its last part, a sentence begun, is what the other form has apart.
        context = f"{label}: {re.sub(r'(?<=[.] )[a-z][^.]*$', lambda m: m[0].capitalize(), str(row['ctx']))}"
    sample = _choice(_unbracketed(context), [_unbracketed(e) for e in row["endings"]], int(row["label"]))
    return sample | {"query": sample["ask"], "group": label}


def winogrande(row: Sample) -> Sample:
    if "sentence" in row:
        before, _, after = str(row["sentence"]).partition("_")
        contexts, rest = [before + row["option1"], before + row["option2"]], after.strip()
        gold, group = int(row["answer"]) - 1, str(row.get("qID", row["sentence"])).rpartition("-")[0]
    else:
        contexts, rest, gold = row["context_options"], str(row["continuation"]), int(row["gold"])
        group = " / ".join(sorted(contexts))
    whole = [f"{context} {rest}" for context in contexts]
    return {
        **_choice("Which sentence makes sense?", whole, gold),
        "contexts": contexts,
        "choices": [rest],
        "worked": whole[gold],
        "query": group,  # so that no worked sample is its twin
        "group": group,
    }


def lambada(row: Sample) -> Sample:
    text = f"{row['context']} {row['continuation']}" if "context" in row else str(row["text"])
    context, _, word = text.rpartition(" ")
    return {"query": context, "answer": f" {word}", "ideal": [word]}


def drop(row: Sample) -> list[Sample]:
    """A row is a question, as on the hub, or a passage with its questions, as in the published file."""
    if "qa_pairs" in row:
        return [s for pair in row["qa_pairs"] for s in drop({**pair, "passage": row["passage"]})]
    if "answers_spans" in row:
        golds = [list(row["answers_spans"]["spans"])]
    else:
        checked = row.get("validated_answers") or []
        if isinstance(checked, Mapping):  # the hub's columns
            checked = [dict(zip(checked, values, strict=True)) for values in zip(*checked.values(), strict=True)]
        golds = []
        for answer in (row["answer"], *checked):
            if (spans := _drop_spans(answer)) not in golds:
                golds.append(spans)
    query = f"Passage: {row['passage']}\nQuestion: {row['question']}\nAnswer:"
    return [{"query": query, "answer": f" {'; '.join(golds[0])}", "ideal": golds, "group": str(row["passage"])[:80]}]


def coqa(row: Sample) -> list[Sample]:
    """A sample a question, with the questions before it and their published answers."""
    asked, answers = _texts(row["questions"]), _texts(row["answers"])
    more = row.get("additional_answers") or {}
    others = [_texts(one) for one in (more.values() if isinstance(more, Mapping) else more) if one]
    samples, told = [], f"{row['story']}\n\n"
    for i, (question, answer) in enumerate(zip(asked, answers, strict=True)):
        told += f"Q: {question}\n\nA:"
        golds = [answer]
        for other in others:
            if other[i].lower() not in map(str.lower, golds):
                golds.append(other[i])
        samples.append({"query": told, "answer": f" {answer}", "ideal": golds, "group": str(row["story"])[:80]})
        told += f" {answer}\n\n"
    return samples


def truthfulqa(row: Sample) -> Sample:
    """The published table's columns, the published mc_task.json, or the hub's multiple choice.

    `false` are the wrong answers of MC2, `rivals` those of MC1, which differ for some questions. Answers of the table
    end with a full stop, as they are scored.
    """
    if "mc2_targets" in row:
        one, many = _targets(row["mc1_targets"]), _targets(row["mc2_targets"])
        best, rivals = next(text for text, right in one if right), [text for text, right in one if not right]
        true, false = ([text for text, right in many if right == wanted] for wanted in (True, False))
        question, group = row["question"], None
    else:
        best = _stopped(row["Best Answer"])
        true, false = (
            [_stopped(a) for a in row[f"{w} Answers"].split(";") if a.strip()] for w in ("Correct", "Incorrect")
        )
        question, group, rivals = row["Question"], row["Category"], false
    sample = {**_choice(str(question), [best, *rivals], 0), "query": f"Q: {question}\nA:", "true": true, "false": false}
    return sample | {"rivals": rivals} | ({} if group is None else {"group": group})


def _targets(told: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Answers and whether they are right, of the hub's two columns or of the published mapping."""
    if "labels" in told:
        return [(str(c), bool(x)) for c, x in zip(told["choices"], told["labels"], strict=True)]
    return [(str(answer), bool(right)) for answer, right in told.items()]


def bbh(row: Sample) -> Sample:
    task = str(row.get("task") or row[FILE])
    query = f"Q: {row['input']}\nA: Let's think step by step.\n"
    return {"query": query, "ideal": [str(row["target"])], "part": task, "group": task}


def ifeval(row: Sample) -> Sample:
    rules = [
        [name, {k: v for k, v in (args or {}).items() if v is not None}]
        for name, args in zip(row["instruction_id_list"], row["kwargs"], strict=True)
    ]
    return {"query": row["prompt"], "ideal": [], "rules": rules}


def humaneval(row: Sample) -> Sample:
    keys = ("prompt", "entry_point", "test", "canonical_solution", "task_id")
    return {"query": row["prompt"], "ideal": [], **{key: row[key] for key in keys}}


Form = Callable[[Sample], Sample | list[Sample]]
FORMS: dict[str, Form] = {
    form.__name__: form
    for form in (
        *(gsm8k, mgsm, mmlu, arc, hellaswag, winogrande, lambada, drop, coqa, truthfulqa, bbh, ifeval, humaneval),
    )
}


def _choice(ask: str, choices: Sequence[str], gold: Any) -> Sample:
    """ask: the question that lettered answers follow."""
    texts = [str(choice) for choice in choices]
    return {"ask": ask, "query": f"{ask}\nAnswer:", "choices": texts, "options": texts, "gold": int(gold)}


def _unbracketed(text: object) -> str:
    """Without the marks of WikiHow's page, as the harness cleans it."""
    plain = str(text).strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", plain).replace("  ", " ")


def _stopped(answer: str) -> str:
    answer = answer.strip()
    return answer if answer.endswith(".") else f"{answer}."


def _texts(turns: Any) -> list[str]:
    """Of the published file's turns, of the hub's columns, or of plain texts."""
    if isinstance(turns, Mapping):
        return list(map(str, turns["input_text"]))
    return [str(turn["input_text"] if isinstance(turn, Mapping) else turn) for turn in turns]


def _drop_spans(answer: Mapping[str, Any]) -> list[str]:
    if str(answer.get("number", "")) != "":
        return [str(answer["number"])]
    if answer.get("spans"):
        return [str(span) for span in answer["spans"]]
    date: Mapping[str, str] = answer.get("date") or {}
    return [" ".join(date.get(key, "") for key in ("day", "month", "year")).strip()]


def convert(form: Form, rows: Iterable[Sample]) -> list[Sample]:
    """Samples of rows, in their order."""
    made = (form(row) for row in rows)
    return [sample for one in made for sample in (one if isinstance(one, list) else [one])]
