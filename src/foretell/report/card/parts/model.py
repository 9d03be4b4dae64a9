"""What the model is, and what it was made of."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

from foretell.errors import CheckpointError, RunError
from foretell.files import sha256_file
from foretell.model.describe import describe
from foretell.report.card.blocks import (
    Block,
    Cell,
    Facts,
    Fold,
    Grid,
    Line,
    Link,
    Missing,
    Notice,
    Paragraph,
    Section,
)
from foretell.report.card.evidence import Evidence
from foretell.report.card.figures import Document, Number, Prose, Quote
from foretell.report.card.parts.common import command, listed, stage_name
from foretell.report.ledger import model_config
from foretell.report.record import read_run

_CONFIG = (
    ("hidden_size", "Width"),
    ("num_hidden_layers", "Layers"),
    ("num_attention_heads", "Heads"),
    ("num_key_value_heads", "Heads for keys and values"),
    ("intermediate_size", "Feed-forward width"),
    ("vocab_size", "Vocabulary"),
    ("max_position_embeddings", "Context, tokens"),
)
_LARGE = 4_000_000_000  # bytes of weights that are not hashed


def model(evidence: Evidence) -> Section:
    """Architecture, parameters, tokenizer, and which weights they are."""
    recipe = evidence.recipe
    if recipe is None or not evidence.trained_here:
        return _imported(evidence)
    described = _described(evidence)
    blocks: list[Block] = []
    kind = "a decoder that reads text and images in any order" if recipe.get("model", "vision") else "a decoder of text"
    blocks.append(Paragraph((Prose(f"The model is {kind}, trained from scratch"), *_path(evidence), Prose("."))))
    tokenizer = evidence.manifest("tokenizer")
    shape = ("model",)
    rows: list[tuple[Prose, Cell]] = []
    if described is not None:
        rows.append((Prose("Parameters"), described.figure("parameters", form="count")))
        rows.append((Prose("Decoder"), _joined(
            (described.figure("config", "depth", form="count"), " layers, width "),
            (described.figure("config", "width", form="count"), ", "),
            (described.figure("config", "heads", form="count"), " heads of "),
            (described.figure("config", "head_dim", form="count"), ", feed-forward "),
            (described.figure("config", "ffn_width", form="count"), ""),
        )))  # fmt: skip
    rows.append((Prose("Context"), _joined((recipe.figure(*shape, "max_length", form="count"), " tokens"))))
    if recipe.get("model", "vision"):
        rows.append((Prose("Image tower"), _joined(
            (recipe.figure(*shape, "vision", "depth", form="count"), " layers, width "),
            (recipe.figure(*shape, "vision", "width", form="count"), "; square tiles of side "),
            (recipe.figure(*shape, "vision", "tile", form="count"), " in patches of "),
            (recipe.figure(*shape, "vision", "patch", form="count"), " pixels"),
        )))  # fmt: skip
    if tokenizer is not None:
        rows.append((Prose("Tokenizer"), _joined(
            (tokenizer.figure("metrics", "vocab_size", form="count"), " byte-level pieces, learned from "),
            (tokenizer.figure("metrics", "trained_on_bytes", form="bytes"), " of its training text"),
        )))  # fmt: skip
    trained = evidence.manifest("pretrain")
    if trained is not None:
        rows.append((Prose("Pre-training"), _joined(
            (trained.figure("metrics", "tokens", form="count"), " tokens, "),
            (trained.figure("metrics", "flops", form="flops"), ""),
        )))  # fmt: skip
        rows.append((Prose("Code"), trained.quote("code")))
        rows.append((Prose("Seed"), trained.figure("seed", form="count")))
    for stage in evidence.subject.stages:
        weights = evidence.file(f"{stage}/checkpoint/manifest.json")
        digest = None if weights is None else weights.quote("files", "model.safetensors")
        if digest is not None:
            rows.append((_weights(evidence, stage), digest))
    blocks.append(Facts([(term, cell) for term, cell in rows if cell is not None]))
    if described is not None:
        parts = [
            [described.quote("parts", i, "name"), described.figure("parts", i, "parameters", form="count"),
             described.figure("parts", i, "flops", form="flops"), described.quote("parts", i, "per")]
            for i in range(described.count("parts"))
        ]  # fmt: skip
        head = [Prose("Part"), Prose("Parameters"), Prose("Training compute"), Prose("for each")]
        blocks.append(Fold(Prose("Parameters by part"), [Grid(head, parts, align="lrrl")]))
    if (page := evidence.out.parent / "page" / "index.html").is_file() and evidence.subject.folder is not None:
        blocks.append(
            Paragraph(
                (
                    Prose("How its training went, step by step, stands on the "),
                    Link(Prose("run's page"), page),
                    Prose("."),
                )
            )
        )
    headline: list[tuple[Prose, Number, Cell]] = []
    if described is not None and (count := described.figure("parameters", form="compact")) is not None:
        headline = [(Prose("Parameters"), count, Prose("counted from its shape"))]
    return Section(Prose("What the model is"), blocks, headline=headline)


def _weights(evidence: Evidence, stage: str) -> Prose:
    return Prose(f"SHA-256 of the weights, {stage_name(evidence, stage)}")


def _path(evidence: Evidence) -> Line:
    stages = [stage for stage in evidence.subject.stages if stage != "pretrain"]
    names = {"sft": "fine-tuned on demonstrations", "ppo": "trained by reinforcement learning against a reward model",
             "dpo": "optimised on preferences", "grpo": "trained by reinforcement learning"}  # fmt: skip
    told = [names[stage] for stage in stages if stage in names]
    return (Prose("".join(f", then {words}" for words in told)),) if told else ()


def _joined(*parts: tuple[Number | None, str]) -> Line | None:
    """Figures with the words behind them; None where one is missing."""
    line: list[Number | Prose] = []
    for figure, words in parts:
        if figure is None:
            return None
        line.append(figure)
        if words:
            line.append(Prose(words))
    return tuple(line)


def _described(evidence: Evidence) -> Document | None:
    folder = evidence.subject.folder
    assert folder is not None
    try:
        config = model_config(read_run(folder))
    except RunError:
        return None
    if config is None:
        return None
    parts = [
        {"name": p.name, "parameters": p.parameters, "flops": p.flops or None, "per": p.per} for p in describe(config)
    ]
    value: dict[str, Any] = {
        "parameters": sum(part.parameters for part in describe(config)),
        "config": {
            name: getattr(config, name) for name in ("depth", "width", "heads", "head_dim", "ffn_width", "vocab_size")
        },
        "parts": parts,
    }
    made_from = [path for path in (folder / "recipe.yaml", folder / "tokenizer" / "manifest.json") if path.is_file()]
    return evidence.computed("model.json", value, made_from)


def _imported(evidence: Evidence) -> Section:
    """A model that was not trained here: what its files tell."""
    folder = evidence.subject.folder
    tuned = evidence.recipe is not None
    words = "The model was trained further here from another one" if tuned else "The model was not trained here"
    blocks: list[Block] = [Paragraph((Prose(f"{words}; its makers' own card tells how it was made."),))]
    if folder is None:
        blocks.append(Notice((Prose("It was measured at an endpoint, so that nothing of its shape is known here."),)))
        return Section(Prose("What the model is"), blocks)
    rows: list[tuple[Prose, Cell]] = []
    within = f"{evidence.subject.final}/checkpoint/" if tuned else ""
    if (config := evidence.file(f"{within}config.json")) is not None:
        base = ("text_config",) if config.get("text_config") else ()
        rows += [
            (Prose(words), figure)
            for key, words in _CONFIG
            if (figure := config.figure(*base, key, form="count")) is not None
        ]
        rows.append((Prose("Kind"), config.quote("model_type")))
    weights = _files(folder / within)
    if weights:
        total = sum(path.stat().st_size for path in weights)
        value: dict[str, Any] = {"bytes": total, "files": {}}
        if total <= _LARGE:
            value["files"] = {path.name: sha256_file(path) for path in weights}
        if weights[0].suffix == ".gguf":
            value |= _gguf(weights[0])
        told = evidence.computed("weights.json", value, weights)
        rows.append((Prose("Parameters"), told.figure("parameters", form="count")))
        rows += [(Prose(words), told.figure("config", key, form="count")) for key, words in _CONFIG]
        rows.append((Prose("Kind"), told.quote("config", "model_type")))
        rows.append((Prose("Weights on disk"), told.figure("bytes", form="bytes")))
        for name in told.keys("files"):
            rows.append((Prose("SHA-256 of the weights"), told.quote("files", name)))
    blocks.append(Facts([(term, cell) for term, cell in rows if cell is not None]))
    return Section(Prose("What the model is"), blocks)


def _gguf(path: Path) -> dict[str, Any]:
    """What the header of a GGUF file tells of the model's shape; nothing where it cannot be read here."""
    try:
        from foretell.weights.gguf import GGUF
    except ModuleNotFoundError:  # without torch
        return {}
    try:
        with closing(GGUF(path)) as file:
            config = file.hugging_face_config()
            kept = {key: config[key] for key, _ in (*_CONFIG, ("model_type", "")) if key in config}
            return {"config": kept, "parameters": sum(math.prod(shape) for shape in file.shapes().values())}
    except CheckpointError:
        return {}


def _files(folder: Path) -> list[Path]:
    return [folder] if folder.is_file() else sorted([*folder.glob("*.safetensors"), *folder.glob("*.gguf")])


def data(evidence: Evidence) -> Section:
    """Sources with their licences and amounts, from the manifests of the data."""
    title = Prose("Data and licences")
    read, packed = evidence.manifest("data"), evidence.manifest("pack")
    if read is None and evidence.trained_here:
        what = Prose("the sources of its data and their licences: the run has no manifest of its data")
        return Section(title, [Missing(what, command(evidence, "foretell run "))])
    if read is None:
        elsewhere = Prose("The model was not trained from scratch here, so its data are its makers' to tell.")
        return Section(title, [Notice((elsewhere,))])
    rows: list[list[Cell]] = []
    for name in read.keys("metrics", "sources"):
        at = ("metrics", "sources", name)
        split = ("train",) if read.get(*at, "train") else ()
        share = ("metrics", "train", "by_source", name)
        rows.append([
            read.quote(*at, key=True),
            None if packed is None else packed.figure(*share, "tokens", form="count"),
            None if packed is None else packed.figure(*share, "share", form="share"),
            read.figure(*at, *split, "documents", form="count"),
            read.figure(*at, *split, "bytes", form="bytes"),
            listed(read, *at, *split, "licenses", most=4) or None,
        ])  # fmt: skip
    head = [Prose(w) for w in ("Source", "Tokens trained on", "Share", "Documents", "Text", "Licences")]
    blocks: list[Block] = [Grid(head, rows, align="lrrrrl")]
    licences: list[list[Cell]] = [
        [read.quote("metrics", "licenses", name, key=True), read.figure("metrics", "licenses", name, form="count")]
        for name in read.keys("metrics", "licenses")
    ]
    if licences:
        table = Grid([Prose("Licence, as the source states it"), Prose("Documents")], licences, align="lr")
        blocks.append(Fold(Prose("Documents by licence, held-out ones included"), [table]))
    languages: list[list[Cell]] = [
        [read.quote("metrics", "languages", name, key=True), read.figure("metrics", "languages", name, form="count")]
        for name in read.keys("metrics", "languages")
    ]
    if languages:
        blocks.append(
            Fold(Prose("Documents by language"), [Grid([Prose("Language"), Prose("Documents")], languages, align="lr")])
        )
    cutoff = None if evidence.recipe is None else evidence.recipe.get("data", "cutoff")
    line: Line = (
        (Prose("No document is younger than "), Quote(evidence.recipe, ("data", "cutoff")), Prose("."))
        if cutoff and evidence.recipe
        else (Prose("No cutoff date was set, so what the model knows of is as old as its sources."),)
    )
    blocks.append(Notice(line))
    tokens = None if packed is None else packed.figure("metrics", "train", "tokens", form="compact")
    if evidence.manifest("pretrain") is not None and (trained := evidence.manifest("pretrain")):
        tokens = trained.figure("metrics", "tokens", form="compact") or tokens
    headline: list[tuple[Prose, Number, Cell]] = []
    if tokens is not None:
        headline = [(Prose("Tokens trained on"), tokens, Prose("passes over a source counted"))]
    return Section(title, blocks, Prose("As the manifests of the data stage record them."), headline)
