"""The judging page in a browser: keys, undo, a page that is closed, narrow screens, hostile replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from chatbrowser import SCREENS, browsing, slow_browser
from judging import HOSTILE, arena_of, open_page, pictured, questions, says

from foretell.evals.arena.folder import Arena
from foretell.evals.arena.people import read_people

pytestmark = slow_browser
WORDY = (
    "The sum is found by counting on.\n\n1. Begin at the first number.\n2. Count on.\n\nSo it is **4**.\n\n"
    "```python\nprint(2 + 2)\n```"
)


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    prompts = [*pictured(), *questions(5)]
    critic = says("The second step does not say *how far* to count. Otherwise nothing is wrong.")
    return arena_of(tmp_path / "a", {"a": says(WORDY), "b": says(HOSTILE)}, prompts, critic)


def begin(page: Any, name: str = "Ada") -> None:
    page.goto("/")
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_url("**/judge/*")


@pytest.mark.parametrize("screen", ["wide", "narrow", "dark"])
def test_keys_judge_undo_and_nothing_runs(arena: Arena, screen: str) -> None:
    with open_page(arena) as url, browsing(url, **SCREENS[screen]) as tab:
        page = tab.page
        begin(page)
        for done, key in enumerate("1200"):
            page.wait_for_selector("html[data-ready]")
            page.get_by_text(f"{done} of 6 judged").wait_for()
            assert page.title() == "Which reply is better?"
            wide = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert wide, "the page scrolls sideways"
            page.keyboard.press(key)
        page.get_by_text("4 of 6 judged").wait_for()
        page.keyboard.press("u")
        page.get_by_text("3 of 6 judged").wait_for()
        page.get_by_role("button", name="First is better").click()
        page.get_by_text("4 of 6 judged").wait_for()
        page.close()
        again = tab.context.new_page()
        begin(again)
        again.get_by_text("4 of 6 judged").wait_for()
        for _ in range(2):
            again.wait_for_selector("html[data-ready]")
            before = again.locator(".kicker").inner_text()
            again.keyboard.press("2")
            again.wait_for_function("(told) => document.querySelector('.kicker')?.innerText !== told", arg=before)
        again.get_by_text("nothing is left for you").wait_for()
        assert tab.faults == []
    said = read_people(arena)
    assert len(said) == 6 and sum(one.assisted for one in said) == 3 and all(one.seconds for one in said)


def test_it_is_open_to_those_who_do_not_see(arena: Arena) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    with open_page(arena) as url, browsing(url) as tab:
        tab.page.goto("/")
        entrance = axe.run(tab.page)
        begin(tab.page)
        found = axe.run(tab.page)
        assert entrance.violations_count == 0, entrance.generate_report()
        assert found.violations_count == 0, found.generate_report()


def test_without_scripts_it_works_as_well(arena: Arena) -> None:
    with open_page(arena) as url, browsing(url, java_script_enabled=False) as tab:
        begin(tab.page)
        tab.page.get_by_role("button", name="Neither").click()
        tab.page.get_by_text("1 of 6 judged").wait_for()
        tab.page.get_by_role("button", name="Take the last one back").click()
        tab.page.get_by_text("0 of 6 judged").wait_for()
