"""oaieval and oaievalset: the commands of OpenAI Evals, as `foretell eval run`."""

from __future__ import annotations

import sys
from typing import NoReturn

# What upstream's commands take and has no meaning here: logs are always local and whole, runs always resume.
_FLAGS = (
    "--debug", "--no-debug", "--visible", "--no-visible", "--local-run", "--no-local-run", "--no-http-run",
    "--no-cache", "--dry-run-logging", "--no-dry-run-logging", "--no-dry-run", "--resume",
)  # fmt: skip
_VALUED = ("--log_to_file", "--http-batch-size", "--http-fail-percent-threshold")
_ANSWERS = "runs/evals/answers.sqlite"


def main() -> NoReturn:
    """`oaieval MODEL EVAL` and `oaievalset MODEL SET`, with upstream's flags."""
    from foretell.cli import main as foretell

    sys.argv[1:] = ["eval", "run", *translate(sys.argv[1:])]
    foretell()


def translate(given: list[str]) -> list[str]:
    """Upstream's arguments as those of `foretell eval run`."""
    out: list[str] = []
    words = iter(given)
    for word in words:
        name, equals, _ = word.partition("=")
        if name in _FLAGS:
            continue
        if name in _VALUED:
            if not equals:
                next(words, None)
        elif name == "--cache":
            out += ["--cache", _ANSWERS]
        elif name == "--no-resume":
            out.append("--fresh")
        elif name in ("--http-run", "--http-run-url", "--dry-run"):
            sys.exit(f"Error: {name} is not offered: logs are files here. Leave it out; --max_samples tries a few.")
        else:
            out.append(word)
    return out
