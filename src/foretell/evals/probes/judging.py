"""A model that judges a reply by letters: what it is asked, and how its letter is read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from foretell.errors import EvalError
from foretell.evals.base import Trial


async def judge(trial: Trial, question: str, classes: Mapping[str, str], shown: Mapping[str, str]) -> str:
    """The letter that the last model of a trial chooses. shown: what it reads, quoted, by name.

    Raises EvalError for an answer that holds none of the letters, which makes the sample invalid.
    """
    parts = [question, "\n".join(f"{letter}. {text}" for letter, text in classes.items())]
    # As JSON, so that nothing in a reply can end the quotation and speak to the judge.
    parts += [f"{name}: {json.dumps(text, ensure_ascii=False)}" for name, text in shown.items()]
    letters = list(classes)
    parts.append(f"Answer with one letter, {letters[0]} to {letters[-1]}, and nothing else.")
    asked = [{"role": "user", "content": "\n\n".join(parts)}]
    return read_letter(await trial.complete(asked, trial.fns[-1], temperature=0.0, max_tokens=8), letters)


def read_letter(told: str, letters: list[str]) -> str:
    """The first of some letters that stands alone in what a judge said. Raises EvalError where none does."""
    found = re.search(rf"(?<![\w'])[{''.join(letters)}](?![\w'])", told)
    if found is None:
        raise EvalError(
            f"The judge answered {told!r:.60}, which holds none of the letters {', '.join(letters)}. Take a model that "
            "follows instructions: --grader MODEL"
        )
    return found[0]
