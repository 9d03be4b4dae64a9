"""How the processes of a run meet: each attempt gets keys of its own, and all are found to run the same."""

from __future__ import annotations

import json
import os
import platform
import socket
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from foretell.errors import GroupError, TrainingError
from foretell.run import code_version, place
from foretell.train.watchdog import UNREACHABLE, name_ranks

JOIN_SECONDS, HANG_SECONDS = "FORETELL_JOIN_SECONDS", "FORETELL_HANG_SECONDS"
_POLL = 0.1  # seconds
_LONGEST = 1e8  # seconds; torch's own types end not far beyond
_SHOWN = 3  # differences in a message


def seconds(variable: str, default: float) -> float:
    """A time-out from the environment. Raises TrainingError for what is no positive number, or beyond three years."""
    text = os.environ.get(variable, "")
    try:
        value = float(text or default)
    except ValueError:
        value = 0.0
    if not 0 < value <= _LONGEST:
        raise TrainingError(
            f"{variable} is {text!r}; expected seconds, such as {default:g}. Set it, or leave it unset."
        )
    return value


def about() -> dict[str, str]:
    """What must be the same in every process of a run, whatever it trains."""
    return {"foretell": code_version(), "torch": torch.__version__, "Python": platform.python_version()}


def reach(timeout: float) -> tuple[Store, int, int, str]:
    """(store, rank, world, its address) by the environment that torchrun sets; GroupError where it is out of reach.

    Where torchrun keeps no store the first process does. It does not wait in it for the others: `meet` does, which can
    name who is missing.
    """
    rank, world = place()
    host, port = os.environ.get("MASTER_ADDR", "?"), os.environ.get("MASTER_PORT", "?")
    address, own = f"{host}:{port}", rank == 0 and not kept_by_agent()
    try:
        store = TCPStore(
            host, int(port), world, own, timedelta(seconds=timeout), wait_for_workers=False, multi_tenant=True
        )
    except (*UNREACHABLE, ValueError, OSError) as error:
        raise GroupError(
            f"{name_ranks([rank], world, socket.gethostname())} did not reach the store at {address}, where the "
            f"processes meet, within {timeout:g} s. Check that the first machine runs, that its name is known here, "
            "and that no firewall is between."
        ) from error
    return store, rank, world, address


def kept_by_agent() -> bool:
    """Whether the store lies in torchrun's agent, and so outlives the processes."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def excuse(message: str) -> GroupError:
    """Tell the processes that this one, which has not met them yet, will not come; returns what all then say."""
    rank, world = place()
    error = GroupError(f"{name_ranks([rank], world, socket.gethostname())}: {message}", lasting=True)
    if rank or kept_by_agent():  # else the store is this process's own
        with suppress(GroupError, *UNREACHABLE):
            store, *_ = reach(10)
            store.set(f"excuse/{rank}", json.dumps([_count(), str(error)]))
    return error


def _count() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "")


def _excused(store: Store, rank: int) -> None:
    """Raises GroupError when a process has said why it will not come; what it said at an earlier start is void."""
    if store.check([key := f"excuse/{rank}"]):
        count, reason = json.loads(store.get(key))
        if count == _count():
            raise GroupError(reason, lasting=True)


def meet(store: Store, rank: int, world: int, facts: Mapping[str, Any], timeout: float) -> tuple[str, str]:
    """Wait for all processes. Returns a prefix for keys of this attempt alone, and in what this process departs
    from the first.

    torchrun keeps its store from one attempt to the next, and does not tell the processes which one they belong to: so
    each asks with a word of its own, and the first process answers with that word and the name of this attempt.
    Raises GroupError naming who has not come in time.
    """
    deadline = time.monotonic() + timeout
    me = {"word": uuid.uuid4().hex, "host": socket.gethostname()}
    if rank:
        store.set(f"hello/{rank}", json.dumps(me))
        while True:
            if store.check([key := f"welcome/{rank}"]):
                answer = json.loads(store.get(key))
                if answer["word"] == me["word"]:
                    break
            _excused(store, 0)
            if time.monotonic() > deadline:
                raise GroupError(f"{name_ranks([0], world)} did not come within {timeout:g} s; {_asked(rank, world)}.")
            time.sleep(_POLL)
        PrefixStore(answer["attempt"], store).set(f"here/{rank}", "")
        return answer["attempt"], differences(facts, answer["facts"])
    attempt, answered = me["word"], dict[int, str | None]()
    mine, missing = PrefixStore(attempt, store), set(range(1, world))
    while missing:
        for other in sorted(missing):
            word = json.loads(store.get(key))["word"] if store.check([key := f"hello/{other}"]) else None
            if mine.check([f"here/{other}"]):  # asked after the word is read: a later one is not of this attempt
                missing.discard(other)
            elif word != answered.get(other):
                store.set(f"welcome/{other}", json.dumps({"word": word, "attempt": attempt, "facts": dict(facts)}))
                answered[other] = word
            else:
                _excused(store, other)
        if missing and time.monotonic() > deadline:
            raise GroupError(f"{name_ranks(sorted(missing), world)} did not come within {timeout:g} s.")
        time.sleep(_POLL if missing else 0)
    return attempt, ""


def _asked(rank: int, world: int) -> str:
    return f"{name_ranks([rank], world, socket.gethostname())} waited for it"


def differences(here: Mapping[str, Any], there: Mapping[str, Any], where: str = "on rank 0") -> str:
    """In what JSON data here departs from that of another place, in words; empty where in nothing."""
    mine, first = (_flat(json.loads(json.dumps(facts))) for facts in (here, there))
    found = [
        f"{key} is {mine.get(key)!r}, and {first.get(key)!r} {where}"
        for key in sorted(mine.keys() | first.keys())
        if mine.get(key) != first.get(key)
    ]
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return "; ".join(found[:_SHOWN]) + more


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict | list) or (name and not value):
        return {name: value}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for key, part in parts for k, v in _flat(part, f"{name}.{key}" if name else str(key)).items()}
