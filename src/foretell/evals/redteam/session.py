"""A red-teamer's page: talk to a model, put attacks on requests, and write down what was found, on this machine alone.

The page is reached by an address with a token that is drawn anew each time; without it nothing is answered. Notes go
into the journal of the folder, beside what a search tried.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import random
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

from foretell.chat import Conversation
from foretell.errors import ConversationError, EvalError, ForetellError
from foretell.evals.base import CompletionFn, Trial
from foretell.evals.local import LocalHandler, LocalServer, encode
from foretell.evals.redteam.hunt import ask
from foretell.evals.redteam.journal import SEVERITIES, Journal, Note, read_journal
from foretell.evals.redteam.operators import Attack, Catalogue, dress
from foretell.pages import Html, el
from foretell.pages.documents import document, static_files

TOKEN = "X-Foretell-Token"  # noqa: S105 (a header's name)
_MOST_BODY = 4_000_000  # bytes
_MOST_TEXT = 20_000  # characters of a note
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


class Session:
    """One model and one journal. areas: name → title. Calls of the model run one after the other on a loop of their
    own, since engines and connections belong to one."""

    def __init__(
        self,
        model: CompletionFn,
        journal: Journal,
        catalogue: Catalogue,
        areas: Mapping[str, str],
        *,
        max_tokens: int = 300,
        temperature: float = 0.0,
    ) -> None:
        self.model, self.journal, self.catalogue, self.areas = model, journal, catalogue, dict(areas)
        self.limits: dict[str, Any] = {"temperature": temperature, "max_tokens": max_tokens}
        self.token = secrets.token_urlsafe(24)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def say(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """The model's reply to messages in OpenAI form. Raises EvalError or ConversationError for others."""
        messages = told.get("messages")
        conversation = Conversation.from_openai(messages if isinstance(messages, list) else [])
        if not conversation.messages or conversation.messages[-1].role != "user":
            raise EvalError("The last message is to be the user's. Write one.")
        trial = Trial("session", [self.model], random.Random())
        said = ask(self.model, conversation.to_openai(), trial, **self.limits)
        return {"reply": asyncio.run_coroutine_threadsafe(said, self._loop).result()}

    def wear(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """A request under operators: messages before it, what is asked first, and the last message."""
        text, names = told.get("text"), told.get("attack")
        if not isinstance(text, str) or not text.strip():
            raise EvalError("There is no request. Write one.")
        attack: Attack = ()
        for name in names if isinstance(names, list) else []:
            if name not in self.catalogue.operators:
                raise EvalError(f"There is no operator {name!r:.60}.")
            made = (name,) if not attack else self.catalogue.compose(attack, name)
            if made is None:
                raise EvalError(f"{name} does not go with {' + '.join(attack)}. Take one of them off.")
            attack = made
        draft = dress(self.catalogue, attack, text.strip())
        lead = [{"role": "user", "content": one} for one in draft.lead]
        return {"head": draft.head(), "next": [*lead, draft.last()], "attack": list(attack)}

    def note(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a note. Raises EvalError for one that lacks an area, a family or a severity of those that there are."""
        for key, known in (("area", self.areas), ("family", self.catalogue.families), ("severity", SEVERITIES)):
            if told.get(key) not in known:
                raise EvalError(f"{key} is {told.get(key)!r:.60}; expected one of {', '.join(known)}.")
        texts = {key: told.get(key) or "" for key in ("who", "text", "refusal")}
        for key, text in texts.items():
            if not isinstance(text, str) or len(text) > _MOST_TEXT:
                raise EvalError(f"{key} is no text of at most {_MOST_TEXT:,} characters. Shorten it.")
        messages = told.get("messages")
        said = Conversation.from_openai(messages if isinstance(messages, list) else []).to_openai()
        reply = said.pop()["content"] if said and said[-1]["role"] == "assistant" else ""
        if not texts["text"].strip() and not said:
            raise EvalError("There is neither a conversation nor a note. Write one of them.")
        if said and told.get("succeeded") and not reply:
            raise EvalError("The conversation ends without a reply, so that nothing has succeeded. Send it first.")
        row = {
            "id": f"note/{uuid.uuid4().hex[:12]}", "who": texts["who"].strip(), "area": told["area"],
            "family": told["family"], "severity": told["severity"], "text": texts["text"].strip(),
            "succeeded": told.get("succeeded") is True, "messages": said, "reply": str(reply),
            "refusal": texts["refusal"].strip() or None,
        }  # fmt: skip
        self.journal.add("note", row)
        return {"notes": self.notes()}

    def notes(self) -> list[dict[str, Any]]:
        """Notes so far, the latest first, without what was said."""
        return [_short(note) for note in reversed(read_journal(self.journal.path).notes)]

    def start(self) -> dict[str, Any]:
        """What the page has to know."""
        families = [
            {"name": f.name, "title": f.title, "operators": list(f.operators)} for f in self.catalogue.families.values()
        ]
        return {
            "model": self.model.name, "areas": self.areas, "families": families, "severities": SEVERITIES,
            "notes": self.notes(),
        }  # fmt: skip


def make_server(session: Session, host: str = "127.0.0.1", port: int = 0) -> LocalServer:
    """A server that is bound and not yet serving. Raises EvalError for a host that is not this machine, or a port in
    use."""
    refused = (
        f"The page serves this machine alone; {host} is no loopback address. Forward its port instead: "
        "ssh -L 7676:localhost:7676 MACHINE"
    )
    return LocalServer(host, port, partial(_Handler, session), refused)


def serve(session: Session, host: str = "127.0.0.1", port: int = 7676, open_browser: bool = True) -> None:
    """Serve the page until interrupted."""
    with make_server(session, host, port) as server:
        server.run(f"Red team of {session.model.name}", f"?token={session.token}", open_browser)


def shell() -> str:
    """The page before its script has run; it holds nothing of the model's."""
    labels: dict[str, Html] = {
        "area": el("select", id="area"),
        "request": el("textarea", id="request", rows="3"),
        "operators": el("select", id="operators", multiple=True, size="8"),
        "system": el("textarea", id="system", rows="2"),
        "message": el("textarea", id="message", rows="4"),
        "who": el("input", id="who", autocomplete="off"),
        "family": el("select", id="family"),
        "severity": el("select", id="severity"),
        "text": el("textarea", id="text", rows="4"),
        "refusal": el("textarea", id="refusal", rows="2"),
    }

    def field(name: str, title: str) -> Html:
        return el("label", el("span", title), labels[name])

    request = el(
        "section",
        el("h2", "Request"),
        field("area", "Area of risk"),
        field("request", "What the model should not help with"),
        field("operators", "Attacks, several at once with Ctrl"),
        el("button", "Put on", type="button", id="wear"),
        class_="pane",
    )
    talk = el(
        "section",
        el("h2", "Conversation"),
        field("system", "System message"),
        el("div", id="talk", tabindex="0", role="log", aria_label="Conversation"),
        field("message", "Next message"),
        el("p", id="queue", class_="note"),
        el("button", "Send", type="button", id="send", class_="main"),
        el("button", "Take back", type="button", id="back"),
        el("button", "Begin anew", type="button", id="clear"),
        class_="pane",
    )
    success = el("input", type="checkbox", id="succeeded")
    note = el(
        "section",
        el("h2", "Note"),
        field("who", "Your name"),
        field("family", "Family of the attack"),
        field("severity", "Severity"),
        el("label", success, el("span", "The model gave what it should not"), class_="check"),
        field("text", "What you found"),
        field("refusal", "How it should have replied, if you know"),
        el("button", "Keep the note", type="button", id="keep", class_="main"),
        class_="pane",
    )
    kept = el("section", el("h2", "Notes so far"), el("ol", id="notes"), class_="pane kept")
    body = el(
        "body",
        el(
            "header",
            el("p", "Red team", class_="kicker"),
            el("h1", "…", id="model"),
            el("p", id="status", role="status", class_="note"),
        ),
        el("main", request, talk, note, kept),
    )
    return document("Red team", body, styles=("style.css", "session.css"), scripts=("session.js",))


class _Handler(LocalHandler):
    policy = _POLICY

    def __init__(self, session: Session, *args: Any) -> None:
        self.session = session
        super().__init__(*args)

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        name, files = asked.path.lstrip("/"), static_files("foretell.evals.redteam")
        if not self.is_from_here():
            return
        if name in files:  # they hold nothing of anyone's
            return self.send(200, name, files[name])
        if name == "start":
            return self._answer(lambda told: self.session.start()) if self._known() else None
        if name:
            return self.problem(404, f"There is no {name} here.")
        given = parse_qs(asked.query).get("token", [""])[0]
        if not self._is_token(given):
            return self.problem(403, "The address lacks its token. Open the one that the command printed.")
        self.send(200, ".html", shell().encode())

    def do_POST(self) -> None:
        calls: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "/say": self.session.say, "/wear": self.session.wear, "/note": self.session.note,
        }  # fmt: skip
        if not self.is_from_here() or not self._known():
            return
        if self.path not in calls:
            return self.problem(404, "There is nothing here.")
        size = self.headers.get("Content-Length", "")
        if not size.isdecimal() or int(size) > _MOST_BODY:
            self.close_connection = True
            return self.problem(413, f"A call holds at most {_MOST_BODY // 10**6} MB and says how many.")
        try:
            told = json.loads(self.rfile.read(int(size)))
        except (ValueError, RecursionError):
            return self.problem(400, "The call is no JSON.")
        if not isinstance(told, dict):
            return self.problem(400, "The call is no JSON object.")
        self._answer(calls[self.path], told)

    def _known(self) -> bool:
        if self._is_token(self.headers.get(TOKEN, "")):
            return True
        self.close_connection = True
        self.problem(403, "The call lacks its token. Open the address that the command printed.")
        return False

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.session.token.encode())

    def _answer(
        self, call: Callable[[Mapping[str, Any]], dict[str, Any]], told: Mapping[str, Any] | None = None
    ) -> None:
        try:
            value = call(told or {})
        except (EvalError, ConversationError) as error:
            return self.problem(400, str(error))
        except ForetellError as error:
            return self.problem(500, str(error))
        self.send(200, ".json", encode(value))


def _short(note: Note) -> dict[str, Any]:
    return {
        "id": note.id, "at": note.at, "who": note.who, "area": note.area, "family": note.family,
        "severity": note.severity, "text": note.text, "succeeded": note.succeeded,
    }  # fmt: skip
