"""admin: users, keys, the waitlist and the form of a gateway's database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.cli import audit, draw
from foretell.cli import moments as when
from foretell.cli.gateway import ACTOR, Database, open_database

if TYPE_CHECKING:
    from foretell.serve.accounts.account import Role, Status
    from foretell.serve.accounts.people import Person
    from foretell.serve.store import Store

app = typer.Typer(
    help="Who may use a server, and what was done: users, keys, waitlist, audit log.", no_args_is_help=True
)
users = typer.Typer(help="Users: role, tier, status, budget.", no_args_is_help=True)
keys = typer.Typer(help="Keys of the API.", no_args_is_help=True)
waitlist = typer.Typer(help="Who waits for an account.", no_args_is_help=True)
app.add_typer(users, name="users")
app.add_typer(keys, name="keys")
app.add_typer(waitlist, name="waitlist")
app.add_typer(audit.app, name="audit")

User = Annotated[str, typer.Argument(metavar="USER", help="E-mail address or id.")]
Tier = Annotated[str, typer.Option(help="What limits apply.")]
Budget = Annotated[str, typer.Argument(metavar="DOLLARS", help="A calendar month; none: as the tier says.")]
Url = Annotated[str, typer.Option(help="Where people reach the server's pages.")]
Reason = Annotated[str, typer.Option(help="For the audit log.")]
HERE = "http://127.0.0.1:8000"


@users.command("list")
def users_list(
    text: Annotated[str, typer.Argument(help="Only addresses that hold this.")] = "",
    limit: Annotated[int, typer.Option(min=1)] = 100,
    after: Annotated[str, typer.Option(help="Only addresses that come later in the alphabet.")] = "",
    database: Database = None,
) -> None:
    """Users by e-mail address."""
    from foretell.serve.accounts import people

    with open_database(database) as store, store.read() as db:
        found = people.listing(db, text, after, limit, store.clock())
    head = ("e-mail address", "id", "role", "tier", "status", "a month", "since", "password")
    draw.table(head, [_user_row(person) for person in found], right=(5,))


@users.command("add")
def users_add(
    email: Annotated[str, typer.Argument()],
    role: Annotated[str, typer.Option(help="user, reviewer or admin.")] = "user",
    tier: Tier = "free",
    url: Url = HERE,
    database: Database = None,
) -> None:
    """Add a user, and print a link by which they set their password, once."""
    from foretell.serve.accounts import people, waitlist

    with open_database(database) as store, store.write() as db:
        id = people.add(db, email, now=store.clock(), actor=ACTOR, role=_role(role), tier=tier)
        token = waitlist.password_link(db, id, now=store.clock(), actor=ACTOR)
    print(id)
    _tell_link("password", token, url)


@users.command("password")
def users_password(user: User, url: Url = HERE, database: Database = None) -> None:
    """Print a link by which a user sets a new password, once; the old one is good until then."""
    from foretell.serve.accounts import waitlist

    with open_database(database) as store, store.write() as db:
        token = waitlist.password_link(db, _user(store, db, user).id, now=store.clock(), actor=ACTOR)
    _tell_link("password", token, url)


@users.command("role")
def users_role(
    user: User, role: Annotated[str, typer.Argument(help="user, reviewer or admin.")], database: Database = None
) -> None:
    """Give a user another role."""
    from foretell.serve.accounts import people

    with open_database(database) as store, store.write() as db:
        found = _user(store, db, user)
        people.set_role(db, found.id, _role(role), now=store.clock(), actor=ACTOR)
    print(f"{found.email}: role {role}")


@users.command("tier")
def users_tier(user: User, tier: Annotated[str, typer.Argument()], database: Database = None) -> None:
    """Put a user into another tier."""
    from foretell.serve.accounts import people

    with open_database(database) as store, store.write() as db:
        found = _user(store, db, user)
        people.set_tier(db, found.id, tier, now=store.clock(), actor=ACTOR)
    print(f"{found.email}: tier {tier}")


@users.command("budget")
def users_budget(user: User, budget: Budget, database: Database = None) -> None:
    """Set what a user may spend in a month."""
    from foretell.serve.accounts import people

    amount = when.micro_dollars(budget)
    with open_database(database) as store, store.write() as db:
        found = _user(store, db, user)
        people.set_budget(db, found.id, amount, now=store.clock(), actor=ACTOR)
    print(f"{found.email}: {when.money(amount)} a month")


@users.command("suspend")
def users_suspend(
    user: User,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="7d, 12h, or 2026-12-31; default until reinstated.")
    ] = None,
    reason: Reason = "",
    database: Database = None,
) -> None:
    """Keep a user out for a time; they may still log in to appeal."""
    _set_status(database, user, "suspended", until, reason)


@users.command("ban")
def users_ban(user: User, reason: Reason = "", database: Database = None) -> None:
    """Keep a user out; they may still log in to appeal."""
    _set_status(database, user, "banned", None, reason)


@users.command("reinstate")
def users_reinstate(user: User, reason: Reason = "", database: Database = None) -> None:
    """Let a suspended or banned user in again."""
    _set_status(database, user, "active", None, reason)


@keys.command("create")
def keys_create(
    user: User,
    name: Annotated[str, typer.Option(help="What it is for.")] = "command line",
    scope: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default inference and usage.", show_default=False)
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="90d, or 2026-12-31; default never.")] = None,
    budget: Annotated[str, typer.Option(metavar="DOLLARS", help="A calendar month; none: the user's alone.")] = "none",
    database: Database = None,
) -> None:
    """Make a key and print it, the only time that it is shown."""
    from foretell.serve.accounts import keys

    amount = when.micro_dollars(budget)
    with open_database(database) as store, store.write() as db:
        end = when.moment(expires, store.clock())
        found = _user(store, db, user)
        scopes = scope or keys.DEFAULT_SCOPES
        id, secret = keys.create(
            db, found.id, name, now=store.clock(), scopes=scopes, expires=end, budget=amount, actor=ACTOR
        )
    print(f"{id}\n{secret}")


@keys.command("list")
def keys_list(
    user: Annotated[str | None, typer.Argument(metavar="[USER]", help="E-mail address or id; default all.")] = None,
    database: Database = None,
) -> None:
    """Keys, the newest first; of each its last letters."""
    from foretell.serve.accounts import keys

    with open_database(database) as store, store.read() as db:
        found = keys.of_user(db, _user(store, db, user).id if user is not None else None)
        now = store.clock()
    head = ("id", "user", "name", "ends with", "scopes", "a month", "created", "used", "expires", "state")
    rows = [
        (
            key.id, key.user, key.name, f"…{key.hint}", " ".join(sorted(key.scopes)), when.money(key.budget),
            when.day(key.created), when.minute(key.used), when.minute(key.expires), key.state(now),
        )
        for key in found
    ]  # fmt: skip
    draw.table(head, rows, right=(5,))


@keys.command("revoke")
def keys_revoke(key: Annotated[str, typer.Argument(metavar="KEY", help="Its id.")], database: Database = None) -> None:
    """End a key, for ever."""
    from foretell.serve.accounts import keys

    if key.startswith(keys.PREFIX):
        raise typer.BadParameter("give the key's id, such as key_1f0c…, not the key. foretell admin keys list has it.")
    with open_database(database) as store, store.write() as db:
        keys.revoke(db, key, now=store.clock(), actor=ACTOR)
    print(f"{key}: revoked")


@waitlist.command("list")
def waitlist_list(
    all: Annotated[bool, typer.Option("--all", help="Those with an account too.")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 100,
    database: Database = None,
) -> None:
    """Who waits, the longest first."""
    from foretell.serve.accounts import waitlist

    with open_database(database) as store, store.read() as db:
        found = waitlist.listing(db, all=all, limit=limit)
    head = ("e-mail address", "id", "joined", "invited", "accepted", "note")
    rows = [
        (each.email, each.id, when.day(each.joined), when.day(each.invited), when.day(each.accepted),
         " ".join(each.note.split())[:80])
        for each in found
    ]  # fmt: skip
    draw.table(head, rows)


@waitlist.command("invite")
def waitlist_invite(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[WHO]...", help="E-mail addresses or ids on the list.")
    ] = None,
    next: Annotated[int, typer.Option(min=0, help="Besides, so many of those who wait longest.")] = 0,
    tier: Tier = "free",
    url: Url = HERE,
    database: Database = None,
) -> None:
    """Print a link for each, by which they open their account, once; send it to them."""
    from foretell.serve.accounts import waitlist

    if not names and not next:
        raise typer.BadParameter("say whom to invite, or --next NUMBER.")
    with open_database(database) as store, store.write() as db:
        now = store.clock()
        chosen = [*(names or ()), *(each.id for each in waitlist.next_in_line(db, next))]
        tokens = [(name, waitlist.invite(db, name, now=now, actor=ACTOR, tier=tier)) for name in chosen]
        emails = {each.id: each.email for each in waitlist.listing(db, limit=10**6)}
    for name, token in tokens:
        print(f"{emails.get(name, name)}  {_link('invite', token, url)}")


@app.command()
def link(url: Url = HERE, database: Database = None) -> None:
    """Print a link by which somebody becomes an admin, once."""
    from foretell.serve.accounts import waitlist

    with open_database(database) as store, store.write() as db:
        token = waitlist.admin_link(db, now=store.clock(), actor=ACTOR)
    _tell_link("admin", token, url)


@app.command()
def labels(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, for the classifier's next training.")],
    database: Database = None,
) -> None:
    """Write what reviewers labelled, a text and its categories a line."""
    from foretell.serve.reviews.training import export_training

    with open_database(database) as store:
        print(f"{out}: {export_training(store, out)} labelled texts")


@app.command()
def feedback(
    to: Annotated[Path, typer.Option(metavar="FILE", help="JSON lines of preferences; ratings beside it.")],
    chats: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Database of a chat page without accounts.")
    ] = None,
    database: Database = None,
) -> None:
    """Write what people said of replies on the chat page, as data for reward models and DPO."""
    with open_database(str(chats) if chats is not None else database) as store:
        from foretell.serve.chats.feedback import export

        preferences, count, ratings, rated = export(store, to)
        print(f"{preferences}: {count} preferences\n{ratings}: {rated} ratings")


@app.command()
def upgrade(database: Database = None) -> None:
    """Bring the database to the form that this version needs, or make it. The server does so when it starts."""
    with open_database(database, up_to_date=False) as store:
        from foretell.serve.migrations import upgrade

        before, after = upgrade(store)
        done = "made" if before is None else "up to date already" if before == after else f"upgraded from {before}"
        print(f"{store.name}: {done}, version {after}")


def _set_status(database: str | None, user: str, status: Status, until: str | None, reason: str) -> None:
    from foretell.serve.accounts import people

    with open_database(database) as store, store.write() as db:
        now = store.clock()
        end = when.moment(until, now)
        found = _user(store, db, user)
        people.set_status(db, found.id, status, now=now, actor=ACTOR, until=end, reason=reason)
    print(f"{found.email}: {status}" + (f" until {when.minute(end)} UTC" if end else ""))


def _user(store: Store, db: object, name: str) -> Person:
    from foretell.serve.accounts import people

    return people.named(db, name, store.clock())  # type: ignore[arg-type]


def _role(role: str) -> Role:
    return role  # type: ignore[return-value]  # people refuses what is none


def _user_row(person: Person) -> tuple[str, ...]:
    status: str = person.status
    if status == "suspended" and person.status_until is not None:
        status += f" until {when.minute(person.status_until)}"
    has = "set" if person.can_log_in else "not set"
    money = when.money(person.budget)
    return (person.email, person.id, person.role, person.tier, status, money, when.day(person.created), has)


def _link(purpose: str, token: str, url: str) -> str:
    from foretell.serve.accounts.links import PAGES

    return f"{url.rstrip('/')}{PAGES[purpose]}?token={token}"  # type: ignore[index]


def _tell_link(purpose: str, token: str, url: str) -> None:
    from foretell.serve.accounts.links import LASTS

    hours = LASTS[purpose] // 3_600_000  # type: ignore[index]
    print(f"{_link(purpose, token, url)}\nIt works once, within {hours} hours.")
