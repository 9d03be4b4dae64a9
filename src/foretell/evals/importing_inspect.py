"""Logs of Inspect: a header with the task, and samples with messages, events of the model and scores.

A .eval is a zip of JSON, a member a sample, packed with Zstandard or Deflate. Nothing of it is unpacked to a file, and
the names of its members are not taken as paths.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from foretell.errors import EvalError
from foretell.evals.base import BAD_SAMPLE
from foretell.evals.importing import Brought, check, natural, sample_name
from foretell.evals.log import Recorded
from foretell.evals.results import utc

MEMBER = 512 << 20  # bytes of one member, unpacked
_RATIO = 1000  # of all members to the file: real logs shrink five to fifty times
_ZSTD = 93
_ATTACHED = "attachment://"
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


class _Entry(NamedTuple):
    epoch: int
    id: str
    where: str
    load: Callable[[], Any]


def read_zip(path: Path) -> Brought:
    """A .eval log. Raises EvalError for one that is damaged, or that no log would unpack to."""
    try:
        with ZipFile(path) as packed:
            members = {info.filename: info for info in packed.infolist()}  # the last of a name, as Inspect rewrites
    except (BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise EvalError(f"{path} is no readable zip ({error}). Copy the log again.") from error
    total, size = sum(info.file_size for info in members.values()), path.stat().st_size
    if total > 1 << 30 and total > _RATIO * size:
        raise EvalError(f"{path} says that its {size} bytes hold {total >> 20} MB, as no log does. It is not opened.")

    def load(name: str) -> Any:
        return _parse(_unpack(path, members[name]), f"{path}, {name}")

    if "header.json" in members:
        header = load("header.json")
    elif "_journal/start.json" in members:
        header = {"status": "started", **_object(load("_journal/start.json"), path)}
    else:
        raise EvalError(f"{path} has no header.json; expected a log of Inspect (.eval).")
    found = ((re.fullmatch(r"samples/(.*)_epoch_(\d{1,9})\.json", name, re.DOTALL), name) for name in members)
    entries = [_Entry(int(m[2]), m[1], f"{path}, {name}", partial(load, name)) for m, name in found if m]
    return _brought(path, _object(header, path), entries)


def read_json(path: Path) -> Brought:
    """A .json log, which is read as a whole."""
    if path.stat().st_size > 4 * MEMBER:
        raise EvalError(f"{path} is larger than {4 * MEMBER >> 30} GB. Convert it: inspect log convert --to eval")
    header = _object(_parse(path.read_bytes(), str(path)), path)
    samples = header.pop("samples", None) or []
    entries = []
    for at, raw in enumerate(samples if isinstance(samples, list) else [samples]):
        where = f"{path}, sample {at + 1}"
        try:
            entries.append(_Entry(int(raw["epoch"]), sample_name(raw["id"]), where, partial(samples.__getitem__, at)))
        except _WRONG as error:
            raise EvalError(f"{where} is no sample of Inspect ({error!r}). Write the log again.") from error
    return _brought(path, header, entries)


def _unpack(path: Path, info: ZipInfo) -> bytes:
    """A member's bytes, never more than it says."""
    where = f"{path}, {info.filename[:200]}"
    if info.file_size > MEMBER:
        raise EvalError(f"{where} is of {info.file_size >> 20} MB; at most {MEMBER >> 20} are read.")
    if info.flag_bits & 1 or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED, _ZSTD):
        raise EvalError(f"{where} is encrypted, or packed in a way that is not known ({info.compress_type}).")
    try:
        with path.open("rb") as stream:
            stream.seek(info.header_offset)
            head = stream.read(30)
            if len(head) < 30 or head[:4] != b"PK\x03\x04":
                raise ValueError("its place in the file is another's")
            stream.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
            packed = stream.read(info.compress_size)
        data = _inflate(packed, info.compress_type, info.file_size + 1)
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise ValueError("its length or check sum is wrong")
    except (OSError, ValueError, zlib.error) as error:
        raise EvalError(f"{where} is damaged ({error}). Copy the log again.") from error
    return data


def _inflate(packed: bytes, how: int, most: int) -> bytes:
    if how == ZIP_STORED:
        return packed
    if how == ZIP_DEFLATED:
        return zlib.decompressobj(-15).decompress(packed, most)
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        data: bytes = stream.read(most)
    return data


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EvalError(f"{where} is not JSON ({error}). Copy the log again.") from error


def _object(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("eval"), dict):
        raise EvalError(f"{path} has no `eval` in its header; expected a log of Inspect.")
    return value


def _brought(path: Path, header: Mapping[str, Any], entries: Sequence[_Entry]) -> Brought:
    if not entries:
        raise EvalError(f"{path} holds no samples: it is a header, or was run with log_samples off.")
    try:
        spec = _spec(header)
        order = {str(id): at for at, id in enumerate((header["eval"].get("dataset") or {}).get("sample_ids") or [])}
        entries = sorted(entries, key=lambda e: (e.epoch, order.get(e.id, len(order)), natural(e.id)))
        headline, cluster = _headline(header)
        last = _last(header, len(entries))
    except _WRONG as error:
        raise EvalError(f"{path}: the header is not as Inspect writes it ({error!r}). Write the log again.") from error
    if headline:
        last["metric"] = headline
    return Brought(spec, _rows(entries, headline, cluster, str(spec["created_at"])), last)


def _spec(header: Mapping[str, Any]) -> dict[str, Any]:
    told = header["eval"]
    config, generate, dataset = (told.get(k) or {} for k in ("config", "model_generate_config", "dataset"))
    run, task, model = told.get("eval_id") or told["run_id"] + told["task_id"], told["task"], told["model"]
    if not all(isinstance(name, str) for name in (run, task, model)):
        raise TypeError("eval_id, task or model is no text")
    limits = {k: v for k, v in config.items() if k in ("limit", "sample_id", "epochs_reducer") and v is not None}
    args = {"args": told.get("task_args") or {}, "version": told.get("task_version"), "plan": header.get("plan")}
    eval_spec = {"cls": f"inspect:{told.get('task_registry_name') or task}", "registry_path": told.get("task_file")}
    return {
        "completion_fns": [model],
        "eval_name": task,
        "base_eval": task,
        "split": str(dataset.get("name") or ""),
        "run_config": {
            "completion_fns": [model],
            "eval_spec": {**eval_spec, "args": args, "key": task},
            "seed": generate.get("seed"),
            "max_samples": dataset.get("samples") if config.get("limit") else None,
            "epochs": config.get("epochs") or 1,
            "generate": generate,
            **limits,
        },
        "created_by": "",
        "run_id": run,
        "created_at": str(utc(told["created"]).replace(tzinfo=None)),
    }


def _headline(header: Mapping[str, Any]) -> tuple[str, str | None]:
    """The metrics event's name of the score that stands for the task, and what its standard error is clustered by."""
    results, told = header.get("results") or {}, header["eval"]
    first = next(iter(results.get("scores") or ()), None)
    if first is None:
        scorers = told.get("scorers") or ()
        first = {"scorer": scorers[0]["name"], "name": scorers[0]["name"]} if scorers else {}
    named = results.get("headline") or first
    scorer = named.get("scorer") or ""
    score = named.get("score") or named.get("name") or scorer
    metrics = [m for s in results.get("scores") or () if s["name"] == score for m in s["metrics"].values()]
    by = (m["params"].get("cluster") for m in metrics if m.get("params"))
    return scorer if score == scorer else f"{scorer}/{score}", next((str(c) for c in by if c), None)


def _last(header: Mapping[str, Any], count: int) -> dict[str, Any]:
    results, stats, status = header.get("results") or {}, header.get("stats") or {}, header.get("status")
    scores = results.get("scores") or []
    first = (results.get("headline") or {}).get("score") or (scores[0]["name"] if scores else "")
    report: dict[str, Any] = {}
    for score in sorted(scores, key=lambda score: bool(score["name"] != first)):
        for name, metric in score["metrics"].items():
            plain = name if score["name"] == first else f"{score['name']}/{name}"
            report.setdefault(plain, metric["value"])
    usage = [_usage(used) for used in (stats.get("model_usage") or {}).values()]
    report |= {f"usage_{name}": sum(u[name] for u in usage) for name in (usage[0] if usage else ())}
    costs = [used["total_cost"] for used in (stats.get("model_usage") or {}).values() if used.get("total_cost")]
    cost = {"tokens": report.get("usage_total_tokens"), "money": math.fsum(costs) if costs else None, "seconds": None}
    if stats.get("started_at") and stats.get("completed_at"):
        cost["seconds"] = (utc(stats["completed_at"]) - utc(stats["started_at"])).total_seconds()
    last = {"final_report": report, "complete": status == "success", "cost": cost}
    if status != "success":
        why = (header.get("error") or {}).get("message")
        last["note"] = (
            f"The run did not end well (status {status!r}{f': {why}' if why else ''}). {count} samples are here."
        )
    return last


def _rows(entries: Sequence[_Entry], headline: str, cluster: str | None, start: str) -> Iterator[dict[str, Any]]:
    for place, entry in enumerate(entries):
        raw = entry.load()
        try:
            if not isinstance(raw, dict):
                raise TypeError(f"a {type(raw).__name__}")
            row = {"place": place, "id": sample_name(raw["id"]), "epoch": entry.epoch - 1}
            row["at"] = str(raw.get("completed_at") or raw.get("started_at") or start)
            group = (raw.get("metadata") or {}).get(cluster) if cluster else None
            if group is not None:
                row["group"] = str(group)
            yield {**row, "events": check(list(_sample(raw, headline)))}
        except _WRONG as error:
            raise EvalError(f"{entry.where} is no sample of Inspect ({error!r}). Write the log again.") from error


def _sample(raw: Mapping[str, Any], headline: str) -> Iterator[Recorded]:
    """The events of a sample, in upstream's types."""
    attached = _Attached(raw.get("attachments") or {})
    pool = (raw.get("events_data") or {}).get("messages") or []
    asked = [event for event in raw.get("events") or () if event["event"] == "model" and not event.get("pending")]
    if not asked and (raw.get("output") or {}).get("choices"):
        talk = raw["messages"]
        end = max((at for at, message in enumerate(talk) if message["role"] == "assistant"), default=len(talk))
        asked = [{"input": talk[:end], "output": raw["output"]}]
    for event in asked:
        refs = event.get("input_refs") or ()
        messages = event.get("input") or [message for begin, end in refs for message in pool[begin:end]]
        output = event.get("output") or {}
        if event.get("error"):
            yield "error", {"type": "model", "message": str(event["error"])}
            continue
        replies = [attached.message(choice["message"]) for choice in output.get("choices") or ()]
        data: dict[str, Any] = {"prompt": [attached.message(message) for message in messages]}
        data["sampled"] = [_text(reply["content"]) for reply in replies]
        data["model"] = output.get("model") or event.get("model") or ""
        if output.get("usage"):
            data["usage"] = _usage(output["usage"])
        calls = [call for reply in replies for call in reply.get("tool_calls", ())]
        extra = {"role": event.get("role"), "tool_calls": calls, "reasoning": "\n".join(map(_reasoning, replies))}
        yield "sampling", data | {name: value for name, value in extra.items() if value}
    failed = raw.get("error")
    if failed:
        yield "error", {"type": "sample", "message": str(failed["message"])}
    scores = raw.get("scores") or ({headline: raw["score"]} if raw.get("score") else {})
    values: dict[str, Any] = {}
    for name, score in scores.items():
        value = score["value"]
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
        values |= {name: value} if parts is None else {f"{name}/{key}": part for key, part in parts}
    grades = {name: grade(value) for name, value in values.items()}
    main = headline if headline in grades or not grades else next(iter(grades))
    told = scores.get(main) or {}
    if isinstance(said := values.get(main), bool) or said in ("C", "I", "N"):
        data = {"correct": said is True or said == "C", "expected": raw.get("target"), "picked": told.get("answer")}
        yield "match", data | ({"explanation": told["explanation"]} if told.get("explanation") else {})
    if grades.get(main) is None:
        why = failed["message"] if failed else told.get("reason") or "it has no score that is a number"
        yield BAD_SAMPLE, {"message": str(why)}
    if grades:
        yield "metrics", {main: grades.pop(main, None), **grades}
    detail = {"target": raw.get("target"), "metadata": raw.get("metadata"), "choices": raw.get("choices")}
    detail["scores"] = {n: {k: s.get(k) for k in ("value", "answer", "explanation")} for n, s in scores.items()}
    yield "extra", {name: value for name, value in detail.items() if value}


def grade(value: Any) -> float | None:
    """A score of Inspect as a number: C, I, P and N are 1, 0, 0.5 and 0; None for what is no number."""
    if isinstance(value, str):
        if (known := _GRADES.get(value, _GRADES.get(value.lower()) if len(value) > 1 else None)) is not None:
            return known
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


class _Attached:
    """What messages name as attachment://HASH, put in its place; never more of it than a sample may hold."""

    def __init__(self, attachments: Mapping[str, str]) -> None:
        self.attachments, self.left = attachments, MEMBER

    def message(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """A message in OpenAI's form."""
        content = raw.get("content")
        parts = content if isinstance(content, str) else [self._part(part) for part in content or ()]
        message: dict[str, Any] = {"role": raw["role"], "content": parts}
        if raw.get("tool_calls"):
            message["tool_calls"] = [
                {"id": call.get("id"), "type": "function", "function": {
                    "name": call["function"], "arguments": json.dumps(call.get("arguments"), ensure_ascii=False),
                }}
                for call in raw["tool_calls"]
            ]  # fmt: skip
        if raw.get("tool_call_id"):
            message["tool_call_id"] = raw["tool_call_id"]
        resolved: dict[str, Any] = self._whole(message)
        return resolved

    def _part(self, part: Mapping[str, Any]) -> dict[str, Any]:
        if part["type"] == "image":
            return {"type": "image_url", "image_url": {"url": part["image"], "detail": part.get("detail", "auto")}}
        return {"type": "text", "text": part["text"]} if part["type"] == "text" else dict(part)

    def _whole(self, value: Any) -> Any:
        if isinstance(value, str) and value.startswith(_ATTACHED):
            found = self.attachments.get(value.removeprefix(_ATTACHED), value)
            self.left -= len(found)
            if self.left < 0:
                raise ValueError(f"with its attachments it is larger than {MEMBER >> 20} MB")
            return found
        if isinstance(value, dict):
            return {key: self._whole(part) for key, part in value.items()}
        return [self._whole(part) for part in value] if isinstance(value, list) else value


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _reasoning(message: Mapping[str, Any]) -> str:
    content = message["content"]
    parts = () if isinstance(content, str) else (p for p in content if p["type"] == "reasoning")
    return "\n".join(str(part.get("reasoning") or part.get("summary") or "") for part in parts)


def _usage(used: Mapping[str, Any]) -> dict[str, int]:
    read = sum(used.get(name) or 0 for name in ("input_tokens", "input_tokens_cache_read", "input_tokens_cache_write"))
    written = used.get("output_tokens") or 0
    return {
        "prompt_tokens": read, "completion_tokens": written, "total_tokens": used.get("total_tokens") or read + written,
    }  # fmt: skip
