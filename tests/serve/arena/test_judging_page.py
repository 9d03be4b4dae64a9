"""The judging page: blind, safe from what models write and from other sites, and kept at every press."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from judging import HOSTILE, arena_of, pictured, questions, says
from starlette.testclient import TestClient

from foretell.errors import EvalError, GenerationError
from foretell.evals.arena.folder import Arena
from foretell.evals.arena.people import People, read_people
from foretell.serve.arena.app import Desk, make_app, serve
from foretell.serve.run import listen

HERE = "http://127.0.0.1"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Judge:
    """A person before the page. clock: of the server."""

    def __init__(self, arena: Arena, people: People, name: str = "Ada") -> None:
        self.clock = Clock()
        self.web = TestClient(make_app(Desk(arena, people, self.clock)), base_url=HERE, follow_redirects=False)
        self.path = f"/judge/{quote(name)}"

    def look(self) -> str:
        answer = self.web.get(self.path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def press(self, verdict: str, **more: str) -> int:
        page = self.look()
        battle = re.search(r'name="battle" value="(\d+)"', page)
        form = {"form": token_of(page), "battle": battle[1] if battle else "", "verdict": verdict, **more}
        return self.web.post(self.path, data=form, headers={"origin": HERE}).status_code


def token_of(page: str) -> str:
    found = re.search(r'name="form" value="(\w+)"', page)
    assert found is not None
    return found[1]


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    players = {"secret-a": says("It is **4**."), "secret-b": says(HOSTILE)}
    return arena_of(tmp_path / "a", players, questions(6), says("Check the *sum*. <script>alert(2)</script>"))


@pytest.fixture
def ada(arena: Arena) -> Iterator[Judge]:
    with People(arena) as people:
        yield Judge(arena, people)


def test_a_person_begins_by_name_and_judges_to_the_end(arena: Arena, ada: Judge) -> None:
    entrance = ada.web.get("/").text
    form = {"form": token_of(entrance), "name": " Ada  Lovelace "}
    answer = ada.web.post("/", data=form, headers={"origin": HERE})
    assert answer.status_code == 303 and answer.headers["location"] == "/judge/Ada%20Lovelace"
    for _ in range(6):
        assert ada.press("1") == 303
    assert "nothing is left for you" in ada.look()
    assert ada.press("undo") == 303 and "Request" in ada.look()
    assert len(read_people(arena)) == 5


def test_nothing_on_the_page_tells_who_wrote_what(ada: Judge) -> None:
    for _ in range(6):
        page = ada.look()
        assert "secret" not in page.replace("says-", "") and "What is" in page
        ada.press("0")


def test_critiques_lie_beside_half_of_the_battles_by_name(ada: Judge) -> None:
    seen = []
    for _ in range(6):
        page = ada.look()
        seen.append(page.count('class="critique"'))
        assert ("<em>sum</em>" in page) == (seen[-1] == 2) and ("Critique by" in page) == (seen[-1] == 2)
        ada.press("2")
    assert sorted(seen) == [0, 0, 0, 2, 2, 2]


def test_what_models_wrote_stays_text(ada: Judge) -> None:
    page = ada.look()
    assert page.count("<script") == 1 and 'src="/static/arena.js"' in page
    assert "<img" not in page and "<style" not in page and "&lt;img src=x onerror=" in page and "<svg" not in page
    assert "javascript:" not in re.sub(r">[^<]*<", "", page) and page.count("<form") == 1


def test_the_time_is_the_server_s_and_less_where_the_page_was_hidden(arena: Arena, ada: Judge) -> None:
    ada.look()
    ada.clock.now = 30
    ada.press("1", seen="12.5")
    ada.look()
    ada.clock.now = 50
    ada.press("1", seen="9999")
    ada.look()
    ada.clock.now = 58
    ada.press("1", seen="nonsense")
    assert [one.seconds for one in read_people(arena)] == [12.5, 20, 8]


def test_forged_and_foreign_requests_change_nothing(arena: Arena, ada: Judge) -> None:
    page = ada.look()
    battle = re.search(r'name="battle" value="(\d+)"', page)
    form = {"form": token_of(page), "battle": battle[1] if battle else "", "verdict": "1"}
    evil = {"origin": "https://evil.example"}
    for data, headers in (
        (form, evil),
        (form, {"sec-fetch-site": "cross-site"}),
        (form, {}),
        ({**form, "form": "0" * 64}, {"origin": HERE}),
        ({k: v for k, v in form.items() if k != "form"}, {"origin": HERE}),
    ):
        assert ada.web.post(ada.path, data=data, headers=headers).status_code == 403
    assert ada.web.post(ada.path, json=form, headers={"origin": HERE}).status_code == 403
    assert ada.web.get(ada.path, headers={"host": "evil.example"}).status_code == 421
    assert ada.web.post(ada.path, data={**form, "x": "y" * 70_000}, headers={"origin": HERE}).status_code == 403
    assert not read_people(arena)
    answer = ada.web.post(ada.path, data={**form, "verdict": "9"}, headers={"origin": HERE})
    assert answer.status_code == 400 and "expected 1" in answer.text
    assert ada.web.get(f"/judge/{quote('<b>')}").status_code == 400


def test_headers_bar_scripts_frames_and_caches(ada: Judge) -> None:
    for path in ("/", ada.path, "/static/arena.js", "/static/arena.css", "/static/style.css"):
        answer = ada.web.get(path)
        assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
    assert ada.web.get("/static/..%2Fapp.py").status_code == 404
    cookie = ada.web.get("/", headers={"cookie": ""}).headers.get("set-cookie", "HttpOnly; SameSite=Lax")
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie


def test_pictures_of_the_request_are_shown_and_others_are_not(tmp_path: Path) -> None:
    remote = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    prompts = pictured()
    prompts[0] = type(prompts[0])(
        [{"role": "system", "content": "Be brief."}, *prompts[0].messages, {"role": "user", "content": [remote]}],
        "g", "1",
    )  # fmt: skip
    folder = tmp_path / "b"
    arena = arena_of(folder, {"a": says("1"), "b": says("")}, prompts)
    with People(arena) as people:
        page = Judge(arena, people).look()
    assert page.count("<img") == 1 and 'src="data:image/png;base64,' in page and "example.com" not in page
    assert "System message" in page and "(an empty reply)" in page


def test_what_cannot_be_served_is_said(tmp_path: Path, arena: Arena) -> None:
    same = arena_of(tmp_path / "c", {"a": says("x"), "b": says(" x ")}, questions(2))
    with pytest.raises(EvalError, match="no battle to judge"):
        serve(same.folder, 0, False)
    with pytest.raises(EvalError, match="is no arena"):
        serve(tmp_path, 0, False)
    with People(arena), pytest.raises(EvalError, match="open in another process"):
        serve(arena.folder, 0, False)
    with listen("127.0.0.1", 0) as taken, pytest.raises(GenerationError, match="port"):
        serve(arena.folder, taken.getsockname()[1], False)
