"""What an eval's samples ask, as one text each: what is looked for in a training corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foretell.errors import EvalError, ForetellError
from foretell.evals.base import Eval
from foretell.evals.classes import make_eval
from foretell.evals.log import RunLog
from foretell.evals.registry import OWN, Registry
from foretell.evals.results import samples_of
from foretell.evals.samples import Sample
from foretell.measure.overlap.questions import PARTS as PARTS
from foretell.measure.overlap.questions import Part as Part
from foretell.measure.overlap.questions import shared_messages as shared_messages
from foretell.measure.overlap.questions import text_of as text_of


@dataclass(frozen=True)
class Items:
    """texts: by sample id. note: what to know of where they come from; "" where it is the eval's own samples.
    higher_is_better: of the eval's scores."""

    texts: Mapping[str, str]
    note: str = ""
    higher_is_better: bool = True


def items_of(made: Eval, part: Part = "question") -> Items:
    """Every sample of an eval. Raises EvalError for a sample that holds no text, naming it."""
    base = ".".join(made.spec.name.split(".")[:2])
    samples = made.samples()
    shared = shared_messages(samples)
    texts = {f"{base}.{row}": text_of(s, part, shared, f"{base}.{row}") for row, s in enumerate(samples)}
    return Items(texts, higher_is_better=made.spec.higher_is_better)


def items_of_log(log: RunLog, registries: Sequence[Path] = (), part: Part = "question") -> Items:
    """The samples of a run: as its eval holds them, else the prompts that the log tells, with all that is in them.

    registries: where its eval may be defined, beside where the log says. Raises EvalError where neither is there.
    """
    wanted = list(dict.fromkeys(id for id, _, _ in samples_of(log)))
    name = str(log.spec.get("eval_name"))
    if (of_exam := _exam_items(log, wanted, part)) is not None:
        return of_exam
    try:
        items = items_of(_eval_of(log, name, registries), part)
        if lacking := next((id for id in wanted if id not in items.texts), None):
            raise EvalError(f"the eval has no sample {lacking}")
        return replace(items, texts={id: items.texts[id] for id in wanted})
    except (ForetellError, OSError) as error:
        if part != "question":
            raise EvalError(
                f"The samples of {log.path} are not to be had ({str(error).rstrip('.')}), and its prompts do not tell "
                f"{part} apart. Give --registry-path, or --part question."
            ) from error
        why = str(error).rstrip(".")
    prompts: dict[str, Sample] = {}
    for number, id in enumerate(id.decode("utf-8", "surrogatepass") for id in log.id.tolist()):
        if id not in prompts:
            asked = (e["data"].get("prompt") for e in log.events(number) if e["type"] == "sampling")
            prompts[id] = {"input": next(asked, None)}
    if not any(sample["input"] for sample in prompts.values()):
        raise EvalError(
            f"{log.path} tells no prompts, and the samples of {name} are not to be had ({why}). Give --registry-path."
        )
    known = {id: sample for id, sample in prompts.items() if sample["input"]}
    shared = shared_messages(list(known.values()))
    texts = {id: text_of(known[id], part, shared, id) if id in known else "" for id in wanted}
    return Items(texts, f"Prompts of the log were checked, worked samples included: {why}.")


def _exam_items(log: RunLog, wanted: Sequence[str], part: Part) -> Items | None:
    """The questions of an exam that a log is of; None of other logs, and where the exam is gone or has changed."""
    from foretell.evals.exams.scoring import exam_of

    try:
        questions = exam_of(log).questions
    except (ForetellError, OSError):
        return None
    texts = {}
    for id in wanted:
        item = questions[int(id.rpartition(".")[2])][1]
        told = [item.passage, item.question]
        told += item.options if part != "question" else []
        told += [*item.letters, item.reference or ""] if part == "all" else []
        texts[id] = "\n".join(filter(None, told))
    return Items(texts)


def _eval_of(log: RunLog, name: str, registries: Sequence[Path]) -> Eval:
    root = Path(str(log.eval_spec.get("registry_path") or OWN))
    paths = dict.fromkeys(path.resolve() for path in (OWN, root, *registries) if path.is_dir())
    return make_eval(Registry(tuple(paths)), name, **log.args)
