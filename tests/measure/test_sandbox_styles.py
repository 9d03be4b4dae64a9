"""Programs under a test program, and programs that read and print: graded as Python itself would."""

import math
import os
import sys
import threading
from pathlib import Path

import pytest

from foretell.errors import SandboxError
from foretell.measure import sandbox
from foretell.measure import sandbox_frames as frames
from foretell.measure.sandbox import Checked, Limits, Piped, Program, Sandbox, obstacle

LIMITS = Limits(wall_s=5.0, cpu_s=1, memory_bytes=256 << 20, output_bytes=40_000, tmp_bytes=1 << 20)


@pytest.fixture(scope="module", params=["bubblewrap", "none"])
def box(request):
    if (reason := obstacle(request.param)) is not None:
        pytest.skip(f"{request.param}: {reason}")
    with Sandbox(request.param, LIMITS, workers=2) as box:
        yield box


def same(body, test, **more):
    return Checked(f"def f(*a, **k):\n    {body}", "f", test, **more)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 0, -7, 2**70, 0.1, -0.0, math.inf, 1e-320, 1 + 2j),
        *("", "a\n'\"\\", "\ud800\x00é😀", b"\x00\xff", bytearray(b"ab")),
        *([], (), {}, set(), frozenset({1}), (1,), [(1, [2, {"k": (3, None)}])]),
        *({1: "a", (2, 3): {4}, None: [], False: 0.5}, {"dict": [], "tuple": 1, "int": "x"}, [True, 1, 1.0]),
    ],
)
def test_plain_data_travels_as_it_is(value):
    back = frames.unpack(frames.pack(value))
    assert back == value
    assert type(back) is type(value)
    assert repr(back) == repr(value)


def test_other_data_travels_as_what_it_equals_or_not_at_all():
    from collections import Counter, OrderedDict, deque, namedtuple
    from enum import IntEnum

    point = namedtuple("point", "x y")
    kind = IntEnum("kind", "A B")
    for value, plain in (
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (point(1, 2), (1, 2)),
        (kind.B, 2),
    ):
        assert frames.unpack(frames.pack(value)) == plain == value
    for value in (deque([1, 2]), range(1, 3), {1: 0, 2: 0}.keys(), (x for x in (1, 2)), map(int, "12")):
        assert list(frames.unpack(frames.pack(value))) == [1, 2]
    assert frames.unpack(frames.pack(-(10**5000))) == -(10**5000)  # longer than Python writes out
    assert math.isnan(frames.unpack(frames.pack(math.nan)))
    for value in (object(), len, int, (1).__add__, [object()]):
        with pytest.raises(TypeError, match="cannot leave"):
            frames.pack(value)
    round_ = []
    round_.append(round_)
    with pytest.raises(RecursionError):
        frames.pack(round_)


def test_a_test_sees_values_and_exceptions_as_if_the_function_were_its_own(box):
    own = """
class Strange(ValueError):
    def __init__(self, a, b): super().__init__(a)
class Solution:
    count = 0
    def solve(self, x, *, by=1):
        Solution.count += 1; self.count += 1
        if x is None: raise Strange("none", 1)
        if x == "key": return {}[x]
        if x == "decode": return b"\\xff".decode()
        if x == "leave": raise SystemExit("left")
        x.append(by); x[0]["seen"] = {self.count}
        return x, print
"""
    fine = """
import pytest_is_not_there""".replace(
        "import pytest_is_not_there",
        """
def raises(kind, *a):
    try: candidate(*a)
    except kind as error: return str(error)
raised = raises(ValueError, None)
assert raised == "none", raised
assert raises(KeyError, "key") == "'key'"
assert "invalid start byte" in raises(ValueError, "decode")
assert raises(SystemExit, "leave") == "left"
x = [{}]
assert "cannot leave" in raises(TypeError, x)
assert helper(x) == x == [{}], x
assert solve is candidate and candidate.__name__ == "Solution.solve"
""",
    )
    given = "def helper(x): return x\ndef solve(x): raise RuntimeError"
    outcome = box.run(Checked(own, "Solution.solve", fine, prelude=given))
    assert outcome.verdict == "passed", outcome


def test_changes_in_place_reach_the_test(box):
    change = "a[0].sort(); a[1].clear(); a[1]['n'] = [1]; a[2].add(9); a[3][0].append(5); k['named'].append(1)"
    test = """
x, d, s, t, n = [3, 1, 2], {"o": 0}, {8}, ([],), []
alias = x
assert candidate(x, d, s, t, named=n) is None
assert alias == [1, 2, 3] and d == {"n": [1]} and s == {8, 9}, (alias, d, s)
"""
    assert box.run(same(change, test)).verdict == "passed"


@pytest.mark.parametrize(
    ("body", "test", "verdict", "detail"),
    [
        ("return 1", "assert candidate() == 1", "passed", ""),
        ("return 1", "\nassert (candidate() ==\n 2)", "failed", "AssertionError at line 2 of the test: assert (cand"),
        ("return None", "assert abs(candidate() - 1) < 1", "failed", "TypeError at line 1 of the test: assert abs"),
        ("return {}[0]", "x = 1\nassert f() == 1", "error", "KeyError: 0; line 2 of the test: assert f() == 1"),
        ("assert 0, 'own'", "f()", "error", "AssertionError: own; line 1 of the test: f()"),
        ("return f", "assert f() == 1", "error", "TypeError: a value of type function cannot leave its process; line"),
        ("return 1", "f(len)", "error", "TypeError: a value of type builtin_function_or_method cannot leave"),
        ("return 1", "assert f( == 1", "error", "the test does not run: SyntaxError"),
        ("return 1", "undefined()", "failed", "NameError at line 1"),
        ("return f()", "f()", "error", "RecursionError: maximum recursion depth exceeded"),
        ("x = []; x.append(x); return x", "f()", "error", "RecursionError"),
        ("return 'x' * 50_000", "f()", "error", "too much was returned; line 1"),
        ("return (x for x in [1, 2])", "assert list(f()) == [1, 2]", "passed", ""),
        ("return sorted(k.items())", "assert f(b=1, a=2) == [('a', 2), ('b', 1)]", "passed", ""),
        ("import random; return random.random() == random.Random(0).random()", "assert f()", "passed", ""),
        ("return) 1", "assert f() == 1", "error", "SyntaxError: unmatched ')'"),
        ("return 1\nf = 3", "assert f() == 1", "error", "TypeError: 'int' object is not callable"),
        ("return 1\ndel f", "pass", "error", "KeyError: 'f'"),
    ],
)
def test_the_verdict_of_a_test_says_what_went_wrong(box, body, test, verdict, detail):
    outcome = box.run(same(body, test))
    assert (outcome.verdict, outcome.detail[: len(detail)]) == (verdict, detail), outcome


def test_a_test_that_needs_long_texts_is_read_and_its_lane_goes_on(box):
    test = f"x = {'7' * 3000!r} * 100\nassert f(x) == len(x)\n#" + "long " * 60_000
    one = Sandbox(box.backend, LIMITS, workers=1)
    programs = [same(f"return len(a[0]) + {i}", test) for i in range(3)] + [same("return 1", "assert f() == 1")]
    assert [x.verdict for x in one.run_many(programs)] == ["passed", "failed", "failed", "passed"]


def test_dataclasses_with_text_annotations_work(box):
    source = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class Pair:
    left: int
def f(): return Pair(3).left"""
    assert box.run(Program(source, "f", ("()",), ("3",))).verdict == "passed"


ADD = "n = int(input())\nprint(sum(map(int, input().split())))"


@pytest.mark.parametrize(
    ("source", "given", "printed", "verdict", "detail"),
    [
        (ADD, "2\n1 2\n", "3\n", "passed", ""),
        (ADD, "2\n1 2", " 3 \r\n\n", "passed", ""),
        (ADD, "2\n1 2", "4\n", "failed", "input 1 gave '3\\n', not '4\\n'"),
        (ADD, "2\nx", "4\n", "error", "input 1: ValueError: invalid literal"),
        (ADD, "", "4\n", "error", "input 1: EOFError"),
        ("def main():\n    print(input())\nif __name__ == '__main__':\n    main()", "a", "a", "passed", ""),
        ("import sys\nfor line in sys.stdin: sys.stdout.write(line)", "a\n b \n", "a\n b \n", "passed", ""),
        ("import sys\nprint(len(sys.stdin.buffer.read()))", "é" * 300_000, "600000", "passed", ""),
        ("import os\nos.write(1, os.read(0, 9)[::-1])", "abc", "cba", "passed", ""),
        ("print(open(0).read(), end='')", "a", "a", "passed", ""),
        ("print(1)\nexit()", "", "1", "passed", ""),
        ("print(1)\nraise SystemExit(3)", "", "1", "error", "input 1: ended with status 3"),
        ("print(1)\nimport sys; sys.exit('no')", "", "1", "error", "input 1: ended with status 1"),
        ("import os; print(1); os._exit(0)", "", "1", "failed", "input 1 gave ''"),
        ("import atexit\natexit.register(print, 5)\nprint(4)", "", "4\n5", "passed", ""),
        ("import sys\nprint(1)\nsys.stdout.close()", "", "1", "passed", ""),
        ("import sys, io\nsys.stdout = io.StringIO()\nprint(1)", "", "1", "failed", "input 1 gave ''"),
        ("import sys\nprint('x', file=sys.stderr)\nprint(sys.argv[1:])", "", "[]", "passed", ""),
        ("print('a\\nb')", "", "a b", "failed", ""),
        ("print('a  b\\t c  ')", "", "a b c", "passed", ""),
        ("print('é')", "", "é", "passed", ""),
        ("print('x' * 50_000)", "", "x", "error", "more than 40,000 bytes"),
        ("import sys\nsys.setrecursionlimit(9**6)\ndef f(n): return n and f(n - 1)\nf(9**5)", "", "", "passed", ""),
    ],
)  # fmt: skip
def test_programs_read_and_print(box, source, given, printed, verdict, detail):
    outcome = box.run(Piped(source, (given,), (printed,)))
    assert (outcome.verdict, outcome.detail[: len(detail)]) == (verdict, detail), outcome


def test_every_input_counts_and_starts_afresh(box):
    count = "try: seen\nexcept NameError: seen = 0\nseen += 1\nprint(seen, input())"
    good = Piped(count, ("a", "b", "c"), ("1 a\n", "1 b\n", "1 c\n"), exact=True)
    assert box.run(good).verdict == "passed"
    assert box.run(good).values == good.expected
    bad = box.run(Piped(count, ("a", "b", "c"), ("1 a", "1 x", "1 c")))
    assert (bad.verdict, bad.detail) == ("failed", "input 2 gave '1 b\\n', not '1 x'")
    assert box.run(Piped(count, ("a",), ("1 a",), exact=True)).verdict == "failed"
    ends = box.run(Piped("print(10 // int(input()))", ("1", "0", "2"), ("10", "0", "5")))
    assert (ends.verdict, ends.detail[:27]) == ("error", "input 2: ZeroDivisionError:")
    slow = box.run(Piped("while input(): pass", ("", "x"), ("", "")))
    assert slow.verdict == "error"  # the second input ends
    with pytest.raises(ValueError, match="as many"):
        Piped("", ("a",), ())


def test_kinds_mix_and_started_sandboxes_are_kept_between_calls(monkeypatch):
    if (reason := obstacle("bubblewrap")) is not None:
        pytest.skip(f"bubblewrap: {reason}")
    starts = []
    lane = sandbox._Lane
    monkeypatch.setattr(sandbox, "_Lane", lambda *a: starts.append(lane(*a)) or starts[-1])
    with Sandbox("bubblewrap", LIMITS, workers=2) as box:
        starts.clear()
        mixed = [
            Program("def f(): return 1", "f", ("()",), ("1",)),
            same("return 1", "assert f() == 1"),
            Piped("print(1)", ("",), ("1",)),
        ]
        outcomes = {}
        threads = [
            threading.Thread(target=lambda i=i: outcomes.update({i: [box.run(x).verdict for x in mixed]}))
            for i in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert outcomes == dict.fromkeys(range(6), ["passed"] * 3)
        assert len(starts) <= 2
        for one in starts:  # one that died while idle is replaced
            one._process.kill()
            one._process.wait()
        assert box.run(mixed[0]).verdict == "passed"
        box.run(Piped("open('left', 'w')", ("",), ("",)))  # a dirty one is not kept
        assert len(box._idle) <= 1
    assert all(one._process.poll() is not None for one in starts)
    assert box.run(mixed[0]).verdict == "passed"
    assert starts[-1]._process.poll() is not None


STUB = """#!/bin/sh
printf '%s\\0' "$0" "$@" >> {folder}/asked
[ "$1" = image ] && exit {found}
while [ "$1" != {image} ]; do shift; done
shift
cd {folder}/tmp
exec {python} "$@"
"""


@pytest.fixture
def containers(tmp_path, monkeypatch):
    """Container commands that write down what they are asked, and run it without a container."""

    def install(*names, found=0):
        (tmp_path / "tmp").mkdir(exist_ok=True)
        for name in names:
            stub = tmp_path / name
            stub.write_text(STUB.format(folder=tmp_path, image=sandbox.IMAGE, python=sys.executable, found=found))
            stub.chmod(0o755)
        return lambda: (tmp_path / "asked").read_text().split("\0")[:-1]

    monkeypatch.setenv("PATH", str(tmp_path))  # bubblewrap is not there
    return install


@pytest.mark.parametrize("backend", ["docker", "podman"])
def test_a_container_is_started_closed_and_grades_all_kinds(containers, backend):
    asked = containers(backend)
    box = Sandbox(limits=LIMITS, workers=1)
    assert box.backend == backend
    outcomes = box.run_many(
        [
            Program("def f(): return 1", "f", ("()",), ("1",)),
            same("return 1", "assert f() == 1"),
            same("return 1", "assert f() == 2"),
            Piped("print(1)", ("",), ("1",)),
            Piped("while True: pass", ("",), ("1",)),
        ]
    )
    assert [x.verdict for x in outcomes] == ["passed", "passed", "failed", "passed", "timeout"]
    words = asked()
    assert words[1:4] == ["image", "inspect", sandbox.IMAGE]
    run = words[5:]
    assert words[4] == words[0] and Path(words[0]).name == backend
    closed = "--rm --interactive --pull=never --network=none --ipc=none --read-only --cap-drop=ALL"
    assert run[1:8] == closed.split()
    assert "--security-opt=no-new-privileges" in run
    assert f"--memory-swap={LIMITS.memory_bytes + LIMITS.tmp_bytes + (64 << 20)}" in run
    assert run.count("run") == 1  # one start for all


def test_bubblewrap_comes_first_then_docker_then_podman(containers, monkeypatch):
    containers("podman", "docker")
    tried = []
    real = sandbox.obstacle
    monkeypatch.setattr(sandbox, "obstacle", lambda name, limits: tried.append(name) or real(name, limits))
    assert Sandbox(limits=LIMITS).backend == "docker"
    assert tried == ["bubblewrap", "docker"]


def test_what_is_missing_is_said_and_unsafe_is_asked_for_by_name(containers):
    containers("docker", found=1)
    with pytest.raises(SandboxError) as caught:
        Sandbox(limits=LIMITS)
    for words in (
        "bubblewrap: not installed (apt install bubblewrap).",
        f"docker pull {sandbox.IMAGE}",
        "podman: not installed.",
        "dnf install bubblewrap",
        "--allow-unsafe",
        "does not protect your files",
    ):
        assert words in str(caught.value)
    if sys.platform == "linux":
        unsafe = Sandbox(limits=LIMITS, allow_unsafe=True)
        assert unsafe.backend == "none"
        assert unsafe.run(same("return 1", "assert f() == 1")).verdict == "passed"
    assert "PATH" in os.environ


def test_unsafe_is_not_taken_where_a_sandbox_works():
    if (reason := obstacle("bubblewrap")) is not None:
        pytest.skip(f"bubblewrap: {reason}")
    assert Sandbox(limits=LIMITS, allow_unsafe=True).backend == "bubblewrap"
