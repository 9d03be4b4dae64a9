"""The ways in and out: log in, sign up, join the waitlist, accept an invitation, become the first admin, log out."""

from __future__ import annotations

import re

from foretell.errors import RequestError
from foretell.pages import Html, el
from foretell.serve.accounts import links, passwords, people, sessions, waitlist
from foretell.serve.web.forms import area, button, field, form, hidden, read_line, read_text
from foretell.serve.web.shell import shell
from foretell.serve.web.site import FormError, NotFound, Page, Reply, Visit, go

_NEXT = re.compile(r"/[\w-]+(?:/[\w-]+)*\Z", re.ASCII)
_LONGEST_TOKEN = 200


def _home(visit: Visit) -> Reply:
    return go("/account" if visit.account else "/log-in")


def _log_in_page(visit: Visit) -> Reply:
    wanted = visit.given("next") or visit.query.get("next", "")
    ways = {"open": ("Sign up", "/sign-up"), "invite": ("Join the waitlist", "/waitlist")}
    other = ways.get(visit.site.sign_up)
    return shell(
        visit,
        "Log in",
        form(
            visit,
            "/log-in",
            hidden("next", wanted) if _NEXT.match(wanted) else "",
            _email(visit, "username"),
            field("Password", "password", kind="password", autocomplete="current-password"),
            button("Log in"),
            class_="stack",
        ),
        el("p", "No account yet? ", el("a", other[0], href=other[1]), class_="aside") if other else "",
    )


def _log_in(visit: Visit) -> Reply:
    email, password = read_line(visit, "email", "The email address", longest=254), read_password(visit)
    secret = sessions.log_in(visit.site.store, email, password, visit.address, visit.session)
    wanted = visit.given("next")
    return go(wanted if _NEXT.match(wanted) else visit.site.home, session=secret)


def _log_out(visit: Visit) -> Reply:
    if visit.session is not None:
        sessions.end(visit.site.store, visit.session)
    return go("/log-in?said=out", session="")


def _sign_up_page(visit: Visit) -> Reply:
    if visit.site.sign_up != "open":
        raise NotFound
    return shell(
        visit,
        "Sign up",
        form(visit, "/sign-up", _email(visit), new_password(), button("Open the account"), class_="stack"),
        el("p", "Have an account? ", el("a", "Log in", href="/log-in"), class_="aside"),
    )


def _sign_up(visit: Visit) -> Reply:
    if visit.site.sign_up != "open":
        raise NotFound
    email, password = read_line(visit, "email", "The email address", longest=254), read_password(visit)
    try:
        people.sign_up(visit.site.store, email, password, visit.address)
    except RequestError as error:
        if error.code != "email_taken":
            raise
    # The same answer and the same work whether or not the address had an account, so that nobody can ask who has one.
    return go("/log-in?said=opened")


def _waitlist_page(visit: Visit) -> Reply:
    if visit.site.sign_up != "invite":
        raise NotFound
    note = area("What you want to use it for", "note", visit.given("note"), longest=1000, rows=4, required=False)
    return shell(
        visit,
        "Join the waitlist",
        form(visit, "/waitlist", _email(visit), note, button("Join"), class_="stack"),
        el("p", "Have an account? ", el("a", "Log in", href="/log-in"), class_="aside"),
        lead="Accounts are given out one by one. Leave an address, and whoever runs this server sends you a link.",
    )


def _wait(visit: Visit) -> Reply:
    if visit.site.sign_up != "invite":
        raise NotFound
    email = read_line(visit, "email", "The email address", longest=254)
    note = read_text(visit, "note", "What it is for", longest=1000, required=False)
    waitlist.join(visit.site.store, email, note, visit.address)
    return go("/waitlist?said=waiting")


def _join_page(visit: Visit) -> Reply:
    token = _given_token(visit)
    with visit.site.store.read() as db:
        purpose, _ = links.peek(db, token, "invite", "password", now=visit.site.store.clock())
    invited = purpose == "invite"
    return shell(
        visit,
        "Open your account" if invited else "Choose a password",
        form(
            visit,
            "/join",
            hidden("token", token),
            new_password(),
            button("Open the account" if invited else "Set the password"),
            class_="stack",
        ),
        lead="You were invited. Choose a password, and the account is yours."
        if invited
        else "This link sets your password, once. Every session of your account ends with it.",
    )


def _join(visit: Visit) -> Reply:
    store = visit.site.store
    user = waitlist.accept(store, _given_token(visit), read_password(visit), visit.address)
    return go("/account?said=welcome", session=sessions.begin(store, user, visit.address, visit.session))


def _first_page(visit: Visit) -> Reply:
    token = _given_token(visit)
    with visit.site.store.read() as db:
        links.peek(db, token, "first", "admin", now=visit.site.store.clock())
    return shell(
        visit,
        "Become an admin",
        form(
            visit,
            "/first",
            hidden("token", token),
            _email(visit),
            new_password(),
            button("Open the account"),
            class_="stack",
        ),
        lead="This link works once: whoever uses it administers the server.",
    )


def _first(visit: Visit) -> Reply:
    store, token = visit.site.store, _given_token(visit)
    email, password = read_line(visit, "email", "The email address", longest=254), read_password(visit)
    user = waitlist.become_admin(store, token, email, password, visit.address)
    return go("/admin?said=welcome", session=sessions.begin(store, user, visit.address, visit.session))


def _given_token(visit: Visit) -> str:
    return (visit.given("token") or visit.query.get("token", ""))[:_LONGEST_TOKEN]


def _email(visit: Visit, autocomplete: str = "email") -> Html:
    return field("Email address", "email", visit.given("email"), kind="email", autocomplete=autocomplete, longest=254)


def new_password(label: str = "Password") -> Html:
    return field(
        label,
        "password",
        kind="password",
        autocomplete="new-password",
        shortest=passwords.SHORTEST,
        longest=passwords.LONGEST,
        note=f"At least {passwords.SHORTEST} characters. A few words that nobody else would put together are good.",
    )


def read_password(visit: Visit) -> str:
    """As it was typed: a space at its end is part of it."""
    if not (password := visit.given("password")):
        raise FormError("The password is empty. Fill it in.")
    return password


PAGES = (
    Page("/", "anyone", _home),
    Page("/log-in", "anyone", _log_in_page, _log_in),
    Page("/log-out", "user", post=_log_out),
    Page("/sign-up", "anyone", _sign_up_page, _sign_up),
    Page("/waitlist", "anyone", _waitlist_page, _wait),
    Page("/join", "anyone", _join_page, _join),
    Page("/first", "anyone", _first_page, _first),
)
