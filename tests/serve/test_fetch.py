"""The image fetcher against those who would reach through it: every attack is a row or a test."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import re
import socket
import ssl
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from foretell.errors import ImageError, OverloadedError
from foretell.images import decode_image
from foretell.serve import fetch, urls
from foretell.serve.addresses import is_public
from foretell.serve.fetch import FetchLimits, ImageFetcher
from foretell.serve.urls import parse_url
from mock_endpoint import Reply, run, serve

HOST = "img.example.com"
TLS = Path(__file__).parent / "tls.pem"  # a key that guards nothing, and its certificate for HOST


def encode(form="PNG", size=(6, 4)):
    buffer = BytesIO()
    Image.new("RGB", size, "red").save(buffer, format=form)
    return buffer.getvalue()


PNG = encode()
IMAGE = Reply(PNG, headers={"content-type": "image/png"})


def loopback_too(address):
    return address == IPv4Address("127.0.0.1") or is_public(address)


@pytest.fixture(autouse=True)
def dialled(monkeypatch):
    """The addresses that were dialled; any but the test's own server ends the test."""
    found, dial = [], asyncio.SelectorEventLoop.sock_connect

    async def sock_connect(loop, sock, address):
        found.append(address[0])
        assert address[0] == "127.0.0.1", f"{address} was dialled"
        return await dial(loop, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", sock_connect)
    return found


class Names:
    """A resolver that gives these answers, one after another and the last for ever, or by name."""

    def __init__(self, *answers, **by_name):
        self.answers, self.by_name, self.asked = [list(answer) for answer in answers], by_name, []

    async def __call__(self, host):
        self.asked.append(host)
        if host.split(".")[0] in self.by_name:
            return self.by_name[host.split(".")[0]]
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@dataclass
class Outcome:
    data: bytes | None
    error: Exception | None
    calls: list
    seconds: float


def fetched(reply, path="/a.png", *, limits=FetchLimits(), names=None, url=None, allowed=loopback_too, runner=run):
    """What a fetch from a server of this reply, or handler of calls, comes to."""
    handler = reply if callable(reply) else lambda _: reply

    async def main():
        async with serve(handler) as mock:
            port = urlsplit(mock.url).port
            names_ = names or Names(["127.0.0.1"])
            fetcher = ImageFetcher(limits, ports=(port,), is_allowed=allowed, resolve=names_)
            loop, data, error = asyncio.get_running_loop(), None, None
            begun = loop.time()
            try:
                data = await fetcher.get((url or f"http://{HOST}:PORT{path}").replace("PORT", str(port)))
            except (ImageError, OverloadedError) as caught:
                error = caught
                assert not re.search(r"\d+\.\d+\.\d+|::|SECRET", str(error)), "an address or a body is told"
            fetcher.close()
            return Outcome(data, error, mock.calls, loop.time() - begun)

    return runner(main())


def refusal(*args, **settings):
    found = fetched(*args, **settings)
    assert found.error is not None, "it was fetched"
    return str(found.error)


def data_url(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


async def nobody(host):
    raise AssertionError(f"{host} was looked up")


def get(url, **settings):
    async def main():
        fetcher = ImageFetcher(**{"resolve": nobody, **settings})
        try:
            return await fetcher.get(url)
        finally:
            fetcher.close()

    return asyncio.run(main())


# --- URLs


NEVER = [
    # schemes
    "file:///etc/passwd", "ftp://img.example.com/a.png", "gopher://img.example.com/_GET", "dict://img.example.com:80/",
    "ws://img.example.com/", "unix:/run/docker.sock", "http+unix://%2Frun%2Fdocker.sock/", "jar:http://a.example.com!/",
    "blob:http://img.example.com/1", "javascript:alert(1)", "about:blank", "view-source:http://img.example.com/",
    "httpx://img.example.com/", "http:img.example.com/a.png", "http:/img.example.com/a.png", "http:///img.example.com/",
    "//img.example.com/a.png", "img.example.com/a.png", "/a.png", "", "http", "http:", "http://", "https://", "://",
    "httpſ://img.example.com/",
    # user names, and what parsers disagree about
    "http://user@img.example.com/", "http://user:pw@img.example.com/", "http://@img.example.com/", "http://:@10.0.0.1/",
    "http://img.example.com\\@10.0.0.1/", "http://img.example.com\\.10.0.0.1/", "http:\\\\img.example.com\\a.png",
    "http://img.example.com#@10.0.0.1/", "http://10.0.0.1#@img.example.com/", "http://img.example.com?@10.0.0.1\\",
    "http://img.example.com:80@10.0.0.1/", "http://img.example.com:80:22/", "http://img.example.com;10.0.0.1/",
    "http://img.example.com&@10.0.0.1/", "http://img.example.com,10.0.0.1/", "http://[img.example.com]/",
    "http://10.0.0.1%2f@img.example.com/", "http://img.example.com/a{b}", "http://img.example.com/<a>",
    # spaces and control characters
    " http://img.example.com/", "http://img.example.com/ ", "http://img.example.com/a b", "http:// img.example.com/",
    "http://img.example.com\t/", "http://img.exam\nple.com/", "http://img.example.com/\r\nHost: a", "\x00http://a.com/",
    "http://img.example.com\x00.evil.com/", "http://img.example.com/\x7f", "http://img.example.com/a\x0b",
    "ht\ntp://a.b/",
    "http://img.example.com\u00a0/", "http://img.example.com/\u2028", "\ufeffhttp://img.example.com/",
    # characters that turn into others
    "http://１２７.0.0.1/", "http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://127．0．0．1/", "http://ⓔxample.com/",
    "http://exa\u00admple.com/", "http://exam\u200dple.com/", "http://ｌocalhost/", "http://bücher.example.com/",
    "http://img.example.com\u2044@10.0.0.1/", "http://a℀.example.com/", "http://\u212aelvin.example.com/",
    "http://img.example.com／@10.0.0.1/", "http://img.example.com/é.png",
    # percent signs in the host
    "http://%31%32%37.0.0.1/", "http://127%2e0%2e0%2e1/", "http://img.example.com%00.evil.com/", "http://%6cocalhost/",
    "http://img%2eexample%2ecom/", "http://[::1%25lo]/", "http://[fe80::1%eth0]/", "http://[fe80::1%25eth0]/",
    # hosts that are none, or are the machine's own
    "http://./", "http://../", "http://.example.com/", "http://img..example.com/", "http://img.example.com./",
    "http:///",
    "http://:80/", "http://?a", "http://img.example.com?a", "http://#a", "http://localhost/", "http://LOCALHOST/",
    "http://localhost./",
    "http://a.localhost/", "http://localhost.localdomain/", "http://metadata/", "http://metadata.google.internal/",
    "http://printer.local/", "http://router.lan/", "http://db.corp/", "http://kubernetes/",
    "http://1.0.0.127.in-addr.arpa/",
    "http://a.onion/", "http://-a.example.com/", "http://a-.example.com/", "http://a.b-/", "http://*.example.com/",
    f"http://{'a' * 64}.example.com/", f"http://{'a.' * 130}com/", f"http://img.example.com/{'a' * 5000}",
    # IPv4 addresses that are not public, or not written as ever
    "http://127.0.0.1/", "http://127.1.2.3/", "http://0.0.0.0/", "http://10.0.0.1/", "http://172.16.0.1/",
    "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data/", "http://100.64.0.1/", "http://100.100.100.200/",
    "http://192.0.0.192/", "http://168.63.129.16/", "http://198.18.0.1/", "http://224.0.0.1/", "http://240.0.0.1/",
    "http://255.255.255.255/", "http://192.0.2.1/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
    "http://017700000001/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.1/", "http://0/", "http://1/",
    "http://127.0.0.1./", "http://127.0.0.01/", "http://0x7f.0x0.0x0.0x1/", "http://127.0.0.0x1/", "http://08.8.8.8/",
    "http://8.8.8.08/", "http://8.8.2056/", "http://134744072/", "http://256.1.1.1/", "http://1.1.1.1.1/",
    "http://0x.0x.0x.0x/",
    "http://a.1/", "http://a.0x1/", "http://4294967296/", "http://-1/", "http://+1/", "http://1e3/",
    # IPv6 addresses that are not public, or hold an IPv4 address
    "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:8.8.8.8]/", "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[64:ff9b::8.8.8.8]/",
    "http://[64:ff9b:1::a00:1]/", "http://[2002:7f00:1::]/", "http://[2002:808:808::1]/", "http://[2001:0:808:808::1]/",
    "http://[fe80::1]/", "http://[fc00::1]/", "http://[fd00:ec2::254]/", "http://[ff02::1]/", "http://[fec0::1]/",
    "http://[2001:db8::1]/", "http://[3fff::1]/", "http://[2001:2::1]/", "http://[2001:10::1]/", "http://[100::1]/",
    "http://[5f00::1]/", "http://[4000::1]/", "http://[::ffff:0:127.0.0.1]/", "http://::1/", "http://[::1/",
    "http://::1]/",
    "http://[]/", "http://[:]/", "http://[1.2.3.4]/", "http://[v1.fe80::a+en1]/", "http://[::1].example.com/",
    # ports
    "http://img.example.com:22/", "http://img.example.com:6379/", "http://img.example.com:0/",
    "http://img.example.com:/",
    "http://img.example.com:080/", "http://img.example.com:65616/", "http://img.example.com:-80/",
    "http://img.example.com:8 0/",
    "http://img.example.com:http/", "http://img.example.com:８０/",
]  # fmt: skip


@pytest.mark.parametrize("url", NEVER)
def test_urls_that_are_never_looked_up_or_dialled(url, dialled):
    with pytest.raises(ImageError) as caught:
        get(url)
    assert not dialled
    assert not re.search(r"\d+\.\d+\.\d+|SECRET", str(caught.value))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://img.example.com/a.png?b=c#d", "img.example.com"),
        ("HTTPS://IMG.Example.COM", "img.example.com"),
        ("http://img.example.com:443/", "img.example.com"),
        ("https://xn--bcher-kva.example.com/%C3%A9.png", "xn--bcher-kva.example.com"),
        ("https://a_b.s3-1.example.com/x?sig=a/b%2Bc==&t=1:2", "a_b.s3-1.example.com"),
        ("https://127.0.0.1.nip.io/", "127.0.0.1.nip.io"),
    ],
)
def test_ordinary_urls_are_looked_up_by_their_name(url, host, dialled):
    names = Names(["10.0.0.1"])
    with pytest.raises(ImageError, match="no public address"):
        get(url, resolve=names)
    assert names.asked == [host] and not dialled


def odd_notations(number):
    """Ways to write an IPv4 address that inet_aton reads, other than four plain decimals."""
    a, b, c, d = number.to_bytes(4, "big")
    tails = (f"{a}.{b << 16 | c << 8 | d}", f"{a}.{b}.{c << 8 | d}")
    octal, hexadecimal = f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"0x{a:x}.0x{b:x}.0x{c:x}.0X{d:X}"
    whole = (str(number), f"0x{number:x}", f"0{number:o}", f"0x{number:08X}")
    return [
        *whole,
        *tails,
        octal,
        hexadecimal,
        f"{a}.{b}.{c}.0x{d:x}",
        f"00{a:o}.{b}.{c}.{d}",
        f"0x{a:x}.{b << 16 | c << 8 | d}",
    ]


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111"])
def test_public_addresses_are_dialled_without_being_looked_up(address):
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(AssertionError, match=f"'{address}', 80.* was dialled"):
        get(f"http://{host}/")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_ipv4_addresses_in_odd_notations_are_never_fetched(number):
    for text in odd_notations(number):
        assert socket.inet_aton(text) == number.to_bytes(4, "big")
        for host in (text, f"{text}.", f"[::ffff:{IPv4Address(number)}]", f"[64:ff9b::{IPv4Address(number)}]"):
            if host.startswith("["):
                assert not is_public(ip_address(host[1:-1]))
            else:
                with pytest.raises(ImageError, match="a host that cannot be used"):
                    parse_url(f"http://{host}/", (80,))


PATHS = st.text("abz09-._~:/[]@!$&'()*+,;=%", max_size=20)
HOSTS = (
    st.from_regex(urls._NAME, fullmatch=True) | st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map("[{}]".format)
)


@given(st.sampled_from(["http", "https", "HTTP"]), HOSTS, st.none() | st.integers(0, 66_000), PATHS, PATHS, PATHS)
@settings(max_examples=200)
def test_other_parsers_read_an_accepted_url_alike(scheme, host, port, path, query, fragment):
    text = f"{scheme}://{host}{'' if port is None else f':{port}'}/{path}?{query}#{fragment}"
    try:
        url = parse_url(text, range(65536))
    except ImageError:
        assume(False)
    for source in (text, str(url)):
        parts, other = urlsplit(source), httpx.URL(source)
        assert (parts.hostname, parts.scheme) == (url.raw_host, url.scheme) == (other.host, other.scheme)
        assert (parts.port or (443 if url.scheme == "https" else 80)) == url.port
    assert url.raw_path_qs == f"/{path}" + (f"?{query}" if query else "") and url.user is None


PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1"]
PRIVATE = [
    "0.1.2.3", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "169.254.0.1", "172.31.255.255",
    "192.0.0.8",
    "192.0.2.9", "192.88.99.1", "192.168.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.1.1.1",
    "250.0.0.1", "255.255.255.255", "168.63.129.16", "::", "::1", "::8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808",
    "64:ff9b:1::808:808", "100::1", "2001::1", "2001:2::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "3fff::1",
    "5f00::1", "fc00::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff0e::1",
]  # fmt: skip


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_open_internet_are_public(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_addresses_that_are_not_public_are_refused_wherever_a_name_points_to_them(text):
    assert not is_public(ip_address(text))
    for answer in ([text], ["8.8.8.8", text], [text, "2606:4700::1111"]):
        with pytest.raises(ImageError, match="no public address"):
            get("http://img.example.com/", resolve=Names(answer))


# --- dialling


def test_an_image_is_fetched_from_the_address_that_was_checked(dialled):
    names = Names(["127.0.0.1"], ["10.0.0.1"])  # rebinding: the second answer is another
    found = fetched(IMAGE, "/a.png?b=c", names=names)
    assert found.data == PNG and dialled == ["127.0.0.1"] and names.asked == [HOST]
    [call] = found.calls
    assert (call.method, call.path) == ("GET", "/a.png?b=c")
    assert call.headers.keys() == {"host", "user-agent", "accept", "accept-encoding", "connection"}
    assert call.headers["accept-encoding"] == "identity" and call.headers["host"].startswith(HOST)


@pytest.mark.parametrize("answer", [["127.0.0.1", "10.0.0.1"], ["10.0.0.1", "127.0.0.1"], ["127.0.0.1", "::1"], []])
def test_a_name_with_one_address_that_is_not_public_is_refused_whole(answer, dialled):
    assert "no public address" in refusal(IMAGE, names=Names(answer))
    assert not dialled


def test_a_name_that_rebinds_between_two_hops_is_refused(dialled):
    found = fetched(Reply(status=302, headers={"location": "/again"}), names=Names(["127.0.0.1"], ["10.0.0.1"]))
    assert "no public address" in str(found.error) and len(found.calls) == 1 and len(dialled) == 1


def test_what_is_private_and_what_does_not_exist_look_alike():
    async def missing(host):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert (
        refusal(IMAGE, names=missing)
        == refusal(IMAGE, names=Names(["10.0.0.1"]))
        == refusal(IMAGE, url="http://[::1]:PORT/")
    )


def test_an_address_that_slipped_past_the_resolver_is_still_not_dialled(monkeypatch, dialled):
    checked = fetch._CheckedResolver.resolve

    async def resolve(self, *args, **named):
        return [{**found, "host": "10.0.0.1"} for found in await checked(self, *args, **named)]

    monkeypatch.setattr(fetch._CheckedResolver, "resolve", resolve)
    assert "could not be reached" in refusal(IMAGE)
    assert not dialled


def test_loopback_is_refused_unless_it_is_allowed_by_name(dialled):
    assert "no public address" in refusal(IMAGE, allowed=is_public)
    assert "no public address" in refusal(IMAGE, url="http://127.0.0.1:PORT/", allowed=is_public)
    assert not dialled
    assert fetched(IMAGE, url="http://127.0.0.1:PORT/").data == PNG


def test_the_systems_resolver_is_asked_by_default(monkeypatch):
    asked = []

    def getaddrinfo(host, port, **named):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(ImageError, match="no public address"):
        get("http://img.example.com/", resolve=None)
    assert asked == [HOST]


def test_nothing_of_the_environment_goes_with_a_fetch(monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text(f"machine {HOST} login root password SECRET\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://10.9.9.9:3128")
    redirect = Reply(status=302, headers={"location": "/b.png", "set-cookie": "SECRET=1; Path=/"})
    found = fetched(lambda call: IMAGE if call.path == "/b.png" else redirect)
    assert found.data == PNG
    assert not {"authorization", "cookie", "referer", "proxy-authorization"} & {
        *found.calls[0].headers,
        *found.calls[1].headers,
    }


# --- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/c/b.png", "/c/b.png"),
        ("b.png?x=1#y", "/d/b.png?x=1"),
        ("../b.png", "/b.png"),
        ("?b", "/d/a.png?b"),
        ("//img.example.com:PORT/b.png", "/b.png"),
        ("http://cdn.example.com:PORT/b.png", "/b.png"),
        ("http://127.0.0.1:PORT/b.png", "/b.png"),
    ],
)
def test_redirects_are_followed(status, location, path):
    def handler(call):
        port = call.headers["host"].rpartition(":")[2]
        return IMAGE if "b" in call.path else Reply(status=status, headers={"location": location.replace("PORT", port)})

    found = fetched(handler, "/d/a.png")
    assert found.data == PNG and [call.path for call in found.calls] == ["/d/a.png", path]


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1:PORT/", "http://127.0.0.2:PORT/", "http://169.254.169.254:PORT/", "http://[::1]:PORT/",
        "http://[::ffff:127.0.0.1]:PORT/", "//10.0.0.1:PORT/", "http://inside.example.com:PORT/",
        "http://localhost:PORT/",
        "http://mixed.example.com:PORT/", "http://2130706433:PORT/", "http://0x7f.1:PORT/",
        "http://user@img.example.com:PORT/",
        "http://img.example.com:PORT\\@10.0.0.1/", "\\\\10.0.0.1\\a", "/\\10.0.0.1/", "http://img.example.com/",
        "http://img.example.com:22/", "file:///etc/passwd", "ftp://img.example.com:PORT/",
        "data:image/png;base64,iVBORw0KGgo=",
        "javascript:alert(1)", "gopher://10.0.0.1/", "", "a b", "/a\tb", "/é", "http:///10.0.0.1:PORT/",
        "///10.0.0.1:PORT/",
        "http://[", "#a",
    ],
)  # fmt: skip
def test_redirects_to_elsewhere_are_not(location, dialled):
    def handler(call):
        place = location.replace("PORT", call.headers["host"].rpartition(":")[2])
        return Reply(b"SECRET", 302, {"location": place.encode().decode("latin-1")} if place else {})

    names = Names(["127.0.0.1"], inside=["10.0.0.1"], mixed=["127.0.0.1", "192.168.0.1"])
    found = fetched(handler, names=names)
    assert isinstance(found.error, ImageError) and len(found.calls) == 1 and dialled == ["127.0.0.1"]


def test_a_redirect_splits_no_header():
    reply = Reply(status=302, headers={"location": "/%0d%0aX-Evil:%201"})
    found = fetched(lambda call: IMAGE if "Evil" in call.path else reply)
    assert found.data == PNG and "x-evil" not in found.calls[1].headers


@pytest.mark.parametrize("hops", [0, 1, 3, 4])
def test_redirects_end(hops):
    def handler(call):
        left = int(call.path[1:])
        return IMAGE if left == 0 else Reply(status=302, headers={"location": f"/{left - 1}"})

    found = fetched(handler, f"/{hops}")
    assert (found.data == PNG) == (hops <= 3)
    assert found.error is None or "redirects more than 3 times" in str(found.error)
    assert len(found.calls) == min(hops, 3) + 1


def secured(handler, url, *, trusted=True, plain=IMAGE):
    """A fetch where TLS is served at SAFE and plain HTTP at OPEN."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS)

    async def main():
        async with serve(lambda call: handler, tls=context) as safe, serve(lambda call: plain) as open_:
            ports = {"SAFE": urlsplit(safe.url).port, "OPEN": urlsplit(open_.url).port}

            def fill(text):
                return re.sub("SAFE|OPEN", lambda found: str(ports[found[0]]), text)

            for reply in (handler, plain):
                if "location" in reply.headers:
                    reply.headers["location"] = fill(reply.headers["location"])
            tls = ssl.create_default_context(cafile=TLS) if trusted else None
            fetcher = ImageFetcher(
                ports=[*ports.values()], is_allowed=loopback_too, resolve=Names(["127.0.0.1"]), tls=tls
            )
            try:
                return await fetcher.get(fill(url)), len(safe.calls)
            except ImageError as error:
                return str(error), len(open_.calls)
            finally:
                fetcher.close()

    return asyncio.run(main())


def test_https_is_verified_by_name_though_an_address_is_dialled():
    assert secured(IMAGE, f"https://{HOST}:SAFE/") == (PNG, 1)
    for wrong in ("other.example.com", "127.0.0.1"):
        assert "no certificate that can be trusted" in secured(IMAGE, f"https://{wrong}:SAFE/")[0]
    assert "no certificate that can be trusted" in secured(IMAGE, f"https://{HOST}:SAFE/", trusted=False)[0]
    assert "could not be reached" in secured(IMAGE, f"http://{HOST}:SAFE/")[0]


def test_http_redirects_to_https_and_never_back():
    up = Reply(status=301, headers={"location": f"https://{HOST}:SAFE/"})
    assert secured(IMAGE, f"http://{HOST}:OPEN/", plain=up) == (PNG, 1)
    down = Reply(status=301, headers={"location": f"http://{HOST}:OPEN/"})
    error, calls = secured(down, f"https://{HOST}:SAFE/")
    assert "from https to http" in error and calls == 0


# --- answers


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("declared", ["image/png", "application/octet-stream", "text/html", ""])
def test_the_bytes_decide_what_an_image_is(form, declared):
    data = encode(form)
    found = fetched(Reply(data, headers={"content-type": declared}))
    assert found.data == data and get(data_url(data)) == data


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="http://10.0.0.1/SECRET"/></svg>'
NO_IMAGES = {
    "nothing": b"", "svg": SVG, "svg alone": SVG[21:], "html": b"<!doctype html><script>SECRET</script>",
    "xml": b"<?xml SECRET?>",
    "javascript": b"GIF=1;SECRET", "json": b'{"SECRET": 1}', "text": b"SECRET", "pdf": b"%PDF-1.7 SECRET",
    "zip": b"PK\3\4",
    "html before a png": b"<html>SECRET" + PNG, "a space before a png": b" " + PNG, "elf": b"\x7fELF",
    "eps": b"%!PS-Adobe-3.0 EPSF",
    "gzip of a png": gzip.compress(PNG), "bmp": encode("BMP"), "tiff": encode("TIFF"), "ico": encode("ICO", (16, 16)),
    "ppm": encode("PPM"), "psd": b"8BPS\0\1",
    "half a png": PNG[:20], "only the magic": PNG[:8], "riff that is no webp": b"RIFF\4\0\0\0WAVE",
    "avif": b"\0\0\0\x1cftypavif", "gif that is a script": b"GIF89a/*<html>*/=1;SECRET",
    "jpeg that is html": b"\xff\xd8\xff<html>SECRET",
}  # fmt: skip


@pytest.mark.parametrize("data", NO_IMAGES.values(), ids=NO_IMAGES.keys())
def test_what_is_no_image_is_refused_whatever_it_is_called(data):
    message = refusal(Reply(data, headers={"content-type": "image/png"}))
    assert "PNG, JPEG, WebP or GIF" in message or "side may be" in message or "pixels" in message
    with pytest.raises(ImageError):
        get(data_url(data))


@pytest.mark.parametrize("tail", [b"<script>SECRET</script>", b"PK\3\4", SVG])
def test_a_polyglot_is_only_the_image_that_it_begins_with(tail):
    data = fetched(Reply(PNG + tail)).data
    assert data is not None and decode_image(data).size == (6, 4)


def bomb(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = b"IDAT" + zlib.compress(b"\0" * 1000)
    parts = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (header, pixels))
    return PNG[:8] + b"".join(parts)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(8000, 8000), (65_000, 65_000), (2**31 - 1, 2**31 - 1), (1, 1000)])
def test_images_of_too_many_pixels_are_refused_by_their_header(size):
    refusal(Reply(bomb(*size)))
    with pytest.raises(ImageError):
        get(data_url(bomb(*size)))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity", "x-gzip"])
def test_compressed_answers_are_not_read(coding):
    body = gzip.compress(b"\0" * 5_000_000)
    assert "compresses its answer" in refusal(Reply(body, headers={"content-encoding": coding}))


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 400, 401, 404, 407, 500, 503])
def test_other_statuses_are_told_and_their_bodies_are_not(status):
    assert f"status {status}" in refusal(Reply(b"" if status in (204, 304) else b"SECRET", status))


SMALL = FetchLimits(image_bytes=1000)


def test_an_endless_body_is_cut_off():
    endless = Reply(pieces=itertools.repeat(PNG[:50]), every=0.001)
    found = fetched(endless, limits=SMALL)
    assert "more than 1,000 bytes" in str(found.error) and found.seconds < 0.1


def test_a_body_may_have_as_many_bytes_as_are_allowed_and_no_more():
    exact, more = PNG + bytes(1000 - len(PNG)), PNG + bytes(1001 - len(PNG))
    assert fetched(Reply(exact), limits=SMALL).data == exact
    assert get(data_url(exact), limits=SMALL) == exact
    for reply in (Reply(more), Reply(pieces=[more])):
        assert "more than 1,000 bytes" in refusal(reply, limits=SMALL)
    with pytest.raises(ImageError, match="more than 1,000 bytes"):
        get(data_url(more), limits=SMALL)


def test_lengths_that_lie_do_not_help():
    assert "more than 1,000 bytes" in refusal(Reply(PNG, headers={"content-length": "9" * 15}, hang=True), limits=SMALL)
    assert "broke off" in refusal(Reply(PNG, headers={"content-length": "900"}, cut=True), limits=SMALL)
    refusal(Reply(PNG, headers={"content-length": "20"}), limits=SMALL)
    for broken in ("-1", "1e3", "0x10", "5, 6", "x"):
        refusal(Reply(PNG, headers={"content-length": broken}), limits=SMALL)


@pytest.mark.parametrize(
    "reply",
    [Reply(PNG, after=float("inf")), Reply(pieces=itertools.repeat(b"x"), every=1.0), Reply(pieces=[PNG], hang=True)],
)
def test_slow_servers_are_left_in_time(reply):
    found = fetched(reply)
    assert "did not arrive within 20 s" in str(found.error) and found.seconds == pytest.approx(20, abs=1)


def test_slow_hops_share_the_time_of_one():
    found = fetched(lambda call: Reply(status=302, headers={"location": f"{call.path}a"}, after=8))
    assert "within 20 s" in str(found.error) and found.seconds == pytest.approx(20, abs=1)


def test_a_slow_name_server_is_left_in_time():
    async def slow(host):
        await asyncio.sleep(100)

    found = fetched(IMAGE, names=slow)
    assert "within 5 s" in str(found.error) and found.seconds == pytest.approx(5, abs=1)


@pytest.mark.parametrize(
    "headers", [{"x": "a" * 20_000}, {f"x-{i}": "a" for i in range(200)}, {"a" * 20_000: "x"}, {"a b": "c"}]
)
def test_headers_that_are_too_many_or_too_long_end_a_fetch(headers):
    assert "broke off" in refusal(Reply(PNG, headers=headers))


def test_a_server_that_hangs_up_is_told():
    assert "broke off" in refusal(Reply(headers={"content-length": "9"}, cut=True))


# --- data: URLs


@pytest.mark.parametrize(
    "url",
    [
        "data:", "data:,", "data:image/png,abc", "data:image/png;base64", "data:text/html;base64,AAAA",
        "data:;base64,AAAA",
        "data:image/svg+xml;base64,AAAA", "data:image/bmp;base64,AAAA", "data:image/*;base64,AAAA",
        "data:image;base64,AAAA",
        "data:image/png;charset=utf-8;base64,AAAA", " data:image/png;base64,AAAA", "data: image/png;base64,AAAA",
        "data://image/png;base64,AAAA", "data:image/png;base64;base64,AAAA", "dat\na:image/png;base64,AAAA",
        "data:image/png;base64 ,AAAA", "data:image/png\n;base64,AAAA", "DATA:IMAGE/TIFF;BASE64,AAAA",
    ],
)  # fmt: skip
def test_data_urls_of_other_forms_are_refused(url):
    with pytest.raises(ImageError, match="data:image/png;base64,…"):
        get(url)


GOOD = base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{GOOD[:8]}\n\n\n\n{GOOD[8:]}", f"{GOOD[:4]}!!!!{GOOD[4:]}", f"{GOOD[:4]}----{GOOD[4:]}",
        "", "=", "====", "A", "AA", "AAA", "AA=A", "A===", f"{GOOD}=", f"{GOOD}==", f"{GOOD}===", f"{GOOD}====",
        f"{GOOD}\n", f" {GOOD}", f"{GOOD[:8]}\n{GOOD[8:]}", "-_-_",
        GOOD.replace("/", "%2F") + "%", f"{GOOD}AAAA=AAA", f"{GOOD[:4]}é{GOOD[4:]}", f"{GOOD}#", f"{GOOD}?a",
        "\ud800AAA", f"ＡＡ{GOOD}",
    ],
)  # fmt: skip
def test_base64_is_read_strictly(text):
    with pytest.raises(ImageError):
        get(f"data:image/png;base64,{text}")


def test_the_kind_that_a_data_url_names_is_ignored():
    for kind in ("image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp", "IMAGE/PNG"):
        assert get(data_url(PNG, kind)) == PNG


def test_a_data_url_is_measured_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(fetch.binascii, "a2b_base64", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="more than 1,000 bytes"):
        get("data:image/png;base64," + "A" * 1400, limits=SMALL)


# --- many images


def gathered(paths, reply=IMAGE, **limits):
    async def main():
        async with serve(reply if callable(reply) else lambda _: reply) as mock:
            port = urlsplit(mock.url).port
            fetcher = ImageFetcher(
                FetchLimits(**limits), ports=(port,), is_allowed=loopback_too, resolve=Names(["127.0.0.1"])
            )
            urls = [path if path.startswith("data:") else f"http://{HOST}:{port}{path}" for path in paths]
            try:
                return await fetcher.get_all(urls), mock
            except (ImageError, OverloadedError) as error:
                await asyncio.sleep(1)
                assert len(asyncio.all_tasks()) == 1, "a fetch goes on"
                return error, mock
            finally:
                fetcher.close()

    return run(main())


def test_the_images_of_a_request_come_in_order_and_each_once():
    gif = encode("GIF")
    found, mock = gathered(
        ["/b", data_url(gif), "/a", "/b"], lambda call: Reply(encode("WEBP")) if call.path == "/a" else IMAGE
    )
    assert found == [PNG, gif, encode("WEBP"), PNG] and sorted(call.path for call in mock.calls) == ["/a", "/b"]
    assert gathered([])[0] == []


def test_the_images_of_a_request_are_counted_and_weighed():
    found, mock = gathered([f"/{i}" for i in range(33)])
    assert "33 images; at most 32" in str(found) and not mock.calls
    found, _ = gathered(["/a", "/b"], all_bytes=len(PNG) * 2 - 1)
    assert f"more than {len(PNG) * 2 - 1} bytes" in str(found)
    assert len(gathered(["/a", "/b"], all_bytes=len(PNG) * 2)[0]) == 2


def test_one_bad_image_ends_the_others():
    slow = Reply(PNG, after=15)
    found, mock = gathered(["/slow", "/bad"], lambda call: slow if call.path == "/slow" else Reply(status=404))
    assert "status 404" in str(found) and len(mock.calls) == 2


def test_only_so_many_are_fetched_at_once():
    found, mock = gathered([f"/{i}" for i in range(9)], Reply(PNG, after=1), concurrency=2)
    assert found == [PNG] * 9 and mock.most == 2


def test_waiting_for_a_place_takes_no_time_from_a_fetch():
    assert gathered(["/a", "/b"], Reply(PNG, after=15), concurrency=1)[0] == [PNG, PNG]


def test_who_waits_too_long_for_a_place_is_told_to_come_again():
    async def main():
        async with serve(lambda _: Reply(after=float("inf"))) as mock:
            port = urlsplit(mock.url).port
            fetcher = ImageFetcher(
                FetchLimits(concurrency=1), ports=(port,), is_allowed=loopback_too, resolve=Names(["127.0.0.1"])
            )
            gets = [fetcher.get(f"http://{HOST}:{port}/") for _ in range(3)]
            found = await asyncio.gather(*gets, return_exceptions=True)
            fetcher.close()
            return [type(error) for error in found]

    found = run(main())
    assert found[0] is ImageError and found[2] is OverloadedError
