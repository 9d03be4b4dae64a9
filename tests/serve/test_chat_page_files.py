"""What the chat page is made of: small, without anything inline, without anything from elsewhere."""

from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from foretell.serve.chats.page import FILES, POLICY, chat_page, serve_file

MOST = 150_000  # bytes


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=[Route(FILES, serve_file)]))


def addresses(page: str) -> list[str]:
    return sorted(set(re.findall(r'(?:src|href)="(/chat/static/[^"]+)"', page)))


def test_the_whole_page_is_small_and_its_files_are_kept_for_good(client: TestClient) -> None:
    page = str(chat_page(token="secret"))
    whole = len(page.encode())
    for address in addresses(page):
        answer = client.get(address)
        assert answer.status_code == 200 and "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        whole += len(answer.content)
    assert whole <= MOST


def test_every_module_that_is_imported_is_there(client: TestClient) -> None:
    found = addresses(str(chat_page(token="secret")))
    for address in (one for one in found if one.endswith(".js")):
        for name in re.findall(r'from "\./([\w.]+)"', client.get(address).text):
            assert f"{address.rpartition('/')[0]}/{name}" in found


def test_nothing_is_inline_and_nothing_is_from_elsewhere() -> None:
    page = str(chat_page(token="secret", links=(("/account", "Account"),), log_out=True))
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:|https?://", page)
    assert "'unsafe" not in POLICY and "require-trusted-types-for 'script'" in POLICY
    assert 'action="/log-out"' in page and page.count('value="secret"') == 1


def test_what_is_written_into_the_page_is_escaped() -> None:
    page = str(chat_page(token='"><script>', title="<b>", links=(("/a", "<i>"),)))
    assert "<script>" not in page and "<b>" not in page and "<i>" not in page


@pytest.mark.parametrize(
    "path", ["/chat/static/000000000000/app.js", "/chat/static/{digest}/no.js", "/chat/static/{digest}/page.py"]
)
def test_other_files_are_not_there(client: TestClient, path: str) -> None:
    digest = addresses(str(chat_page(token="secret")))[0].split("/")[3]
    assert client.get(path.format(digest=digest)).status_code == 404
