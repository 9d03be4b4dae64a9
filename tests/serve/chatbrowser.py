"""A browser before the chat page: tabs that note every complaint, and the steps that tests take in them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from foretell.generate import Request

PROGRAM = Path("/usr/bin/chromium")
SCREENS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "narrow-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
slow_browser = [pytest.mark.slow, pytest.mark.skipif(not PROGRAM.exists(), reason="Chromium is not installed")]
_WATCH = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def said(request: Request) -> str:
    """The last message's text."""
    return str(request.prompt.messages[-1].text)  # type: ignore[union-attr]


def chart(name: str) -> dict[str, Any]:
    """A picture of bars, as a file that is picked."""
    picture = Image.new("RGB", (640, 420), "#fbfbf7")
    pen = ImageDraw.Draw(picture)
    for i, height in enumerate((90, 160, 240, 310, 200)):
        pen.rectangle((60 + i * 110, 380 - height, 130 + i * 110, 380), fill="#b2460a" if i == 3 else "#0b5b9d")
    pen.line((40, 380, 610, 380), fill="#333333", width=2)
    data = BytesIO()
    picture.save(data, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": data.getvalue()}


class Tab:
    """One page of a context of its own, or of another tab's. faults: what the browser complained of, and requests that
    left the server."""

    def __init__(self, context: Any, url: str, faults: list[str]) -> None:
        self.context, self.url, self.faults = context, url, faults
        self.page = context.new_page()
        self.page.on("console", lambda message: self._note(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self._note(str(error)))
        self.page.on("dialog", lambda dialog: (self._note(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.page.on("request", lambda request: self._outside(request.url))

    def _note(self, text: str) -> None:
        self.faults.append(text)

    def _outside(self, address: str) -> None:
        if not address.startswith((self.url, "data:", f"blob:{self.url}")):
            self._note(f"request to {address}")

    def open(self, path: str = "/") -> Any:
        self.page.goto(path)
        return self.ready()

    def ready(self) -> Any:
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def another(self, url: str) -> Tab:
        """A second tab of the same browser."""
        found = Tab(self.context, self.url, self.faults)
        found.open(url)
        return found

    def stranger(self) -> Tab:
        """A tab of another person, with cookies of their own."""
        return Tab(_context(self.context.browser, self.url, {}), self.url, self.faults)

    def say(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.locator("#text").press("Enter")
        self.page.locator(".said", has_text=text).last.wait_for()

    def done(self) -> None:
        """Wait until no reply is being written."""
        self.page.wait_for_selector(
            "html:has(.message.assistant):not(:has([data-status=streaming])):not(:has(#send.stop))"
        )

    def see(self, found: Any, count: int) -> None:
        """Wait until so many are there."""
        from playwright.sync_api import expect

        expect(found).to_have_count(count, timeout=20_000)

    def choose(self, title: str, what: str) -> None:
        """From the menu of a conversation in the list."""
        link = self.page.locator("#list a", has_text=title).first
        link.hover()
        self.page.get_by_role("button", name=f"Options of {title}").first.click()
        self.page.get_by_role("menuitem", name=what).click()

    def bring(self, export: object, folder: Path) -> None:
        """Import conversations."""
        path = folder / "export.json"
        path.write_text(json.dumps(export))
        self.page.locator("#menu").click()
        with self.page.expect_file_chooser() as chooser:
            self.page.get_by_role("menuitem", name="Import conversations").click()
        chooser.value.set_files(path)
        self.page.get_by_role("heading", name="Import").wait_for()
        self.page.keyboard.press("Escape")

    def paste_image(self) -> None:
        self._transfer("pasted.png", "document.querySelector('#text')", "ClipboardEvent", "paste", "clipboardData")

    def drop_image(self, name: str) -> None:
        self._transfer(name, "document.querySelector('#thread')", "DragEvent", "drop", "dataTransfer")

    def _transfer(self, name: str, target: str, kind: str, event: str, field: str) -> None:
        data = list(chart(name)["buffer"])
        self.page.evaluate(
            f"""([name, data]) => {{
              const held = new DataTransfer();
              held.items.add(new File([new Uint8Array(data)], name, {{ type: "image/png" }}));
              {target}.dispatchEvent(new {kind}("{event}", {{ {field}: held, bubbles: true, cancelable: true }}));
            }}""",
            [name, data],
        )


@contextmanager
def browsing(url: str, **options: Any) -> Iterator[Tab]:
    """A tab of Debian's Chromium, of a person of their own."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(PROGRAM), args=["--no-sandbox"])
        try:
            yield Tab(_context(browser, url, options), url, [])
        finally:
            browser.close()


def _context(browser: Any, url: str, options: Mapping[str, Any]) -> Any:
    context = browser.new_context(base_url=url, **{**SCREENS["wide"], **options})
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    context.set_default_timeout(20_000)
    context.add_init_script(_WATCH)
    return context
