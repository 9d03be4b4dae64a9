"""The command line: a thin layer that parses, calls and prints. No logic lives here."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from foretell.cli import data, model, run
from foretell.errors import ForetellError

app = typer.Typer(
    name="foretell",
    help="Know your model before you train it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.register(app)
app.add_typer(run.recipe_app, name="recipe")
app.add_typer(model.app, name="model")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def root(version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    if version:
        from importlib.metadata import version as installed

        from foretell.run import code_version

        print(f"foretell {installed('foretell')} ({code_version()})")
        raise typer.Exit


def main() -> NoReturn:
    """Entry point. Exit codes: 0 done, 2 an error that a message explains, 130 interrupted, 143 told to end."""
    # Threads that spin at a barrier make a run several times slower as soon as anything else wants a core;
    # sleeping costs little on an idle machine. OpenMP reads this once, when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    told: list[int] = []

    def end(number: int, frame: FrameType | None) -> NoReturn:
        told.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        # Not through app(): it would turn an interrupt into a bare exit code and lose the message.
        command = typer.main.get_command(app)
        with command.make_context("foretell", sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
    except KeyboardInterrupt as stop:
        code = 128 + (told[0] if told else signal.SIGINT)
        _say(str(stop) or "Interrupted. What was finished is kept; the same command goes on from there.", code)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except typer.Abort:
        _say("Interrupted.", 130)
    except ForetellError as error:
        _say(f"Error: {error}")
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _say(f"Error: {where}{error.strerror or error}.")
    except Exception as error:
        if (message := _usage(error)) is None:
            raise
        _say(f"Error: {message}")
    sys.exit(0)


def _usage(error: Exception) -> str | None:
    """What to say of an error of the command line's own libraries; None for a defect."""
    if hasattr(error, "format_message"):  # click's usage errors
        return str(error.format_message())
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()) + "."
    return None


def _say(message: str, code: int = 2) -> NoReturn:
    sys.stdout.flush()
    # A group called without a command answers with its help, which is no paragraph.
    shown = message.removeprefix("Error: ") if "Usage:" in message else " ".join(message.split())
    print(shown, file=sys.stderr)
    sys.exit(code)
