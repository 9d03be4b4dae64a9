"""The usage policy as data: its categories, what each means, and what is done about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from foretell.errors import PolicyError

Action = Literal["allow", "flag", "refuse", "block"]
ACTIONS: tuple[Action, ...] = get_args(Action)
"""From the mildest to the strictest."""

SCORED = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/intent", "self-harm/instructions", "sexual", "sexual/minors"),
    *("violence", "violence/graphic"),
)
"""The categories of OpenAI's moderation schema, by its names: the ones that have scores."""

_PACKAGED = Path(__file__).with_name("policy.yaml")
_FIELDS = {"name", "title", "means", "levels", "rule", "words"}


@dataclass(frozen=True)
class Category:
    """levels: the least score that brings each action, none where the category has no score. rule: what a rule brings.

    words: what is said instead of an answer.
    """

    name: str
    title: str
    means: str
    levels: Mapping[Action, float]
    rule: Action
    words: str

    def action(self, score: float) -> Action:
        """The strictest action whose level the score reaches."""
        reached = [action for action, level in self.levels.items() if score >= level]
        return max(reached, key=ACTIONS.index, default="allow")


@dataclass(frozen=True)
class Policy:
    """Categories by name; `words` are said where a category has none of its own."""

    version: int
    words: str
    categories: Mapping[str, Category]


def strictest(actions: Mapping[str, Action]) -> tuple[str | None, Action]:
    """The category that asks for the strictest action, the first of equals, and that action; None where all allow."""
    name = max(actions, key=lambda category: ACTIONS.index(actions[category]), default=None)
    return (None, "allow") if name is None or actions[name] == "allow" else (name, actions[name])


def load_policy(path: Path = _PACKAGED) -> Policy:
    """Read a policy file; the package's own by default.

    Raises PolicyError for a file that cannot be read, an unknown field, category or action, a level outside 0 to 1 or
    not above the milder one's, or a scored category that is missing.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PolicyError(f"Policy {path} cannot be read ({error}). Check the file.") from error
    if not isinstance(raw, dict) or set(raw) != {"version", "words", "categories"}:
        raise PolicyError(f"Policy {path} must be a mapping with version, words and categories.")
    if raw["version"] != 1 or not isinstance(raw["words"], str) or not isinstance(raw["categories"], list):
        raise PolicyError(f"Policy {path}: expected version 1, words as text, and categories as a list.")
    categories = dict[str, Category]()
    for entry in raw["categories"]:
        category = _category(entry, raw["words"].strip(), path)
        if category.name in categories:
            raise PolicyError(f"Policy {path}: {category.name} stands twice. Remove one.")
        categories[category.name] = category
    missing = [name for name in SCORED if name not in categories]
    if missing:
        raise PolicyError(f"Policy {path} says nothing of {', '.join(missing)}. Add them; every score needs levels.")
    return Policy(1, raw["words"].strip(), categories)


def _category(entry: Any, words: str, path: Path) -> Category:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise PolicyError(f"Policy {path}: a category must be a mapping with a name; found {entry!r:.60}.")
    name, where = entry["name"], f"Policy {path}, {entry['name']}"
    if unknown := sorted(map(str, set(entry) - _FIELDS)):
        raise PolicyError(f"{where}: unknown field {', '.join(unknown)}. Known: {', '.join(sorted(_FIELDS))}.")
    texts = {key: entry.get(key, words if key == "words" else None) for key in ("title", "means", "words")}
    if wrong := [key for key, text in texts.items() if not isinstance(text, str) or not text.strip()]:
        raise PolicyError(f"{where}: {wrong[0]} must be text.")
    if entry.get("rule") not in ACTIONS:
        raise PolicyError(f"{where}: rule is {entry.get('rule')!r}; expected one of {', '.join(ACTIONS)}.")
    levels = entry.get("levels") or {}
    if (name in SCORED) != bool(levels):
        raise PolicyError(f"{where}: levels belong to the scored categories, {', '.join(SCORED)}, and to no other.")
    _check_levels(levels, where)
    return Category(
        name, texts["title"].strip(), texts["means"].strip(), dict(levels), entry["rule"], texts["words"].strip()
    )


def _check_levels(levels: Any, where: str) -> None:
    if not isinstance(levels, dict) or any(action not in ACTIONS[1:] for action in levels):
        raise PolicyError(f"{where}: levels must map {', '.join(ACTIONS[1:])} to scores; found {levels!r:.80}.")
    values = [levels[action] for action in ACTIONS[1:] if action in levels]
    if any(isinstance(v, bool) or not isinstance(v, int | float) or not 0 < v <= 1 for v in values):
        raise PolicyError(f"{where}: levels are scores above 0, at most 1; found {levels!r:.80}.")
    if any(a >= b for a, b in pairwise(values)):
        raise PolicyError(f"{where}: a stricter action needs a higher level; found {levels!r:.80}.")
