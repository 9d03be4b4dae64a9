"""The books of a run: what it read, what the model is, what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from foretell.model.describe import describe, training_flops
from foretell.pages import (
    Bar,
    Html,
    bar_chart,
    compact,
    definitions,
    details,
    figure,
    notice,
    number,
    percent,
    section,
    size,
    table,
)
from foretell.recipe import ModelConfig
from foretell.report.record import TELLING, Json, RunRecord, mapping, num, records, words


@dataclass(frozen=True)
class Cost:
    """seconds: of all stages. flops: of training; counted says how they were counted. None is not recorded."""

    seconds: float | None
    tokens: float | None
    parameters: float | None
    flops: float | None
    counted: str
    cores: int | None
    core_hours: float | None
    device: str


def model_config(run: RunRecord) -> ModelConfig | None:
    """The trained shape: the recipe's model with the vocabulary the tokenizer has; None if that cannot be told."""
    found = mapping(run.recipe.get("model"))
    if not run.recipe:
        return None
    if vocabulary := num(run.metrics("tokenizer"), "vocab_size"):
        found["vocab_size"] = int(vocabulary)
    try:
        return ModelConfig(**found)
    except (ValidationError, TypeError):
        return None


def cost(run: RunRecord) -> Cost:
    """What the run cost, from manifests first, the log second, counting third."""
    spent = [
        s for name, stage in run.stages.items() if name not in TELLING and (s := num(stage, "seconds")) is not None
    ]
    trained = run.metrics("pretrain")
    told = [trained, *reversed(run.events), *reversed(run.train)]

    def last(key: str) -> float | None:
        return next((found for record in told if (found := num(record, key)) is not None), None)

    tokens = num(trained, "tokens") or max((num(line, "tokens") or 0 for line in run.train), default=0)
    config = model_config(run)
    parts = describe(config) if config else []
    parameters = last("parameters") or (sum(part.parameters for part in parts) if parts else None)
    flops, counted = last("flops"), "as the trainer counted it"
    if flops is None and config is not None and tokens:
        flops, counted = training_flops(config, tokens), "estimated from the shape, images not counted"
    cores = last("threads")
    seconds = sum(spent) if spent else None
    return Cost(
        seconds,
        tokens or None,
        parameters,
        flops,
        counted,
        int(cores) if cores else None,
        seconds * cores / 3600 if cores and seconds is not None else None,
        next((words(record, "device") for record in told if words(record, "device")), ""),
    )


def data_section(run: RunRecord) -> Html:
    """Sources with licence, documents, tokens and what was skipped."""
    packed, read = _packed(run), run.metrics("data")
    named: dict[str, Json] = {
        words(s, "name") or words(s, "kind"): s for s in records(mapping(run.recipe.get("data")).get("sources"))
    }
    for metrics in (packed, read):
        for source in records(metrics.get("by_source") or metrics.get("sources")):
            name = words(source, "name")
            named[name] = {**named.get(name, {}), **source}
    if not named:
        return section("Data", notice("Missing: neither the recipe nor a manifest names a source."))
    rows = [
        [
            name,
            num(source, "tokens"),
            percent(num(source, "share")) if num(source, "share") is not None else None,
            _passes(source),
            num(source, "documents"),
            size(num(source, "bytes")) if num(source, "bytes") is not None else None,
            _skipped(source.get("skipped")),
            words(source, "kind") or None,
            _licences(source) or None,
        ]
        for name, source in named.items()
    ]
    head = ["Source", "Tokens", "Share", "Passes", "Documents", "Text", "Skipped", "Kind", "Licence"]
    parts: list[object] = [] if packed else [notice("The data has not been packed yet, so its tokens are not known.")]
    parts.append(table(head, rows, align="lrrrrrrll"))
    fill = num(packed, "fill")
    parts.append(
        definitions(
            [
                ("Packed tokens", number(num(packed, "tokens")) if num(packed, "tokens") is not None else None),
                ("of which learned", number(num(packed, "learned_tokens")) if num(packed, "learned_tokens") else None),
                ("Rows", f"{number(num(packed, 'rows'))}, {percent(fill)} filled" if fill is not None else None),
                ("Skipped in reading", _reasons(read.get("skipped"))),
                ("Skipped in packing", _reasons(packed.get("skipped"))),
            ]
        )
    )
    held = mapping(run.metrics("pack").get("heldout"))
    for about, notes in (("", packed.get("notes")), ("Held-out data: ", held.get("notes"))):
        parts += [notice(f"{about}{note}") for note in notes[:20]] if isinstance(notes, list) else []
    kinds = records(packed.get("by_kind"))
    if kinds:
        total = sum(num(kind, "tokens") or 0 for kind in kinds) or 1
        rows = [
            [
                words(kind, "name"),
                num(kind, "tokens"),
                num(kind, "learned_tokens"),
                percent((num(kind, "tokens") or 0) / total),
            ]
            for kind in sorted(kinds, key=lambda kind: -(num(kind, "tokens") or 0))
        ]
        parts.append(
            details(
                f"Tokens by kind of document ({len(kinds)})",
                table(["Kind", "Tokens", "Learned", "Share"], rows, align="lrrr"),
            )
        )
    return section("Data", *parts)


def _packed(run: RunRecord) -> Json:
    """Metrics of the packed training rows; the pack stage may keep training and held-out rows apart."""
    metrics = run.metrics("pack")
    return mapping(metrics.get("train")) or metrics


def _licences(source: Json) -> str:
    value = source.get("licenses", source.get("license"))
    if not isinstance(value, dict | list):
        return str(value or "")[:200]
    names = [str(name)[:60] for name in value]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _passes(source: Json) -> str | None:
    """How often a source was read; it is only counted once its end was met."""
    epochs = num(source, "epochs")
    if epochs is None:
        return "under 1" if "epochs" in source and num(source, "tokens") else None
    return f"{epochs:.2f}"


def _skipped(value: object) -> str | None:
    if isinstance(value, dict):
        return number(sum(n for n in value.values() if isinstance(n, int)))
    return number(value) if isinstance(value, int) else None


def _reasons(value: object) -> str | None:
    if not isinstance(value, dict) or not value:
        return None
    return ", ".join(f"{number(n) if isinstance(n, int) else n} {reason}" for reason, n in value.items())


def model_section(run: RunRecord) -> Html:
    """Shape, parameters and FLOPs by part."""
    config = model_config(run)
    if config is None:
        return section("Model", notice("Missing: the recipe's model section could not be read."))
    parts = describe(config)
    vision = config.vision
    heads = f"{config.heads} heads" + (f", {config.n_kv_heads} for keys and values" if config.kv_heads else "")
    shape = definitions(
        [
            (
                "Decoder",
                f"{_layers(config.depth)}, width {config.width}, {heads} of {config.head_dim}, "
                f"feed-forward {config.ffn_width}",
            ),
            (
                "Vocabulary",
                f"{config.vocab_size:,} tokens" + (", head tied to the embedding" if config.tie_embeddings else ""),
            ),
            ("Context", f"{config.max_length:,} tokens"),
            ("Image tower", _vision(config) if vision else "none"),
        ]
    )
    rows = [[p.name, p.parameters, f"{compact(p.flops)}FLOP a {p.per}" if p.flops else None] for p in parts]
    rows.append(["all", sum(p.parameters for p in parts), None])
    bars = [Bar(p.name, p.parameters, compact(p.parameters)) for p in parts if p.parameters]
    return section(
        "Model",
        shape,
        figure(bar_chart(bars, title="Parameters by part"), "Parameters by part."),
        table(["Part", "Parameters", "Training compute"], rows, align="lrr"),
    )


def _vision(config: ModelConfig) -> str:
    v = config.vision
    assert v is not None
    return (
        f"{_layers(v.depth)}, width {v.width}; tiles of {v.tile} × {v.tile} pixels in patches of {v.patch}, "
        f"{v.tokens_per_tile} tokens a tile"
    )


def _layers(depth: int) -> str:
    return "1 layer" if depth == 1 else f"{depth} layers"
