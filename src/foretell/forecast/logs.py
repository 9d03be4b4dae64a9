"""Rows out of any training code's logs: CSV, JSON lines, Parquet, Weights & Biases exports, TensorBoard folders."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from foretell.errors import ForecastError, MissingExtraError

Row = dict[str, Any]  # column as the file names it → value; missing ones are absent
LIMIT = 512_000_000  # bytes of a file; a ladder with every curve is far below

# The first name found wins: held-out loss before training loss, bits per byte (which no tokenizer moves) before both.
NAMES = {
    "flops": "flops flop compute c train_flops training_flops total_flops train_compute total_compute "
    "train_total_flops total_flos train_total_flos",
    "loss": "val_bpb eval_bpb test_bpb bpb bits_per_byte val_bits_per_byte eval_bits_per_byte val_loss validation_loss "
    "eval_loss test_loss heldout_loss val_nll eval_nll lm_loss_validation final_loss loss l nll cross_entropy "
    "train_loss lm_loss",
    "tokens": "tokens d train_tokens training_tokens total_tokens num_tokens n_tokens tokens_seen "
    "num_input_tokens_seen train_num_input_tokens_seen",
    "params": "params parameters n n_params num_params num_parameters total_params model_size param_count",
    "seed": "seed random_seed",
    "run": "run run_name name run_id id display_name",
    "step": "step _step global_step iteration iter train_step training_step train_global_step trainer_global_step",
    "state": "state",
    "lr": "lr learning_rate train_lr train_learning_rate lr_adamw lr_adam optimizer_lr",
}
SETTINGS = (
    "tokenizer tokeniser vocab_size vocabulary schedule lr_schedule eval_set evaluation evaluation_set unit loss_unit "
    "dataset data optimizer context context_length sequence_length"
)


def canonical(column: str) -> str:
    """Lower case, words joined by one underscore, without the prefixes that exports of runs add."""
    plain = re.sub(r"[^a-z0-9]+", "_", column.strip().lower()).rstrip("_")
    plain = plain if column.strip().startswith("_") else plain.lstrip("_")
    return re.sub(r"^(config|summary|metrics|hparams|hyperparameters)_(value_)?", "", plain)


def columns(rows: list[tuple[str, Row]], named: Mapping[str, str] | None = None) -> dict[str, str]:
    """Field → the file's own name of its column. named: columns that a user chose; they go before any other name.

    Raises ForecastError for a field that is none, or a column that is not there.
    """
    present: dict[str, str] = {}
    for _, row in rows:
        for name in row:
            present.setdefault(canonical(name), name)
    found = {}
    for field, name in (named or {}).items():
        if field not in NAMES:
            raise ForecastError(f"A ladder has no field {field!r}; its fields are {', '.join(NAMES)}.")
        if canonical(name) not in present:
            raise ForecastError(
                f"There is no column {name!r} for {field}; the columns are {', '.join(present.values())}."
            )
        found[field] = name if name in present.values() else present[canonical(name)]
    for field, names in NAMES.items():
        known = next((present[name] for name in names.split() if name in present), None)
        if known and field not in found:
            found[field] = known
    return found


def read_rows(path: Path, growing: bool = False) -> list[tuple[str, Row]]:
    """(Where it stands, row) of each row of a file, known by its content, or of a TensorBoard folder.

    growing: it is still written, so a last line without an end may hold half a number, and is left out.
    Raises ForecastError for what cannot be read as a table.
    """
    try:
        if path.is_dir():
            return list(_tensorboard(path))
        if path.stat().st_size > LIMIT:
            raise ForecastError(f"{path} is larger than {LIMIT // 10**6} MB, as no ladder is. Export final rows only.")
        raw = path.read_bytes()
    except OSError as error:
        raise ForecastError(f"{path} cannot be read ({error.strerror}). Check the path and its permissions.") from error
    if raw[:4] == b"PAR1":
        return list(_parquet(path, raw))
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ForecastError(
            f"{path} is neither Parquet nor UTF-8 text (byte {error.start}). Save it as CSV, JSON lines or Parquet."
        ) from error
    if growing and not text.rstrip(" ").endswith(("\n", "\r", "}", "]")):
        text = text[: text.rfind("\n") + 1]
    return list(_json(path, text) if text.lstrip()[:1] in ("{", "[") else _csv(path, text))


def _parquet(path: Path, raw: bytes) -> Iterator[tuple[str, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(pa.BufferReader(raw)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ForecastError(f"{path} is a damaged Parquet file ({error}). Write it again.") from error
    for number, row in enumerate(rows, 1):
        yield f"row {number}", _flat(row)


def _json(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    try:
        whole = json.loads(text) if text.lstrip()[0] == "[" else None
    except (ValueError, RecursionError) as error:
        raise ForecastError(f"{path} is not JSON ({error}). Write one JSON object a line.") from error
    lines = enumerate(whole if isinstance(whole, list) else text.splitlines(), 1)
    for number, line in lines:
        if isinstance(line, str) and not line.strip():
            continue
        try:
            row = json.loads(line) if whole is None else line
        except (ValueError, RecursionError) as error:
            raise ForecastError(f"{path}, line {number} is not JSON ({error}). Write one object a line.") from error
        if not isinstance(row, dict):
            raise ForecastError(f"{path}, line {number} holds a {type(row).__name__}, not an object with columns.")
        yield f"line {number}", _flat(row)


def _flat(row: Mapping[str, Any], prefix: str = "") -> Row:
    out: Row = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            out[f"{prefix}{key}"] = value
    return out


def _csv(path: Path, text: str) -> Iterator[tuple[str, Row]]:
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [name.strip() for name in next(reader, [])]
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise ForecastError(f"{path} has two columns called {twice!r}. Rename or remove one.")
        rows: Iterator[tuple[str, Row]] = _rows(path, header, reader)
        yield from _panel(header, rows) if any(" - " in name for name in header[1:]) else rows
    except csv.Error as error:
        raise ForecastError(f"{path}, row {reader.line_num}: {error}. Save it as plain CSV.") from error


def _rows(path: Path, header: list[str], reader: Any) -> Iterator[tuple[str, Row]]:
    for cells in reader:
        where = f"row {reader.line_num}"  # as a spreadsheet counts: the header is row 1
        if len(cells) > len(header):
            names = ", ".join(header)
            raise ForecastError(
                f"{path}, {where} has {len(cells)} values for the {len(header)} columns of its first line "
                f"({names:.80}). Mend that row, or begin the file with the names of the columns."
            )
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
        if row:
            yield where, row


def _panel(header: list[str], rows: Iterator[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """A Weights & Biases chart as CSV: one column a run ("RUN - METRIC"), the first column is the horizontal axis."""
    for where, row in rows:
        for name, value in row.items():
            run, dash, metric = name.rpartition(" - ")
            if dash and canonical(metric) != "step":
                kept = {header[0]: row[header[0]]} if header[0] in row else {}
                # On an axis of FLOPs or tokens there is no step; the axis itself orders the curve.
                yield where, {"step": row.get(header[0], ""), "run": run, metric: value, **kept}


def _tensorboard(path: Path) -> Iterator[tuple[str, Row]]:
    folders = sorted({file.parent for file in path.rglob("events.out.tfevents.*")})
    if not folders:
        raise ForecastError(
            f"{path} is a folder without TensorBoard event files. Name one with them, or a CSV, JSONL or Parquet file."
        )
    try:
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, TENSORS, EventAccumulator
        from tensorboard.util import tensor_util
    except ImportError as error:
        raise MissingExtraError("Reading TensorBoard folders", "track") from error
    for folder in folders:
        run = str(folder.relative_to(path)) if folder != path else path.name
        events = EventAccumulator(str(folder), size_guidance={SCALARS: 0, TENSORS: 0})
        events.Reload()
        steps: dict[int, Row] = {}
        for tag in events.Tags()[SCALARS]:
            for event in events.Scalars(tag):
                steps.setdefault(event.step, {})[tag] = event.value
        for tag in events.Tags()[TENSORS]:  # TensorFlow 2 writes scalars as tensors
            for event in events.Tensors(tag):
                value = tensor_util.make_ndarray(event.tensor_proto)
                if value.size == 1 and value.dtype.kind in "fiu":
                    steps.setdefault(event.step, {})[tag] = float(value)
        for step in sorted(steps):
            yield f"{run}, step {step}", {"run": run, "step": step, **steps[step]}
