"""Images that people attach: checked as they come, kept with a small copy, told with what they cost a model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import sqlalchemy as sa

from foretell.errors import ImageError
from foretell.images import decode_image, open_image
from foretell.serve.accounts.account import new_id
from foretell.serve.chats.conversations import missing
from foretell.serve.chats.markdown import clean_text
from foretell.serve.chats.tables import image_uses, images
from foretell.serve.refusals import refuse
from foretell.serve.store import Store

MOST_BYTES = 20_000_000  # of an image
_MOST_KEPT = 2_000_000_000  # bytes of one account's
_SMALL = 320  # pixels of a small copy's longer side
_FORGOTTEN = 86_400_000  # milliseconds after which an image that no message has is removed
_FIELDS = [column for column in images.c if column.name not in ("data", "small")]


class Costs(Protocol):
    """How a model reads an image."""

    def of(self, width: int, height: int) -> tuple[int, int]:
        """Its tiles and tokens."""
        ...


@dataclass(frozen=True)
class Picture:
    """An image's bytes, and what they are."""

    kind: str
    data: bytes


def keep(store: Store, owner: str, name: str, data: bytes) -> sa.Row[Any]:
    """Check and store an image. Raises RequestError for what is none, is too large, or for which there is no room."""
    if len(data) > MOST_BYTES:
        raise refuse(
            f"The image has {len(data):,} bytes; at most {MOST_BYTES:,} are taken. Make it smaller.",
            413,
            code="image_too_large",
        )
    try:
        kind = f"image/{(open_image(data).format or '').lower()}"
        picture = decode_image(data)
    except ImageError as error:
        raise refuse(str(error), 400, code="invalid_image") from error
    width, height = picture.size
    picture.thumbnail((_SMALL, _SMALL))
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    id, now = new_id("img"), store.clock()
    row = {
        "id": id, "owner": owner, "name": named(name), "kind": kind, "width": width, "height": height,
        "size": len(data), "data": data, "small": buffer.getvalue(), "created": now,
    }  # fmt: skip
    with store.write() as db:
        _forget(db, owner, now)
        held = db.scalar(sa.select(sa.func.sum(images.c.size)).where(images.c.owner == owner)) or 0
        if owner and held + len(data) > _MOST_KEPT:
            raise refuse(
                f"Your images have {held:,} bytes; at most {_MOST_KEPT:,} are kept. Delete conversations with images.",
                413,
                code="image_store_full",
            )
        db.execute(images.insert().values(**row))
        return db.execute(sa.select(*_FIELDS).where(images.c.id == id)).one()


def named(name: str) -> str:
    """A file's name as it is shown: one line, its end kept."""
    return " ".join(clean_text(name).split())[-200:] or "image"


def _forget(db: sa.Connection, owner: str, now: int) -> None:
    used = sa.select(image_uses.c.image)
    stale = (images.c.owner == owner) & (images.c.created < now - _FORGOTTEN) & images.c.id.not_in(used)
    db.execute(images.delete().where(stale))


def load(store: Store, owner: str, id: str, small: bool = False) -> Picture:
    """Raises RequestError, 404."""
    c = images.c
    with store.read() as db:
        row = db.execute(sa.select(c.kind, c.small if small else c.data).where(c.id == id, c.owner == owner)).first()
    if row is None:
        raise missing("image")
    return Picture("image/png" if small else row[0], bytes(row[1]))


def check_own(db: sa.Connection, owner: str, ids: Sequence[str]) -> None:
    """Raises RequestError, 404, where one of the images is not there or is somebody else's."""
    known = set(db.scalars(sa.select(images.c.id).where(images.c.id.in_(ids), images.c.owner == owner)))
    if not known.issuperset(ids):
        raise missing("image")


def data_of(db: sa.Connection, ids: Collection[str]) -> dict[str, Picture]:
    rows = db.execute(sa.select(images.c.id, images.c.kind, images.c.data).where(images.c.id.in_(ids)))
    return {row.id: Picture(row.kind, bytes(row.data)) for row in rows}


def of_messages(db: sa.Connection, ids: Collection[str]) -> dict[str, list[sa.Row[Any]]]:
    """The images of messages, in order."""
    found: dict[str, list[sa.Row[Any]]] = {}
    uses = sa.select(image_uses.c.message, *_FIELDS).join(images, images.c.id == image_uses.c.image)
    rows = db.execute(uses.where(image_uses.c.message.in_(ids)).order_by(image_uses.c.message, image_uses.c.place))
    for row in rows:
        found.setdefault(row.message, []).append(row)
    return found


def told(row: sa.Row[Any], costs: Costs) -> dict[str, Any]:
    """An image as the page is told it."""
    tiles, tokens = costs.of(row.width, row.height)
    return {
        "id": row.id, "name": row.name, "width": row.width, "height": row.height, "tiles": tiles, "tokens": tokens,
    }  # fmt: skip
