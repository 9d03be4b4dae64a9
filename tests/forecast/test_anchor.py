"""Anchors: a time-stamping authority and a git key made here; nothing leaves the machine."""

from __future__ import annotations

import base64
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from foretell.errors import ForecastError
from foretell.forecast import Forecast, LadderTable, anchor, ledger
from foretell.forecast.anchor import check_anchors, stamp, tag
from foretell.forecast.register import bundle, note, read, register

TSA = """
[ tsa ]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
certs = {folder}/ca.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
[ stamping ]
extendedKeyUsage = critical,timeStamping
[ authority ]
basicConstraints = critical,CA:true
[ req ]
distinguished_name = name
[ name ]
"""


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def authority(folder: Path) -> Path:
    """A time-stamping authority of its own; returns its certificate."""
    folder.mkdir()
    config, ca, key = folder / "config", folder / "ca.pem", folder / "ca.key"
    config.write_text(TSA.format(folder=folder))
    (folder / "serial").write_text("01\n")
    new = ("req", "-config", config, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-keyout", key, "-out", ca, "-subj", "/CN=Test CA", "-extensions", "authority")
    openssl(*new, "-keyout", folder / "tsa.key", "-out", folder / "tsa.csr", "-subj", "/CN=Test TSA")
    signing = ("-CA", ca, "-CAkey", key, "-CAcreateserial", "-extfile", config, "-extensions", "stamping")
    openssl("x509", "-req", "-in", folder / "tsa.csr", *signing, "-out", folder / "tsa.pem")
    return ca


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    return authority(tmp_path / "ca")


@pytest.fixture
def url(ca: Path) -> Iterator[str]:
    """The authority's address on this machine; /nonsense answers with something else."""

    class Stamps(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query, reply = ca.with_name("query"), ca.with_name("reply")
            query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            configured = ("-config", ca.with_name("config"), "-section", "tsa")
            openssl("ts", "-reply", *configured, "-queryfile", query, "-out", reply)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"busy" if self.path == "/nonsense" else reply.read_bytes())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Stamps)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path: Path, ladder: LadderTable, forecast: Forecast) -> Path:
    for name in ("one.json", "two.json"):
        register(tmp_path / "records" / name, ladder, forecast, target=1e18)
    return tmp_path / "records" / "one.json"


def test_a_time_stamp_is_checked_against_its_authority_alone(path: Path, url: str, ca: Path, tmp_path: Path) -> None:
    stamp(path, url)
    bundle(path, tmp_path / "bundle")
    for place in (path, tmp_path / "bundle"):
        (found,) = check_anchors(read(place), ca)
        assert found.holds and "GMT" in found.text and url in found.text
    (unchecked,) = check_anchors(read(path))
    assert unchecked.holds is None and "GMT" in unchecked.text
    (foreign,) = check_anchors(read(path), authority(tmp_path / "other"))
    assert foreign.holds is False
    assert check_anchors(read(path.with_name("two.json")), ca) == []


def test_a_time_stamp_is_checked_at_its_own_time(
    path: Path, url: str, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had it been made before the authority's certificate was valid, it would not hold."""
    stamp(path, url)
    monkeypatch.setattr(anchor.ssl, "cert_time_to_seconds", lambda text: 10**9)
    (found,) = check_anchors(read(path), ca)
    assert found.holds is False and "not yet valid" in found.text


def test_a_time_stamp_of_another_record_does_not_hold(path: Path, url: str, ca: Path) -> None:
    entry = stamp(path, url).own[-1]
    other = path.with_name("two.json")
    note(read(other), {key: entry[key] for key in ("kind", "url", "time", "reply")})
    note(read(other), {"kind": "stamp", "reply": "?"})
    note(read(other), {"kind": "stamp", "url": url, "reply": base64.b64encode(b"x").decode()})
    assert [found.holds for found in check_anchors(read(other), ca)] == [False, False, False]


def test_no_authority_no_entry(path: Path, url: str) -> None:
    before = ledger.read_ledger(path.parent)
    for address, message in [
        (url + "nonsense", "no time stamp"),
        ("http://127.0.0.1:1/", "gave no time stamp"),
        ("file:///etc/passwd", "not the address"),
    ]:
        with pytest.raises(ForecastError, match=message):
            stamp(path, address)
    assert ledger.read_ledger(path.parent) == before


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a signing key that git trusts."""
    if not shutil.which("git") or not shutil.which("ssh-keygen"):
        pytest.skip("git or ssh-keygen is not installed")
    key, trusted = tmp_path / "key", tmp_path / "trusted"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, capture_output=True)
    trusted.write_text(f"me@example.org {(tmp_path / 'key.pub').read_text()}")
    config = tmp_path / "gitconfig"
    config.write_text(
        f"[user]\nname = Me\nemail = me@example.org\nsigningkey = {key}\n"
        f'[gpg]\nformat = ssh\n[gpg "ssh"]\nallowedSignersFile = {trusted}\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = tmp_path / "repository"
    for command in (["init", "-q", str(folder)], ["-C", str(folder), "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True, capture_output=True)
    return folder


def test_a_signed_tag_travels_in_the_bundle(path: Path, repository: Path, tmp_path: Path) -> None:
    tag(path, "forecast-1", repository)
    bundle(path, tmp_path / "bundle")
    shutil.rmtree(repository)
    (found,) = check_anchors(read(tmp_path / "bundle"))
    assert found.holds and "forecast-1" in found.text
    (tmp_path / "trusted").write_text("")
    (unknown,) = check_anchors(read(path))
    assert not unknown.holds


def test_a_tag_of_another_record_or_without_its_signature_does_not_hold(path: Path, repository: Path) -> None:
    entry = tag(path, "forecast-1", repository).own[-1]
    other = path.with_name("two.json")
    note(read(other), {key: entry[key] for key in ("kind", "name", "tag")})
    assert check_anchors(read(other))[0].holds is False
    note(read(path), {"kind": "tag", "name": "x", "tag": entry["tag"].replace("tagger Me", "tagger You")})
    assert [found.holds for found in check_anchors(read(path))] == [True, False]
    with pytest.raises(ForecastError, match="git refused"):
        tag(path, "forecast-1", repository)


def test_a_bundle_is_not_anchored_again(path: Path, repository: Path, tmp_path: Path) -> None:
    bundle(path, tmp_path / "bundle")
    with pytest.raises(ForecastError, match="is a bundle"):
        tag(tmp_path / "bundle", "forecast-2", repository)
    listed = subprocess.run(["git", "-C", repository, "tag"], check=True, capture_output=True).stdout
    assert listed == b""
