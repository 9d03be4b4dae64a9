"""`foretell admin`: what it does to a database, and what it says of bad input."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from storekit import add_user

from clikit import invoke
from foretell.cli import moments
from foretell.errors import RequestError
from foretell.serve.accounts import keys, sessions, waitlist
from foretell.serve.migrations import upgrade
from foretell.serve.store import Store

Capture = pytest.CaptureFixture[str]
EMAIL, PASSWORD = "ada@example.org", "correct horse battery"
DAY = 86_400_000


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "gateway.db"
    monkeypatch.setenv("FORETELL_DATABASE", str(path))
    return path


def admin(capsys: Capture, *arguments: object) -> str:
    code, out, err = invoke(capsys, "admin", *arguments)
    assert (code, err) == (0, ""), err
    return out


def fields(out: str) -> list[list[str]]:
    """A table's rows by its cells, without its head."""
    return [re.split(r"  +", line.strip()) for line in out.splitlines()[1:]]


def token_of(out: str) -> str:
    found = re.search(r"\?token=([\w-]{43})", out)
    assert found
    return found[1]


def test_from_an_added_user_to_a_log_in(capsys: Capture, database: Path) -> None:
    out = admin(capsys, "users", "add", "Ada@Example.org", "--tier", "plus", "--url", "https://models.example.org/")
    id = out.splitlines()[0]
    assert f"https://models.example.org/join?token={token_of(out)}\nIt works once, within 72 hours." in out
    store = Store(database)
    assert waitlist.accept(store, token_of(out), PASSWORD, "here") == id
    assert sessions.log_in(store, EMAIL, PASSWORD, "here")
    new = admin(capsys, "users", "password", EMAIL)
    assert waitlist.accept(store, token_of(new), "another good one", "here") == id
    store.close()
    (row,) = fields(admin(capsys, "users", "list"))
    assert row[:6] == [EMAIL, id, "user", "plus", "active", "–"] and row[7] == "set"


def test_a_user_is_changed(capsys: Capture) -> None:
    admin(capsys, "users", "add", EMAIL)
    assert admin(capsys, "users", "role", EMAIL, "reviewer") == f"{EMAIL}: role reviewer\n"
    assert admin(capsys, "users", "tier", EMAIL, "plus") == f"{EMAIL}: tier plus\n"
    assert admin(capsys, "users", "budget", EMAIL, "12.5") == f"{EMAIL}: $12.50 a month\n"
    assert re.fullmatch(
        rf"{EMAIL}: suspended until \d{{4}}-\d\d-\d\d \d\d:\d\d UTC\n",
        admin(capsys, "users", "suspend", EMAIL, "--until", "7d", "--reason", "spam"),
    )
    (row,) = fields(admin(capsys, "users", "list", "ada"))
    assert row[2:4] == ["reviewer", "plus"] and row[4].startswith("suspended until") and row[5] == "$12.50"
    assert admin(capsys, "users", "ban", EMAIL) == f"{EMAIL}: banned\n"
    assert admin(capsys, "users", "reinstate", EMAIL) == f"{EMAIL}: active\n"
    assert admin(capsys, "users", "budget", EMAIL, "none") == f"{EMAIL}: – a month\n"
    out = admin(capsys, "audit", "list", "--action", "user.status")
    assert out.count("user.status") == 3 and '"reason": "spam"' in out


def test_a_key_is_shown_once(capsys: Capture, database: Path) -> None:
    admin(capsys, "users", "add", EMAIL)
    out = admin(
        capsys, "keys", "create", EMAIL, "--name", "laptop", "--scope", "usage", "--expires", "30d", "--budget", 5
    )
    id, secret = out.split()
    store = Store(database)
    found = keys.find(store, secret)
    assert found and (found.key, found.scopes, found.key_budget) == (id, {"usage"}, 5_000_000)
    listed = admin(capsys, "keys", "list", EMAIL)
    assert secret not in listed
    (row,) = fields(listed)
    assert row[0] == id and row[2:6] == ["laptop", f"…{secret[-4:]}", "usage", "$5.00"] and row[9] == "usable"
    assert admin(capsys, "keys", "revoke", id) == f"{id}: revoked\n"
    assert keys.find(store, secret) is None
    store.close()
    assert fields(admin(capsys, "keys", "list"))[0][9] == "revoked"


def test_the_waitlist(capsys: Capture, database: Path) -> None:
    admin(capsys, "upgrade")
    store = Store(database)
    for name in "abc":
        waitlist.join(store, f"{name}@example.org", f"I am\n{name}.", "here")
    assert [row[0] for row in fields(admin(capsys, "waitlist", "list"))] == [
        "a@example.org",
        "b@example.org",
        "c@example.org",
    ]
    out = admin(capsys, "waitlist", "invite", "c@example.org", "--next", 1, "--tier", "plus")
    assert [line.split("  ")[0] for line in out.splitlines()] == ["c@example.org", "a@example.org"]
    waitlist.accept(store, token_of(out), PASSWORD, "here")
    store.close()
    assert [row[0] for row in fields(admin(capsys, "waitlist", "list"))] == ["a@example.org", "b@example.org"]
    assert len(fields(admin(capsys, "waitlist", "list", "--all"))) == 3


def test_an_admins_link(capsys: Capture, database: Path) -> None:
    out = admin(capsys, "link")
    store = Store(database)
    assert waitlist.become_admin(store, token_of(out), EMAIL, PASSWORD, "here")
    with pytest.raises(RequestError):
        waitlist.become_admin(store, token_of(out), "b@example.org", PASSWORD, "here")
    store.close()
    assert "http://127.0.0.1:8000/first?token=" in out
    assert fields(admin(capsys, "users", "list"))[0][2] == "admin"


def test_the_audit_log(capsys: Capture, database: Path) -> None:
    admin(capsys, "users", "add", EMAIL)
    admin(capsys, "users", "tier", EMAIL, "plus")
    out = admin(capsys, "audit", "verify")
    assert out.startswith("The audit log is intact: 3 rows. Its last hash")
    kept = out.split()[-1]
    assert admin(capsys, "audit", "redact", "--older", "365d") == "0 rows redacted\n"
    id = fields(admin(capsys, "users", "list"))[0][1]
    assert admin(capsys, "audit", "redact", "--subject", id) == "3 rows redacted\n"
    assert admin(capsys, "audit", "expire", "--older", "730d") == "0 rows removed\n"
    assert "4 rows, 3 of them redacted" in admin(capsys, "audit", "verify", "--hash", kept)
    assert admin(capsys, "audit", "list", "--subject", id).count("redacted") == 3
    with sqlite3.connect(database) as file:
        file.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    code, out, _ = invoke(capsys, "admin", "audit", "verify")
    assert code == 1 and out.startswith("The audit log is NOT intact: row 2 was changed, or stood elsewhere. 1 rows")


def test_upgrade_says_what_it_did(capsys: Capture) -> None:
    assert re.search(r"gateway\.db: made, version \d{4}\n", admin(capsys, "upgrade"))
    assert re.search(r"gateway\.db: up to date already, version \d{4}\n", admin(capsys, "upgrade"))


def test_a_newer_database_is_told(capsys: Capture, database: Path) -> None:
    admin(capsys, "upgrade")
    with sqlite3.connect(database) as file:
        file.execute("UPDATE foretell_version SET version_num = '9999'")
    for command in (("upgrade",), ("users", "list")):
        code, _, err = invoke(capsys, "admin", *command)
        assert code == 2 and "made by a newer Foretell" in err and len(err.splitlines()) == 1


def test_where_the_database_lies_if_nothing_is_said(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORETELL_DATABASE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    admin(capsys, "users", "list")
    assert (tmp_path / "data" / "foretell" / "gateway.db").is_file()
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    admin(capsys, "users", "list")
    assert (tmp_path / "home" / ".local" / "share" / "foretell" / "gateway.db").is_file()
    admin(capsys, "users", "list", "--database", tmp_path / "other.db")
    assert (tmp_path / "other.db").is_file()


@pytest.fixture(scope="module")
def with_ada(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database for commands that change nothing."""
    path = tmp_path_factory.mktemp("ada") / "gateway.db"
    store = Store(path)
    upgrade(store)
    add_user(store, EMAIL)
    store.close()
    return path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["users", "add", "no address"], "no e-mail address, such as ada@example.org"),
        (["users", "add", EMAIL], "an account with this e-mail address already"),
        (["users", "add", "b@c", "--role", "owner"], "'owner' is no role; there are user, reviewer, admin"),
        (["users", "add", "b@c", "--tier", "No Tier"], "'No Tier' is no tier's name"),
        (["users", "role", "nobody", "admin"], "There is no user nobody"),
        (["users", "role", EMAIL, "owner"], "'owner' is no role"),
        (["users", "budget", EMAIL, "much"], "'much' is no sum of dollars; expected such as 25, 0.50 or none"),
        (["users", "budget", EMAIL, "nan"], "no sum of dollars"),
        (["users", "budget", EMAIL, "1e30"], "below a billion"),
        (["users", "suspend", EMAIL, "--until", "soon"], "'soon' is no time; expected such as 7d"),
        (["users", "suspend", EMAIL, "--until", "2001-01-01"], "is past"),
        (["keys", "create", EMAIL, "--scope", "admin"], "cannot have the scope 'admin'"),
        (["keys", "revoke", "key_none"], "There is no key key_none"),
        (["keys", "revoke", "sk-ft-abc"], "give the key's id"),
        (["keys", "list", "nobody@example.org"], "There is no user nobody@example.org"),
        (["waitlist", "invite"], "say whom to invite"),
        (["waitlist", "invite", "b@c"], "b@c is not on the waitlist"),
        (["audit", "redact"], "give --subject, --older"),
        (["audit", "expire", "--older", "1y"], "'1y' is no duration; expected such as 30m, 12h, 7d or 2w"),
        (["users", "list", "--database", "sparkle://x"], "Give a file, or a URL of postgresql://"),
        (["users", "frobnicate"], "No such command"),
    ],
)
def test_bad_input_is_one_paragraph(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, with_ada: Path, arguments: list[str], told: str
) -> None:
    monkeypatch.setenv("FORETELL_DATABASE", str(with_ada))
    code, _, err = invoke(capsys, "admin", *arguments)
    assert code == 2 and told in err and len(err.strip().splitlines()) == 1


def test_the_only_admin_is_not_locked_out(capsys: Capture, database: Path) -> None:
    token = token_of(admin(capsys, "link"))
    store = Store(database)
    waitlist.become_admin(store, token, EMAIL, PASSWORD, "here")
    store.close()
    for command in (["role", EMAIL, "user"], ["ban", EMAIL], ["suspend", EMAIL]):
        code, _, err = invoke(capsys, "admin", "users", *command)
        assert code == 2 and "the only admin who can log in" in err and "foretell admin link" in err


def test_times_and_money() -> None:
    now = 1_795_176_000_000
    assert [moments.moment(text, now) for text in ("30m", "2w", "2026-11-21", "2026-11-20T13:00+01:00"[:16], None)] == [
        now + 1_800_000, now + 14 * DAY, now + DAY // 2, now + 3_600_000, None,
    ]  # fmt: skip
    assert moments.moment("2026-11-20T14:30+01:00", now) == now + 90 * 60_000
    assert [moments.micro_dollars(text) for text in ("25", "$0.5", "0.000001", "None")] == [
        25_000_000,
        500_000,
        1,
        None,
    ]
    assert [moments.money(each) for each in (0, 1, 25_000_000, 1_250_000, None)] == [
        "$0.00",
        "$0.000001",
        "$25.00",
        "$1.25",
        "–",
    ]
    assert (moments.day(now), moments.minute(now), moments.second(now)) == (
        "2026-11-20", "2026-11-20 12:00", "2026-11-20 12:00:00",
    )  # fmt: skip
