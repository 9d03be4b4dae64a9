"""Programs out of replies, and the sandbox that many samples share."""

from __future__ import annotations

import asyncio

import pytest

from foretell.errors import SandboxError
from foretell.evals.academic_code import Verdicts, function_source, header
from foretell.measure.sandbox import Program, obstacle

PROMPT = 'import math\n\ndef helper(n):\n    return n + 1\n\ndef twice(n):\n    """Twice n."""\n'
BODY = "    return 2 * n\n"
WHOLE = f"def twice(n):\n{BODY}"


@pytest.mark.parametrize(
    ("reply", "source"),
    [
        (BODY, PROMPT + BODY),
        (BODY + "\ndef other():\n    pass\n", PROMPT + BODY + "\n"),
        (BODY + "# and so on", PROMPT + BODY),
        (WHOLE, header(PROMPT, "twice") + WHOLE),
        (f"Here:\n```python\n{WHOLE}```\nBye", header(PROMPT, "twice") + WHOLE),
        (f"```\n{BODY}```", PROMPT + BODY),
        ("```python\nreturn 2 * n\n```", PROMPT + BODY),
        (f"```py\n{WHOLE}", header(PROMPT, "twice") + WHOLE),  # the fence was never closed
        ("def twice_as(n):\n    return n", PROMPT),
        ("I do not know.", PROMPT),
    ],
)
def test_source_of_a_reply(reply: str, source: str) -> None:
    assert function_source(PROMPT, reply, "twice") == source


def test_header_is_what_stands_before() -> None:
    assert header(PROMPT, "twice") == "import math\n\ndef helper(n):\n    return n + 1\n\n"
    assert header("def twice(n):\n", "twice") == ""


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
