"""The ways in and out: log in, sign up, join the waitlist, accept an invitation, become the first admin, log out."""

from __future__ import annotations

import re

from foretell.pages import Html, el
from foretell.serve.accounts import people, sessions, waitlist
from foretell.serve.web.forms import area, button, field, form, hidden, read_line, read_text
from foretell.serve.web.shell import shell
from foretell.serve.web.site import FormError, Page, Reply, Visit, go

_NEXT = re.compile(r"/(?:[\w-]+(?:/[\w-]+)*)?\Z", re.ASCII)


def _home(visit: Visit) -> Reply:
    if visit.account is None:
        return go("/log-in")
    return go("/account")


def _log_in_page(visit: Visit) -> Reply:
    wanted = visit.given("next") or visit.query.get("next", "")
    others = [el("a", "Forgot your password? Ask whoever runs this server for a new link.")] if False else []
    if visit.site.sign_up == "open":
        others.append(el("p", "No account yet? ", el("a", "Sign up", href="/sign-up"), ".", class_="aside"))
    elif visit.site.sign_up == "invite":
        others.append(el("p", "No account yet? ", el("a", "Join the waitlist", href="/waitlist"), ".", class_="aside"))
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
        *others,
    )


def _email(visit: Visit, autocomplete: str = "email") -> Html:
    return field(
        "Email address", "email", visit.given("email"), kind="email", autocomplete=autocomplete, longest=254
    )
