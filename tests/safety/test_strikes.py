"""The strike ladder: each step, each end, and what overturning undoes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.errors import PolicyError
from foretell.safety.strikes import DAY, STATUSES, Ladder, Standing, Strike, standing

LADDER = Ladder()
TIMES = st.integers(0, 400 * DAY)
HISTORIES = st.lists(st.builds(Strike, TIMES, st.integers(1, 4), st.booleans()), max_size=8)


def strikes(*days: float) -> list[Strike]:
    return [Strike(round(day * DAY)) for day in days]


def test_warn_then_suspend_with_an_end_then_ban() -> None:
    assert standing([], LADDER, 0) == Standing("active")
    assert standing(strikes(0), LADDER, 0) == Standing("warned", None, 1)
    assert standing(strikes(0, 1), LADDER, DAY) == Standing("suspended", 2 * DAY, 2)
    assert standing(strikes(0, 1, 2), LADDER, 2 * DAY) == Standing("suspended", 9 * DAY, 3)
    assert standing(strikes(0, 1, 2, 3), LADDER, 3 * DAY) == Standing("banned", None, 4)


def test_a_suspension_ends_at_its_time_and_leaves_a_warning() -> None:
    history = strikes(0, 1)
    assert standing(history, LADDER, 2 * DAY - 1).status == "suspended"
    assert standing(history, LADDER, 2 * DAY) == Standing("warned", None, 2)


def test_strikes_expire_but_a_ban_does_not() -> None:
    assert standing(strikes(0), LADDER, 90 * DAY - 1).status == "warned"
    assert standing(strikes(0), LADDER, 90 * DAY) == Standing("active", None, 0)
    assert standing(strikes(0, 89), LADDER, 89 * DAY).status == "suspended"
    assert standing(strikes(0, 91), LADDER, 91 * DAY) == Standing("warned", None, 1), "the first counts no more"
    assert standing(strikes(0, 1, 2, 3), LADDER, 300 * DAY) == Standing("banned", None, 0)


def test_what_an_overturned_strike_led_to_never_was() -> None:
    four = strikes(0, 1, 2, 3)
    for i in range(4):
        lifted = [Strike(s.time, s.weight, j == i) for j, s in enumerate(four)]
        assert standing(lifted, LADDER, 3 * DAY).status == "suspended", "three others hold it"
    assert standing([Strike(s.time, overturned=True) for s in four], LADDER, 3 * DAY) == Standing("active")


def test_a_grave_category_weighs_more() -> None:
    assert LADDER.weight(["harassment", "sexual/minors"]) == 4
    assert LADDER.weight(["harassment"]) == LADDER.weight([]) == 1
    assert standing([Strike(5, 4)], LADDER, 5) == Standing("banned", None, 4)
    short = Ladder(steps=LADDER.steps[:2])
    assert standing([Strike(5, 9)], short, 5).status == "suspended", "beyond the last step it is the last"


def test_a_longer_suspension_is_not_cut_by_a_later_shorter_one() -> None:
    ladder = Ladder.read(
        {"expires_days": 2, "steps": [{"strikes": 1, "status": "suspended", "days": 1},
                                      {"strikes": 2, "status": "suspended", "days": 30}]}
    )  # fmt: skip
    history = strikes(0, 1, 20)
    assert standing(history, ladder, 20 * DAY) == Standing("suspended", 31 * DAY, 1)


@given(HISTORIES, TIMES, st.integers(1, 4))
def test_a_strike_never_eases_and_overturning_never_worsens(history: list[Strike], now: int, weight: int) -> None:
    before = standing(history, LADDER, now)
    struck = standing([*history, Strike(now, weight)], LADDER, now)
    assert STATUSES.index(struck.status) >= max(STATUSES.index(before.status), 1)
    for i, strike in enumerate(history):
        rest = [*history[:i], Strike(strike.time, strike.weight, True), *history[i + 1 :]]
        after = standing(rest, LADDER, now)
        assert STATUSES.index(after.status) <= STATUSES.index(before.status)
        if strike.overturned:
            assert after == before


@given(HISTORIES, TIMES, st.randoms())
def test_the_order_in_which_strikes_are_told_does_not_matter(history: list[Strike], now: int, random: Any) -> None:
    mixed = random.sample(history, len(history))
    assert standing(mixed, LADDER, now) == standing(history, LADDER, now)
    later = [s for s in history if s.time > now]
    assert standing([s for s in history if s not in later], LADDER, now) == standing(history, LADDER, now)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"steps": [{"strikes": 1, "status": "warned"}, {"strikes": 1, "status": "banned"}]}, "steps"),
        ({"steps": [{"strikes": 1, "status": "banned"}, {"strikes": 2, "status": "warned"}]}, "milder"),
        ({"steps": [{"strikes": 1, "status": "suspended"}]}, "days"),
        ({"steps": [{"strikes": 1, "status": "banned", "days": 3}]}, "days"),
        ({"steps": []}, "steps"),
        ({"steps": [{"strikes": 0, "status": "warned"}]}, "strikes"),
        ({"steps": [{"strikes": 1, "status": "shamed"}]}, "status"),
        ({"expires_days": 0}, "expires_days"),
        ({"weights": {"hate": 0}}, "weights.hate"),
        ({"expire_days": 3}, "expire_days"),
    ],
)
def test_settings_that_make_no_ladder_are_told(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(PolicyError, match=named):
        Ladder.read(settings)
    assert Ladder.read({}) == LADDER
