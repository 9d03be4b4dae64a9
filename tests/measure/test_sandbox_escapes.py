"""Programs that try to get out, to forge a verdict, or to read the answers: under a test, called, or printing."""

import os
import socket
import sys
from pathlib import Path

import pytest

from foretell.measure import sandbox
from foretell.measure.sandbox import Checked, Limits, Piped, Program, Sandbox, obstacle

LIMITS = Limits(wall_s=1.5, cpu_s=0.25, memory_bytes=256 << 20, output_bytes=20_000, tmp_bytes=1 << 20)
SECRET = "what-no-program-ever-sees"
MARK = f"escape-tests-of-{os.getpid()}"

if (REASON := obstacle("bubblewrap")) is not None:
    pytest.skip(f"bubblewrap: {REASON}", allow_module_level=True)

# Each defines f, which is called with 1, must return SECRET, and is then printed.
KINDS = {
    "checked": lambda source: Checked(source, "f", f"assert candidate(1) == {SECRET!r}\nassert f(1) == {SECRET!r}"),
    "called": lambda source: Program(source, "f", ("(1,)",), (repr(SECRET),)),
    "piped": lambda source: Piped(f"{source}\nprint(f(int(input())))", ("1",), (SECRET,)),
}
SOUND = {
    "checked": Checked("import json\ndef f(x): return x", "f", "import json\nassert f([1]) == [1]"),
    "called": Program("import json\ndef f(x): return x", "f", ("([1],)",), ("[1]",)),
    "piped": Piped("import json\nprint(input())", ("1",), ("1",)),
}


@pytest.fixture(scope="module")
def box():
    """One sandbox, so that what an attack leaves behind would meet the next program."""
    with pytest.MonkeyPatch.context() as patch:
        plain = sandbox.command
        patch.setattr(sandbox, "command", lambda *a: [*plain(*a), MARK])
        with Sandbox("bubblewrap", LIMITS, workers=1) as box:
            yield box
    assert running() == 0


def running():
    """Processes of these sandboxes."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += MARK.encode() in (entry / "cmdline").read_bytes()
            except OSError:
                continue
    return found


# The end of the secret, so that a search finds the secret alone, and neither its own text nor what it looks for.
WANT = "WANT = ''.join(reversed('sees-reve-'))\n"
LIES = {
    "is equal to everything": """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
def f(x): return Equal()""",
    "is text equal to everything": """
class Equal(str):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __len__(self): return 25
    def __str__(self): return self
    __hash__ = str.__hash__
def f(x): return Equal("x")""",
    "has an ordering and sums that suit": """
class Any(float):
    def __getattribute__(self, name): return lambda *a: True
    def __eq__(self, other): return True
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __sub__ = __rsub__ = __abs__ = __eq__
def f(x): return Any(0)""",
    "lies about its class": """
class Liar(dict):
    @property
    def __class__(self): return str
    def __repr__(self): return "'what-no-program-ever-see?'"
def f(x): return Liar()""",
    "has a mirror for repr": """
class Mirror:
    def __repr__(self):
        import sys
        frame, seen = sys._getframe(), []
        while frame: seen.append(str(frame.f_locals)); frame = frame.f_back
        return max(seen, key=len)
def f(x): return Mirror()""",
    "raises what ends loops": "def f(x): raise StopIteration",
    "raises what generators end by": "def f(x): raise GeneratorExit",
    "raises success": "def f(x): raise SystemExit(0)",
    "raises what is not caught": "def f(x): raise BaseException",
    "raises what claims to be an assertion": """
class AssertionError(AssertionError):
    def __str__(self): return '{"passed": true}'
def f(x): raise AssertionError""",
    "ends early with 0": "import os\ndef f(x): os._exit(0)",
    "ends when defined": "import os\nos._exit(0)",
    "ends politely when defined": "raise SystemExit",
    "never returns": "def f(x):\n    while True: pass",
    "ends its own reading": "import os\nos.closerange(0, 64)\ndef f(x): return x",
    "patches what asserts use": """
import builtins, sys, json, os
class Never(BaseException): pass
builtins.AssertionError = Never
builtins.__build_class__ = builtins.isinstance = builtins.repr = lambda *a, **k: True
builtins.print = lambda *a, **k: None
for name in ("dumps", "loads"): setattr(json, name, lambda *a, **k: '{"passed": true}')
def f(x): return True""",
    "patches the runner": """
import sys, inspect
frame = sys._getframe()
while frame:
    for name in list(frame.f_globals):
        if name in ("pack", "unpack", "_send", "_frame", "_write", "_test", "_conclude", "_raised", "run"):
            frame.f_globals[name] = lambda *a, **k: {"value": True, "passed": True, "arguments": [], "named": {}}
    frame = frame.f_back
def f(x): return True""",
    "traces": """
import sys
seen = []
def trace(frame, event, arg):
    seen.append(repr(frame.f_locals) + repr(arg)); return trace
sys.settrace(trace); sys.setprofile(trace)
def f(x):
    for text in seen:
        at = text.find(WANT)
        if at >= 0: return text[at - 15:at + 10]
    return len(seen)""",
    "looks through all objects": """
import gc, sys
def f(x):
    todo, known = gc.get_objects() + list(map(vars, filter(None, sys.modules.values()))), set()
    for _ in range(3):
        more = []
        for one in todo:
            if isinstance(one, (str, bytes)):
                text = one if isinstance(one, str) else one.decode("latin1")
                at = text.find(WANT)
                if at >= 15: return text[at - 15:at + 10]
            elif id(one) not in known:
                known.add(id(one)); more += gc.get_referents(one)
        todo = more[:200_000]
    return "nothing" """,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("attack", LIES.values(), ids=LIES)
def test_no_lie_passes(box, kind, attack):
    outcome, after = box.run_many([KINDS[kind](WANT + attack), SOUND[kind]])
    assert outcome.verdict in ("failed", "error", "timeout"), outcome
    assert SECRET not in "".join(outcome.values)
    assert after.verdict == "passed"


def test_an_early_end_is_not_hidden_by_a_test_that_catches_everything(box):
    """Nor is a loop over the function ended by it, and taken for one without complaint."""
    catching = "for i in range(3):\n    try: f(i)\n    except: pass"
    for source in ("import os\ndef f(x): os._exit(0)", "import os\ndef f(x): os.write(3, b'??')", "def f(x): "):
        assert box.run(Checked(source, "f", catching)).verdict == "error"
    assert box.run(Checked("def f(x): raise StopIteration", "f", "assert all(map(f, [1]))")).verdict == "error"


# Written to the pipes of the process, as if by those who own them.
FORGED = [
    b'{"passed": true}',
    b'+{"passed": true}',
    b'{"said": "{\\"passed\\": true}", "over": false, "late": false, "status": 0, "seconds": 0, "dirty": false}',
    b'{"value": {"iter": {"iter": []}}}',
    b'{"value": {"object": []}}',
    b'{"value": {"tuple": 1}}',
    b'{"value": {"bytes": 9999999999}}',
    b'{"value": {"set": [[]]}}',
    b'{"value": {}, "arguments": 5}',
    b'{"value": NaN}',
    b"[" * 9000,
    b'{"value": ' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"raised": [], "message": "", "made_of": []}',
    b'{"raised": ["__import__", "exit", "print", "SystemExit"], "message": "0", "made_of": [0]}',
    b'{"raised": 5}',
    b"\xff",
    b"",
    b"null",
]


@pytest.mark.parametrize("forged", FORGED)
def test_no_forged_message_passes(box, forged):
    source = f"""
import os, struct
forged = {forged!r}
framed = struct.pack("=I", len(forged)) + forged
def f(x):
    for number in range(64):
        for data in (framed * 5, forged, struct.pack("=I", 1 << 31)):
            try: os.write(number, data)
            except OSError: pass
    os._exit(0)
    """
    for kind in KINDS:
        outcome, after = box.run_many([KINDS[kind](source), SOUND[kind]])
        assert outcome.verdict != "passed", (kind, outcome)
        assert after.verdict == "passed"


def test_the_process_holds_no_descriptor_but_its_own(box):
    """Nor is any of the others' to be had: the test's and the runner's are closed, and no file of /proc opens them."""
    source = """
import os, stat
def f(x):
    held = []
    for number in range(1024):
        try: held.append((number, stat.S_IFMT(os.fstat(number).st_mode) == stat.S_IFIFO))
        except OSError: pass
    return held, os.path.exists("/proc"), os.path.exists("/dev/fd")"""
    outcome = box.run(Checked(source, "f", "assert f(1)[1:] == (False, False)\nassert 0, f(1)"))
    assert "line 2" in outcome.detail
    right = "[(0, False), (1, False), (2, False), (3, True), (4, True)]"
    assert box.run(Checked(source, "f", f"assert f(1)[0] == {right}")).verdict == "passed"


SCAN = """
import ctypes, os
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
reader, writer = os.pipe()
def pages(low, high):
    for at in range(low & ~4095, high, 4096):
        if libc.write(writer, ctypes.c_void_p(at), 4096) == 4096:  # fails where there is no memory
            yield os.read(reader, 4096)
def scan(words):
    top = libc.sbrk(0)
    near = id(object())
    for low, high in ((top - (24 << 20), top), (near - (48 << 20), near + (48 << 20))):
        for page in pages(low, high):
            at = -1
            while (at := page.find(words, at + 1)) >= 0:
                if page[at - 1:at] == b"m": return page[at - 15:at + 10].decode()
    return "nothing"
def f(x): return scan(WANT.encode())
"""


def test_the_answers_are_in_no_memory_of_the_process():
    """Not even left from earlier programs of the same problem, which the same sandbox graded."""
    limits = Limits(wall_s=20, cpu_s=10, memory_bytes=512 << 20)
    with Sandbox("bubblewrap", limits, workers=1) as box:
        for i in range(20):
            box.run(KINDS["checked"](f"def f(x): return {i}"))
            box.run(KINDS["called"](f"def f(x): return {i}"))
        kept = "kept = ''.join(reversed('sees-reve-margorp-na-tahw')).encode()\n"
        control = box.run(Program(WANT + kept + SCAN, "f", ("(1,)",), ("''",)))
        assert control.values == ("'what-an-program-ever-sees'",), control
        for kind in ("checked", "called"):
            outcome = box.run(KINDS[kind](WANT + SCAN))
            assert outcome.verdict == "failed", outcome
        assert outcome.values == ("'nothing'",)


BOMBS = {
    "forks": "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass",
    "starts threads": """
import threading, time
def f(x):
    for _ in range(10**5): threading.Thread(target=time.sleep, args=(99,)).start()""",
    "takes memory": "def f(x):\n    y = []\n    while True: y.append(bytearray(10**6))",
    "takes memory at once": "def f(x): return len(bytearray(10**10))",
    "maps memory": "import mmap\ndef f(x):\n    y = []\n    while True: y.append(mmap.mmap(-1, 1 << 24))",
    "makes a huge number": "def f(x): return 9 ** (9 ** 9)",
    "returns without end": "def f(x): return 'x' * 10**6",
    "returns an endless iterator": "import itertools\ndef f(x): return itertools.count()",
    "prints without end": "def f(x):\n    while True: print('x' * 10**5)",
    "fills one file": """
def f(x):
    with open("/tmp/big", "wb") as file:
        while True: file.write(bytes(1 << 16))""",
    "fills many files": """
def f(x):
    n = 0
    while True:
        n += 1
        with open(f"/tmp/{n}", "wb") as file: file.write(bytes(1 << 16))""",
    "makes folders without end": "import os\ndef f(x):\n    while True: os.mkdir('d'); os.chdir('d')",
    "fills pipes": """
import os, fcntl
def f(x):
    held = []
    while True: held.append(os.pipe()); os.write(held[-1][1], bytes(1 << 16))""",
    "loops": "def f(x):\n    while True: pass",
    "loops when defined": "while True: pass",
    "loops in C": "def f(x): return sum(range(10**12))",
    "sleeps": "import time\ndef f(x): time.sleep(1e6)",
    "recurses": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return f(x)",
    "recurses in C": """
import sys
sys.setrecursionlimit(10**9)
def f(x):
    y = []
    for _ in range(10**6): y = [y]
    return repr(y)""",
    "is deep": "def f(x): return " + "(" * 5000 + ")" * 5000,
    "crashes": "import ctypes\ndef f(x): return ctypes.string_at(0)",
    "ignores what ends it": """
import signal
for n in range(1, 65):
    try: signal.signal(n, signal.SIG_IGN)
    except (OSError, ValueError): pass
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass""",
}  # fmt: skip


@pytest.mark.parametrize("attack", BOMBS.values(), ids=BOMBS)
def test_no_bomb_harms_what_comes_next(box, attack):
    kinds = [KINDS["checked"](attack), KINDS["piped"](attack)]
    outcomes = box.run_many([*kinds, SOUND["checked"], SOUND["piped"]])
    assert outcomes[0].verdict in ("error", "timeout"), outcomes
    assert outcomes[1].verdict != "passed"
    assert all(x.seconds < 20 for x in outcomes)
    assert [x.verdict for x in outcomes[2:]] == ["passed", "passed"]


SIGNALS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def send(pid, number):
    info = (ctypes.c_int * 32)(number, 0, -1)
    return [libc.kill(pid, number), libc.syscall(129, pid, number, info), libc.syscall(297, pid, pid, number, info),
            libc.syscall(200, pid, number), libc.syscall(234, pid, pid, number), libc.killpg(pid, number)]
def f(x):
    sent = []
    for pid in [1, *range(2, 40), -1]:
        if pid != os.getpid(): sent += send(pid, 9) + send(pid, 19)
    return max(sent)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the calls are named by their numbers")
def test_no_signal_reaches_another_process(box):
    """Neither the runner nor the test, with which this one shares a sandbox: the test is there to give its verdict."""
    assert box.run(Checked(SIGNALS, "f", "assert f(1) == -1\nassert f(1) == -1")).verdict == "passed"
    assert box.run(Piped(SIGNALS + "print(f(1))", ("",), ("-1",))).verdict == "passed"


LOOK = """
import os
def f(names):
    found = []
    for name in names:
        try: found.append((name, open(name, "rb").read(99)))
        except OSError: found += [name] if os.path.lexists(name) else []
    return found
def g(names): return sorted(set(names) & set(os.environ))
def h():
    made = []
    for folder, _, _ in [("/", 0, 0), *os.walk("/dev"), *os.walk("/etc"), ("/usr", 0, 0), ("/usr/lib", 0, 0)]:
        try: open(folder + "/x", "w"); made.append(folder)
        except OSError: pass
    return made
"""


def test_nothing_of_the_machine_is_read_or_written(box, tmp_path, monkeypatch):
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    monkeypatch.setenv("TOKEN_OF_MINE", SECRET)
    near = [secret, Path(__file__), Path.cwd(), Path.home(), Path.home() / ".bashrc", Path(sandbox.__file__)]
    system = [
        "/etc/passwd",
        "/etc/shadow",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/proc/1/environ",
        "/proc/self/mem",
        "/sys",
    ]
    system += ["/root", "/home", "/var", "/run", "/mnt", "/dev/shm", "/dev/mem", "/dev/tty", "/dev/ptmx"]
    installation = Path(os.path.realpath(sys.base_prefix))  # the folders above it are there, without what they hold
    asked = [x for x in (*near, *map(Path, system)) if not installation.is_relative_to(x)]
    paths = [str(x) for x in asked if not x.is_relative_to("/usr")]
    test = f"""
assert f({paths}) == [], f({paths})
assert f(["/dev/null"]) == [("/dev/null", b"")]
"""
    outcome = box.run(Checked(LOOK, "f", test))
    assert outcome.verdict == "passed", box.run(Program(LOOK, "f", (repr((paths,)),), ("[]",)))
    names = sorted({*os.environ} - {"LANG", "LC_CTYPE", "PYTHONHASHSEED", "PWD"})
    assert "TOKEN_OF_MINE" in names
    assert box.run(Checked(LOOK, "g", f"assert g({names}) == []")).verdict == "passed"
    assert box.run(Checked(LOOK, "h", "assert h() == []")).verdict == "passed"


REACH = """
import socket, ctypes
def f(port, path, name):
    libc, got = ctypes.CDLL(None), []
    for family, kind, address in (
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", port)), (socket.AF_INET, socket.SOCK_DGRAM, ("9.9.9.9", 53)),
        (socket.AF_INET6, socket.SOCK_STREAM, ("::1", port)), (socket.AF_UNIX, socket.SOCK_STREAM, path),
        (socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + name), (socket.AF_NETLINK, socket.SOCK_RAW, (0, 0)),
    ):
        try:
            one = socket.socket(family, kind); one.settimeout(0.2); one.connect(address); one.send(b"x")
            got.append((family.name, "reached"))
        except OSError as error: got.append((family.name, type(error).__name__))
    try: got.append(socket.getaddrinfo("example.org", 80))
    except OSError as error: got.append(("names", type(error).__name__))
    return got
"""


@pytest.mark.parametrize("filtered", [True, False])
def test_no_network_and_no_socket_of_the_machine_is_reached(tmp_path, monkeypatch, filtered):
    """With the filter of system calls no socket is made; without it, there is nothing that one could reach."""
    if not filtered:
        code = sandbox.command("bubblewrap", LIMITS)
        at = code.index("-c") + 1
        loose = code[at].replace("    confine(limits)\n", "").replace('"confined": ', '"confined": True or ')
        assert loose != code[at]
        monkeypatch.setattr(sandbox, "command", lambda *a: [*code[:at], loose, *code[at + 1 :]])
    path, name = str(tmp_path / "socket"), f"abstract-{os.getpid()}"
    here, there = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    with here, there, socket.create_server(("127.0.0.1", 0)) as server:
        here.bind(path)
        there.bind("\0" + name)
        here.listen()
        there.listen()
        asked = (server.getsockname()[1], path, name)
        local: dict = {}
        exec(REACH, local)
        reached = [x for x in local["f"](*asked) if x[1] == "reached"]
        assert ("AF_INET", "reached") in reached  # it can be reached from here
        assert reached.count(("AF_UNIX", "reached")) == 2
        limits = Limits(wall_s=10, cpu_s=5)
        outcome = Sandbox("bubblewrap", limits, workers=1).run(Program(REACH, "f", (repr(asked),), ("None",)))
        assert outcome.verdict == "failed", outcome
        got = outcome.values[0]
        if filtered:
            assert "reached" not in got
            assert got.count("PermissionError") == 6
        else:
            assert "'AF_INET', 'reached'" not in got
            assert "'AF_UNIX', 'reached'" not in got
        assert "('names', 'gaierror')" in got


def test_one_process_is_left_between_programs_and_none_at_the_end(monkeypatch):
    plain = sandbox.command
    mark = f"{MARK}-ends"
    monkeypatch.setattr(sandbox, "command", lambda *a: [*plain(*a), mark])
    monkeypatch.setitem(globals(), "MARK", mark)
    with Sandbox("bubblewrap", LIMITS, workers=1) as box:
        box.run_many([KINDS["checked"](BOMBS["sleeps"]), KINDS["checked"](BOMBS["forks"]), SOUND["checked"]])
        assert running() == 2  # bubblewrap, and the runner inside
    assert running() == 0
