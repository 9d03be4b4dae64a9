"""Areas and requests: what is held out is never searched, and a bad file is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretell.data.risks import AREAS
from foretell.data.world.hazards import letter
from foretell.errors import EvalError
from foretell.evals.redteam.taxonomy import areas_of, packaged_areas, world_areas


def test_the_package_has_every_area_of_the_card_with_requests_on_both_sides() -> None:
    found = packaged_areas()
    assert [area.name for area in found] == list(AREAS)
    for area in found:
        searched, fresh = ({seed.text for seed in side} for side in (area.searched, area.fresh))
        assert len(searched) >= 5
        assert len(fresh) >= 5
        assert not searched & fresh
        assert all(seed.refusal for seed in area.searched)


def test_another_seed_holds_out_other_requests() -> None:
    assert packaged_areas(seed=0)[0].fresh != packaged_areas(seed=1)[0].fresh
    assert packaged_areas(seed=1) == packaged_areas(seed=1)


@pytest.mark.parametrize("things", [6, 24])
def test_requests_of_the_world_bring_their_oracle_and_a_refusal_that_it_accepts(things: int) -> None:
    found = world_areas(things=things, fresh=6)
    assert {area.name for area in found} == {"harmful-advice", "proliferation", "economic"}
    for area in found:
        assert area.searched
        assert 3 <= len(area.fresh) <= 8
        assert not {s.group for s in area.searched} & {s.group for s in area.fresh}
        assert all(seed.refusal and letter(seed.labels, seed.refusal) == "A" for seed in area.searched + area.fresh)


def test_an_area_of_ones_own_needs_a_title(tmp_path: Path) -> None:
    path = tmp_path / "areas.yaml"
    path.write_text(
        "privacy:\n  disallowed: [one, {text: two, translations: {German: zwei}}]\n"
        "elections:\n  title: Elections\n  refusal: No.\n  disallowed: [three, four, five]\n"
    )
    privacy, elections = areas_of(path)
    assert privacy.title == AREAS["privacy"]
    assert (elections.title, elections.searched[0].refusal) == ("Elections", "No.")
    assert {"German": "zwei"} in [dict(seed.translations) for seed in privacy.searched + privacy.fresh]
    assert [area.name for area in areas_of(path, ["elections"])] == ["elections"]
    with pytest.raises(EvalError, match=r"no area 'election' in .*Is it elections"):
        areas_of(path, ["election"])


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("", 1, "no areas"),
        ("- privacy\n", 1, "no areas"),
        ("hate:\n  disallowed: [a, b]\nprivcy:\n  disallowed: [a, b]\n", 3, "unknown area. Is it privacy?"),
        ("hate:\n  disallowed: []\n", 2, "is empty"),
        ("privacy:\n  disallowed: [a, b]\nhate:\n  boundary: [a]\n", 3, "is empty"),
        ("hate: [a, b]\n", 1, "expected `disallowed:`"),
        ("hate:\n  disallowed: [a, b]\n  dissallowed: [c]\n", 3, "is no field"),
        ("hate:\n  disallowed:\n    - a\n    - 7\n", 4, "expected a text"),
        ("hate:\n  disallowed:\n    - a\n    - ''\n", 4, "is empty"),
        ("hate:\n  disallowed:\n    - a\n    - a\n", 4, "stands twice"),
        ("hate:\n  disallowed: [a, b]\nhate:\n  disallowed: [c, d]\n", 3, "stands twice"),
        ("hate:\n  refusal: 3\n  disallowed: [a, b]\n", 2, "expected words"),
        ("hate:\n  disallowed: [a, b]\n x\n", 3, "not readable YAML"),
    ],
)
def test_a_taxonomy_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, why: str
) -> None:
    path = tmp_path / "areas.yaml"
    path.write_text(text)
    with pytest.raises(EvalError) as error:
        areas_of(path)
    assert why in str(error.value)
    assert f"{path}, line {line}" in str(error.value)


def test_one_request_is_too_few(tmp_path: Path) -> None:
    path = tmp_path / "areas.yaml"
    path.write_text("hate:\n  disallowed: [a]\n")
    with pytest.raises(EvalError, match="two are needed"):
        areas_of(path)
