"""POST /v1/moderations, answered by the two stages of `safety.moderation`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from foretell.safety.moderation import Moderation, openai_result


class Moderating:
    """A moderator. Of an input of several parts the texts are read; images are not looked at."""

    def __init__(self, moderation: Moderation) -> None:
        self._moderation = moderation

    async def moderate(self, inputs: Sequence[str | list[dict[str, Any]]]) -> list[dict[str, Any]]:
        texts = [said if isinstance(said, str) else "\n".join(part.get("text", "") for part in said) for said in inputs]
        findings = await asyncio.to_thread(self._moderation.check, texts)
        return [openai_result(finding) for finding in findings]
