"""The chat page's size and speed: until it can be used, with 500 messages, while it is typed into, in a stream.

    python benchmarks/chat_page.py [--rounds 5]

A server with a scripted model on loopback, Debian's Chromium without a window before it, each round in a fresh browser
profile. size: every byte of the first load. interactive: from the beginning of the navigation until the message box
takes text and the conversations stand in the list. open: from the click on a conversation of 500 messages until its
end is painted. typing: script, style and layout that one key costs in that conversation, 95th percentile of 200 keys.
stream: 200 tokens a second for 10 s, Markdown with code and a table; the longest time between two frames. xss: hostile
texts, each said and repeated in pieces that fall inside its tags; those are counted after which nothing ran, nothing
was asked of another address, and the browser told of no breach of the policy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import ROOT, figure, write_result
from foretell.generate import Request, Result, Usage
from foretell.loading import Model
from foretell.serve.setup import build

sys.path.append(str(ROOT / "tests" / "serve"))
from attacks import ATTACKS

RATE, SECONDS, TURNS, KEYS = 200, 10, 250, 200
PASSAGE = """## A passage of the kind that models write

A *mean* hides the **spread**, so look at both; see [the docs](https://example.org/docs) and `statistics.stdev`.

1. Draw the points, not only the bar.
2. Say how many there were, and $\\sigma / \\sqrt{n}$.

```python
def summary(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, stdev(values) / len(values) ** 0.5
```

| group | n | mean |
|-------|--:|-----:|
| a     | 12 | 3.41 |
| b     | 15 | 3.97 |

"""
READY = """
addEventListener("DOMContentLoaded", () => new MutationObserver(() => {
  if ("ready" in document.documentElement.dataset && !window.readyAt) window.readyAt = performance.now();
}).observe(document.documentElement, { attributes: true }));
"""
# Until the newest part of it, 60 messages, stands on the page, and a frame later, when it is painted.
OPEN = """(title) => new Promise((resolve) => {
  const link = [...document.querySelectorAll("#list a")].find((one) => one.textContent === title);
  const began = performance.now();
  const look = () => document.querySelectorAll("#thread .message").length >= 60
    ? requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)))
    : requestAnimationFrame(look);
  link.click();
  look();
})"""
TYPING = """() => {
  window.keys = [];
  let began = 0;
  addEventListener("keydown", () => (began = performance.now()), true);
  document.querySelector("#text").addEventListener("input", () => {
    document.querySelector("#scroll").getBoundingClientRect();  // style and layout are done now, not in the frame
    window.keys.push(performance.now() - began);
  });
}"""
FRAMES = """() => {
  window.gaps = [];
  let last = performance.now();
  const frame = (now) => {
    window.gaps.push(now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""


ATTACKED = """
window.breaches = [];
addEventListener("securitypolicyviolation", (event) => window.breaches.push(event.violatedDirective));
for (const name of ["alert", "confirm", "prompt"]) window[name] = () => window.breaches.push(name);
"""


class Talker:
    """Says the passage over and over, a word at a time, at the pace of `RATE`; repeats a hostile text in pieces."""

    can_score = False

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        text = str(requests[0].prompt.messages[-1].text)  # type: ignore[union-attr]
        if not text.startswith("The quick"):
            for at in range(0, len(text), 3):
                yield Result(text[at : at + 3], (at,), None, None, (), 0, 0, True)
                await asyncio.sleep(0.001)
            yield Result(text, (), "stop", Usage(8, len(text)), (), 0, 0)
            return
        pieces = [piece for line in PASSAGE.splitlines(keepends=True) for piece in line.split(" ") if piece]
        loop = asyncio.get_running_loop()
        began, said = loop.time(), list[str]()
        for at in range(RATE * SECONDS):
            piece = pieces[at % len(pieces)]
            said.append(piece if piece.endswith("\n") else f"{piece} ")
            yield Result(said[-1], (at,), None, None, (), 0, 0, True)
            await asyncio.sleep(max(began + at / RATE - loop.time(), 0))
        yield Result("".join(said), (), "stop", Usage(8, len(said)), (), 0, 0)

    def close(self) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    ready, urls = threading.Event(), list[str]()

    def started(url: str) -> None:
        urls.append(url)
        ready.set()

    process = build(
        {"demo": "demo"}, lambda ref: Model(Talker(), Path(ref)), aliases={}, adapters={}, key=None, upstream=None,
        upstream_key=None, max_waiting=64, host="127.0.0.1", port=0, drain_seconds=1.0, started=started,
        chats=str(folder / "chats.db"),
    )  # fmt: skip
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        ready.wait(60)
        yield urls[0]
    finally:
        process.handle_exit(15, None)
        thread.join(30)


def long_conversation() -> list[dict[str, Any]]:
    """500 messages in the form of ChatGPT's export."""
    mapping: dict[str, Any] = {"root": {"id": "root", "message": None, "parent": None, "children": ["q0"]}}
    for k in range(TURNS):
        for id, parent, role, text, below in (
            (f"q{k}", f"a{k - 1}" if k else "root", "user", f"Question {k}: what then?", [f"a{k}"]),
            (f"a{k}", f"q{k}", "assistant", PASSAGE, [f"q{k + 1}"] if k + 1 < TURNS else []),
        ):
            content = {"content_type": "text", "parts": [text]}
            message = {"id": id, "author": {"role": role}, "create_time": 1.7e9 + k, "content": content}
            mapping[id] = {"id": id, "message": message, "parent": parent, "children": below}
    made = {"title": "Five hundred", "create_time": 1.7e9, "update_time": 1.7e9 + TURNS, "id": "long"}
    return [{**made, "mapping": mapping, "current_node": f"a{TURNS - 1}"}]


def bring(page: Any, folder: Path) -> None:
    path = folder / "export.json"
    path.write_text(json.dumps(long_conversation()))
    page.goto("/")
    page.wait_for_selector("html[data-ready]")
    page.click("#menu")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("menuitem", name="Import conversations").click()
    chooser.value.set_files(path)
    page.get_by_role("link", name="Five hundred").wait_for()


def size(browser: Any, url: str) -> int:
    """Bytes of the page, its styles and scripts, as they travel."""
    context = browser.new_context(base_url=url)
    page, whole = context.new_page(), list[int]()

    def count(response: Any) -> None:
        if "/chat/static/" in response.url or response.url == f"{url}/":
            whole.append(len(response.body()))

    page.on("response", count)
    page.goto("/")
    page.wait_for_selector("html[data-ready]")
    page.wait_for_load_state("networkidle")
    context.close()
    return sum(whole)


def measure(browser: Any, url: str) -> dict[str, float]:
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})
    context.add_init_script(READY)
    page = context.new_page()
    page.goto("/")
    page.wait_for_selector("html[data-ready]")
    found = {"interactive": page.evaluate("readyAt")}
    found["open"] = page.evaluate(OPEN, "Five hundred")
    page.evaluate(TYPING)
    page.focus("#text")
    page.keyboard.type(("The quick brown fox jumps over the lazy dog. " * 5)[:KEYS])
    keys = page.evaluate("keys")
    found["typing"] = statistics.quantiles(keys, n=20)[-1]
    page.evaluate(FRAMES)
    page.locator("#text").press("Enter")
    page.locator("#send.stop").wait_for()
    page.wait_for_selector("html:not(:has([data-status=streaming])):not(:has(#send.stop))", timeout=60_000)
    gaps = page.evaluate("gaps")
    found["gap"], found["frames"] = max(gaps), len(gaps)
    context.close()
    return found


def withstood(browser: Any, url: str) -> int:
    """How many of the hostile texts do nothing."""
    context = browser.new_context(base_url=url)
    context.add_init_script(ATTACKED)
    page, outside, count = context.new_page(), list[str](), 0
    page.on("request", lambda request: request.url.startswith((url, "data:", "blob:")) or outside.append(request.url))
    for attack in ATTACKS:
        page.goto("/")
        page.wait_for_selector("html[data-ready]")
        page.fill("#text", attack)
        page.locator("#text").press("Enter")
        page.wait_for_selector("html:has(.message.assistant):not(:has([data-status=streaming])):not(:has(#send.stop))")
        count += not page.evaluate("breaches") and not outside
        outside.clear()
    context.close()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    rounds = list[dict[str, float]]()
    with tempfile.TemporaryDirectory() as name, served(Path(name)) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium, args=["--no-sandbox"])
        bring(browser.new_context(base_url=url).new_page(), Path(name))
        whole = size(browser, url)
        for _ in range(options.rounds):
            rounds.append(measure(browser, url))
            print({key: round(value, 1) for key, value in rounds[-1].items()}, flush=True)
        harmless = withstood(browser, url)
        browser.close()

    def over(key: str) -> list[float]:
        return [found[key] for found in rounds]

    figures = {
        "page_kb": figure(whole / 1000, "kB", 150),
        "interactive_ms": figure(over("interactive"), "ms", 1000),
        "open_500_ms": figure(over("open"), "ms", 500),
        "typing_p95_ms": figure(over("typing"), "ms a key, script, style and layout, in a conversation of 500", 16),
        "stream_longest_gap_ms": figure(
            over("gap"), f"ms between two frames, {RATE} tokens a second, {SECONDS} s", 100
        ),
        "xss_payloads": figure(harmless, f"hostile texts that did nothing, of {len(ATTACKS)}", 60),
    }
    print(write_result("chat_page", f"python benchmarks/chat_page.py --rounds {options.rounds}", figures))


if __name__ == "__main__":
    main()
