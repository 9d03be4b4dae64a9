"""The sandbox that many samples share."""

from __future__ import annotations

import asyncio

import pytest

from foretell.errors import SandboxError
from foretell.evals.academic_code import Verdicts
from foretell.measure.sandbox import Program, obstacle


def test_many_samples_share_a_sandbox() -> None:
    if obstacle("bubblewrap") is not None:
        pytest.skip("no sandbox")
    verdicts = Verdicts()
    programs = [Program(f"def f(n):\n    return n + {i}", "f", ("(1,)",), ("3",)) for i in range(5)]

    async def everything() -> list[str]:
        outcomes = await asyncio.gather(*map(verdicts, programs))
        return [outcome.verdict for outcome in [*outcomes, await verdicts(programs[2])]]

    expected = ["failed", "failed", "passed", "failed", "failed", "passed"]
    assert asyncio.run(everything()) == expected
    assert asyncio.run(everything()) == expected  # in another loop


def test_a_sandbox_that_fails_fails_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, **_: object) -> None: ...

        def run_many(self, programs: object) -> None:
            raise SandboxError("It did not start.")

    monkeypatch.setattr("foretell.evals.academic_code.Sandbox", Broken)
    program = Program("def f():\n    pass", "f", ("()",), ("None",))

    async def everything() -> list[object]:
        verdicts = Verdicts()
        return await asyncio.gather(verdicts(program), verdicts(program), return_exceptions=True)

    assert [str(error) for error in asyncio.run(everything())] == ["It did not start."] * 2
