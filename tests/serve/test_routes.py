"""What every answer carries, the routes beside the API, and the forms that evaluation harnesses read."""

import base64
import json
import struct
from pathlib import Path

import httpx
import pytest
from servekit import Live, Stub, make_server, running

from foretell.errors import CheckpointError, GenerationError
from foretell.loading import Model
from foretell.serve.body import BodyLimits
from foretell.serve.calls import Limits
from foretell.serve.gate import Caller, StaticGate
from foretell.serve.models import Models
from foretell.serve.refusals import refuse

CHAT = {"model": "demo", "messages": [{"role": "user", "content": "hello big world"}]}


def post(live: Live, path: str, body: object, **headers: str) -> httpx.Response:
    return live.http.post(f"{path}", json=body, headers=headers, timeout=20)


def test_request_ids(live: Live) -> None:
    url = "/v1/chat/completions"
    assert live.http.post(url, json=CHAT, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert live.http.post(url, json={}, headers={"x-request-id": "mine-2"}).headers["x-request-id"] == "mine-2"
    for bad in ("a b", "x" * 129, "", "<script>"):
        assert live.http.get("/health", headers={"x-request-id": bad}).headers["x-request-id"].startswith("req_")
    with live.http.stream("POST", url, json={**CHAT, "stream": True}) as response:
        assert response.headers["x-request-id"].startswith("req_")
        assert response.headers["content-type"].startswith("text/event-stream")


def test_health_ready_and_unknown_paths(live: Live) -> None:
    assert live.http.get("/health").json() == {"status": "ok"}
    assert live.http.get("/ready").json() == {"status": "ready"}
    for path in ("/", "/docs", "/v1", "/v1/chat/completions/", "/static/../etc/passwd"):
        found = live.http.get(f"{path}")
        assert found.status_code == 404 and found.json()["error"]["code"] == "unknown_url"
    wrong = live.http.delete("/v1/chat/completions")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"


def test_metrics(live: Live) -> None:
    post(live, "/v1/chat/completions", {**CHAT, "stream": True})
    live.http.get("/wp-login.php")
    text = live.http.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines['foretell_requests_total{route="/v1/chat/completions",status="200"}']) >= 1
    assert float(lines['foretell_first_token_seconds_count{route="/v1/chat/completions"}']) >= 1
    assert float(lines['foretell_request_seconds_count{route="/v1/chat/completions"}']) >= 1
    assert float(lines['foretell_tokens_total{kind="prompt",model="demo-2026-11-20"}']) >= 3
    assert float(lines['foretell_tokens_total{kind="completion",model="demo-2026-11-20"}']) >= 3
    assert lines['foretell_engine_cache_used{model="demo-2026-11-20"}'] == "0.5"
    assert lines['foretell_engine_running{model="demo-2026-11-20"}'] == "2.0"
    assert lines['foretell_calls{state="waiting"}'] == "0.0"
    assert "wp-login" not in text, "what callers make up must not become a label"


def test_echo_as_a_harness_reads_it(live: Live) -> None:
    """lm-eval sends token ids, asks for one token, and reads token_logprobs[ctxlen:-1] and the top of each."""
    body = {"model": "demo", "prompt": [[5, 6, 7], [8]], "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
    stub = live.server.models.engines["demo-2026-11-20"]
    stub.tokenizer = type("T", (), {"decode": lambda self, ids, skip_special: " ".join(f"t{i}" for i in ids)})()
    try:
        first, second = post(live, "/v1/completions", body).json()["choices"]
    finally:
        del stub.tokenizer
    logprobs = first["logprobs"]
    assert first["text"] == "t5 t6 t7ids"
    assert logprobs["tokens"] == ["t5", " t6", " t7", "ids"]
    assert logprobs["token_logprobs"] == [None, -1.0, -1.0, -0.5]
    assert logprobs["top_logprobs"] == [
        None,
        {"x0": -2.0, " t6": -1.0},
        {"x0": -2.0, " t7": -1.0},
        {"ids0": -1.0, "ids": -0.5},
    ]
    assert logprobs["text_offset"] == [0, 2, 5, 8]
    assert second["index"] == 1 and second["logprobs"]["token_logprobs"] == [None, -0.5]


def test_echo_of_text_without_a_reply_and_in_a_stream(live: Live) -> None:
    body = {"model": "demo", "prompt": "a b", "logprobs": 0, "echo": True}
    found = post(live, "/v1/completions", {**body, "max_tokens": 0}).json()
    assert found["choices"][0]["text"] == "a b"
    assert found["choices"][0]["logprobs"]["top_logprobs"] == [None, {" b": -1.0}]
    assert found["usage"]["completion_tokens"] == 0 and found["usage"]["prompt_tokens"] == 2
    response = post(live, "/v1/completions", {**body, "stream": True})
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line and line != "data: [DONE]"]
    assert "".join(event["choices"][0]["text"] for event in events) == "a ba b"
    told = [event["choices"][0]["logprobs"] for event in events]
    assert [offset for logprobs in told if logprobs for offset in logprobs["text_offset"]] == [0, 1, 3, 4]


def test_embeddings_in_both_forms(live: Live) -> None:
    plain = post(live, "/v1/embeddings", {"model": "demo", "input": "a b"}).json()
    coded = post(live, "/v1/embeddings", {"model": "demo", "input": "a b", "encoding_format": "base64"}).json()
    vector = struct.unpack("<3f", base64.b64decode(coded["data"][0]["embedding"]))
    assert list(vector) == plain["data"][0]["embedding"] == [2.0, 0.5, -1.0]
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


class Rules:
    async def moderate(self, inputs: list[object]) -> list[dict[str, object]]:
        return [{"flagged": "bad" in str(text), "categories": {}, "category_scores": {}} for text in inputs]


def test_moderations_have_a_place() -> None:
    with running(make_server({"demo": Stub()}, moderator=Rules())) as live:
        found = post(live, "/v1/moderations", {"input": ["good", "bad"]}).json()
        assert [result["flagged"] for result in found["results"]] == [False, True]
        assert post(live, "/v1/moderations", {"input": "bad"}).json()["results"][0]["flagged"]


def test_a_key_guards_all_but_probes() -> None:
    with running(make_server({"demo": Stub()}, gate=StaticGate("right"))) as live:
        for path in ("/health", "/ready", "/openapi.json"):
            assert live.http.get(f"{path}").status_code == 200
        for path in ("/v1/models", "/metrics", "/v1/nothing", "/"):
            refused = live.http.get(f"{path}")
            assert refused.status_code == 401 and refused.json()["error"]["code"] == "missing_api_key"
        for header in ("Bearer wrong", "Bearer", "Basic right", "right", "Bearer right2"):
            assert live.http.get("/v1/models", headers={"authorization": header}).status_code == 401
        assert live.http.get("/v1/models", headers={"authorization": "Bearer right"}).status_code == 200


def test_a_gate_names_the_tenant_and_may_refuse() -> None:
    class Limited:
        async def admit(self, key: str | None, path: str) -> Caller:
            if key == "spent":
                raise refuse("Rate limit reached.", 429, code="rate_limit_exceeded")
            return Caller("tenant-1")

    stub = Stub()
    with running(make_server({"demo": stub}, gate=Limited())) as live:
        assert post(live, "/v1/chat/completions", CHAT).status_code == 200
        assert stub.seen[0].salt == "tenant-1"
        refused = post(live, "/v1/chat/completions", CHAT, authorization="Bearer spent")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["type"] == "rate_limit_error"


def test_sizes_are_bounded() -> None:
    limits = Limits(BodyLimits(body_bytes=10_000, header_bytes=4_000))
    with running(make_server({"demo": Stub()}, limits=limits)) as live:
        long = {"model": "demo", "messages": [{"role": "user", "content": "x" * 20_000}]}
        refused = post(live, "/v1/chat/completions", long)
        assert refused.status_code == 413 and refused.json()["error"]["code"] == "request_too_large"
        pieces = (b"x" * 1000 for _ in range(20))
        headers = {"content-type": "application/json"}
        assert live.http.post("/v1/completions", content=pieces, headers=headers).status_code == 413
        assert live.http.get("/health", headers={"x-long": "y" * 5_000}).status_code == 431
        assert post(live, "/v1/chat/completions", CHAT).status_code == 200


def test_aliases_must_lead_somewhere() -> None:
    def load(ref: str) -> Model:
        raise AssertionError("loaded too early")

    assert Models({"a": "x"}, load, aliases={"b": "c", "c": "a"}).resolve("b") == "a"
    with pytest.raises(GenerationError, match="leads to nowhere, which is not served"):
        Models({"a": "x"}, load, aliases={"b": "nowhere"})
    with pytest.raises(GenerationError, match="not served"):
        Models({"a": "x"}, load, aliases={"b": "c", "c": "b"})
    with pytest.raises(GenerationError, match="given twice"):
        Models({"a": "x"}, load, aliases={"a": "a"})


def test_models_load_once_and_when_asked_for(tmp_path) -> None:
    loads: list[str] = []
    server = make_server({"a": Stub(), "b": Stub()})
    plain = server.models._load

    def load(ref: str) -> Model:
        loads.append(ref)
        if ref == "b" and loads.count("b") == 1:
            raise CheckpointError("/secret/path is damaged")
        return plain(ref)

    server.models._load = load
    with running(server) as live:
        assert loads == []
        for _ in range(2):
            assert post(live, "/v1/chat/completions", {**CHAT, "model": "a"}).status_code == 200
        failed = post(live, "/v1/chat/completions", {**CHAT, "model": "b"})
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "model_not_loaded")
        assert "secret" not in failed.text
        assert post(live, "/v1/chat/completions", {**CHAT, "model": "b"}).status_code == 200
    assert loads == ["a", "b", "b"], "a failure is not kept"


def test_adapters_are_models(tmp_path) -> None:
    added: list[tuple[str, Path]] = []

    class Adaptable(Stub):
        def add_adapter(self, name: str, folder: Path) -> None:
            added.append((name, folder))

    stub = Adaptable()
    server = make_server({"base": stub})
    server.models._adapters["poet"] = "adapters/poet"
    with running(server) as live:
        found = post(live, "/v1/chat/completions", {**CHAT, "model": "poet"}).json()
        post(live, "/v1/chat/completions", {**CHAT, "model": "base"})
    assert found["model"] == "poet" and added == [("poet", Path("adapters/poet"))]
    assert [request.adapter for request in stub.seen] == ["poet", None]
