"""The world's exam in eleven languages: facts to recall, texts to read, sums, with one gold for all."""

from __future__ import annotations

from collections.abc import Sequence

from foretell.data.world.parallel import KINDS, Parallel, grammar, languages, parallel
from foretell.errors import EvalError, RecipeError
from foretell.evals.languages.questions import Question, QuestionSet, Source

NAME = "world"


def world_questions(
    codes: Sequence[str] | None = None,
    kinds: Sequence[str] | None = None,
    count: int = 40,
    shots: int = 3,
    seed: int = 0,
    people: int = 48,
    world: int = 0,
) -> QuestionSet:
    """`count` questions of each kind in each language, with worked ones of the same kind.

    codes: languages, None for all. kinds: of `parallel.KINDS`: what "recall" asks for, only a model that was trained on
    this world (its `people` and seed) can know; "reading" and "sums" ask any model. seed: of the questions.
    Raises EvalError for a language without grammar, an unknown kind, or more questions than there are.
    """
    chosen = list(codes) if codes else list(languages())
    questions: list[Question] = []
    worked: dict[str, list[Question]] = {code: [] for code in chosen}
    names = list(kinds) if kinds else list(KINDS)
    for kind in names:
        try:
            asked, shown = parallel(kind, count, seed, chosen=chosen, people=people, world=world, worked=shots)
        except RecipeError as error:
            raise EvalError(f"The world's exam: {error}") from error
        for code in chosen:
            questions += [_in(item, code) for item in asked]
            worked[code] += [_in(item, code) for item in shown]
    name = f"{NAME} ({', '.join(names)})"
    source = Source(f"foretell.data.world.parallel, seed {seed}, {people} people, world {world}", "grammar",
                    len(questions))  # fmt: skip
    return QuestionSet(name, tuple(questions), worked, (source,))


def _in(item: Parallel, code: str) -> Question:
    return Question(item.id, code, item.texts[code], item.options, item.gold, item.kind,
                    instruction=grammar(code).instruction)  # fmt: skip
