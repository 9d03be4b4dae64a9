"""The export of the viewer: every sample is in it, as text, and nothing of others is overwritten."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from viewerkit import HOSTILE, PIXEL, is_harmless, match, write

from foretell.errors import EvalError
from foretell.evals.viewer import export
from foretell.evals.viewer.export import bundle
from foretell.evals.viewer.server import PACKAGE
from foretell.pages.documents import static_files


def read(folder: Path, name: str) -> Any:
    """What a data script hands over, by the grammar of a script's string literal."""
    text = (folder / "data" / f"{name}.js").read_bytes().decode()
    found = re.fullmatch(r"""foretell\("([\w/-]+)",'((?:[^'\\\n\r]|\\['\\])*)'\);\n""", text)
    assert found and found[1] == name
    return json.loads(re.sub(r"\\(['\\])", r"\1", found[2]))


def test_every_sample_is_in_an_export(tmp_path: Path) -> None:
    texts = [HOSTILE[i % len(HOSTILE)] * (i % 3 + 1) for i in range(230)]
    write(tmp_path / "logs" / "r.jsonl", [match(i % 2 == 0, text, text, text) for i, text in enumerate(texts)])
    write(tmp_path / "logs" / "s.jsonl", [match(True) for _ in texts])
    out = tmp_path / "out"
    export(tmp_path / "logs", out)
    assert [run["key"] for run in read(out, "runs")] == ["s", "r"]
    head = read(out, "r/head")
    assert head["count"] == 230 and len(head["starts"]) == 3 and read(out, "r/rows-2")[-1][1]
    samples = [events for chunk in range(3) for events in read(out, f"r/samples-{chunk}")]
    said = [events[0]["data"]["sampled"][0] for events in samples]
    assert said == [text.replace("\ud800", "\ufffd") for text in texts]
    assert read(out, "compare-r-s")["estimate"] == 0.5 == -read(out, "compare-s-r")["estimate"]
    for page in out.glob("*.html"):
        is_harmless(page.read_text())
        assert "connect-src 'none'" in page.read_text()


def test_pictures_become_files_once(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]
    odd = f'say "{PIXEL}" and \\"{PIXEL}'
    write(tmp_path / "logs" / "r.jsonl", [match(True, asked), match(True, asked), match(True, odd)])
    export(tmp_path / "logs", tmp_path / "out")
    (file,) = (tmp_path / "out" / "images").iterdir()
    assert file.read_bytes() == base64.b64decode(PIXEL.partition(",")[2])
    samples = read(tmp_path / "out", "r/samples-0")
    (part,) = samples[0][0]["data"]["prompt"][0]["content"]
    assert part["image_url"]["url"] == f"images/{file.name}"
    assert samples[2][0]["data"]["prompt"] == odd


def test_an_export_takes_the_place_of_an_export_alone(tmp_path: Path) -> None:
    logs, out = tmp_path / "logs", tmp_path / "out"
    logs.mkdir()
    with pytest.raises(EvalError, match="no finished run"):
        export(logs, out)
    write(logs / "r.jsonl", [match(True)])
    export(logs, out)
    (out / "old").touch()
    export(logs, out)
    assert not (out / "old").exists() and (out / "index.html").exists()
    for taken in (tmp_path, logs, logs / "r.jsonl"):
        with pytest.raises(EvalError, match="something else"):
            export(logs, taken)
    assert (logs / "r.jsonl").exists()


def test_a_log_that_was_changed_afterwards_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "logs" / "r.jsonl", [match(True), match(True)])
    text = path.read_bytes()
    path.write_bytes(text.replace(b'"sampling"', b'"sam\n'))
    with pytest.raises(EvalError, match=r"r\.jsonl is not as its index says"):
        export(tmp_path / "logs", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_bundle_is_every_module_as_one_script(tmp_path: Path) -> None:
    files = static_files(PACKAGE)
    text = bundle(files)
    assert not re.search(r"^(import|export)\b", text, re.MULTILINE)
    made = re.findall(r"^modules\.(\w+) = ", text, re.MULTILINE)
    assert sorted(made) == sorted(name[:-3] for name in files if name.endswith(".js"))
    for at, name in enumerate(made):  # what a module takes from another one is there before it, and given by it
        source = text.split(f"modules.{name} = ")[1].split("\n})();")[0]
        for names, other in re.findall(r"^const \{ (.+) \} = modules\.(\w+);", source, re.MULTILINE):
            given = text.split(f"modules.{other} = ")[1].split("\n})();")[0].rsplit("return { ", 1)[1]
            assert other in made[:at]
            assert {part.split(":")[0].strip() for part in names.split(",")} <= set(re.findall(r"\w+", given))
    node = shutil.which("node")
    if node:
        (tmp_path / "viewer.js").write_text(text)
        subprocess.run([node, "--check", tmp_path / "viewer.js"], check=True)


SCRIPT = """
import { chosen, choiceOf, queryOf } from "./choose.js";
import { search, termsOf, verdict } from "./store.js";
const scores = Float64Array.from([0, 1, NaN, 1, 0]);
const run = { count: 5, scores, invalid: Uint8Array.from([0, 0, 1, 0, 0]), binary: true, key: "r", id: (i) => `s.${i}`,
  rank: (i) => [9, 10, 1, 2, 3][i], choices: { names: ["A", "__invalid__"], codes: [0, 1, -1, 0, -1] } };
const keep = (query, mask) => chosen(run, choiceOf(query), mask);
globalThis.document = { body: { dataset: { live: "yes" } } };
const asked = [];
const reply = () => ({ hits: [asked.length], next: asked.length * 3 });
globalThis.fetch = async (url) => { asked.push(url); return { ok: true, json: async () => reply() }; };
const told = [];
await search(run, termsOf('a&b "two words"'), (hits, next) => { told.push([hits, next]); });
console.log(JSON.stringify([
  keep("f=right"), keep("f=wrong"), keep("f=invalid"), keep("c=A"), keep("lo=0.5"),
  keep("s=id"), keep("s=down"), keep("s=up"),
  keep("", Uint8Array.from([0, 1, 0, 0, 1])), queryOf(choiceOf("f=wrong&q=%3Cb%3E&x=1")),
  [0, 1, 2, 3, 4].map((i) => verdict(run, i)[0]), told, asked,
]));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="no node to run the page's scripts")
def test_the_pages_scripts_choose_samples(tmp_path: Path) -> None:
    for name, text in static_files(PACKAGE).items():
        (tmp_path / name).write_bytes(text)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "try.js").write_text(SCRIPT)
    out = subprocess.run(["node", "try.js"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    right, wrong, invalid, choice, ranged, by_id, down, up, masked, query, words, told, asked = json.loads(out)
    assert (right, wrong, invalid, choice, ranged) == ([1, 3], [0, 4], [2], [0, 3], [1, 3])
    assert (by_id, down, up, masked) == ([2, 3, 4, 0, 1], [1, 3, 0, 4, 2], [0, 4, 1, 3, 2], [1, 4])
    assert query == "?f=wrong&q=%3Cb%3E"
    assert words == ["A · 0", "no choice", "invalid", "A · 1", "wrong"]
    assert told == [[[1], 3], [[2], 6]]
    assert asked[1] == "data/r/search.json?from=3&t=a%26b&t=two%20words"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser")
def test_hostile_texts_do_nothing_in_a_browser(tmp_path: Path) -> None:
    act = "document.documentElement.dataset.owned=1"
    texts = [f"<script>{act}</script>", f'"><img src=x onerror="{act}">', f"<svg onload={act}>", f"javascript:{act}"]
    asked = [
        {"role": text, "name": text, text: text, "content": [{"type": "image_url", "image_url": {"url": text}}, text]}
        for text in texts
    ]
    write(tmp_path / "logs" / "r.jsonl", [match(True, asked, text, texts) for text in texts], completion_fns=texts)
    export(tmp_path / "logs", tmp_path / "out")
    for place in ("index.html", "view.html#/run/r", "view.html#/run/r/1"):
        address = (tmp_path / "out").as_uri() + "/" + place
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
        told = subprocess.run(["chromium", *options, address], check=True, capture_output=True, text=True, timeout=300)
        assert "data-owned" not in told.stdout.partition(">")[0] + told.stdout.partition("<html")[2].partition(">")[0]
        assert "&lt;script&gt;document" in told.stdout  # it is there, as text
