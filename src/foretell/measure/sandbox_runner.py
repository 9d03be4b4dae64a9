"""What runs inside a sandbox: process 1, which forks confined children for each program and sends back what they said.

On the standard library and its two neighbours, since their texts are handed to `python -c`, joined. Untrusted code runs
only in children, which hold nothing but their program, what it is asked, and pipes for what it says. Right answers do
not enter the sandbox, so there is nothing in it to read and no verdict to forge; but for a program's test, which is
read by a child of its own and is never in the memory that programs are forked from.
"""

import ast
import atexit
import builtins
import copy  # noqa: F401  imported once here, programs import these for nothing
import fcntl
import functools  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import os
import platform
import random
import re  # noqa: F401
import select
import signal
import string  # noqa: F401
import sys
import time
import types
import typing
from contextlib import suppress

from foretell.measure.sandbox_confine import DEATH_SIGNAL, DUMPABLE, REFUSED, confine, filter_code, prctl
from foretell.measure.sandbox_frames import frame_of, pack, send, unpack, write

_LOOK_S = 0.02


def _become(limits: dict[str, typing.Any], parent: int, held: typing.Sequence[int]) -> None:
    """Turn a fresh child into one that is confined and holds these file descriptors as 0, 1, 2, … and no other."""
    os.setsid()
    apart = [fcntl.fcntl(number, fcntl.F_DUPFD, 64) for number in held]
    for number, target in enumerate(apart):
        os.dup2(target, number)
    os.closerange(len(apart), 4096)
    confine(limits)
    if os.getppid() != parent:  # it died before its death could be heard of
        os._exit(1)
    random.seed(0)


def _spawn(limits: dict[str, typing.Any], held: typing.Sequence[int], body: typing.Callable[[], int]) -> int:
    """A confined child that runs the body, whose value is its exit status."""
    parent, status = os.getpid(), 1
    if child := os.fork():
        return child
    try:
        _become(limits, parent, held)
        status = body()
    finally:
        os._exit(status)


def _load(source: str, name: str = "program") -> dict[str, typing.Any]:
    module = types.ModuleType(name)
    sys.modules[name] = module  # where dataclasses and the like look for it
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)  # noqa: S102
    return module.__dict__


def _find(names: dict[str, typing.Any], entry: str) -> typing.Any:
    first, *rest = entry.split(".")
    found = names[first]
    for name in rest:
        found = getattr(found() if isinstance(found, type) else found, name)
    return found


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def _call(program: dict[str, typing.Any]) -> int:
    """A program that is called: write what was returned."""
    said: dict[str, typing.Any] = {}
    try:
        names = _load(program["source"])
        said["values"] = [repr(_find(names, program["entry"])(*ast.literal_eval(call))) for call in program["calls"]]
    except BaseException as error:
        said = {"error": _words(error)}
    write(3, json.dumps(said).encode())
    return 0


def _print(source: str) -> int:
    """A program that reads and prints: end as Python would."""
    sys.argv[:] = ["program.py"]
    status = 0
    try:
        try:
            _load(source, "__main__")
        finally:
            atexit._run_exitfuncs()
            with suppress(ValueError):  # it may have been closed
                sys.stdout.flush()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else error.code is not None
    except BaseException as error:
        write(3, _words(error).encode(errors="replace"))
        status = 1
    return status & 255


def _serve(program: dict[str, typing.Any]) -> int:
    """A program that a test calls: requests come on 4, what it returns or raises leaves on 3."""
    try:
        names = _load(program["source"])
        _find(names, program["entry"])
        said: dict[str, typing.Any] = {"value": None}
    except BaseException as error:
        said = _raised(error)
    while True:
        send(said, 3)
        if (asked := frame_of(4)) is None:
            return 0
        try:
            arguments, named = unpack(asked["arguments"]), unpack(asked["named"])
            value = _find(names, program["entry"])(*arguments, **named)
            said = {"value": pack(value)}
            with suppress(Exception):
                if (changed := pack(arguments)) != asked["arguments"]:
                    said["arguments"] = changed
        except BaseException as error:
            said = _raised(error)


def _raised(error: BaseException) -> dict[str, typing.Any]:
    said = {"raised": [kind.__name__ for kind in type(error).__mro__], "message": str(error)[:1000], "made_of": None}
    with suppress(TypeError, RecursionError):
        said["made_of"] = [pack(item) for item in error.args]
    return said


class _Candidate:
    """What the test calls: the program's function, in the other process."""

    def __init__(self, name: str, limit: int) -> None:
        self.__name__, self.limit = name, limit
        self.raised: tuple[BaseException | None, str] = (None, "")

    def __call__(self, *arguments: typing.Any, **named: typing.Any) -> typing.Any:
        try:
            asked = {"arguments": pack(list(arguments)), "named": pack(named)}
        except TypeError as error:
            self.raised = error, _words(error)
            raise
        with suppress(BrokenPipeError):
            send(asked, 4)
        value, changed = self.answer()
        for mine, new in zip(arguments, changed, strict=False):
            if type(mine) is type(new) and isinstance(mine, list | dict | set) and mine != new:
                mine.clear()
                mine.extend(new) if isinstance(mine, list) else mine.update(new)
        return value

    def answer(self) -> tuple[typing.Any, typing.Any]:
        try:
            reply = frame_of(5, self.limit)
            if "value" in reply:
                return unpack(reply["value"]), unpack(reply.get("arguments", []))
            kinds, message = [str(name) for name in reply["raised"]], str(reply["message"])
            made_of = [message] if reply["made_of"] is None else unpack(list(reply["made_of"]))
        except OverflowError:
            _conclude(_line(sys._getframe()), "TooMuch", "too much was returned")
        except Exception:  # it is no more, or has left the form: nothing that the test may catch
            _conclude(_line(sys._getframe()), "Ended", "the program ended early")
        made: BaseException = Exception(message)
        for name in kinds:
            kind = getattr(builtins, name, None)
            # StopIteration would end a loop of the test's, such as that in all(map(candidate, …)), as if all were well.
            if isinstance(kind, type) and issubclass(kind, BaseException) and kind is not StopIteration:
                with suppress(Exception):  # some take more, or other things
                    made = kind(*made_of)
                    break
        self.raised = made, f"{kinds[0]}: {message}"
        raise made


def _line(frame: types.FrameType | None) -> int:
    while frame and frame.f_code.co_filename != "<test>":
        frame = frame.f_back
    return frame.f_lineno if frame else 0


def _conclude(line: int, kind: str, own: str | None) -> typing.NoReturn:
    write(3, json.dumps({"line": line, "type": kind, "own": own}).encode())
    os._exit(0)


def _test(limits: dict[str, typing.Any]) -> int:
    """The test of a program, which alone holds 3, where the verdict goes.

    The runner is not to know it, since every later program starts as a copy of the runner: so it is read here. Nor is
    more told than a line number and the program's own words.
    """
    frame = frame_of(0)
    os.dup2(1, 0)
    write(3, b"+")
    candidate = None
    try:
        names = _load(frame["prelude"], "prelude")
        code = compile(frame["test"], "<test>", "exec")
        candidate = _Candidate(frame["entry"], limits["output_bytes"])
        candidate.answer()  # that it has been defined
        names["candidate"] = names[frame["entry"].rpartition(".")[2]] = candidate
        exec(code, names)  # noqa: S102
    except BaseException as error:
        line, at = 0, error.__traceback__
        while at:
            line = at.tb_lineno if at.tb_frame.f_code.co_filename == "<test>" else line
            at = at.tb_next
        own = candidate.raised[1] if candidate and candidate.raised[0] is error else None
        _conclude(line, type(error).__name__, own)
    write(3, b'{"passed": true}')
    return 0


def _cpu_seconds(child: int) -> float:
    """What a process has used so far; the kernel's own limit knows whole seconds only."""
    try:
        return time.clock_gettime(~child << 3 | 2) if sys.platform == "linux" else 0.0
    except OSError:
        return 0.0


def run(program: dict[str, typing.Any], limits: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Run one program, once for each input if it reads any, and return what it wrote and how it ended."""
    if "inputs" not in program:
        return _run(program, limits)
    printed, seconds = [], 0.0
    for text in program["inputs"]:
        reply = _run(program, limits, text.encode(errors="replace"))
        printed.append(reply["printed"])
        seconds += reply["seconds"]
        if reply["late"] or reply["over"] or reply["status"]:
            break
    return reply | {"printed": printed, "seconds": seconds}


def _run(program: dict[str, typing.Any], limits: dict[str, typing.Any], text: bytes = b"") -> dict[str, typing.Any]:
    """Run it in children, and end them and whatever they left behind."""
    started = time.monotonic()
    null, (said, says) = os.open("/dev/null", os.O_RDWR), os.pipe()
    (given, gives), (told, tells) = os.pipe(), os.pipe()  # of what the program reads, and what it writes
    heard = {said: bytearray()}
    if "checked" in program:
        children = [_spawn(limits, (null, null, null, tells, given), lambda: _serve(program))]
        children.append(_spawn(limits, (0, null, null, says, gives, told), lambda: _test(limits)))
    elif "inputs" in program:
        heard[told] = bytearray()
        children = [_spawn(limits, (given, tells, null, says), lambda: _print(program["source"]))]
    else:
        children = [_spawn(limits, (null, null, null, says), lambda: _call(program))]
    for number in (null, says, given, tells):
        os.close(number)
    late = _hear(heard, gives, text, children, started + limits["wall_s"], limits)
    for number in (said, told):
        os.close(number)
    alone = os.getpid() == 1
    for child in children:
        with suppress(ProcessLookupError):
            # As process 1 of its own namespace the runner survives this and nothing else does. Elsewhere -1 is all.
            os.kill(-1 if alone else child, signal.SIGKILL)
    ends = [os.wait4(child, 0) for child in children]
    with suppress(ChildProcessError):
        while alone:
            os.wait()
    words, size = heard[said], sum(map(len, heard.values()))
    unread = "checked" in program and not words.startswith(b"+")  # the test: it still lies where programs come from
    return {
        "said": words[: limits["output_bytes"]].decode(errors="replace").removeprefix("+"),
        "printed": heard.get(told, b"")[: limits["output_bytes"]].decode(errors="replace"),
        "over": size > limits["output_bytes"],
        "late": late or any(used.ru_utime + used.ru_stime >= limits["cpu_s"] for _, _, used in ends),
        "status": os.waitstatus_to_exitcode(ends[0][1]),
        "seconds": time.monotonic() - started,
        "dirty": unread or bool(os.listdir()),  # noqa: PTH208
    }


def _hear(
    heard: dict[int, bytearray],
    gives: int,
    text: bytes,
    children: list[int],
    deadline: float,
    limits: dict[str, typing.Any],
) -> bool:
    """Collect what is written until all writers have ended or a limit is met, giving the text; whether time was up."""
    speaking, left = set(heard), memoryview(text)
    if left:  # else a test writes there too, and may be made to wait
        os.set_blocking(gives, False)
    late = False
    while speaking and sum(map(len, heard.values())) <= limits["output_bytes"]:
        if not left and gives >= 0:
            os.close(gives)  # the end of the input
            gives = -1
        wait = deadline - time.monotonic()
        if late := wait <= 0 or any(_cpu_seconds(child) >= limits["cpu_s"] for child in children):
            break
        ready, hungry, _ = select.select(speaking, [gives] if left else [], [], min(wait, _LOOK_S))
        for number in ready:
            heard[number] += (chunk := os.read(number, 1 << 16))
            speaking -= set() if chunk else {number}
        if hungry:
            try:
                left = left[os.write(gives, left) :]
            except BrokenPipeError:
                left = left[:0]
    if gives >= 0:
        os.close(gives)
    return late


def main() -> None:
    """Frames of length and JSON: the limits come first, then programs, one at a time; the end of input ends it."""
    builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]  # they come with `site`, which is not loaded
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to signals from inside that it does not handle
    if sys.platform == "linux":
        prctl(DUMPABLE, 0)  # no child may read or trace this process, nor another child
        prctl(DEATH_SIGNAL, signal.SIGKILL)
        if platform.machine() in REFUSED:
            filter_code(platform.machine())  # once, not in every child
    limits: dict[str, typing.Any] = frame_of(0)
    trial = run({"source": "import os\ndef f():\n    return os.fork()", "entry": "f", "calls": ["()"]}, limits)
    refused = trial["said"].startswith(('{"error": "PermissionError', '{"error": "BlockingIOError'))
    send({"confined": refused} | trial, 1)
    while (program := frame_of(0)) is not None:
        send(reply := run(program, limits), 1)
        if reply["dirty"]:
            break


if __name__ == "__main__":
    main()
