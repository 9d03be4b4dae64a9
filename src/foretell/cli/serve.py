"""serve: models behind an API in OpenAI's form."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretell.measure.machine import is_loopback

if TYPE_CHECKING:
    from foretell.loading import Model
    from foretell.serve.run import Process

_NAMED = re.compile(r"([\w.:@/-]+)=(.+)", re.ASCII)


def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="[MODEL]...", help="Runs, checkpoints, open weights or hub ids; NAME=MODEL names one."),
    ] = [],  # noqa: B006  (typer copies it)
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    alias: Annotated[list[str], typer.Option(metavar="NAME=MODEL", help="Another name of a model.")] = [],  # noqa: B006
    adapter: Annotated[
        list[str], typer.Option(metavar="NAME=FOLDER", help="A LoRA adapter of the first model, as a model.")
    ] = [],  # noqa: B006
    api_key: Annotated[
        str | None, typer.Option(envvar="FORETELL_API_KEY", help="Callers must send it; better set by the variable.")
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(metavar="URL", help="Another server with this API, to stand in front of.")
    ] = None,
    upstream_key: Annotated[str | None, typer.Option(envvar="FORETELL_UPSTREAM_KEY", help="Its key.")] = None,
    accounts: Annotated[
        bool, typer.Option("--accounts", help="Only callers with an account: keys, limits, moderation, pages.")
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(envvar="FORETELL_DATABASE", help="Of the accounts: a file, or postgresql://… Implies --accounts."),
    ] = None,
    tiers: Annotated[Path | None, typer.Option(help="YAML of what each tier may use.")] = None,
    policy: Annotated[Path | None, typer.Option(help="YAML of the usage policy.")] = None,
    lexicon: Annotated[Path | None, typer.Option(help="YAML of the words that its rules look for.")] = None,
    strikes: Annotated[Path | None, typer.Option(help="YAML of the strike ladder.")] = None,
    classifier: Annotated[Path | None, typer.Option(help="A moderation classifier trained on your labels.")] = None,
    no_moderation: Annotated[bool, typer.Option("--no-moderation", help="Hold nothing against the policy.")] = False,
    sign_up: Annotated[str, typer.Option(help="Who may open an account: open, invite or closed.")] = "invite",
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where people reach the pages: https://host, by a proxy with TLS.")
    ] = None,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Believe a proxy on this machine where callers come from.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the chat page in a browser.")] = False,
    no_chat: Annotated[bool, typer.Option("--no-chat", help="The API alone, without the chat page.")] = False,
    chats: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where conversations are kept without accounts; default in your data folder."
        ),
    ] = None,
    log: Annotated[str, typer.Option(help="text: failures in words; json: a line of JSON for every call.")] = "text",
    max_waiting: Annotated[int, typer.Option(min=1, help="Calls that may wait; more get 503.")] = 256,
    drain_seconds: Annotated[float, typer.Option(min=0, help="For streams to finish after SIGTERM.")] = 30.0,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the model; default all cores but one, but two of two.")
    ] = None,
    device: Annotated[str, typer.Option()] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    weights: Annotated[str, typer.Option(help="full, or int8 or int4: less memory, on a CPU.")] = "full",
) -> None:
    """Serve models, or another server, behind an API in OpenAI's form."""
    from foretell.cli.chats import open_in_browser, place_of_chats
    from foretell.errors import GenerationError, MissingExtraError, StoreError
    from foretell.loading import DTYPES, WEIGHTS

    if bool(models) == bool(upstream):
        raise GenerationError("Give models to serve (such as runs/quickstart), or --upstream URL, and not both.")
    try:
        from foretell.serve.setup import Accounts, build
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("foretell"):
            raise
        raise MissingExtraError("Serving", "serve") from error

    asked = accounts or database is not None
    if not asked and api_key is None and not is_loopback(host):
        raise GenerationError(
            f"Anyone who reaches {host} could use this server. Give --accounts, or set FORETELL_API_KEY; with neither "
            "it listens on this machine only (--host 127.0.0.1)."
        )
    if asked and api_key is not None:
        raise GenerationError("With accounts each caller has a key of its own: leave out --api-key.")
    if log not in ("text", "json"):
        raise GenerationError(f"--log is {log!r}; allowed are text, json.")
    if sign_up not in ("open", "invite", "closed"):
        raise GenerationError(f"--sign-up is {sign_up!r}; allowed are open, invite, closed.")
    may_chat = asked or (api_key is None and is_loopback(host))
    place = place_of_chats(chats, accounts=asked, off=no_chat, may=may_chat, opens=open_page)
    named = [_name(model) for model in models]
    refs = dict(named)
    aliases = dict(_pair(text, "--alias") for text in alias)
    adapters = dict(_pair(text, "--adapter") for text in adapter)
    if doubled := [name for name, count in Counter([*(name for name, _ in named), *adapters]).items() if count > 1]:
        raise GenerationError(f"The name {doubled[0]} is given twice. Name one of them otherwise: NAME=…")
    if dtype not in DTYPES:
        raise GenerationError(f"--dtype is {dtype!r}; allowed are {', '.join(DTYPES)}.")
    if weights not in WEIGHTS:
        raise GenerationError(f"--weights is {weights!r}; allowed are {', '.join(WEIGHTS)}.")
    if adapters and weights != "full":
        raise GenerationError("Adapters cannot be merged into weights of few bits. Leave --weights full.")
    for ref in refs.values():
        _check_place(ref)
    for name, folder in adapters.items():
        if not Path(folder, "adapter_config.json").is_file():
            raise GenerationError(f"--adapter {name}={folder}: there is no adapter_config.json in that folder.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # One is kept for HTTP; of two, which a model needs both of, it takes its few per cent.
    count = threads or max(cores - 1, min(cores, 2))
    os.environ.setdefault("OMP_NUM_THREADS", str(count))  # read once, when torch is loaded

    def load(ref: str) -> Model:
        from foretell.loading import load as load_model

        if not upstream:
            import torch

            torch.set_num_threads(count)
        return load_model(ref, device=device, dtype=dtype, weights=weights)

    set_up, first = None, list[str]()
    if asked:
        from foretell.cli.gateway import default_database

        set_up = Accounts(
            database or default_database(), tiers, policy, lexicon, strikes, classifier, not no_moderation,
            sign_up, base_url, first.append, not no_chat,  # type: ignore[arg-type]
        )  # fmt: skip

    def started(url: str) -> None:
        print(f"Serving {', '.join(refs) or upstream} at {url}/v1; Ctrl-C ends it.", flush=True)
        pages = url
        if set_up is not None:
            pages = base_url or f"http://127.0.0.1:{url.rsplit(':', 1)[1]}"  # they answer to no other name without one
        if place is not None:
            print(f"Chat page: {pages}/", flush=True)
        if set_up is not None:
            print(f"Accounts: {set_up.database}; pages at {pages}/", flush=True)
            for token in first:
                print(f"Nobody is an administrator yet. Become it, once: {pages}/first?token={token}", flush=True)
            if base_url is None and not is_loopback(host):
                print(
                    "The pages open on this machine alone, and keys travel in the clear. Put a proxy with TLS in "
                    "front, and give --base-url https://HOST --behind-proxy.",
                    flush=True,
                )
        if open_page:
            open_in_browser(f"{pages}/first?token={first[0]}" if first else f"{pages}/")

    def make(place: str | None) -> Process:
        return build(
            refs,
            load,
            aliases=aliases,
            adapters=adapters,
            key=api_key,
            upstream=upstream,
            upstream_key=upstream_key,
            max_waiting=max_waiting,
            host=host,
            port=port,
            drain_seconds=drain_seconds,
            started=started,
            accounts=set_up,
            behind_proxy=behind_proxy,
            log_calls=log == "json",
            chats=place,
        )

    try:
        process = make(place)
    except StoreError as error:
        if set_up is not None or chats is not None or open_page or place is None:
            raise
        print(f"{error} There is no chat page now; --chats FILE keeps conversations elsewhere.", flush=True)
        place = None
        process = make(None)
    if log == "json":
        from foretell.serve.logs import write_json

        write_json()
    process.run()


def _name(model: str) -> tuple[str, str]:
    """The name a model is served under, and what to load: a folder's last part, a hub id as it is."""
    if (named := _NAMED.fullmatch(model)) and not Path(model).exists():
        return named[1], named[2]
    is_path = Path(model).exists() or model.startswith((".", "/", "~"))
    return (Path(model).expanduser().resolve().name if is_path else model), model


def _check_place(ref: str) -> None:
    """Refuse a folder without a model now: models are loaded when first asked for, which is late to hear of a typo."""
    from foretell.errors import CheckpointError
    from foretell.loading import find_checkpoint, is_foreign

    if Path(ref).is_file() and Path(ref).suffix != ".gguf":
        raise CheckpointError(f"{ref} is no model. Give a run, a checkpoint folder, a .gguf file, or a hub id.")
    if not is_foreign(ref) and "://" not in ref:
        find_checkpoint(ref)


def _pair(text: str, option: str) -> tuple[str, str]:
    from foretell.errors import GenerationError

    if not (named := _NAMED.fullmatch(text)):
        raise GenerationError(f"{option} {text} has no name; expected NAME=VALUE, such as demo=demo-2026-11-20.")
    return named[1], named[2]
