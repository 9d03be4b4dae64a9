"""The policy: complete as packaged, and every contradiction of a changed one is told."""

from __future__ import annotations

import pytest
import yaml

from foretell.errors import PolicyError
from foretell.safety.policy import ACTIONS, SCORED, load_policy, strictest

PACKAGED = yaml.safe_load(load_policy.__defaults__[0].read_text(encoding="utf-8"))


def test_the_packaged_policy_has_openais_categories_and_more():
    from openai.types.moderation import Categories

    policy = load_policy()
    fields = {field.alias or name for name, field in Categories.model_fields.items()}
    assert set(SCORED) == fields and len(SCORED) == 13
    assert set(SCORED) < set(policy.categories)
    for category in policy.categories.values():
        assert bool(category.levels) == (category.name in SCORED) and category.means and category.words


def test_levels_bring_actions():
    category = load_policy().categories["hate/threatening"]
    assert [category.action(score) for score in (0.0, 0.49, 0.5, 0.7, 0.95, 1.0)] == [
        *("allow", "allow", "flag", "refuse", "block", "block"),
    ]


def test_the_strictest_counts_and_the_first_of_equals():
    assert strictest({}) == (None, "allow") and strictest({"a": "allow"}) == (None, "allow")
    assert strictest({"a": "flag", "b": "refuse", "c": "refuse"}) == ("b", "refuse")
    assert ACTIONS == ("allow", "flag", "refuse", "block")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p: p.pop("words"), "version, words and categories"),
        (lambda p: p.update(version=2), "version 1"),
        (lambda p: p["categories"].pop(0), "harassment"),
        (lambda p: p["categories"].append(p["categories"][0]), "twice"),
        (lambda p: p["categories"][0].update(extra=1), "extra"),
        (lambda p: p["categories"][0].update(rule="shout"), "shout"),
        (lambda p: p["categories"][0].update(levels={"flag": 0.9, "refuse": 0.5}), "stricter"),
        (lambda p: p["categories"][0].update(levels={"flag": 1.5}), "at most 1"),
        (lambda p: p["categories"][0].update(levels={"allow": 0.5}), "levels must map"),
        (lambda p: p["categories"][0].pop("levels"), "scored"),
        (lambda p: p["categories"][-1].update(levels={"flag": 0.5}), "no other"),
        (lambda p: p["categories"][0].update(means=""), "means"),
        (lambda p: p["categories"].append("x"), "mapping with a name"),
    ],
)
def test_contradictions_are_told(tmp_path, change, named):
    raw = yaml.safe_load(yaml.safe_dump(PACKAGED))
    change(raw)
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(PolicyError, match=named):
        load_policy(path)


def test_a_file_that_is_no_policy_is_told(tmp_path):
    path = tmp_path / "policy.yaml"
    for content in ("- a", "a: [", "\xff"):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(PolicyError):
            load_policy(path)
    with pytest.raises(PolicyError):
        load_policy(tmp_path / "none.yaml")
