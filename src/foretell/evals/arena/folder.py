"""An arena's folder: its settings and prompts, written once; replies, critiques and judgements as they come.

    arena.json       players, settings, counts          prompts.jsonl    what is asked, with the truth where it is known
    replies.jsonl    every player's reply, once         critiques.jsonl  a named model's critique of each reply
    judge-*.jsonl    a model's judgements               people.jsonl     people's

Replies, critiques and models' judgements are logs of evals; while they are made, a journal lies beside (`.part`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from foretell.errors import EvalError
from foretell.evals.arena.schedule import Battle, draw_battles
from foretell.evals.base import BAD_SAMPLE
from foretell.evals.log import RunLog, read_log
from foretell.evals.prompts import Message
from foretell.evals.samples import parse
from foretell.files import digest, write_json, write_text

FORM = "foretell.arena"
SETTINGS, PROMPTS, REPLIES, CRITIQUES, PEOPLE = (
    "arena.json", "prompts.jsonl", "replies.jsonl", "critiques.jsonl", "people.jsonl",
)  # fmt: skip
_JUDGED = "judge-*.jsonl"


@dataclass(frozen=True)
class Player:
    """A model under a name. sampling: parameters of every reply. weights: SHA-256 of them, "" where it is not known."""

    name: str
    model: str
    sampling: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""

    def twin_of(self, other: Player) -> bool:
        """Whether the two are one model with the same settings, so that neither can be better."""
        return (self.model, dict(self.sampling)) == (other.model, dict(other.sampling))


@dataclass(frozen=True)
class Asked:
    """A prompt. messages: in OpenAI form. group: prompts that share one are not independent. answer: the truth that
    replies are compared with, where it is known. where: file and line, or how it was made."""

    messages: Sequence[Message]
    group: str
    answer: str | None = None
    task: str = ""
    where: str = ""


@dataclass(frozen=True)
class Arena:
    """An arena as it was set up. skipped: rows of the prompts' file that could not be used, with the reason."""

    folder: Path
    players: tuple[Player, ...]
    prompts: tuple[Asked, ...]
    seed: int
    count: int | None = None
    skipped: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [player.name for player in self.players]

    @cached_property
    def battles(self) -> list[Battle]:
        return draw_battles(len(self.players), len(self.prompts), self.count, self.seed)

    @property
    def digest(self) -> str:
        """Of all that decides the replies and the schedule."""
        players = [asdict(player) for player in self.players]
        return digest([players, [asdict(asked) for asked in self.prompts], self.seed, self.count])

    @cached_property
    def replies(self) -> dict[int, tuple[str, ...]]:
        """Every player's reply, by prompt; prompts that a player could not answer are left out."""
        log, found = self.log(REPLIES), {}
        for prompt, events in samples(log):
            told = {int(data["player"]): str(data["text"]) for kind, data in events if kind == "reply"}
            if len(told) == len(self.players):
                found[prompt] = tuple(told[i] for i in range(len(self.players)))
        return found

    @cached_property
    def unanswered(self) -> dict[int, str]:
        """Prompts without all replies, and why."""
        return {prompt: why for prompt, events in samples(self.log(REPLIES)) if (why := problem(events))}

    @cached_property
    def critiques(self) -> dict[tuple[int, int], str]:
        """By prompt and player; empty where there is no critic."""
        if not (self.folder / CRITIQUES).is_file():
            return {}
        return {
            (int(data["prompt"]), int(data["player"])): str(data["text"])
            for _, events in samples(self.log(CRITIQUES))
            for kind, data in events
            if kind == "critique"
        }

    @cached_property
    def uncriticised(self) -> dict[tuple[int, int], str]:
        """Replies without a critique where others have one, and why."""
        if not (self.folder / CRITIQUES).is_file():
            return {}
        replies = sorted({(battle.prompt, player) for battle in self.open for player in (battle.a, battle.b)})
        told = samples(self.log(CRITIQUES))
        return {replies[number]: why for number, events in told if (why := problem(events))}

    def has_critiques(self, battle: Battle) -> bool:
        """Whether both replies have a critique, so that the battle can be judged with and without."""
        return all((battle.prompt, player) in self.critiques for player in (battle.a, battle.b))

    @cached_property
    def critic(self) -> str:
        if not (self.folder / CRITIQUES).is_file():
            return ""
        return str(self.log(CRITIQUES).spec["completion_fns"][0])

    def identical(self, battle: Battle) -> bool:
        """Whether both replies are the same but for outer space: a tie that nobody needs to judge."""
        said = self.replies[battle.prompt]
        return said[battle.a].strip() == said[battle.b].strip()

    @cached_property
    def open(self) -> list[Battle]:
        """Battles to be judged: both replies are there, and differ."""
        return [battle for battle in self.battles if battle.prompt in self.replies and not self.identical(battle)]

    def judge_logs(self) -> list[Path]:
        return sorted(self.folder.glob(_JUDGED))

    def log(self, name: str) -> RunLog:
        """A finished log of the folder. Raises EvalError where it is not there yet."""
        if not (self.folder / name).is_file():
            raise EvalError(
                f"{self.folder} has no {name} yet: it is not finished. Run the same foretell arena run again to go on."
            )
        return read_log(self.folder / name)


def samples(log: RunLog) -> Iterator[tuple[int, list[tuple[str, dict[str, Any]]]]]:
    """The number of each sample in its eval, and its events."""
    for place, id in enumerate(log.id.tolist()):
        events = [(str(event["type"]), dict(event["data"])) for event in log.events(place)]
        yield int(id.decode().rpartition(".")[2]), events


def problem(events: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Why a sample could not be used; "" where it could."""
    return next((str(data.get("message") or "without a reason") for kind, data in events if kind == BAD_SAMPLE), "")


def save(arena: Arena) -> None:
    """Write settings and prompts; a folder that holds the same arena is left as it is.

    Raises EvalError for a folder that holds another one, or something else, or names that are no names.
    """
    check_names(arena.names)
    if (arena.folder / SETTINGS).is_file():
        known = load(arena.folder)
        if known.digest != arena.digest:
            raise EvalError(
                f"{arena.folder} holds an arena with {_different(known, arena)}. Give another --out, or the same "
                "settings to go on with it."
            )
        return
    if arena.folder.exists() and any(arena.folder.iterdir()):
        raise EvalError(f"{arena.folder} is not empty and holds no arena. Give another --out.")
    arena.folder.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(asdict(asked), ensure_ascii=False) + "\n" for asked in arena.prompts)
    write_text(arena.folder / PROMPTS, "".join(lines))
    write_json(
        arena.folder / SETTINGS,
        {
            "form": FORM, "players": [asdict(player) for player in arena.players], "prompts": len(arena.prompts),
            "battles": arena.count, "seed": arena.seed, "skipped": list(arena.skipped),
        },
    )  # fmt: skip


def load(folder: Path) -> Arena:
    """Raises EvalError for a folder that holds no arena, or a damaged one."""
    path = folder / SETTINGS
    try:
        raw = json.loads(path.read_bytes())
        if raw.get("form") != FORM:
            raise EvalError(f"{path} is of form {raw.get('form')!r}; expected {FORM}. Give an arena's folder.")
        lines = (folder / PROMPTS).read_bytes().splitlines()
        rows = [parse(line, folder / PROMPTS, number) for number, line in enumerate(lines, 1)]
        players = tuple(Player(**player) for player in raw["players"])
        prompts = tuple(Asked(**row) for row in rows)
        if len(prompts) != raw["prompts"]:
            raise EvalError(
                f"{folder / PROMPTS} has {len(prompts)} prompts; {raw['prompts']} were written. Restore it."
            )
        return Arena(folder, players, prompts, int(raw["seed"]), raw["battles"], tuple(raw["skipped"]))
    except OSError as error:
        raise EvalError(
            f"{folder} is no arena: {error.filename} cannot be read ({error.strerror}). Make one with: foretell arena "
            "run"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EvalError(f"{folder} holds a damaged arena ({error!r}). Restore it, or run it anew elsewhere.") from error


def check_names(names: Sequence[str]) -> None:
    if len(names) < 2:
        raise EvalError(f"An arena has {len(names)} players. Give two models or more: foretell arena run A B")
    for i, name in enumerate(names):
        if not re.fullmatch(r"[\w.@+-]{1,60}", name):
            raise EvalError(f"{name!r} is no name of a player: letters, digits and .@+-_ only. Give NAME=MODEL.")
        if name in names[:i]:
            raise EvalError(f"Two players are called {name}. Name one of them otherwise: NAME=MODEL.")


def _different(a: Arena, b: Arena) -> str:
    """What of two arenas is not the same, in words."""
    told = [
        (a.players, b.players, "other players or sampling"),
        (a.prompts, b.prompts, "other prompts"),
        (a.seed, b.seed, f"seed {a.seed}"),
        (a.count, b.count, f"{'all' if a.count is None else a.count} battles"),
    ]
    return " and ".join(what for x, y, what in told if x != y) or "other settings"


def player_name(text: str) -> tuple[str, str]:
    """Name and model of NAME=MODEL; of MODEL alone the name is its last part."""
    name, named, model = text.partition("=")
    if named and re.fullmatch(r"[\w.@+-]{1,60}", name) and model:
        return name, model
    plain = text.partition("#")[2] or text.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^\w.@+-]+", "-", plain)[:60].strip("-") or "model", text
