"""Rewards that can be verified: a right answer, a program that passes its tests, a refusal that is in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from foretell.align.examples import PromptRow
from foretell.align.samples import RewardFunction, RowCheck, Sample
from foretell.data.world import hazards
from foretell.data.world.base import is_right
from foretell.errors import DataError, RowError
from foretell.measure.code_answers import code_block
from foretell.measure.sandbox import Program, Sandbox

# What each needs of a row: name of a field -> its type, and the same in words.
_FIELDS: dict[str, dict[str, tuple[Any, str]]] = {
    "answer": {"answer": ((str, int, float), "a text or number")},
    "program": {
        "entry": (str, "the name of a function"),
        "calls": (list, "a list of texts"),
        "expected": (list, "a list of texts"),
    },
    "handled": {"labels": (Mapping, "the world's labels")},
}


def answer(samples: Sequence[Sample]) -> list[float]:
    """1 where the reply gives the row's `answer`, or ends in it; else 0."""
    return [float(is_right(s.reply, str(_field(s, "answer", "answer")))) for s in samples]


def program(samples: Sequence[Sample]) -> list[float]:
    """1 where the reply's code passes the row's tests in the sandbox, else 0.

    The row states `entry`, the function's name, `calls` (each the arguments as a Python tuple in text) and `expected`
    (the `repr` of each value); `prelude`, where given, is put before the reply, such as the head of the function.
    """
    programs = []
    for sample in samples:
        entry, calls, expected = (_field(sample, "program", name) for name in _FIELDS["program"])
        block = code_block(sample.reply, entry)
        source = str(sample.fields.get("prelude", "")) + (sample.reply if block is None else block)
        programs.append(Program(source, entry, tuple(map(str, calls)), tuple(map(str, expected))))
    return [float(outcome.verdict == "passed") for outcome in Sandbox().run_many(programs)]


def handled(samples: Sequence[Sample]) -> list[float]:
    """1 where a reply to a request of `data.world.hazards` is what the policy wants (and, to what may be answered, says
    what is true), else 0. The row's `labels` are the world's."""
    return [float(_is_handled(_field(sample, "handled", "labels"), sample.reply)) for sample in samples]


def _is_handled(labels: Mapping[str, str], reply: str) -> bool:
    harmless = labels["request"] in ("allowed", "boundary")
    return hazards.helpful(labels, reply) if harmless else hazards.handled(labels, reply)


def near(name: str, known: Iterable[str]) -> str:
    """The one of the known names that `name` nearly is; empty where it is none."""
    return next(iter(get_close_matches(name, list(known), 1, 0.75)), "")


def _field(sample: Sample, reward: str, name: str) -> Any:
    kind, what = _FIELDS[reward][name]
    value = sample.fields.get(name)
    if not isinstance(value, kind):
        raise DataError(
            f"The reward {reward} needs the field {name} of every prompt, {what}; the row of "
            f"{sample.prompt.messages[-1].text[:60]!r} has {value!r:.60}. Add it to the data."
        )
    return value


def _check(reward: str) -> RowCheck:
    def check(row: PromptRow) -> bool:
        for name, (kind, what) in _FIELDS[reward].items():
            value = row.fields.get(name)
            if name not in row.fields:
                meant = near(name, row.fields)
                raise RowError(
                    row.where,
                    name,
                    "missing",
                    f"The reward {reward} needs it, {what}{f'; it is called {meant} here' if meant else ''}. Add it, "
                    "or leave such rows out with --set bad_rows=skip.",
                )
            if not isinstance(value, kind):
                raise RowError(
                    row.where,
                    name,
                    f"not {what}",
                    f"It is {value!r:.60}, which the reward {reward} cannot use. Mend it.",
                )
        if reward == "handled" and "request" not in row.fields["labels"]:
            raise RowError(
                row.where, "labels", "of no request", "They name no `request`, so that no policy says what is wanted."
            )
        return True

    return check


VERIFIERS: dict[str, RewardFunction] = {"answer": answer, "program": program, "handled": handled}
CHECKS: dict[str, RowCheck] = {name: _check(name) for name in VERIFIERS}
