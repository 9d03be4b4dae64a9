"""Programming problems: solutions that pass their tests, examples that are true, grades that are real, splits apart."""

import ast
import doctest
import random

import pytest

from foretell.data import world
from foretell.data.world import programs
from foretell.data.world.programs import Problem, body, problems
from foretell.errors import RecipeError, SandboxError
from foretell.measure.sandbox import Sandbox


@pytest.fixture(scope="module")
def heldout():
    return problems(32)


@pytest.fixture(scope="module")
def items():
    return world.make_items("programs", "train", 2400, seed=0)


@pytest.fixture(scope="module")
def trained(items):
    return [item.content.segments[0].text for item in items]


def run(source, calls):
    names = {}
    exec(source, names)  # the generator's own code
    return tuple(repr(names["f"](*ast.literal_eval(call))) for call in calls)


def checked(source):
    """The examples of the docstring, all found true."""
    names = {}
    exec(source, names)
    examples = doctest.DocTestParser().get_examples(ast.get_docstring(ast.parse(source).body[0]))
    assert all(repr(eval(example.source, names)) == example.want.strip() for example in examples)
    return examples


def test_there_are_at_least_160_in_six_grades_all_different(heldout):
    assert len(heldout) >= 160
    assert [problem.grade for problem in heldout] == sorted(32 * [1, 2, 3, 4, 5, 6])
    assert len({problem.prompt for problem in heldout}) == len(heldout)
    assert len({problem.solution for problem in heldout}) == len(heldout)
    assert all(world.is_heldout(problem.key) for problem in heldout)
    assert problems(8)[:8] == heldout[:8]
    assert problems(8, seed=1) != problems(8)


def test_every_solution_passes_and_every_example_is_true(heldout):
    for problem in heldout:
        source = problem.prompt + problem.solution
        assert run(source, problem.calls) == problem.expected
        examples = checked(source)
        assert len(examples) == programs.EXAMPLES
        assert not {f"({example.source.strip()[2:-1]},)" for example in examples} & set(problem.calls)
        assert len(problem.calls) == programs.TESTS
        assert len(set(problem.expected)) > 1


def test_solutions_stay_within_the_small_subset(heldout):
    """No imports, no attributes but a few methods, no names but the builtins of the table."""
    allowed = {"abs", "int", "len", "list", "max", "min", "ord", "range", "sorted", "str", "sum", "zip", "dict"}
    methods = {"find", "upper", "replace", "join", "count", "append", "fromkeys"}
    for problem in heldout:
        tree = ast.parse(problem.prompt + problem.solution)
        assert not any(isinstance(node, (ast.Import, ast.ImportFrom, ast.Lambda)) for node in ast.walk(tree))
        called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert {f.id for f in called if isinstance(f, ast.Name)} <= allowed
        assert {f.attr for f in called if isinstance(f, ast.Attribute)} <= methods


class _Shape(ast.NodeTransformer):
    """Constants out; names stay, since they say what type a step works on."""

    def visit_Constant(self, node):
        return ast.copy_location(ast.Constant(type(node.value).__name__), node)


def shape(text):
    function = ast.parse(text).body[0]
    function.body = function.body[1:]  # without the docstring
    return ast.dump(_Shape().visit(function))


def plain(text):
    return ast.dump(ast.Module(ast.parse(text).body[0].body[1:], []))


def test_no_heldout_program_is_in_training_by_structure_or_text(heldout, trained):
    asked = [line for text in trained for line in text.splitlines() if '"""' in line]
    assert not {problem.prompt.splitlines()[1] for problem in heldout} & set(asked)
    assert not {plain(p.prompt + p.solution) for p in heldout} & {plain(text) for text in trained}
    composed = {shape(p.prompt + p.solution) for p in heldout if p.grade > 1}
    assert len(composed) > 120
    assert not composed & {shape(text) for text in trained}


def test_training_programs_pass_too_and_each_grade_is_common(items, trained):
    counts = [sum(item.task == f"programs.{grade}" for item in items) for grade in range(1, 7)]
    assert min(counts) > 300
    for text in trained[:300]:
        checked(text)


def test_texts_are_short(items, trained):
    easiest = [len(item.content.segments[0].text) for item in items if item.task == "programs.1"]
    assert sum(easiest) / len(easiest) < 150
    assert max(map(len, trained)) < 800


def names_in(node):
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


@pytest.mark.parametrize("grade", [1, 2, 4, 8])
def test_no_operation_can_be_left_out(grade):
    """Every statement of a solution matters to some test: removed, or its condition made always true, it fails."""
    made = [programs.make_problem(random.Random(f"{grade}/{i}"), "train", grade) for i in range(60)]
    removed = 0
    for problem in made:
        tree = ast.parse(problem.prompt + problem.solution)
        lines = tree.body[0].body
        for i, node in enumerate(lines):
            spare = ast.parse(ast.unparse(tree))
            if isinstance(node, ast.If):
                spare.body[0].body[i : i + 1] = node.body
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in names_in(node.value):
                del spare.body[0].body[i]
            else:
                continue
            removed += 1
            try:
                left = run(ast.unparse(spare), problem.calls)
            except Exception as error:
                left = error
            assert left != problem.expected, ast.unparse(spare)
    assert removed or grade == 1


def test_nesting_conditions_loops_and_all_types_occur(trained):
    text = "".join(trained)
    for code in ("if n % 2 == 0:", "for n in a]", "while n", "for i in range(n):", "s[::-1]", "sorted(a)", "sum(a)"):
        assert code in text
    assert {text[6] for text in trained} == set("nas")


def test_a_completion_ends_with_the_function():
    assert body("    return n\n\nprint(1)\n    more") == "    return n\n\n"
    assert body("    n = 1\n\n    return n") == "    n = 1\n\n    return n"
    assert body("return n") == ""
    problem = Problem("k", 1, "def f(n):\n", "    return n\n", ("(1,)",), ("1",))
    assert problem.program("    return 2\ndef f(n):\n    return 1").source == "def f(n):\n    return 2\n"


def test_problems_are_graded_in_the_sandbox(heldout):
    try:
        sandbox = Sandbox()
    except SandboxError as error:
        pytest.skip(str(error))
    some = heldout[::8]
    right = [problem.program(problem.solution) for problem in some]
    lookup = [  # what is shown, learned by heart
        problem.program(f"    return {{{', '.join(shown(problem))}}}[repr({problem.prompt[6]})]\n") for problem in some
    ]
    empty = [problem.program("") for problem in some]
    outcomes = sandbox.run_many(right + lookup + empty)
    assert {outcome.verdict for outcome in outcomes[: len(some)]} == {"passed"}
    assert {outcome.verdict for outcome in outcomes[len(some) : 2 * len(some)]} == {"error"}
    assert {outcome.verdict for outcome in outcomes[2 * len(some) :]} == {"failed"}


def shown(problem):
    lines = problem.prompt.splitlines()
    return [f"{call.strip()[6:-1]!r}: {value.strip()}" for call, value in zip(lines[2:6:2], lines[3:6:2], strict=True)]


def test_bad_options_and_too_many_are_errors():
    with pytest.raises(RecipeError, match="from 1 to 8"):
        world.make_kind("programs", {"grades": 9})
    with pytest.raises(RecipeError, match=r"programs\.1"):
        world.make_kind("programs", {"tasks": ["programs.7"]})
    with pytest.raises(RecipeError, match="Grade 1 has about"):
        problems(200, grades=[1])
    with pytest.raises(RecipeError, match="grades is 9; allowed is whole numbers from 1 to 8"):
        problems(1, grades=[1, 9])
