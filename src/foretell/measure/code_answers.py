"""Answers that are code: found in what a model said, and put together with what the problem gives."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from foretell.errors import EvalError
from foretell.measure.sandbox_programs import Checked, Outcome

# Where a completion that goes on has left the function it was to complete: the stop sequences of the paper.
STOPS = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*\1|\Z)", re.MULTILINE | re.DOTALL)


def code_block(reply: str, name: str = "") -> str | None:
    """The code among a reply's fenced blocks; None without one.

    name: of a function: the last block that defines it is taken, else the first of Python, else the first.
    A block that was cut off counts as far as it goes.
    """
    blocks = [(language.lower(), text) for _, language, text in _FENCE.findall(reply)]
    defining = [text for _, text in blocks if name and defines(text, name)]
    python = [text for language, text in blocks if language in ("python", "python3", "py")]
    return next(iter([*defining[-1:], *python, *(text for _, text in blocks)]), None)


def defines(source: str, name: str) -> bool:
    """Whether the text defines a function, not indented, of that name."""
    return re.search(rf"^(async )?def {re.escape(name)}\b", source, re.MULTILINE) is not None


def human_eval(problem: Mapping[str, Any], reply: str) -> Checked:
    """What to run to grade a reply to a problem of HumanEval: the problem's own asserts, in a process of their own.

    problem: a row of the data set. reply: a chat model's words with the code in a fence; or plain code: the whole
    function, or what follows the prompt, as far as the first of `STOPS`.
    Raises EvalError where the row lacks a field.
    Source: Chen et al. (2021), "Evaluating Large Language Models Trained on Code".
    """
    missing = [key for key in ("prompt", "test", "entry_point") if not isinstance(problem.get(key), str)]
    if missing:
        raise EvalError(
            f"A HumanEval problem ({problem.get('task_id', 'without task_id')}) lacks {', '.join(missing)}; expected "
            "the fields prompt, test and entry_point as text, as in HumanEval.jsonl.gz."
        )
    prompt, entry = problem["prompt"], problem["entry_point"]
    source = completed(prompt, reply, entry)
    return Checked(source, entry, f"{problem['test']}\ncheck(candidate)\n", prelude=prompt)


def completed(prompt: str, reply: str, entry: str) -> str:
    """The program that a reply makes of a prompt, which ends in the docstring of the function `entry`.

    reply: as in `human_eval`.
    """
    block = code_block(reply, entry)
    code = reply if block is None else block
    if block and not defines(code, entry) and not block.lstrip("\n").startswith((" ", "\t")):
        code = textwrap.indent(code, "    ")  # a body that was moved to the margin
    if defines(code, entry):
        code = "\n" + code  # the prompt alone is sound Python, and gives imports and helpers
    else:
        code = code[: min([at for stop in STOPS if (at := code.find(stop)) >= 0], default=None)]
    return prompt + code


def pass_counts(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, tuple[int, int]]:
    """Of each problem, by its id: samples drawn and samples that passed, the n and c of pass@k."""
    return {name: (len(drawn), sum(x.verdict == "passed" for x in drawn)) for name, drawn in outcomes.items()}
