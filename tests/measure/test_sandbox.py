"""Untrusted programs: graded rightly, kept in, and unable to forge, read or outlive anything."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from foretell.errors import SandboxError
from foretell.measure import doctor, sandbox
from foretell.measure.sandbox import Limits, Program, Sandbox, command, grade, obstacle

LIMITS = Limits(wall_s=1.0, cpu_s=1, memory_bytes=256 << 20, output_bytes=10_000, tmp_bytes=1 << 20)
NO_BUBBLEWRAP = obstacle("bubblewrap")
bubblewrap = pytest.mark.skipif(NO_BUBBLEWRAP is not None, reason=f"bubblewrap: {NO_BUBBLEWRAP}")
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits and confinement are those of Linux")
SECRET = "'what-no-program-ever-sees'"


def asks(source, calls=("()",), expected=(SECRET,)):
    """A program whose function f is called; by default the right answer cannot be guessed."""
    return Program(source, "f", calls, expected)


@pytest.fixture(scope="module", params=["bubblewrap", "none"])
def box(request):
    if (reason := obstacle(request.param)) is not None:
        pytest.skip(f"{request.param}: {reason}")
    return Sandbox(request.param, LIMITS, workers=2)


@pytest.fixture(scope="module")
def closed():
    return Sandbox("bubblewrap", LIMITS, workers=1)


@linux
def test_programs_are_graded_in_order(box):
    double = "def f(x):\n    return x * 2"
    programs = [
        asks(double, ("(2,)", "('a',)"), ("4", "'aa'")),
        asks(double, ("(2,)", "('a',)"), ("4", "'ab'")),
        asks("def f(x):\n    return x / 0", ("(2,)",), ("4",)),
        asks("def f(x) return", ("(2,)",), ("4",)),
        asks("def g(x):\n    return x", ("(2,)",), ("4",)),
        asks("import math, re, collections, bisect\ndef f(x):\n    return math.gcd(x, 6)", ("(4,)",), ("2",)),
        asks("def f(x):\n    while True: pass", ("(2,)",), ("4",)),
        asks("def f(x):\n    print(x)\n    return {2: [x], 'k': None}", ("(1.5,)",), ("{2: [1.5], 'k': None}",)),
    ]
    outcomes = box.run_many(programs)
    verdicts = ["passed", "failed", "error", "error", "error", "passed", "timeout", "passed"]
    assert [outcome.verdict for outcome in outcomes] == verdicts
    assert outcomes[1].detail == "f('a',) returned 'aa', not 'ab'"
    assert outcomes[1].values == ("4", "'aa'")
    assert outcomes[2].detail == "ZeroDivisionError: division by zero"
    assert "SyntaxError" in outcomes[3].detail
    assert "KeyError" in outcomes[4].detail


@linux
def test_equality_is_strict_and_each_call_counts(box):
    one = "def f(x):\n    return x"
    for given, right in (("(True,)", "1"), ("(1.0,)", "1"), ("([1],)", "(1,)"), ("('1',)", "1")):
        assert box.run(asks(one, (given,), (right,))).verdict == "failed"
    with pytest.raises(ValueError, match="as many"):
        asks(one, ("(1,)", "(2,)"), ("1",))
    with pytest.raises(ValueError, match="as many"):
        asks(one, (), ())


@linux
def test_hundreds_share_a_start_and_equal_programs_run_once(box, monkeypatch):
    starts, given = [], []
    lane = sandbox._Lane
    monkeypatch.setattr(sandbox, "_Lane", lambda *a: starts.append(a) or lane(*a))
    give = lane.give
    monkeypatch.setattr(lane, "give", lambda self, program: (given.append(program), give(self, program)))
    programs = [asks(f"def f(x):\n    return x + {i % 50}", ("(1,)",), ("3",)) for i in range(300)]
    outcomes = box.run_many(programs)
    assert [outcome.verdict == "passed" for outcome in outcomes] == [i % 50 == 2 for i in range(300)]
    assert len(starts) == 2
    assert len(given) == 50
    assert box.run_many([]) == []


@linux
def test_a_program_starts_where_every_other_did(box):
    """What one program does to its interpreter, its limits or its files is gone for the next."""
    touch = "import builtins, random\nbuiltins.repr = lambda x: 'spoilt'\nrandom.seed(5)\nopen('kept', 'w').close()\n"
    see = "import os, random\ndef f():\n    return os.listdir(), repr(1), random.random(), 'kept' in globals()"
    alone = box.run(asks(see)).values
    crowd = Sandbox(box.backend, LIMITS, workers=1).run_many([asks(touch + see), asks(see)])
    assert crowd[1].values == alone
    assert alone[0].startswith("([], '1', ")


ATTACKS = {
    "leaves early": "import os\nos._exit(0)",
    "leaves politely": "def f():\n    raise SystemExit(0)",
    "says it passed": """
import os, json
os.write(3, json.dumps({"values": ["passed"], "verdict": "passed", "error": ""}).encode())
os._exit(0)""",
    "writes a frame of the runner's": """
import os, struct, json
for fd in range(64):
    try: os.write(fd, struct.pack("=I", 30) + b'{"said": "", "late": false}   ')
    except OSError: pass
os._exit(0)""",
    "answers what is equal to all": """
class Equal(str):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def f(): return Equal()""",
    "patches builtins": """
import builtins, json, sys
for module in (builtins, json, sys.modules["__main__"]):
    for name in ("repr", "len", "tuple", "all", "dumps", "loads", "run", "_send", "ast"):
        if hasattr(module, name): setattr(module, name, lambda *a, **k: "passed")
def f(): return "passed" """,
    "reads frames and the heap": """
import gc, sys
def f():
    seen, frame = [], sys._getframe()
    while frame:
        seen.append(repr(frame.f_locals) + repr(frame.f_globals)); frame = frame.f_back
    seen += [repr(o) for o in gc.get_objects() if type(o) in (dict, list, tuple)]
    seen += sys.argv + list(map(repr, sys.orig_argv))
    found = [s[s.index("-no-program-") - 5:][:26] for s in seen if "what" + "-no-program-" in s]
    return found[0] if found else "nothing" """,
    "reads every memory it can name": """
import os
def f():
    for pid in (os.getpid(), os.getppid()):
        try:
            maps = open(f"/proc/{pid}/maps").read()
            memory = open(f"/proc/{pid}/mem", "rb", 0)
        except OSError:
            continue
        for line in maps.splitlines():
            low, high = (int(x, 16) for x in line.split()[0].split("-"))
            try:
                memory.seek(low); data = memory.read(min(high - low, 1 << 26))
            except (OSError, ValueError, OverflowError):
                continue
            at = data.find(b"what" + b"-no-program-")
            if at >= 0: return data[at:at + 24].decode()
    return "nothing" """,
    "loops, deaf to exceptions": """
while True:
    try:
        while True: pass
    except BaseException: pass""",
    "ignores signals": """
import signal
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass""",
    "sleeps": "import time\ntime.sleep(1e6)",
    "answers, then stays": 'import os\nos.write(3, b\'{"values": ["1"]}\')\nwhile True: pass',
    "writes without end": "def f():\n    import os\n    while True: os.write(3, b'x' * 65536)",
    "prints without end": "def f():\n    while True: print('x' * 10**6)",
    "returns too much": "def f():\n    return 'x' * 10**6",
    "takes all memory": "def f():\n    return len(bytearray(10**9))",
    "takes all memory slowly": "def f():\n    x = []\n    while True: x.append(bytearray(10**6))",
    "recurses": "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    return f()",
    "crashes": "import ctypes\ndef f():\n    return ctypes.string_at(0)",
    "is deep": "def f():\n    return " + "(" * 5000 + ")" * 5000,
    "answers in deep JSON": "import os\nos.write(3, b'[' * 9000)\nos._exit(0)",
    "answers the wrong shape": 'import os\nos.write(3, b\'{"values": {"0": 1}}\')\nos._exit(0)',
    "starts a thread": "import threading\ndef f():\n    t = threading.Thread(target=print); t.start(); return 1",
    "starts a program": "import subprocess\ndef f():\n    return subprocess.run(['/bin/echo', 'x'])",
    "opens a socket": "import socket\ndef f():\n    return socket.create_connection(('127.0.0.1', 80), 0.2)",
    "raises its limits": """
import resource
def f():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
    return "raised" """,
}


@linux
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_no_attack_passes_or_harms_the_next_program(box, attack):
    after = asks("def f(x):\n    return x * 2", ("(21,)",), ("42",))
    outcome, fine = Sandbox(box.backend, LIMITS, workers=1).run_many([asks(attack), after])
    assert outcome.verdict != "passed"
    assert SECRET not in "".join(outcome.values)
    assert SECRET.strip("'") not in "".join(outcome.values)
    assert fine.verdict == "passed"


@linux
@pytest.mark.parametrize(
    ("attack", "verdict", "detail"),
    [
        ("loops, deaf to exceptions", "timeout", "CPU"),
        ("sleeps", "timeout", "1 s"),
        ("answers, then stays", "timeout", "1 s"),
        ("writes without end", "error", "10,000 bytes"),
        ("returns too much", "error", "10,000 bytes"),
        ("takes all memory", "error", "MemoryError"),
        ("starts a thread", "error", "RuntimeError"),
        ("starts a program", "error", "not permitted"),
        ("opens a socket", "error", "not permitted"),
        ("leaves early", "error", "without a result"),
        ("raises its limits", "error", "Error"),
    ],
)
def test_the_outcome_says_what_stopped_a_program(box, attack, verdict, detail):
    if verdict != "timeout":  # a busy machine may take its time
        box = Sandbox(box.backend, replace(LIMITS, wall_s=30), workers=1)
    outcome = box.run(asks(ATTACKS[attack]))
    assert (outcome.verdict, detail in outcome.detail) == (verdict, True), outcome


# Only where nothing but the sandbox can be hit.
HOSTILE = {
    "kills everyone": "import os\nos.kill(-1, 9)\ndef f():\n    return 1",
    "kills process 1": "import os, signal\nfor s in range(1, 65):\n    os.kill(1, s)",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "fills the disk": """
def f():
    n = 0
    while True:
        with open(f"/tmp/{n}", "wb") as file: file.write(bytes(10**6))
        n += 1""",
    "fills other places": """
import os
def f():
    for folder in ("/", "/dev", "/dev/shm", "/run", "/var/tmp", "/usr", "/etc", "/home", "/root"):
        try: open(folder + "/x", "w"); return folder
        except OSError: pass
    return "nowhere" """,
    "leaves a trap": """
import os
os.makedirs("/tmp/" + "d/" * 900)
open("/tmp/json.py", "w").write("raise SystemExit")""",
}


@bubblewrap
@pytest.mark.parametrize("attack", HOSTILE.values(), ids=HOSTILE)
def test_the_namespace_holds(closed, attack):
    after = asks("import json\ndef f(x):\n    return x * 2", ("(21,)",), ("42",))
    outcome, fine = closed.run_many([asks(attack), after])
    assert outcome.verdict != "passed"
    assert fine.verdict == "passed"
    if "nowhere" in attack:
        assert outcome.values == ("'nowhere'",)


@bubblewrap
def test_the_namespaces_hold_without_the_filter(monkeypatch):
    """Should a kernel ever let a call through: process 1 ends all that a program left, and no network is there."""
    code = command("bubblewrap", LIMITS)
    at = code.index("-c") + 1
    loose = code[at].replace("    confine(limits)\n", "")
    assert loose != code[at]
    loose = loose.replace('"confined": ', '"confined": True or ')
    monkeypatch.setattr(sandbox, "command", lambda *a: [*code[:at], loose, *code[at + 1 :]])
    fork = """
import os, time
def f():
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            while True: time.sleep(1)"""
    count = """
import os
def f():
    found = 0
    for pid in range(2, 200):
        try: os.kill(pid, 0); found += 1
        except ProcessLookupError: pass
    return found"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connect = f"import socket\ndef f():\n    return socket.create_connection({server.getsockname()!r}, 1)"
        programs = [asks(fork), asks(count, expected=("1",)), asks(connect)]
        outcomes = Sandbox("bubblewrap", LIMITS, workers=1).run_many(programs)
    assert [outcome.verdict for outcome in outcomes[:2]] == ["timeout", "passed"], outcomes
    assert "ConnectionRefused" in outcomes[2].detail or "unreachable" in outcomes[2].detail


@bubblewrap
def test_files_and_settings_of_the_machine_are_out_of_reach(closed, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text("x")
    monkeypatch.setenv("TOKEN_OF_MINE", "x")
    look = f"""
import os
def f():
    return [p for p in ({str(secret)!r}, {str(Path.cwd())!r}, "/etc/passwd", "/home", "/proc/1") if os.path.exists(p)]
def g():
    return "TOKEN_OF_MINE" in os.environ, os.access("/usr", os.W_OK)"""
    assert closed.run(asks(look)).values == ("[]",)
    assert closed.run(Program(look, "g", ("()",), ("(False, False)",))).verdict == "passed"


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_its_caller(box, number):
    """Ctrl-C, an end by signal, even SIGKILL: no sandbox goes on."""
    mark = f"outlive-{os.getpid()}-{number}-{box.backend}"
    code = f"""
import os, sys
from foretell.measure import sandbox
from foretell.measure.sandbox import *
plain = sandbox.command
sandbox.command = lambda *a: [*plain(*a), {mark!r}]
box = Sandbox({box.backend!r}, Limits(wall_s=60, cpu_s=60), workers=2)
give = sandbox._Lane.give
sandbox._Lane.give = lambda self, program: (give(self, program), print("given", flush=True))
box.run_many([Program("def f():\\n    while True: pass", "f", ("()",), (str(i),)) for i in range(2)])"""
    if number == signal.SIGTERM:
        code = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(1))\n" + code
    caller = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for _ in range(2):
        assert caller.stdout.readline() == b"given\n"
    assert processes(mark)
    caller.send_signal(number)
    caller.communicate()
    for _ in range(500):  # the kernel may take a moment to end them
        if not (left := processes(mark)):
            break
    assert not left


def processes(mark):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line and b"import os, sys" not in line:
                found.append(line[-60:])
    return found


@linux
def test_a_sandbox_that_dies_costs_one_program(box, monkeypatch):
    take = sandbox._Lane.take
    killed = []

    def die_first(lane):
        if not killed:
            killed.append(lane._process.kill())
            lane._process.wait()
            lane._read(1 << 30)  # what it had said before
        return take(lane)

    monkeypatch.setattr(sandbox._Lane, "take", die_first)
    right = [asks(f"def f():\n    return {i}", expected=(str(i),)) for i in range(20)]
    verdicts = [outcome.verdict for outcome in box.run_many(right)]
    assert verdicts.count("error") == 1
    assert verdicts.count("passed") == 19


def test_without_a_sandbox_nothing_runs_unless_asked_for_by_name(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SandboxError, match=r"apt install bubblewrap.*by name"):
        Sandbox()
    assert not doctor._sandbox().ok
    assert "bubblewrap" in doctor._sandbox().text
    with pytest.raises(SandboxError, match="choose from bubblewrap, docker, podman, none"):
        Sandbox("chroot")


@linux
def test_a_sandbox_that_confines_nothing_is_refused(monkeypatch):
    code = command("none", LIMITS)
    loose = code[-1].replace("    confine(limits)\n", "")
    monkeypatch.setattr(sandbox, "command", lambda *a: [*code[:-1], loose])
    with pytest.raises(SandboxError, match="a trial program could start a process"):
        Sandbox("none", LIMITS)
    monkeypatch.setattr(sandbox, "command", lambda *a: [sys.executable, "-c", "raise SystemExit('no such luck')"])
    with pytest.raises(SandboxError, match="no such luck"):
        Sandbox("none", LIMITS)


@bubblewrap
def test_doctor_names_the_sandbox():
    assert doctor._sandbox().ok
    assert doctor._sandbox().text.startswith("bubblewrap")


@pytest.mark.parametrize("backend", ["docker", "podman"])
def test_container_commands_close_what_bubblewrap_closes(backend):
    words = command(backend, LIMITS)
    assert words[:2] == [backend, "run"]
    for word in ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pull=never"):
        assert word in words[: words.index(sandbox.IMAGE)]
    assert "--user=65534:65534" in words
    assert any(re.fullmatch(r"--tmpfs=/tmp:.*size=1048576", word) for word in words)
    assert not any(word.startswith(("--volume", "-v", "--mount", "--privileged", "--init")) for word in words)
    for name in ("confine", "frames", "runner"):
        assert Path(sandbox.__file__).with_name(f"sandbox_{name}.py").read_text()[-500:] in words[-1]
    compile(words[-1], "", "exec")


def test_a_missing_container_image_is_named(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    missing = subprocess.CompletedProcess([], 1, "", "No such image")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: missing)
    assert "podman pull python" in obstacle("podman")


def test_every_reply_is_graded_without_an_error():
    reply = {"said": "", "over": False, "late": False, "status": -9, "seconds": 0.1}
    for said in ("", "{", "[]", "3", "{}", '{"values": 3}', '{"values": ["1", "2"]}', '{"values": [1]}', "[" * 90_000):
        outcome = grade(asks("", expected=("1",)), {**reply, "said": said}, LIMITS)
        assert (outcome.verdict, outcome.detail) == ("error", "ended without a result (status -9)")
    said = json.dumps({"values": ["1"]})
    assert grade(asks("", expected=("1",)), {**reply, "said": said}, LIMITS).verdict == "passed"
    assert grade(asks("", expected=("1",)), {**reply, "said": said, "late": True}, LIMITS).verdict == "timeout"
    assert grade(asks("", expected=("1",)), {**reply, "said": said, "over": True}, LIMITS).verdict == "error"


def test_the_filter_refuses_the_same_calls_on_both_machines():
    """Interpreted as the kernel does: every refused number is refused, its neighbours pass, foreign ABIs are killed."""
    import struct

    from foretell.measure import sandbox_confine as runner

    def verdict(machine, architecture, number):
        code = list(struct.iter_unpack("=HBBI", runner.filter_code(machine)))
        at = loaded = 0
        while True:
            kind, yes, no, value = code[at]
            at += 1
            if kind == runner._LOAD:
                loaded = architecture if value == 4 else number
            elif kind == runner._RETURN:
                return value
            else:
                met = loaded == value if kind == runner._EQUAL else loaded >= value
                at += yes if met else no

    sizes = set()
    for machine, (architecture, refused) in runner.REFUSED.items():
        sizes.add(len(set(refused)))
        for number in range(600):
            expected = runner._UNKNOWN if number >= 424 else runner._REFUSE if number in refused else runner._ALLOW
            assert verdict(machine, architecture, number) == expected
        assert verdict(machine, architecture, 0x40000000 | 57) == runner._UNKNOWN  # the x32 form of fork
        assert verdict(machine, 0x40000003, 2) == runner._KILL  # fork of 32-bit x86
    assert len(sizes) <= 2  # aarch64 has no fork and vfork
