"""bandit itself, where it is installed: what it finds, and what it cannot read."""

from __future__ import annotations

import importlib.util
import shutil

import pytest

from foretell.errors import SandboxError
from foretell.measure import bandit

needs_bandit = pytest.mark.skipif(
    importlib.util.find_spec("bandit") is None and shutil.which("bandit") is None, reason="bandit is not installed"
)


@pytest.mark.peer
@needs_bandit
def test_findings_stay_with_their_programs() -> None:
    weak = "import subprocess\n\n\ndef f(x):\n    subprocess.call('ls ' + x, shell=True)  # nosec\n"
    found = bandit.scan([weak, "x = 1\n", "def f(:\n", "import hashlib\nhashlib.md5(b'x')\n"])
    assert [(w.test, w.cwe, w.line) for w in found[0].at_least("high")] == [("B602", 78, 5)]
    assert found[1] == bandit.Scanned()
    assert found[2].error and not found[2].weaknesses
    assert [w.test for w in found[3].at_least("medium")] == ["B324"]


@pytest.mark.peer
@needs_bandit
def test_no_program_needs_no_process() -> None:
    assert bandit.scan([]) == []


def test_a_bandit_that_does_not_answer_as_it_should(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["false"], ["/nowhere/bandit"]):
        monkeypatch.setattr(bandit, "command", lambda command=command: command)
        with pytest.raises(SandboxError, match="bandit did not answer as it should"):
            bandit.scan(["x = 1"])
