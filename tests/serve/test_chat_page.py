"""The chat page in a real browser, before a real server: what people do there, with what the browser complains of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chatbrowser import Tab, browsing, chart, said, slow_browser
from chatserver import chatting
from servekit import Live, Stub

pytestmark = slow_browser
REPLY = """A **mean** hides the spread.

```python
def mean(values):
    return sum(values) / len(values)
```

| group | n |
|-------|--:|
| a     | 12 |

The error is $\\pm 0.1$."""


def reply(request: Any) -> str:
    text = said(request)
    return REPLY if "chart" in text else f"You said: {text}"


@pytest.fixture
def stub() -> Stub:
    return Stub(reply)


@pytest.fixture
def live(stub: Stub, tmp_path: Path) -> Iterator[Live]:
    with chatting({"demo": stub, "other": Stub(lambda request: f"Other: {said(request)}")}, tmp_path) as server:
        yield server


@pytest.fixture
def tab(live: Live) -> Iterator[Tab]:
    with browsing(live.url) as opened:
        yield opened
        assert not opened.faults


def test_images_are_attached_three_ways_and_read(tab: Tab, stub: Stub) -> None:
    page = tab.open()
    page.locator("#file").set_input_files([chart("sales.png"), chart("costs.png")])
    tab.paste_image(), tab.drop_image("dropped.png")
    previews = page.locator("#pictures li:not(.loading)")
    tab.see(previews, 4)
    assert "tile" in previews.first.inner_text() and "tokens" in previews.first.inner_text()
    page.get_by_role("button", name="Remove costs.png").click()
    tab.see(previews, 3)
    tab.say("What does this chart show?")
    tab.done()
    assert len(stub.seen[-1].prompt.images) == 3
    assert page.locator(".message.user .images img").count() == 3
    answer = page.locator(".message.assistant")
    assert answer.locator("strong").inner_text() == "mean" and "$\\pm 0.1$" in answer.inner_text()
    assert answer.locator("td.right").inner_text() == "12"
    answer.get_by_role("button", name="Copy code").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.rstrip() == "def mean(values):\n    return sum(values) / len(values)"
    answer.get_by_role("button", name="Copy answer").click()
    assert page.evaluate("navigator.clipboard.readText()") == REPLY
    page.get_by_role("button", name="Show sales.png large").click()
    assert page.locator("dialog img").evaluate("img => img.decode().then(() => img.naturalWidth)") == 640
    page.keyboard.press("Escape")
    page.reload()
    assert tab.ready().locator(".message.user .images img").count() == 3
    assert page.title().startswith("What does this chart show?")


def test_a_reply_is_stopped_and_what_came_is_kept(tab: Tab, live: Live, stub: Stub) -> None:
    page = tab.open()
    for way in ("button", "key"):
        tab.say(f"wait here, {way}")
        page.locator(".message.assistant").last.get_by_text("You").wait_for()
        if way == "button":
            page.get_by_role("button", name="Stop", exact=True).click()
        else:
            page.keyboard.press("Escape")
        tab.done()
        last = page.locator(".message.assistant").last
        assert last.get_attribute("data-status") == "stopped" and "Stopped" in last.inner_text()
    page.reload()
    assert "You" in tab.ready().locator(".message.assistant .blocks").last.inner_text()
    assert stub.closed == 2


def test_answers_and_messages_have_versions(tab: Tab) -> None:
    page = tab.open()
    tab.say("first words"), tab.done()
    tab.say("then more"), tab.done()
    page.get_by_role("button", name="Answer again").last.click()
    page.get_by_text("2/2").wait_for()
    page.get_by_text("Better or worse than the answer before?").wait_for()
    page.get_by_role("button", name="Better", exact=True).click()
    page.get_by_text("Thank you, that is kept.").wait_for()
    page.get_by_role("button", name="Earlier answer").click()
    page.get_by_text("1/2").wait_for()

    first = page.locator(".message.user").first
    first.hover()
    first.get_by_role("button", name="Edit message").click()
    box = page.get_by_role("textbox", name="Edit message")
    assert box.input_value() == "first words"
    box.fill("other words")
    page.keyboard.press("Enter")
    page.locator(".said", has_text="other words").wait_for()
    tab.done()
    assert page.locator(".message").count() == 2
    assert page.locator(".said").all_inner_texts() == ["other words"]
    page.get_by_role("button", name="Earlier version").click()
    page.get_by_text("then more", exact=True).wait_for()
    assert page.locator(".said").all_inner_texts() == ["first words", "then more"]
    page.reload()
    assert tab.ready().locator(".said").all_inner_texts() == ["first words", "then more"]


def test_a_reload_in_mid_stream_goes_on(tab: Tab, live: Live, stub: Stub) -> None:
    page = tab.open()
    tab.say("wait for the end")
    page.locator(".message.assistant").get_by_text("You").wait_for()
    page.reload()
    tab.ready()
    page.locator('.message.assistant[data-status="streaming"]').get_by_text("You").wait_for()
    assert page.get_by_role("button", name="Stop", exact=True).is_visible()
    live.on_loop(stub.release.set)
    tab.done()
    assert page.locator(".message.assistant .blocks").inner_text() == "You said: wait for the end"


def test_offline_and_back(tab: Tab, live: Live, stub: Stub) -> None:
    page = tab.open()
    tab.say("wait for the end")
    page.locator(".message.assistant").get_by_text("You").wait_for()
    page.context.set_offline(True)
    page.get_by_text("You are offline").wait_for()
    page.fill("#text", "written while away")
    live.on_loop(stub.release.set)
    page.context.set_offline(False)
    tab.done()
    page.locator("#banner").wait_for(state="hidden")
    assert page.locator(".message.assistant .blocks").inner_text() == "You said: wait for the end"
    page.context.set_offline(True)
    page.keyboard.press("Enter")
    page.locator("#wrong").get_by_text("cannot be reached").wait_for()
    assert page.input_value("#text") == "written while away"
    page.context.set_offline(False)
    page.locator("#text").press("Enter")
    page.locator(".said", has_text="written while away").wait_for()
    tab.done()
    assert page.locator(".said").all_inner_texts() == ["wait for the end", "written while away"]
    tab.faults = [fault for fault in tab.faults if "ERR_INTERNET_DISCONNECTED" not in fault]


def test_a_draft_survives_a_reload(tab: Tab) -> None:
    page = tab.open()
    page.fill("#text", "not sent yet")
    page.reload()
    assert tab.ready().input_value("#text") == "not sent yet"


def test_two_tabs_show_the_same(tab: Tab, live: Live, stub: Stub) -> None:
    page = tab.open()
    tab.say("from the first"), tab.done()
    other = tab.another(page.url)
    other.say("wait in the second")
    page.locator('.message.assistant[data-status="streaming"]').get_by_text("You").wait_for()
    live.on_loop(stub.release.set)
    tab.done(), other.done()
    assert (
        page.locator(".message .blocks").all_inner_texts() == other.page.locator(".message .blocks").all_inner_texts()
    )
    other.choose("from the first", "Rename")
    other.page.get_by_label("Title").fill("A better name")
    other.page.keyboard.press("Enter")
    page.get_by_role("link", name="A better name").wait_for()
    other.choose("A better name", "Delete")
    other.page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("What shall we work on?").wait_for()
    assert page.url == f"{live.url}/"


def test_the_list_is_searched_renamed_exported_deleted_and_imported(tab: Tab, tmp_path: Path) -> None:
    page = tab.open()
    for text in ("about whales", "about gravel"):
        page.get_by_role("button", name="New chat").first.click()
        tab.say(text), tab.done()
    links = page.locator("#list a")
    tab.see(links, 2)
    page.get_by_label("Search conversations").fill("whales")
    tab.see(links, 1)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.locator(".said", has_text="about whales").wait_for()
    page.get_by_label("Search conversations").fill("")
    tab.see(links, 2)
    for name, ending in (("Export as Markdown", ".md"), ("Export as JSON", ".json")):
        with page.expect_download() as download:
            tab.choose("about whales", name)
        assert download.value.suggested_filename.endswith(ending)
        kept = tmp_path / f"kept{ending}"
        download.value.save_as(kept)
        assert "You said: about whales" in kept.read_text()
    tab.choose("about gravel", "Delete")
    page.get_by_role("button", name="Cancel").click()
    tab.choose("about whales", "Delete")
    page.get_by_role("button", name="Delete", exact=True).click()
    tab.see(links, 1)
    page.get_by_text("What shall we work on?").wait_for()
    page.locator("#menu").click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("menuitem", name="Import conversations").click()
    chooser.value.set_files(tmp_path / "kept.json")
    page.get_by_text("1 imported.").wait_for()
    page.keyboard.press("Escape")
    tab.see(links, 2)


def test_settings_reach_the_model(tab: Tab, stub: Stub) -> None:
    page = tab.open()
    page.locator("#settings").click()
    page.get_by_label("Socratic tutor").check(force=True)
    assert "Socratic" in page.get_by_role("textbox", name="System message").input_value()
    page.get_by_label("Leave it to the model").uncheck()
    page.get_by_role("slider", name="Temperature").fill("0.3")
    page.get_by_role("button", name="Save").click()
    assert page.locator("#persona").inner_text() == "Socratic tutor · Temperature 0.3"
    tab.say("Why?"), tab.done()
    seen = stub.seen[-1]
    assert seen.prompt.messages[0].role == "system" and "Socratic" in seen.prompt.messages[0].text
    assert seen.sampling.temperature == pytest.approx(0.3)
    page.locator("#model").select_option("other")
    tab.say("And now?"), tab.done()
    assert page.locator(".message.assistant .blocks").last.inner_text() == "Other: And now?"
    page.reload()
    assert tab.ready().locator("#model").input_value() == "other"
    assert page.locator("#persona").inner_text() == "Socratic tutor · Temperature 0.3"


def test_two_models_side_by_side(tab: Tab) -> None:
    page = tab.open()
    page.get_by_role("button", name="Compare two models").click()
    tab.say("Which is it?"), tab.done()
    pair = page.locator(".pair .message")
    assert pair.locator(".blocks").all_inner_texts() == ["You said: Which is it?", "Other: Which is it?"]
    assert pair.locator(".by").all_inner_texts() == ["demo", "other"]
    pair.last.get_by_role("button", name="This one is better").click()
    pair.last.get_by_role("button", name="Preferred").wait_for()
    pair.first.get_by_role("button", name="Answer again").click()
    tab.done()
    pair.first.get_by_text("2/2").wait_for()
    tab.say("And then?"), tab.done()
    page.reload()
    tab.ready()
    assert page.locator(".pair").count() == 2
    assert page.locator(".pair").first.get_by_role("button", name="Preferred").count() == 1


def test_answers_are_rated(tab: Tab) -> None:
    page = tab.open()
    tab.say("rate this"), tab.done()
    good, bad = (page.get_by_role("button", name=name) for name in ("Good answer", "Bad answer"))
    good.click()
    page.locator('[data-act="good"][aria-pressed="true"]').wait_for()
    bad.click()
    page.get_by_label("What was wrong", exact=True).fill("It only repeats.")
    page.get_by_role("button", name="Send", exact=True).last.click()
    page.reload()
    tab.ready()
    assert page.locator('[data-act="bad"]').get_attribute("aria-pressed") == "true"
    assert page.locator('[data-act="good"]').get_attribute("aria-pressed") == "false"


def test_keys_are_enough(tab: Tab) -> None:
    page = tab.open()
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    page.keyboard.press("Enter")
    tab.done()
    assert page.locator(".said").inner_text() == "one\ntwo"
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.ariaLabel") == "Edit message"
    page.keyboard.press("Escape")
    page.keyboard.press("Control+k")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("F2")
    page.keyboard.type("By keys")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="By keys").wait_for()
    page.keyboard.press("Shift+Escape")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.press("Control+/")
    page.get_by_role("heading", name="Keys", exact=True).wait_for()
    page.keyboard.press("Escape")
    page.keyboard.press("Control+Shift+O")
    page.get_by_text("What shall we work on?").wait_for()
    # The menu at a conversation is reached, walked and left by keys alone.
    page.keyboard.press("Control+k")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("menu").wait_for()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.textContent") == "Export as Markdown"
    page.keyboard.press("Escape")
    page.get_by_role("menu").wait_for(state="detached")
    assert "Options of By keys" in page.evaluate("document.activeElement.ariaLabel")
    assert page.locator("#live").get_attribute("aria-live") == "polite"


def test_what_is_not_there_is_told(tab: Tab) -> None:
    page = tab.open("/c/conv_nobody")
    page.get_by_role("heading", name="Nothing here").wait_for()
    page.get_by_role("button", name="New chat").last.click()
    page.get_by_text("What shall we work on?").wait_for()
    tab.faults = [fault for fault in tab.faults if "404" not in fault]


def test_a_long_conversation_stands_in_parts(tab: Tab, tmp_path: Path) -> None:
    page = tab.open()
    tab.bring(long_conversation(250), tmp_path)
    page.get_by_role("link", name="Long").click()
    page.get_by_text("Answer 249").wait_for()
    assert page.locator(".message").count() == 60
    at_end = "s => s.scrollHeight - s.scrollTop - s.clientHeight"
    scroller = page.locator("#scroll")
    assert scroller.evaluate(at_end) < 2
    for wanted in (120, 180):
        scroller.evaluate("s => s.scrollTop = 300")
        top = page.locator(".message").first.get_attribute("data-id")
        tab.see(page.locator(".message"), wanted)
        # What was read stays where it was.
        box, within = page.locator(f'[data-id="{top}"]').bounding_box(), scroller.bounding_box()
        assert box and within and -400 < box["y"] - within["y"] < 100
    tab.say("one more"), tab.done()
    assert scroller.evaluate(at_end) < 2
    assert page.locator(".message").count() <= 180


def long_conversation(turns: int) -> list[dict[str, Any]]:
    """One of ChatGPT's exports."""
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": ["q0"]}}
    for k in range(turns):
        for id, parent, role, text, below in (
            (f"q{k}", f"a{k - 1}" if k else "root", "user", f"Question {k}", [f"a{k}"]),
            (f"a{k}", f"q{k}", "assistant", f"Answer {k}", [f"q{k + 1}"] if k + 1 < turns else []),
        ):
            message = {
                "id": id, "author": {"role": role}, "create_time": 1_700_000_000.0 + k,
                "content": {"content_type": "text", "parts": [text]},
            }  # fmt: skip
            mapping[id] = {"id": id, "message": message, "parent": parent, "children": below}
    made = {"title": "Long", "create_time": 1_700_000_000.0, "update_time": 1_700_000_900.0}
    return json.loads(json.dumps([{**made, "mapping": mapping, "current_node": f"a{turns - 1}", "id": "long"}]))
