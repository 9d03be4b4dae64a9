"""robots.txt as RFC 9309 has it: groups by user agent, the longest rule counts, `*` and `$` in paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote

AGENTS = (
    "GPTBot", "CCBot", "Google-Extended", "ClaudeBot", "anthropic-ai", "Claude-Web", "Applebot-Extended", "Bytespider",
    "Meta-ExternalAgent", "FacebookBot", "Amazonbot", "cohere-ai", "cohere-training-data-crawler", "AI2Bot", "Diffbot",
    "Omgilibot", "Timpibot", "PanguBot", "img2dataset", "Foretell",
)  # fmt: skip
"""User agents by which owners say what they think of training, and our own name."""


@dataclass(frozen=True)
class Robots:
    """groups: user agents in lower case, and their rules (allowed, path)."""

    groups: tuple[tuple[frozenset[str], tuple[tuple[bool, str], ...]], ...]

    @classmethod
    def parse(cls, text: str) -> Robots:
        """Lines that are not understood count for nothing."""
        groups = list[tuple[frozenset[str], tuple[tuple[bool, str], ...]]]()
        agents, gathered, begun = set[str](), list[tuple[bool, str]](), False
        for line in text.lstrip("\ufeff").splitlines():
            key, found, value = line.split("#", 1)[0].partition(":")
            key, value = key.strip().lower(), value.strip()
            if not found:
                continue
            if key == "user-agent":
                if begun:
                    groups.append((frozenset(agents), tuple(gathered)))
                    agents, gathered, begun = set(), [], False
                agents.add(value.lower())
            elif key in ("allow", "disallow") and agents:
                begun = True
                if value:
                    gathered.append((key == "allow", value))
        groups.append((frozenset(agents), tuple(gathered)))
        return cls(tuple(groups))

    def allows(self, agent: str, path: str) -> bool:
        """Whether `agent` may fetch `path`, the query included.

        Groups that name the agent count together; where none does, those of `*`. Of rules that match the longest
        counts, and of two as long the one that allows.
        """
        name = agent.lower()
        named = [rules for agents, rules in self.groups if name in agents]
        rules = named or [rules for agents, rules in self.groups if "*" in agents]
        path = _encoded(path)
        best = (0, True)
        for allowed, pattern in (rule for some in rules for rule in some):
            if _pattern(pattern).match(path):
                best = max(best, (len(pattern), allowed))
        return best[1]


def _encoded(path: str) -> str:
    return quote(unquote(path), safe="/?&=*$:@!,;~+'()-._")


@lru_cache(4096)
def _pattern(path: str) -> re.Pattern[str]:
    ends = path.endswith("$")
    parts = _encoded(path[:-1] if ends else path).split("*")
    return re.compile(".*".join(map(re.escape, parts)) + ("$" if ends else ""))
