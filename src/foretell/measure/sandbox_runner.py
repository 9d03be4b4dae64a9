"""What runs inside a sandbox: process 1, which forks one confined child a program and sends back what it returned.

One file on the standard library alone, since its text is handed to `python -c`. Untrusted code runs only in the
children. A child holds nothing but its program, the calls, and a pipe to say what they returned; the right answers
never enter the sandbox, so there is nothing in it to read, and no verdict to forge.
"""

import ast
import collections  # noqa: F401  imported once here, programs import these for nothing
import ctypes
import functools  # noqa: F401
import heapq  # noqa: F401
import itertools  # noqa: F401
import json
import math
import os
import platform
import random
import re  # noqa: F401
import resource
import select
import signal
import string  # noqa: F401
import struct
import sys
import time
import typing
from contextlib import suppress

_DEATH_SIGNAL, _DUMPABLE, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 4, 22, 38  # of prctl(2)
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of classic BPF
_ALLOW, _REFUSE, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
_LOOK_S = 0.02
_NEW = 424  # calls from here on have one number on all machines; C libraries do without them

# Calls that make or reach processes, sockets, other memory, or memory outside the limits:
# clone fork vfork execve execveat kill tkill tgkill ptrace process_vm_readv process_vm_writev prlimit64 socket
# socketpair unshare setns mount shmget msgget semget mq_open add_key request_key keyctl perf_event_open bpf userfaultfd
# memfd_create prctl
_REFUSED: dict[str, tuple[int, list[int]]] = {
    "x86_64": (
        0xC000003E,
        [
            *(56, 57, 58, 59, 322, 62, 200, 234, 101, 310, 311, 302, 41, 53, 272, 308, 165, 29, 68, 64, 240, 248, 249),
            *(250, 298, 321, 323, 319, 157),
        ],
    ),
    "aarch64": (
        0xC00000B7,
        [
            *(220, 221, 281, 129, 130, 131, 117, 270, 271, 261, 198, 199, 97, 268, 40, 194, 186, 190, 180, 217, 218),
            *(219, 241, 280, 282, 279, 167),
        ],
    ),
}


def filter_code(machine: str) -> bytes:
    """The seccomp filter of a machine as BPF: refused calls fail with EPERM, new ones with ENOSYS."""
    architecture, refused = _REFUSED[machine]
    n = len(refused)
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 0, n + 5, architecture), (_LOAD, 0, 0, 0), (_AT_LEAST, n + 2, 0, _NEW)]
    lines += [(_EQUAL, n - i, 0, number) for i, number in enumerate(refused)]
    lines += [(_RETURN, 0, 0, value) for value in (_ALLOW, _REFUSE, _UNKNOWN, _KILL)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


def _prctl(*arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*map(ctypes.c_ulong, [*arguments, 0, 0, 0][:5])):
        raise OSError(ctypes.get_errno(), f"prctl({arguments[0]}) failed")


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def confine(limits: dict[str, typing.Any]) -> None:
    """Give up, for good, all but reading files, computing and the file descriptors held."""
    size = limits["tmp_bytes"]
    for name, value in (
        ("AS", limits["memory_bytes"]),
        ("CPU", math.ceil(limits["cpu_s"])),
        *(("FSIZE", size), ("NPROC", 1), ("NOFILE", 32), ("CORE", 0), ("MSGQUEUE", 0), ("MEMLOCK", 0)),
    ):
        with suppress(AttributeError):  # some systems have no such limit
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if sys.platform == "linux" and platform.machine() in _REFUSED:
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)  # with the runner, also where that is not process 1
        code = filter_code(platform.machine())
        _prctl(_NO_NEW_PRIVILEGES, 1)
        program = _Filter(len(code) // 8, code)
        _prctl(_SECCOMP, 2, ctypes.addressof(program))


def _child(program: dict[str, typing.Any], limits: dict[str, typing.Any], pipe: int, parent: int) -> None:
    """Become the program: run it, call it, write what was returned."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number, target in enumerate((null, null, null, pipe)):
        os.dup2(target, number)
    os.closerange(4, 4096)
    confine(limits)
    if os.getppid() != parent:  # it died before its death could be heard of
        os._exit(1)
    said: dict[str, typing.Any]
    try:
        random.seed(0)
        names: dict[str, typing.Any] = {"__name__": "program"}
        exec(compile(program["source"], "<program>", "exec"), names)  # noqa: S102
        values = [repr(names[program["entry"]](*ast.literal_eval(call))) for call in program["calls"]]
        said = {"values": values}
    except BaseException as error:
        said = {"error": f"{type(error).__name__}: {error}"[:300]}
    data = json.dumps(said).encode()
    while data:
        data = data[os.write(3, data) :]
    os._exit(0)


def _cpu_seconds(child: int) -> float:
    """What a process has used so far; the kernel's own limit knows whole seconds only."""
    try:
        return time.clock_gettime(~child << 3 | 2) if sys.platform == "linux" else 0.0
    except OSError:
        return 0.0


def run(program: dict[str, typing.Any], limits: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Run one program in a child, end it and whatever it left behind, and return what it wrote and how it ended."""
    reader, writer = os.pipe()
    started, runner = time.monotonic(), os.getpid()
    if (child := os.fork()) == 0:
        try:
            _child(program, limits, writer, runner)
        finally:
            os._exit(1)
    os.close(writer)
    said, late = bytearray(), False
    while len(said) <= limits["output_bytes"]:
        left = started + limits["wall_s"] - time.monotonic()
        if late := left <= 0 or _cpu_seconds(child) >= limits["cpu_s"]:
            break
        if not select.select([reader], [], [], min(left, _LOOK_S))[0]:
            continue
        if not (chunk := os.read(reader, 1 << 16)):
            break
        said += chunk
    os.close(reader)
    with suppress(ProcessLookupError):
        # As process 1 of its own namespace the runner survives this and nothing else does. Elsewhere -1 is everyone.
        os.kill(-1 if runner == 1 else child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    with suppress(ChildProcessError):
        while runner == 1:
            os.wait()
    return {
        "said": said[: limits["output_bytes"]].decode(errors="replace"),
        "over": len(said) > limits["output_bytes"],
        "late": late or used.ru_utime + used.ru_stime >= limits["cpu_s"],
        "status": os.waitstatus_to_exitcode(status),
        "seconds": time.monotonic() - started,
        "dirty": bool(os.listdir()),  # noqa: PTH208
    }


def _receive(count: int) -> bytes:
    data = b""
    while len(data) < count and (chunk := os.read(0, count - len(data))):
        data += chunk
    return data


def _send(reply: dict[str, typing.Any]) -> None:
    data = json.dumps(reply).encode()
    data = struct.pack("=I", len(data)) + data
    while data:
        data = data[os.write(1, data) :]


def main() -> None:
    """Frames of length and JSON: the limits come first, then programs, one at a time; the end of input ends it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 is deaf to signals from inside that it does not handle
    if sys.platform == "linux":
        _prctl(_DUMPABLE, 0)  # no child may read or trace this process, nor another child
        _prctl(_DEATH_SIGNAL, signal.SIGKILL)
    limits: dict[str, typing.Any] = {}
    while len(head := _receive(4)) == 4:
        frame = json.loads(_receive(*struct.unpack("=I", head)))
        if limits:
            _send(run(frame, limits))
            continue
        limits = frame
        trial = run({"source": "import os\ndef f():\n    return os.fork()", "entry": "f", "calls": ["()"]}, limits)
        refused = trial["said"].startswith(('{"error": "PermissionError', '{"error": "BlockingIOError'))
        _send({"confined": refused} | trial)


if __name__ == "__main__":
    main()
