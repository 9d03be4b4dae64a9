"""Code in what a model said: found, joined with its problem, and graded by the real problems."""

import gzip
import json
from collections import Counter

import pytest

from foretell.errors import EvalError
from foretell.measure.code_answers import code_block, human_eval, pass_counts
from foretell.measure.sandbox import Limits, Outcome, Sandbox, obstacle

DOUBLE = {
    "task_id": "Own/0",
    "prompt": 'import math\n\ndef helper(x):\n    return x + x\n\ndef double(x: int) -> int:\n    """Twice x."""\n',
    "entry_point": "double",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(math.floor(3.5)) == helper(3)\n",
}
BODY = "    return 2 * x\n"
WHOLE = f"def double(x):\n{BODY}"


@pytest.fixture(scope="module")
def box():
    if (reason := obstacle("bubblewrap")) is not None:
        pytest.skip(f"bubblewrap: {reason}")
    with Sandbox("bubblewrap", Limits(wall_s=20, cpu_s=5), workers=2) as box:
        yield box


@pytest.mark.parametrize(
    "reply",
    [
        BODY,
        f"{BODY}\ndef other():\n    this is no Python",
        f"{BODY}\nprint(double(",
        f"{BODY}\n# Test\nassert",
        WHOLE,
        f"Sure:\n```python\n{WHOLE}```\nIt works.",
        f"Sure:\n```python\n{WHOLE}",
        f"First `double`.\n```\n{WHOLE}```\nUse it:\n```python\nprint(double(3))\n```",
        f"```py\n{WHOLE.replace('2 *', '3 *')}```\nNo, rather\n```py\n{WHOLE}```",
        f"~~~Python\n{BODY}~~~",
        "```python\ny = x + x\nif y:\n    return y\nreturn 0\n```",
        f"1. So:\n   ```python title=x\n{WHOLE}   ```",
        f"```python\nimport os\n\nclass A: pass\n\n{WHOLE}```",
        f"```python\n{WHOLE.replace('2 * x', 'helper(math.floor(x))')}```",
    ],
)
def test_the_code_is_found_wherever_models_put_it(box, reply):
    outcome = box.run(human_eval(DOUBLE, reply))
    assert outcome.verdict == "passed", outcome


def test_what_is_no_answer_does_not_pass(box):
    wrong = human_eval(DOUBLE, WHOLE.replace("2 *", "3 *"))
    assert box.run(wrong).detail == "AssertionError at line 2 of the test: assert candidate(2) == 4"
    for reply in ("", "I cannot.", "```\n```", "pass", "    pass", "```python\nx = 1\n```", "```", "\ud800"):
        assert box.run(human_eval(DOUBLE, reply)).verdict in ("failed", "error"), reply
    assert code_block("no code") is None


def test_a_row_of_another_form_is_named():
    with pytest.raises(EvalError, match=r"Own/0.*lacks test"):
        human_eval({key: value for key, value in DOUBLE.items() if key != "test"}, BODY)
    with pytest.raises(EvalError, match="lacks prompt, test, entry_point"):
        human_eval({"prompt": 3}, BODY)


def test_samples_are_counted_by_problem():
    passed, failed, late = Outcome("passed"), Outcome("failed"), Outcome("timeout")
    assert pass_counts({"a": [passed, failed, passed], "b": [late], "c": []}) == {"a": (3, 2), "b": (1, 0), "c": (0, 0)}


@pytest.mark.realdata
def test_every_problem_of_human_eval_passes_its_own_solution_and_fails_an_empty_one(box, real_data):
    path = real_data / "benchmarks/openai_human-eval/data/HumanEval.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    right = box.run_many([human_eval(row, row["canonical_solution"]) for row in rows])
    assert [(row["task_id"], x) for row, x in zip(rows, right, strict=True) if x.verdict != "passed"] == []
    assert len(right) == 164
    whole = [f"```python\n{row['prompt']}{row['canonical_solution']}```" for row in rows]
    chatted = box.run_many([human_eval(row, text) for row, text in zip(rows, whole, strict=True)])
    assert Counter(x.verdict for x in chatted) == {"passed": 164}
    wrong = box.run_many([human_eval(row, "    return None\n") for row in rows])
    assert Counter(x.verdict for x in wrong) == {"failed": 164}, [x for x in wrong if x.verdict != "failed"]
