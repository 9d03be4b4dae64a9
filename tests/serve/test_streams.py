"""Streams that end early: callers who leave, models that fail, servers that are told to stop."""

import asyncio
import json
import socket
import threading

import httpx
import pytest
from servekit import Live, Stub, make_server, running

from foretell.serve.traffic import ClientGone, together, unless_gone

WAIT = {"model": "m", "messages": [{"role": "user", "content": "one wait three"}]}


def release(live: Live, stub: Stub) -> None:
    live.on_loop(stub.release.set)


def until(condition: object, live: Live) -> None:
    """Ask the server for its health until the condition holds; no clock is needed, and a hang is cut off."""
    for _ in range(2000):
        if condition():  # type: ignore[operator]
            return
        live.http.get("/health")
    raise AssertionError("it never came to be")


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_ends_the_generation(stream: bool) -> None:
    stub = Stub()
    with running(make_server({"m": stub})) as live:
        with httpx.Client(base_url=live.url, verify=False) as client:
            if stream:
                with client.stream("POST", "/v1/chat/completions", json={**WAIT, "stream": True}) as response:
                    pieces = response.iter_text()  # dropped, it would hang up
                    assert "assistant" in next(pieces)
                    assert stub.closed == 0
            else:
                with pytest.raises(httpx.ReadTimeout):
                    client.post("/v1/chat/completions", json=WAIT, timeout=httpx.Timeout(10, read=0.2))
        until(lambda: stub.closed == 1, live)
        until(lambda: 'status="499"' in live.http.get("/metrics").text, live)
        until(lambda: live.server.traffic.active == 0, live)
        assert live.server.traffic.waiting == 0


def test_a_failure_on_the_way_is_the_last_event() -> None:
    stub = Stub()
    with running(make_server({"m": stub})) as live:
        body = {"model": "m", "messages": [{"role": "user", "content": "to break"}], "stream": True}
        response = live.http.post("/v1/chat/completions", json=body)
    lines = [line[6:] for line in response.text.splitlines() if line]
    assert response.status_code == 200
    assert lines[-1] != "[DONE]"
    error = json.loads(lines[-1])["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["type"] == "server_error" and "secret" not in response.text


def test_pieces_are_sent_without_delay(live: Live) -> None:
    """Without this option of its socket, a small piece waits 40 ms for the one before it to be confirmed."""
    live.http.get("/health")
    for connection in live.process.server_state.connections:
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert live.process.server_state.connections


def test_a_drain_lets_streams_finish_and_takes_no_more() -> None:
    stub = Stub()
    with running(make_server({"m": stub}), drain_seconds=30) as live:
        said: list[str] = []
        begun = threading.Event()

        def read() -> None:
            with live.http.stream("POST", "/v1/chat/completions", json={**WAIT, "stream": True}) as response:
                for text in response.iter_text():
                    said.append(text)
                    begun.set()

        thread = threading.Thread(target=read)
        thread.start()
        assert begun.wait(20)
        live.process.handle_exit(15, None)
        for path in ("/v1/chat/completions", "/v1/completions"):
            refused = live.http.post(f"{path}", json=WAIT)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
            assert refused.headers["retry-after"] == "1"
        assert live.http.get("/ready").status_code == 503
        assert live.http.get("/health").status_code == 200
        release(live, stub)
        thread.join(20)
        assert "".join(said).endswith("data: [DONE]\n\n") and "three" in "".join(said)


def test_a_drain_ends_after_its_limit() -> None:
    stub = Stub()
    body = {**WAIT, "stream": True}
    with (
        running(make_server({"m": stub}), drain_seconds=0) as live,
        live.http.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        pieces = response.iter_text()
        next(pieces)
        live.process.handle_exit(15, None)
        with pytest.raises(httpx.RemoteProtocolError):
            list(pieces)
    assert stub.closed == 1


def test_too_many_that_wait_are_told_so() -> None:
    class Slow(Stub):
        async def generate(self, requests):
            await self.release.wait()
            async for result in super().generate(requests):
                yield result

    stub = Slow()
    with running(make_server({"m": stub}, max_waiting=1)) as live:
        answers: list[httpx.Response] = []
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        thread = threading.Thread(
            target=lambda: answers.append(live.http.post("/v1/chat/completions", json=body, timeout=30))
        )
        thread.start()
        until(lambda: live.server.traffic.waiting == 1, live)
        refused = live.http.post("/v1/chat/completions", json=body)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        release(live, stub)
        thread.join(20)
        assert answers[0].status_code == 200


def test_together_hands_on_what_is_ready_at_once_and_closes_its_source() -> None:
    closed: list[bool] = []

    async def items():
        try:
            for i in range(3):
                yield i
            await asyncio.sleep(0)
            yield 3
            yield 4
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    async def main() -> list[list[int]]:
        found = []
        lists = together(items())
        async for some in lists:
            found.append(some)
            if sum(map(len, found)) == 5:
                break
        await lists.aclose()
        return found

    found = asyncio.run(main())
    assert [item for some in found for item in some] == [0, 1, 2, 3, 4]
    assert len(found) < 5 and closed == [True]


def test_together_passes_on_a_failure_after_what_came_before() -> None:
    async def items():
        yield 1
        raise ValueError("broken")

    async def main() -> None:
        lists = together(items())
        assert await anext(lists) == [1]
        with pytest.raises(ValueError, match="broken"):
            await anext(lists)

    asyncio.run(main())


def test_unless_gone_cancels_the_work_of_who_left() -> None:
    async def main() -> bool:
        cancelled = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        with pytest.raises(ClientGone):
            await unless_gone(receive, work())
        return cancelled.is_set()

    assert asyncio.run(main())
