"""Whether everyone can use the chat page: axe finds nothing serious, and every screen fits. Pictures are kept."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from chatbrowser import SCREENS, Tab, browsing, chart, said, slow_browser
from chatserver import chatting
from servekit import Live, Stub

pytestmark = slow_browser
ANSWER = """The **treated** group does better: its mean is 0.56 higher, about five standard errors.

1. Compare the difference with its *error*, not the bars with each other.
2. Ask how many there were in each group.

```python
from math import hypot

difference = 3.97 - 3.41
error = hypot(0.08, 0.09)
print(f"{difference / error:.1f} standard errors")
```

| group   |   n | mean | stderr |
|---------|----:|-----:|-------:|
| control | 120 | 3.41 |   0.08 |
| treated | 118 | 3.97 |   0.09 |

So $z = 0.56 / 0.12 \\approx 4.7$. Chance alone would make that once in some hundred thousand tries."""
TITLES = (
    "Scaling laws with a floor", "Why is my loss spiking?", "Letter to the landlord", "Bayes for a medical test",
    "Three days in Lisbon", "A regular expression for dates",
)  # fmt: skip


def reply(request: Any) -> str:
    text = said(request)
    return ANSWER if "group" in text else f"You said: {text}"


def axe() -> str:
    """The program of axe-core, from the package that brings it along."""
    found = util.find_spec("axe_playwright_python")
    if found is None or not found.submodule_search_locations:
        pytest.skip("axe-playwright-python is not installed")
    return (Path(found.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    models = {"foretell-8b": Stub(reply), "foretell-1b": Stub(lambda request: f"Briefly: {said(request)}")}
    with chatting(models, tmp_path) as server:
        yield server


def steps(tab: Tab, narrow: bool) -> Iterator[str]:
    """Leads the page through what can be seen on it, and names what is seen."""
    page = tab.open()
    yield "welcome"
    for title in TITLES:
        tab.say(title), tab.done()
        page.evaluate("document.querySelector('#new').click()")
        page.get_by_text("What shall we work on?").wait_for()
    page.locator("#file").set_input_files([chart("results.png")])
    page.locator("#pictures li:not(.loading)").wait_for()
    page.fill("#text", "Which group does better, and how sure can I be?")
    yield "attached"
    page.locator("#text").press("Enter")
    page.locator("td", has_text="0.09").wait_for()
    tab.done()
    page.locator(".images img").scroll_into_view_if_needed()
    page.locator(".images img").evaluate("img => img.decode()")
    page.locator("#down").evaluate("down => down.click()")
    yield "answer"
    page.locator(".message.user").last.hover()
    page.get_by_role("button", name="Edit message").last.click()
    yield "editing"
    page.keyboard.press("Escape")
    page.locator("#settings").click()
    page.get_by_label("Socratic tutor").check(force=True)
    yield "settings"
    page.keyboard.press("Escape")
    if narrow:
        page.locator("#show").click()
    yield "list"
    page.get_by_role("button", name="Options of Three days in Lisbon").first.focus()
    page.keyboard.press("Enter")
    page.get_by_role("menu").wait_for()
    yield "menu"
    page.keyboard.press("Escape")
    if narrow:
        page.locator("#hide").click()
    page.keyboard.press("Control+/")
    page.get_by_role("heading", name="Keys", exact=True).wait_for()
    yield "keys"
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+O")
    page.get_by_role("button", name="Compare two models").click()
    tab.say("Which group would you trust?"), tab.done()
    page.get_by_role("button", name="This one is better").first.click()
    page.get_by_role("button", name="Preferred").wait_for()
    yield "pair"


@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_fits_and_axe_finds_nothing_serious(live: Live, screen: str, tmp_path: Path) -> None:
    program = axe()
    with browsing(live.url, reduced_motion="reduce", **SCREENS[screen]) as tab:
        for name in steps(tab, "narrow" in screen):
            over = tab.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, f"{name} on a {screen} screen is {over} pixels too wide"
            tab.page.screenshot(path=tmp_path / f"{screen}-{name}.png")
            tab.page.evaluate(program)
            found = tab.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
            grave = [
                (one["id"], one["impact"], [node["html"][:160] for node in one["nodes"]])
                for one in found
                if one["impact"] in ("serious", "critical")
            ]
            assert not grave, f"{name} on a {screen} screen: {grave}"
        assert not tab.faults
