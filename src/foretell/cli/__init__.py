"""The command line: a thin layer that parses, calls and prints. No logic lives here."""

from __future__ import annotations

import copy
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from typer import Typer

_RESUMING = ("run", "align", "sft", "reward", "dpo", "ppo", "grpo", "redteam")
_NO_MEMORY = "can't allocate memory"  # torch on a CPU has no error of its own for it


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done, 2 an error that a message explains, 130 interrupted, 143 told to end."""
    # By default waiting threads spin for long, and a run collapses to a fraction of its speed as soon as anything else
    # wants a core. This many turns cost little on an idle machine. Speaking needs more: between the small products of a
    # token the threads would fall asleep, and waking one takes as long as a product. OpenMP reads it once, when torch
    # is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000" if sys.argv[1:2] in (["chat"], ["serve"], ["bench"]) else "2000")
    told: list[int] = []
    here = os.getpid()

    def end(number: int, frame: FrameType | None) -> NoReturn:
        if os.getpid() != here:  # a child that was forked, such as one that reads a page, ends without a word
            os._exit(128 + number)
        told.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        # Imported here, so that an interrupt of the imports, which take a while, is told like any other.
        import typer

        from foretell.cli.app import app

        # Not through app(): it would turn an interrupt into a bare exit code and lose the message.
        command = typer.main.get_command(_called(app, sys.argv[1:2]))
        with command.make_context("foretell", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
    except KeyboardInterrupt as stop:
        code = 128 + (told[0] if told else getattr(stop, "number", signal.SIGINT))
        if os.environ.get("LOCAL_RANK", "0") != "0":  # one process of a machine speaks for all that torchrun started
            _leave(code)
        resumes = sys.argv[1:2] in ([name] for name in _RESUMING) or sys.argv[1:3] in (
            ["eval", "run"],
            ["contamination", "index"],
            ["data", "build"],
            ["data", "remove"],
            ["exam", "run"],
            ["exam", "languages"],
            ["arena", "run"],
        )
        kept = " What was finished is kept; the same command goes on from there." if resumes else ""
        _say(str(stop) or f"Interrupted.{kept}", code)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"Error: {where}{error.strerror or error}. Check the path and its permissions, then run again.")
    except Exception as error:
        import typer

        from foretell.errors import GroupError

        if isinstance(error, typer.Exit):
            sys.exit(error.exit_code)
        if isinstance(error, typer.Abort):
            _say("Interrupted.", 130)
        if isinstance(error, GroupError):
            from foretell.train.watchdog import depart

            depart(error)
        if (message := _explain(error)) is None:
            raise
        if os.environ.get("WORLD_SIZE", "1") != "1":
            from foretell.train.meeting import excuse
            from foretell.train.watchdog import depart

            depart(excuse(message))
        _say(f"Error: {message}")
    _leave(0)


def _called(app: Typer, first: list[str]) -> Typer:
    """The part of the tree that is called: building every command takes longer than starting one."""
    groups = [group for group in app.registered_groups if [group.name] == first]
    if not groups:
        return app
    part = copy.copy(app)
    part.registered_groups, part.registered_commands = groups, []
    return part


def _explain(error: Exception) -> str | None:
    """What to say of an error that a user can mend; None for a defect."""
    from pydantic import ValidationError

    from foretell.errors import ForetellError

    if isinstance(error, ForetellError):
        return str(error)
    if hasattr(error, "format_message"):  # click's usage errors
        return str(error.format_message())
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or _NO_MEMORY in str(error):
        return (
            f"There is not enough memory ({str(error).strip('. ') or 'no more could be had'}). Lower "
            "train.micro_batch, model.width or data.sequence_length, and run again; what was finished is kept."
        )

    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()) + "."
    return None


def _say(message: str, code: int = 2) -> NoReturn:
    sys.stdout.flush()
    # A group called without a command answers with its help, which is no paragraph.
    shown = message.removeprefix("Error: ") if "Usage:" in message else " ".join(message.split())
    print(shown, file=sys.stderr)
    _leave(code)


def _leave(code: int) -> NoReturn:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # A thread of the process group that still waits for a lost process would abort a tidy shutdown.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
