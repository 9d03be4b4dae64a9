"""The examine stage: held-out visual questions beside their controls, samples, and the held-out loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from foretell.chat import Conversation, Encoded
from foretell.data.document import Document
from foretell.data.parquet import read_documents
from foretell.data.splits import Split
from foretell.data.world import Item, final_answer
from foretell.evals.visual import examine_visual, majority_answers, sample_texts
from foretell.files import write_json
from foretell.loading import Model, load
from foretell.pipeline.documents import documents_file
from foretell.recipe import Recipe, WorldSource
from foretell.run import Report, read_manifest

_PROMPT_CHARACTERS = 80
_LOOKED_AT = 400  # documents of a source


def examine(recipe: Recipe, inputs: Mapping[str, Path], out: Path, report: Report) -> dict[str, Any]:
    """Examine inputs["pretrain"]'s model on inputs["data"]'s held-out part; writes examine.json.

    Returns the accuracy of each visual task and its margin over the blind control.
    """
    settings = recipe.examine
    model = load(inputs["pretrain"] / "checkpoint", device=recipe.train.device)
    trained = read_manifest(inputs["pretrain"])
    metrics = trained["metrics"] if trained else {}
    found: dict[str, Any] = {"tasks": [], "shown": []}
    worlds = [source.name for source in recipe.data.sources if isinstance(source, WorldSource)]
    if recipe.model.vision is not None and worlds:
        asked = list(_at_most(settings.questions, questions(inputs["data"], worlds, "heldout", images=True)))
        report("examine", 0, 2, f"{len(asked)} questions, each with its image, blind and shuffled")
        prior = majority_answers(questions(inputs["data"], worlds, "train", images=False))
        found = examine_visual(model.generator, asked, prior, recipe.seed, settings.max_tokens, settings.shown)
    report("examine", 1, 2, "samples")
    prompts = dict(_prompts(recipe, inputs["data"], model))
    found["samples"] = sample_texts(model.generator, prompts, settings.max_tokens, seed=recipe.seed)
    found["text"] = {key: metrics[key] for key in ("bits_per_byte", "by_kind") if key in metrics}
    write_json(out / "examine.json", found)
    return {"tasks": {task["task"]: {k: task[k] for k in ("accuracy", "above_blind")} for task in found["tasks"]}}


def questions(data_dir: Path, worlds: Iterable[str], split: Split, images: bool) -> Iterator[Item]:
    """The questions of the generated world as the data stage wrote them; a reply's end is the truth."""
    for name in worlds:
        for document in read_documents(documents_file(data_dir, name, split), images=images):
            if document.is_conversation and (last := document.segments[-1]).role == "assistant":
                yield Item(document.id, document.kind, document, final_answer(last.text or "") or None)


def _at_most(each: int, items: Iterable[Item]) -> Iterator[Item]:
    """Items with an image, at most `each` of a task."""
    taken: Counter[str] = Counter()
    for item in items:
        if any(segment.image is not None for segment in item.content.segments) and taken[item.task] < each:
            taken[item.task] += 1
            yield item


def _prompts(recipe: Recipe, data_dir: Path, model: Model) -> Iterator[tuple[str, Conversation | Encoded]]:
    """Openings of held-out texts and held-out questions without an image: each kind of document in turn."""
    seen: dict[str, list[Document]] = {}
    for source in recipe.data.sources:
        for document in islice(read_documents(documents_file(data_dir, source.name, "heldout")), _LOOKED_AT):
            queue = seen.setdefault(document.kind, [])
            if len(queue) < recipe.examine.samples and _is_plain(document):
                queue.append(document)
    turns = [queue[i] for i in range(recipe.examine.samples) for queue in seen.values() if i < len(queue)]
    for document in turns[: recipe.examine.samples]:
        if document.is_conversation:
            conversation = Conversation(document.conversation().messages[:-1])
            yield conversation.messages[-1].text, conversation
        else:
            opening = (document.segments[0].text or "")[:_PROMPT_CHARACTERS].rsplit(" ", 1)[0]
            yield opening, model.generator.encode_text(opening)


def _is_plain(document: Document) -> bool:
    """Whether it can be continued from its words alone."""
    if any(segment.image is not None for segment in document.segments):
        return False
    if document.is_conversation:
        return len(document.segments) > 1 and document.segments[-1].role == "assistant"
    return bool((document.segments[0].text or "").strip())
