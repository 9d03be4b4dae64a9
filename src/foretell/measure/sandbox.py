"""Untrusted Python programs, run and graded without trusting them: no network, read-only files, hard limits."""

from __future__ import annotations

import json
import os
import re
import selectors
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self, get_args

from foretell.errors import SandboxError
from foretell.measure import machine
from foretell.measure.sandbox_programs import Checked, Limits, Outcome, Piped, Program, Untrusted, grade

__all__ = ["Backend", "Checked", "Limits", "Outcome", "Piped", "Program", "Sandbox", "command", "grade", "obstacle"]

Backend = Literal["bubblewrap", "docker", "podman", "none"]
IMAGE = "python:3.12-slim"  # of the container backends; it is not fetched unasked
_START_S = 30.0  # a start takes 60 ms; a container's, on a busy machine, seconds
_PER_START = 512  # programs, so that what a kernel keeps of them stays small
_CONTAINERS = ("docker", "podman")
_FLAGS = ("-P", "-s", "-S", "-B", "-c")  # nothing but the standard library is importable


class Sandbox:
    """Runs untrusted programs.

    backend: None takes the first of bubblewrap, docker and podman that works here. "none" runs the programs as
    ordinary processes with limits but in full view of your files, and of your network where the kernel has no seccomp.
    workers: sandboxes at a time, over all threads; default one a core. allow_unsafe: take "none" where none works.
    Used in a `with`, started sandboxes are kept for the next call until its end: for programs that come one by one.
    Raises SandboxError where the backend does not work.
    """

    def __init__(
        self,
        backend: Backend | None = None,
        limits: Limits | None = None,
        workers: int | None = None,
        *,
        allow_unsafe: bool = False,
    ):
        self.limits = limits or Limits()
        self.workers = workers or machine.cores()
        self._free = threading.Semaphore(self.workers)
        self._idle: deque[_Lane] | None = None
        self._starter: ThreadPoolExecutor | None = None
        if backend is not None and backend not in get_args(Backend):
            raise SandboxError(f"There is no sandbox {backend!r}; choose from {', '.join(get_args(Backend))}.")
        asked: tuple[Backend, ...] = ("bubblewrap", "docker", "podman") if backend is None else (backend,)
        asked += ("none",) if allow_unsafe else ()
        reasons = {}
        for name in asked:
            if (reason := obstacle(name, self.limits)) is None:
                self.backend = name
                return
            reasons[name] = reason
        raise SandboxError(
            f"Untrusted code is not run without a sandbox. {' '.join(f'{k}: {v}' for k, v in reasons.items())} "
            "Install bubblewrap (apt install bubblewrap, dnf install bubblewrap), or Docker or Podman and its image "
            f'(docker pull {IMAGE}). Or ask for backend "none" by name (allow_unsafe, --allow-unsafe): it limits '
            "programs, but does not protect your files from them."
        )

    def __enter__(self) -> Self:
        self._idle = deque()
        self._starter = ThreadPoolExecutor(self.workers)
        return self

    def __exit__(self, *_: object) -> None:
        idle, self._idle = self._idle or (), None
        for lane in idle:
            lane.close()
        if self._starter:
            self._starter.shutdown()
            self._starter = None

    def run(self, program: Untrusted) -> Outcome:
        """The outcome of one program; `run_many` is far faster for many."""
        return self.run_many([program])[0]

    def run_many(self, programs: Sequence[Untrusted]) -> list[Outcome]:
        """Outcomes in the order of the programs. Equal programs are run once; hundreds share a sandbox's start.

        Raises SandboxError when a sandbox cannot be started. However it ends, no process is left behind.
        """
        queue = deque(dict.fromkeys(programs))
        done: dict[Untrusted, Outcome] = {}
        lanes: set[_Lane] = set()
        with selectors.DefaultSelector() as ready:
            try:
                while queue or lanes:
                    while queue and self._free.acquire(blocking=not lanes):
                        lanes.add(lane := self._lane())
                        ready.register(lane.replies, selectors.EVENT_READ, lane)
                        lane.give(queue.popleft())
                    soonest = min(lane.deadline for lane in lanes) - time.monotonic()
                    speaking = {key.data for key, _ in ready.select(max(soonest, 0))}
                    for lane in [x for x in lanes if x in speaking or x.deadline <= time.monotonic()]:
                        done[lane.program] = lane.take()
                        if queue and lane.usable:
                            lane.give(queue.popleft())
                            continue
                        ready.unregister(lane.replies)
                        lanes.remove(lane)
                        self._give_back(lane, lane.usable)
            finally:
                for lane in lanes:
                    self._give_back(lane, usable=False)
        return [done[program] for program in programs]

    def _lane(self) -> _Lane:
        try:
            while self._idle:
                with suppress(IndexError):  # another thread was faster
                    if (lane := self._idle.pop()).alive():
                        return lane
                    lane.close()
            if (
                self._starter
            ):  # a sandbox dies with the thread that started it, which may not be there for the next call
                return self._starter.submit(_Lane, self.backend, self.limits).result()
            return _Lane(self.backend, self.limits)
        except BaseException:
            self._free.release()
            raise

    def _give_back(self, lane: _Lane, usable: bool) -> None:
        if usable and self._idle is not None:
            self._idle.append(lane)
        else:
            lane.close()
        self._free.release()


class _Lane:
    """One started sandbox, which is given one program after another."""

    program: Untrusted

    def __init__(self, backend: Backend, limits: Limits) -> None:
        self.limits, self.usable, self.given = limits, True, 0
        self._folder = tempfile.TemporaryDirectory() if backend == "none" else None
        self._process = subprocess.Popen(
            command(backend, limits),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            # A container command needs its own settings, and hands none of them on.
            env=None if backend in _CONTAINERS else {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8"},
            cwd=self._folder.name if self._folder else "/",
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the sandbox
        )
        assert self._process.stdout is not None
        self.replies = self._process.stdout
        self.deadline = time.monotonic() + _START_S
        try:
            self._send(asdict(limits))
            confined = self._receive()
            if not (confined and confined["confined"]):
                raise SandboxError(f"The {backend} sandbox did not start: {self._complaint(confined)}")
        except BaseException:
            self.close()
            raise

    def _complaint(self, trial: dict[str, Any] | None) -> str:
        if trial is not None:
            return f"a trial program could start a process there ({trial['said'] or trial['status']})."
        self._process.kill()
        assert self._process.stderr is not None
        return self._process.stderr.read(2000).decode(errors="replace").strip() or "it did not answer."

    def give(self, program: Untrusted) -> None:
        """Start a program."""
        self.program = program
        self.given += 1
        self.deadline = time.monotonic() + self.limits.wall_s * program.runs + _START_S
        for frame in program.frames():
            self._send(frame)

    def alive(self) -> bool:
        """Whether it has not ended while it was idle."""
        return self._process.poll() is None

    def take(self) -> Outcome:
        """The outcome of the program, to be asked once the sandbox speaks or is late."""
        reply = self._receive()
        self.usable = reply is not None and not reply["dirty"] and self.given < _PER_START
        if reply is None:
            return Outcome("error", detail="the sandbox ended while the program ran")
        return grade(self.program, reply, self.limits)

    def _send(self, frame: dict[str, Any]) -> None:
        data = json.dumps(frame).encode()
        data = struct.pack("=I", len(data)) + data
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # a sandbox that has died is noticed when it gives no reply
            while data:
                data = data[self._process.stdin.write(data) :]

    def _receive(self) -> dict[str, Any] | None:
        head = self._read(4)
        data = self._read(*struct.unpack("=I", head)) if len(head) == 4 else b""
        return json.loads(data) if data else None

    def _read(self, count: int) -> bytes:
        data = b""
        with selectors.DefaultSelector() as ready:
            ready.register(self.replies, selectors.EVENT_READ)
            while len(data) < count and ready.select(max(self.deadline - time.monotonic(), 0)):
                if not (chunk := self.replies.read(count - len(data))):
                    break
                data += chunk
        return data

    def close(self) -> None:
        """End the sandbox and everything in it. A container ends with its input, at most one program later."""
        assert self._process.stdin is not None and self._process.stderr is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self.deadline = time.monotonic() + _START_S
        self._read(1 << 32)  # ends when the last process inside has ended, which is not the one that was waited for
        self.replies.close()
        self._process.stderr.close()
        if self._folder:
            self._folder.cleanup()


def obstacle(backend: Backend, limits: Limits | None = None) -> str | None:
    """Why a backend does not work on this machine; None where it does, which is tried."""
    if backend in _CONTAINERS:
        if shutil.which(backend) is None:
            return "not installed."
        found = subprocess.run([backend, "image", "inspect", IMAGE], capture_output=True, text=True)
        return None if found.returncode == 0 else f"{found.stderr.strip()[:200]} (try: {backend} pull {IMAGE})."
    if backend == "bubblewrap" and shutil.which("bwrap") is None:
        return "not installed (apt install bubblewrap)."
    try:
        _Lane(backend, limits or Limits()).close()
    except (SandboxError, OSError) as error:
        return str(error)
    return None


def command(backend: Backend, limits: Limits) -> list[str]:
    """The command line that starts the runner as process 1 of a sandbox (as a plain process for "none")."""
    texts = [
        Path(__file__).with_name(f"sandbox_{x}.py").read_text(encoding="utf-8") for x in ("confine", "frames", "runner")
    ]
    code = re.sub(r"^from foretell.*\n", "", "".join(texts), flags=re.MULTILINE)
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if backend == "none":
        return [python, *_FLAGS, code]
    if backend == "bubblewrap":
        return [*_bubblewrap(limits), python, *_FLAGS, code]
    memory = f"--memory={limits.memory_bytes + limits.tmp_bytes + (64 << 20)}"
    return [
        *(backend, "run", "--rm", "--interactive", "--pull=never", "--network=none", "--ipc=none", "--read-only"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65534:65534", "--pids-limit=16", "--cpus=1"),
        *(memory, memory.replace("memory", "memory-swap"), "--workdir=/tmp", "--env=PYTHONHASHSEED=0"),
        f"--tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777,size={limits.tmp_bytes}",
        *("--entrypoint=python3", IMAGE, *_FLAGS, code),
    ]


def _bubblewrap(limits: Limits) -> list[str]:
    """Own namespaces, no capabilities, no /proc; the Python installation and the system's libraries, read-only."""
    bwrap = shutil.which("bwrap") or "bwrap"
    words = [bwrap, "--unshare-all", "--as-pid-1", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    words += ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for folder in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")):
        if folder.is_symlink():
            words += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            words += ["--ro-bind", str(folder), str(folder)]
    if not Path(prefix := os.path.realpath(sys.base_prefix)).is_relative_to("/usr"):
        words += ["--ro-bind", prefix, prefix]
    for device in ("/dev/null", "/dev/urandom"):
        words += ["--dev-bind", device, device]
    size = ["--size", str(limits.tmp_bytes)]
    # Before 0.7 bubblewrap could not bound a tmpfs: there, /tmp is read-only like the rest.
    bounded = "--size" in subprocess.run([bwrap, "--help"], capture_output=True, text=True).stdout
    return [*words, *([*size, "--tmpfs"] if bounded else ["--dir"]), "/tmp", "--remount-ro", "/", "--chdir", "/tmp"]  # noqa: S108
