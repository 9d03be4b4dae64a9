"""Rewards that can be verified: a right answer, a program that passes its tests, a refusal that is in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foretell.align.samples import RewardFunction, Sample
from foretell.data.world import hazards
from foretell.data.world.base import is_right
from foretell.errors import DataError
from foretell.measure.code_answers import code_block
from foretell.measure.sandbox import Program, Sandbox


def answer(samples: Sequence[Sample]) -> list[float]:
    """1 where the reply gives the row's `answer`, or ends in it; else 0."""
    return [float(is_right(s.reply, str(_field(s, "answer", (str, int, float), "a text or number")))) for s in samples]


def program(samples: Sequence[Sample]) -> list[float]:
    """1 where the reply's code passes the row's tests in the sandbox, else 0.

    The row states `entry`, the function's name, `calls` (each the arguments as a Python tuple in text) and `expected`
    (the `repr` of each value); `prelude`, where given, is put before the reply, such as the head of the function.
    """
    programs = []
    for sample in samples:
        entry = _field(sample, "entry", str, "the name of a function")
        calls, expected = (_field(sample, name, list, "a list of texts") for name in ("calls", "expected"))
        block = code_block(sample.reply, entry)
        source = str(sample.fields.get("prelude", "")) + (sample.reply if block is None else block)
        programs.append(Program(source, entry, tuple(map(str, calls)), tuple(map(str, expected))))
    return [float(outcome.verdict == "passed") for outcome in Sandbox().run_many(programs)]


def handled(samples: Sequence[Sample]) -> list[float]:
    """1 where a reply to a request of `data.world.hazards` is what the policy wants (and, to what may be answered, says
    what is true), else 0. The row's `labels` are the world's."""
    return [
        float(_is_handled(_field(sample, "labels", Mapping, "the world's labels"), sample.reply)) for sample in samples
    ]


def _is_handled(labels: Mapping[str, str], reply: str) -> bool:
    harmless = labels["request"] in ("allowed", "boundary")
    return hazards.helpful(labels, reply) if harmless else hazards.handled(labels, reply)


def _field(sample: Sample, name: str, kind: type[Any] | tuple[type[Any], ...], what: str) -> Any:
    value = sample.fields.get(name)
    if not isinstance(value, kind):
        raise DataError(
            f"The reward needs the field {name} of every prompt, {what}; the row of "
            f"{sample.prompt.messages[-1].text[:60]!r} has {value!r:.60}. Add it to the data."
        )
    return value


VERIFIERS: dict[str, RewardFunction] = {"answer": answer, "program": program, "handled": handled}
