"""The command line, called in this process."""

from __future__ import annotations

import signal
import sys

import pytest

from foretell import cli


def invoke(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of `foretell ARGUMENTS`."""
    old, sys.argv = sys.argv, ["foretell", *map(str, arguments)]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as left:
            cli.main()
    finally:
        sys.argv = old
        signal.signal(signal.SIGTERM, handler)
    out = capsys.readouterr()
    assert "Traceback" not in out.err
    return int(left.value.code or 0), out.out, out.err
