"""What a process inside a sandbox gives up for good: system calls, by a filter of the kernel's, and resources.

On the standard library alone, since its text is handed to `python -c` before that of the runner.
"""

import ctypes
import functools
import math
import platform
import resource
import signal
import struct
import sys
import typing
from contextlib import suppress

DEATH_SIGNAL, DUMPABLE, _SECCOMP, _NO_NEW_PRIVILEGES = 1, 4, 22, 38  # of prctl(2)
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of classic BPF
_ALLOW, _REFUSE, _UNKNOWN, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
_NEW = 424  # calls from here on have one number on all machines; C libraries do without them

# Calls that make or reach processes, sockets, other memory, or memory outside the limits.
REFUSED: dict[str, tuple[int, list[int]]] = {
    "x86_64": (
        0xC000003E,
        [
            *(56, 57, 58, 59, 322),  # clone fork vfork execve execveat
            *(62, 200, 234, 129, 297),  # kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo
            *(101, 310, 311, 302, 157),  # ptrace process_vm_readv process_vm_writev prlimit64 prctl
            *(41, 53, 272, 308, 165),  # socket socketpair unshare setns mount
            *(29, 68, 64, 240, 248, 249, 250),  # shmget msgget semget mq_open add_key request_key keyctl
            *(298, 321, 323, 319),  # perf_event_open bpf userfaultfd memfd_create
        ],
    ),
    "aarch64": (
        0xC00000B7,
        [
            *(220, 221, 281),  # neither fork nor vfork is there
            *(129, 130, 131, 138, 240),
            *(117, 270, 271, 261, 167),
            *(198, 199, 97, 268, 40),
            *(194, 186, 190, 180, 217, 218, 219),
            *(241, 280, 282, 279),
        ],
    ),
}


@functools.cache  # for every process forked from one that has called it
def filter_code(machine: str) -> bytes:
    """The seccomp filter of a machine as BPF: refused calls fail with EPERM, new ones with ENOSYS."""
    architecture, refused = REFUSED[machine]
    n = len(refused)
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 0, n + 5, architecture), (_LOAD, 0, 0, 0), (_AT_LEAST, n + 2, 0, _NEW)]
    lines += [(_EQUAL, n - i, 0, number) for i, number in enumerate(refused)]
    lines += [(_RETURN, 0, 0, value) for value in (_ALLOW, _REFUSE, _UNKNOWN, _KILL)]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def prctl(*arguments: int) -> None:
    """Of this process, as prctl(2). Raises OSError."""
    if _libc().prctl(*map(ctypes.c_ulong, [*arguments, 0, 0, 0][:5])):
        raise OSError(ctypes.get_errno(), f"prctl({arguments[0]}) failed")


class _Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def confine(limits: dict[str, typing.Any]) -> None:
    """Give up, for good, all but reading files, computing and the file descriptors held."""
    size = limits["tmp_bytes"]
    for name, value in (
        ("AS", limits["memory_bytes"]),
        ("CPU", math.ceil(limits["cpu_s"]) + 1),  # the runner, which knows parts of seconds, comes first
        *(("FSIZE", size), ("NPROC", 1), ("NOFILE", 32), ("CORE", 0), ("MSGQUEUE", 0), ("MEMLOCK", 0)),
    ):
        with suppress(AttributeError):  # some systems have no such limit
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
    if sys.platform == "linux" and platform.machine() in REFUSED:
        prctl(DEATH_SIGNAL, signal.SIGKILL)  # with the runner, also where that is not process 1
        code = filter_code(platform.machine())
        prctl(_NO_NEW_PRIVILEGES, 1)
        program = _Filter(len(code) // 8, code)
        prctl(_SECCOMP, 2, ctypes.addressof(program))
