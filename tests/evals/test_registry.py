"""Registries: names, aliases, sets and patterns, and what is said of one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretell.errors import EvalError
from foretell.evals.base import Eval
from foretell.evals.classes import load_class, make_eval
from foretell.evals.registry import OWN, Registry

MATCH = "evals.elsuite.basic.match:Match"


def registry(folder: Path, **files: str) -> Registry:
    """A registry of files, named "kind__stem"."""
    for name, text in files.items():
        kind, _, stem = name.partition("__")
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{stem}.yaml").write_text(text, encoding="utf-8")
    return Registry((folder,))


def test_a_name_leads_through_its_aliases_to_a_spec(tmp_path: Path) -> None:
    found = registry(
        tmp_path,
        evals__sums=f"""
sums: {{id: sums.dev.v1, metrics: [accuracy], description: Adds., unknown: 3}}
sums.dev: sums.dev.v1
sums.dev.v1: {{class: {MATCH}, args: {{samples_jsonl: sums.jsonl}}}}
""",
    )
    for name in ("sums", "sums.dev", "sums.dev.v1"):
        spec = found.eval(name)
        assert (spec.name, spec.cls, spec.metrics, spec.description) == ("sums.dev.v1", MATCH, ("accuracy",), "Adds.")
        assert spec.path("sums.jsonl") == tmp_path / "data/sums.jsonl"


@pytest.mark.parametrize(
    ("evals", "name", "said"),
    [
        ("a: {id: b}\nb: {id: c}\nc: a", "a", "alias of itself: a → b → c → a"),
        ("a: {id: b}", "a", "There is no eval b (through a → b)"),
        ("sums.dev.v0: {class: x:Y}", "sum.dev.v0", "Near are sums.dev.v0"),
        ("a.dev: {args: {}}", "a.dev", "has no class"),
        ("a.dev: 3", "a.dev", "a.dev is a int"),
        ("- a", "a", "holds a list"),
        ("a: [", "a", "is not readable YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, evals: str, name: str, said: str) -> None:
    with pytest.raises(EvalError) as error:
        registry(tmp_path, evals__x=evals).eval(name)
    assert said in str(error.value)


def test_a_name_given_twice_is_refused_with_both_places(tmp_path: Path) -> None:
    one = registry(tmp_path / "one", evals__a=f"a.dev: {{class: {MATCH}}}")
    two = registry(tmp_path / "two", evals__b=f"a.dev: {{class: {MATCH}}}")
    with pytest.raises(EvalError, match=r"a\.yaml and in .*b\.yaml"):
        Registry((*one.paths, *two.paths)).eval("a.dev")


def test_a_registry_of_ones_own_goes_before_what_comes_with_foretell(tmp_path: Path) -> None:
    theirs = registry(tmp_path, evals__hellaswag="hellaswag: {id: hellaswag.dev.v0}\nhellaswag.dev.v0: {class: a:B}")
    for paths in ((OWN, tmp_path), (tmp_path, OWN)):
        both = Registry(paths)
        assert both.eval("hellaswag").name == "hellaswag.dev.v0" and theirs.eval("hellaswag").root == tmp_path
        assert both.eval("hellaswag.validation.v0").root == OWN and "gsm8k" in both.evals


def test_sets_and_patterns_name_evals_once_in_order(tmp_path: Path) -> None:
    spec = f"{{class: {MATCH}}}"
    found = registry(
        tmp_path,
        evals__x=f"a: {{id: a.dev.v0}}\na.dev.v0: {spec}\na.test.v0: {spec}\nb.dev.v0: {spec}\nab.dev.v0: {spec}",
        eval_sets__s="all:\n  evals: [b.dev.v0, 'a.*', a, gone]\nalso: {id: all}\nnone: {evals: [gone]}",
    )
    assert found.resolve("all") == found.resolve("also") == ["b.dev.v0", "a.dev.v0", "a.test.v0"]
    assert found.unmatched("all") == ["gone"]
    assert found.resolve("*.dev.*") == ["a.dev.v0", "b.dev.v0", "ab.dev.v0"]
    assert found.resolve("a") == ["a"]
    with pytest.raises(EvalError, match="No eval matches none"):
        found.resolve("none")


def test_a_single_file_stands_for_a_folder(tmp_path: Path) -> None:
    (tmp_path / "evals.yaml").write_text(f"a.dev: {{class: {MATCH}}}")
    assert Registry((tmp_path,)).eval("a.dev").cls == MATCH


def test_model_graded_specs_and_completion_functions_are_found(tmp_path: Path) -> None:
    found = registry(
        tmp_path,
        modelgraded__g="ok: {prompt: p, choice_strings: AB, input_outputs: {input: out}, choice_scores: {A: 1}}\n"
        "bad: {prompt: p}",
        completion_fns__c="mine: {class: 'm:F', args: {x: 1}}\nyours: {id: mine}",
        solvers__s="third: {class: 'm:G'}",
    )
    assert found.graded("ok").choice_scores == {"A": 1} and found.graded("ok").eval_type is None
    with pytest.raises(EvalError, match="has no choice_strings"):
        found.graded("bad")
    assert found.completion_fn("yours") == ("m:F", {"x": 1}) and found.completion_fn("third") == ("m:G", {})
    assert found.completion_fn("gpt-4") is None


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        ("evals.elsuite.bluff.eval:BluffEval", "upstream's own"),
        ("nothing", "expected module:Class"),
        ("collections:Counter", "no subclass"),
        ("json:Nothing", "cannot be imported"),
    ],
)
def test_a_class_that_cannot_run_is_told(tmp_path: Path, cls: str, said: str) -> None:
    spec = registry(tmp_path, evals__x=f"a.dev: {{class: '{cls}'}}").eval("a.dev")
    with pytest.raises(EvalError, match=said):
        load_class(spec)


def test_a_class_of_ones_own_runs_and_wrong_settings_are_told(tmp_path: Path) -> None:
    found = registry(
        tmp_path,
        evals__x=f"own.dev: {{class: '{__name__}:Own', args: {{word: hi}}}}\nodd.dev: {{class: '{__name__}:Own'}}",
    )
    assert isinstance(make_eval(found, "own.dev"), Own)
    with pytest.raises(EvalError, match=r"odd.dev: its settings do not fit .*word"):
        make_eval(found, "odd.dev")


class Own(Eval):
    def __init__(self, spec, registry, *, word):  # type: ignore[no-untyped-def]
        super().__init__(spec, registry)
        self.word = word
