"""Request bodies: agreement with json on ordinary ones, and a refusal for each way to abuse a reader."""

from __future__ import annotations

import asyncio
import json
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from foretell.errors import RequestError
from foretell.serve.body import BodyLimits, parse_json
from foretell.serve.guard import envelope, guarded
from mock_endpoint import run

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["[[[", '"', "\\", '\\"', "{,}", "\\ud83d"]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)


def refusal(body, limits=BodyLimits()):
    with pytest.raises(RequestError) as caught:
        parse_json(body, limits)
    error = caught.value
    assert error.type == "invalid_request_error" and error.status in (400, 413)
    json.dumps(envelope(error), ensure_ascii=False).encode()  # it can be sent
    assert len(str(error)) < 400
    return error


def depth_of(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def count_of(value):
    """The values inside, where an empty list or object counts as if it held one."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else sum(1 + count_of(each) for each in inner) or 1


@given(OBJECTS, st.booleans(), st.sampled_from([None, 1, "\t"]))
@example(
    {"a": 2**64 - 1, "b": -(2**63), "c": 1.7976931348623157e308, "d": 5e-324, "e": -0.0, "é😀": "\U0010ffff"},
    True,
    None,
)
def test_ordinary_json_is_read_as_json_reads_it(value, ascii_only, indent):
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    found = parse_json(body)
    assert found == value == json.loads(body)
    assert json.dumps(found) == json.dumps(value)  # types, signs of zero and the order of keys too


@given(OBJECTS, st.integers(1, 6), st.integers(1, 30))
def test_limits_are_exact_whatever_texts_hold(value, depth, items):
    body = json.dumps(value).encode()
    cases = ((depth_of(value) > depth, BodyLimits(depth=depth), "nested too deep"),)
    cases += ((count_of(value) > items, BodyLimits(items=items), "too many values"),)
    for refused, limits, words in cases:
        if refused:
            assert words in str(refusal(body, limits))
        else:
            assert parse_json(body, limits) == value


@given(
    st.binary(max_size=60)
    | st.text('{}[]",:\\ue+-.0123456789tfn \ud800', max_size=40).map(lambda t: t.encode("utf-8", "surrogatepass"))
)
@settings(max_examples=300)
def test_any_bytes_give_an_object_or_a_request_error(body):
    for limits in (BodyLimits(), BodyLimits(depth=2, items=3)):
        try:
            found = parse_json(body, limits)
        except RequestError:
            continue
        assert found == json.loads(body)


MALFORMED = [
    b"", b" ", b"{", b"}", b"{]", b"[}", b'{"a"}', b'{"a":}', b'{"a":1,}', b'{,"a":1}', b"{'a':1}", b"{a:1}",
    b'{"a":1}x',
    b'{"a":1}{"a":1}', b'{"a":01}', b'{"a":+1}', b'{"a":.5}', b'{"a":1.}', b'{"a":0x1}', b'{"a":1_0}', b'{"a":tru}',
    b'{"a":"\n"}', b'{"a":"\x00"}', b'{"a":"\x1f"}', b'{"a":"\\x41"}', b'{"a":"\\u12"}', b'{"a":"', b'{"a":"\\"}',
    b"// a\n{}",
    b"{}\x00", b'{"a":1e}', b'{"a":None}', b'{"a":undefined}', b'{"a":\xc2\xa01}', b"model=a&n=1", b"<xml/>",
    b"--boundary\r\n",
    "{}".encode("utf-16-le"), "{}".encode("utf-32-be"),
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED)
def test_malformed_json_is_refused_with_its_place(body):
    error = refusal(body)
    assert (error.status == 400 and "not valid JSON" in str(error) and "line 1, column" in str(error)) or b"\n" in body


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null", b"true", b"-0.5", b'[{"a":1}]'])
def test_json_that_is_no_object_is_refused(body):
    assert "no object" in str(refusal(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"\xff"}',
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\xf4\x90\x80\x80"}',
        b'{"a":"\xc3"}',
        b"\xff\xfe{\0}\0",
    ],
)
def test_other_encodings_than_utf_8_are_refused(body):
    assert "not UTF-8" in str(refusal(body))


def test_a_byte_order_mark_is_refused():
    assert "byte order mark" in str(refusal(b"\xef\xbb\xbf{}"))


@pytest.mark.parametrize(
    "number",
    [
        "NaN", "Infinity", "-Infinity", "1e309", "-1e309", "1e999999999", "1.8e308", "0." + "0" * 200 + "1",
        "1" * 101 + ".0",
        "1" * 21, "-" + "9" * 20, "1" * 5000, "1" * 100_000, "9" * 400, "1" * 400 + "e0",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ['{"a":%s}', '{"a":[1,{"b":%s}]}', '{"a":1,"temperature": %s}'])
def test_numbers_that_no_float_or_64_bits_hold_are_refused(number, form):
    error = refusal((form % number).encode())
    assert error.code == "invalid_value" and error.status == 400


def test_numbers_at_the_border_are_read():
    found = parse_json(b'{"a":1e308,"b":1e-999,"c":18446744073709551615,"d":-9223372036854775808,"e":-0}')
    assert found == {"a": 1e308, "b": 0.0, "c": 2**64 - 1, "d": -(2**63), "e": 0} and math.isfinite(found["a"])


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b'{"model":"a","model":"b"}', "model"),
        (b'{"model":"a","mod\\u0065l":"b"}', "model"),
        (b'{"a":[{"b":1,"c":2,"b":1}]}', "b"),
        (b'{"":1,"":1}', "''"),
        (b'{"\\ud800":1,"\\ud800":1}', "'\\ud800'"),
    ],
)
def test_repeated_keys_are_refused_and_named(body, key):
    assert f"the key {key} twice" in str(refusal(body))


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (r'{"a":"\ud800"}', "a"),
        (r'{"a":"x\uDFFFy"}', "a"),
        (r'{"messages":[{"content":"fine"},{"content":[{"text":"\udc00\ud800"}]}]}', "messages[1].content[0].text"),
        (r'{"a":[["\ud83d\ude00","\ud83d"]]}', "a[0][1]"),
        (r'{"a":{"\ud800":1}}', r"a.'\ud800'"),
        (r'{"a":{"b\n\u202e":"\ud800"}}', r"a.'b\n\u202e'"),
        (r'{"a":"\\\ud800"}', "a"),
    ],
)
def test_lone_surrogates_are_refused_with_their_place(body, place):
    error = refusal(body.encode())
    assert error.param == place and error.code == "invalid_value"


def test_pairs_of_surrogates_and_texts_about_them_are_read():
    assert parse_json(rb'{"a":"\ud83d\uDE00","b":"\\ud800"}') == {"a": "😀", "b": "\\ud800"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":' + b"[" * 100_000, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b'{"a":' * 100_000,
        b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 65, b'{"\\"":' + b"[" * 64, b'{"\\\\":' + b"[" * 64,
        b'{"a":"]]]]","b":' + b"[" * 64,
    ],
)  # fmt: skip
def test_deep_nesting_is_refused_before_it_is_read(body):
    assert "nested too deep" in str(refusal(body))


def test_nesting_within_limits_is_read_however_many_brackets_texts_hold():
    body = b'{"a":' * 63 + b'["' + b"[{" * 1000 + b'\\"[[["]' + b"}" * 63
    assert depth_of(parse_json(body)) == 64


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":[' + b"1," * 300_000 + b"1]}", b'{"a":[' + b"[]," * 300_000 + b"1]}",
        b'{"a":["' + b'","' * 300_000 + b'"]}',
        b'{"a":"' + b'"' * 2_000_000 + b",,,[" * 70_000,
    ],
)  # fmt: skip
def test_too_many_values_are_refused_before_they_are_read(body):
    assert "too many values" in str(refusal(body))


def test_a_long_text_or_many_tokens_are_no_attack():
    assert len(parse_json(b'{"a":"' + b",[{\\\\\\n" * 300_000 + b'"}')["a"]) == 5 * 300_000
    assert len(parse_json(b'{"a":[' + b"50000," * 200_000 + b"1]}")["a"]) == 200_001


def test_bodies_are_weighed():
    limits = BodyLimits(body_bytes=7)
    assert parse_json(b'{"a":1}', limits) == {"a": 1}
    error = refusal(b'{"a":1} ', limits)
    assert error.status == 413 and error.code == "request_too_large"


# --- the guard


SMALL = BodyLimits(body_bytes=10, body_s=5, headers=4, header_bytes=100)


async def reading(scope, receive, send):
    """An application that answers with its body's length."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


async def told(request):
    return JSONResponse(len(await request.body()))


def handled(request, error):
    return JSONResponse(envelope(error), error.status)


APPS = {
    "asgi": reading,
    "starlette": Starlette(routes=[Route("/", told, methods=["POST"])], exception_handlers={RequestError: handled}),
}


def asked(pieces, headers=(), app=reading, limits=SMALL, scope=None, every=0.0):
    """Status, body and the time that it took; a piece comes every so many seconds."""

    async def main():
        left, sent = list(pieces), []

        async def receive():
            await asyncio.sleep(every if left else math.inf if every else 0)
            return (
                {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
                if left
                else {"type": "http.disconnect"}
            )

        async def send(message):
            sent.append(message)

        asked_for = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "headers": list(headers),
        }
        await guarded(app, limits)({**asked_for, **(scope or {})}, receive, send)
        body = b"".join(message.get("body", b"") for message in sent)
        return sent[0]["status"], json.loads(body), asyncio.get_running_loop().time()

    return run(main())


@pytest.mark.parametrize("app", APPS.values(), ids=APPS.keys())
def test_bodies_are_measured_while_they_arrive(app):
    assert asked([b"12345", b"67890"], app=app)[:2] == (200, 10)
    assert asked([b""], app=app)[:2] == (200, 0)
    for pieces in ([b"12345678901"], [b"12345"] * 3, [b"1"] * 100_000):
        status, body, _ = asked(pieces, app=app)
        assert status == 413 and body["error"]["code"] == "request_too_large"
        assert body["error"].keys() == {"message", "type", "param", "code"}


def test_no_more_is_read_than_is_allowed():
    pieces = iter([b"1234"] * 100)

    async def receive():
        return {"type": "http.request", "body": next(pieces), "more_body": True}

    async def send(message):
        pass

    asyncio.run(guarded(reading, SMALL)({"type": "http", "headers": []}, receive, send))
    assert len(list(pieces)) == 97


@pytest.mark.parametrize("length", [b"11", b"99999999999999999999999", b"-1", b"1e1", b"x", b"", b"+5", "٣".encode()])
def test_declared_lengths_are_checked_before_the_application_is_called(length):
    async def never(scope, receive, send):
        raise AssertionError

    assert asked([b"1"], [(b"content-length", length)], app=never)[0] == 413


def test_a_declared_length_may_not_lie():
    assert asked([b"12345"] * 3, [(b"content-length", b"10")])[0] == 413
    assert asked([b"12345"], [(b"content-length", b"10")])[:2] == (200, 5)


@pytest.mark.parametrize("app", APPS.values(), ids=APPS.keys())
def test_slow_bodies_are_left_in_time(app):
    status, body, seconds = asked([b"1"] * 9, every=1, app=app)
    assert status == 408 and body["error"]["code"] == "request_timeout" and seconds == pytest.approx(5, abs=0.1)
    assert asked([b"1"] * 4, every=1, app=app)[:2] == (200, 4)


def test_the_end_of_a_connection_is_awaited_without_limit():
    async def waiting(scope, receive, send):
        await receive()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 1000)
        await reading(scope, lambda: asyncio.sleep(0, {}), send)

    assert asked([b"1"], every=1, app=waiting)[0] == 200


@pytest.mark.parametrize(
    ("headers", "scope"),
    [
        ([(b"a", b"b")] * 5, {}), ([(b"a", b"b" * 100)], {}), ([(b"a" * 100, b"b")], {}), ([(b"a", b"b" * 30)] * 4, {}),
        ([], {"raw_path": b"/" * 101}), ([], {"query_string": b"a" * 100}),
    ],
)  # fmt: skip
def test_headers_are_counted_and_weighed(headers, scope):
    status, body, _ = asked([b"1"], headers, scope=scope)
    assert status == 431 and body["error"]["code"] == "headers_too_large"
    assert asked([b"1"], [(b"a", b"b")] * 4)[0] == 200


def test_an_error_after_the_answer_began_is_not_answered_twice():
    async def late(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RequestError("Too late.")

    with pytest.raises(RequestError):
        asked([b"1"], app=late)


def test_other_scopes_pass():
    async def lifespan(scope, receive, send):
        assert scope == {"type": "lifespan"} and receive is None

    asyncio.run(guarded(lifespan)({"type": "lifespan"}, None, None))
