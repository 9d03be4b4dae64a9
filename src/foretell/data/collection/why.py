"""Where a document came from, and what each step did to it."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from foretell.data.collection import ledger, plan
from foretell.data.collection.places import Places, read_state
from foretell.data.collection.recipe import CollectionRecipe, stored
from foretell.errors import DataError, RunError


@dataclass(frozen=True)
class Story:
    shard: int
    source: str  # the recipe's name of it
    row: ledger.Row


def why(out: Path, name: str) -> list[Story]:
    """Every record of that id, URL or locator; the same id may stand in several sources.

    Raises RunError for a folder that is no finished collection, DataError where nothing has that name.
    """
    places, _, shards = finished(out)
    if not name:  # as the URL is of every document that has none
        raise DataError("The name is empty. Give a document's id, URL or locator, as the ledger has it.")
    found = [
        Story(shard.number, shard.source, row) for shard in shards for row in _named(places.ledger(shard.number), name)
    ]
    if not found:
        held = [record for shard in shards for record in _of_file(places.ledger(shard.number), name)]
        if held:
            kept = sum(reason is None for _, reason in held)
            raise DataError(
                f"{name!r} is a file of {len(held):,} records, of which {kept:,} were kept. Ask for one of them, such "
                f"as {held[0][0]!r}."
            )
        parts = [part for part in (name, Path(name).name) if part]  # a file's whole path is no locator
        near = next((i for part in parts for s in shards for i in _containing(places.ledger(s.number), part)), None)
        hint = f" Did you mean {near!r}?" if near else ""
        raise DataError(f"{out} knows no document with the id, URL or locator {name!r}.{hint} Ids stand in its ledger.")
    return found


def finished(out: Path) -> tuple[Places, CollectionRecipe, list[plan.Shard]]:
    """A finished collection. Raises RunError for what is none."""
    places, state = Places(out.resolve()), read_state(out)
    if not state["finished"]:
        raise RunError(f"The collection in {out} is not finished. Run its foretell data build again first.")
    return places, stored(json.dumps(state["recipe"])), plan.load(places.plan)


def _named(path: Path, name: str) -> Iterator[ledger.Row]:
    table = _columns(path, ["id", "url", "locator"])
    name = name.encode("utf-8", "replace").decode()
    hits = [pc.fill_null(pc.equal(table[column], name), False) for column in table.column_names]
    places = set(pc.indices_nonzero(pc.or_(pc.or_(hits[0], hits[1]), hits[2])).to_pylist())
    if places:
        yield from (row for i, row in enumerate(ledger.read(path)) if i in places)


def _of_file(path: Path, name: str) -> list[tuple[str, str | None]]:
    """Locators of the records of a file, and the reason why each was removed, None for one that was kept."""
    table = _columns(path, ["locator", "reason"])
    held = pc.match_substring_regex(table["locator"], f"^{re.escape(name)}[:@!#]")
    found = table.filter(pc.fill_null(held, False)).to_pylist()
    return [(row["locator"], row["reason"] or None) for row in found]


def _containing(path: Path, part: str) -> list[str]:
    ids = _columns(path, ["id"])["id"]
    found: list[str] = ids.filter(pc.match_substring(ids, part)).slice(0, 1).to_pylist()
    return found


def _columns(path: Path, names: list[str]) -> pa.Table:
    try:
        return pq.read_table(path, columns=names)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read ({error}). Build the collection again.") from error


def told(story: Story, recipe: CollectionRecipe) -> list[tuple[str, str]]:
    """(what did it, what it did) in the order of things."""
    row = story.row
    came = [
        f"source {story.source}" + (f" ({row.source})" if row.source != story.source else ""),
        row.locator,
        row.url if row.url != row.locator else "",
        f"licence {row.license or 'unknown'}",
        f"language {row.language or 'und'}",
        row.date or "no date",
    ]
    lines = [("came from", ", ".join(part for part in came if part))]
    if row.step or row.kept:
        images = f" and {row.images_in:,} images" if row.images_in else ""
        lost = f"; {row.images_lost:,} more could not be read" if row.images_lost else ""
        lines.append(("read", f"{row.chars_in:,} characters{images}{lost}"))
    else:
        lines.append(("read", _gone(row)))
    changes = deque(row.changes)  # in the order of things, too: two steps may have one name
    steps = [step.step for step in recipe.steps]
    passes = ["ids", *(each.build().name for each in recipe.passes)]
    for name in [*(["exclude"] if recipe.exclude else []), *steps, *passes, "remove"]:
        if row.step == name and not changes:
            lines.append((name, _gone(row)))
            break
        if changes and changes[0]["step"] == name:
            lines.append((name, _changed(changes.popleft())))
        elif name in steps and (row.kept or row.step):
            lines.append((name, "passed"))
    else:
        if row.step:  # of a recipe that names it otherwise now
            lines.append((row.step, _gone(row)))
    if row.kept:
        lines.append(("kept", f"{row.chars_out:,} characters, row {row.row:,} of data/{story.shard:05d}.parquet"))
    return lines


def _changed(change: dict[str, Any]) -> str:
    if change["before"] is None:
        return f"passed ({change['note']})"
    note = f" ({change['note']})" if change["note"] else ""
    return f"changed, {change['before']:,} → {change['after']:,} characters{note}"


def _gone(row: ledger.Row) -> str:
    return f"removed: {row.reason}" + (f" ({row.detail})" if row.detail else "")
