"""The tables of the chat page. Times are milliseconds since 1970 UTC; an owner is a user, or "" where there are no
accounts."""

from __future__ import annotations

import sqlalchemy as sa

from foretell.serve.store import metadata


def _message(name: str) -> sa.Column[str]:
    own = sa.ForeignKey("chat_messages.id", ondelete="CASCADE")
    return sa.Column(name, sa.String(40), own, primary_key=True)


conversations = sa.Table(
    "chat_conversations",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(40), nullable=False),
    sa.Column("title", sa.String(200), nullable=False),  # "" until the first message gives one
    sa.Column("model", sa.String(256), nullable=False),
    sa.Column("second", sa.String(256)),  # answers beside it
    sa.Column("persona", sa.String(40)),
    sa.Column("system", sa.Text, nullable=False),
    sa.Column("temperature", sa.Float),  # none: as the model's makers advise
    sa.Column("tip", sa.String(40)),  # the last message of the branch that is shown
    sa.Column("source", sa.String(80)),  # of one that was imported: its id there
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.BigInteger, nullable=False),
    sa.Index("chat_conversations_by_owner", "owner", "updated", "id"),
)

messages = sa.Table(
    "chat_messages",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column(
        "conversation", sa.String(40), sa.ForeignKey("chat_conversations.id", ondelete="CASCADE"), nullable=False
    ),
    sa.Column("number", sa.Integer, nullable=False),  # in the order in which they came
    sa.Column("parent", sa.String(40)),
    sa.Column("role", sa.String(12), nullable=False),
    sa.Column("side", sa.SmallInteger, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("blocks", sa.Text),  # JSON of markdown.FORM and its blocks; none: to be rendered when it is read
    sa.Column("status", sa.String(12), nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("code", sa.String(80)),
    sa.Column("model", sa.String(256)),
    sa.Column("tokens", sa.Integer),
    sa.Column("rating", sa.SmallInteger, nullable=False),
    sa.Column("note", sa.Text),
    sa.Column("place", sa.String(200)),  # of the process that writes it, by limits.leases
    sa.Column("beat", sa.BigInteger),  # when that process last said so
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("conversation", "number"),
    sa.Index("chat_messages_by_status", "status"),
)

images = sa.Table(
    "chat_images",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("owner", sa.String(40), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),  # media type, by its bytes
    sa.Column("width", sa.Integer, nullable=False),
    sa.Column("height", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),  # bytes
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.Column("small", sa.LargeBinary, nullable=False),  # a thumbnail, PNG
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Index("chat_images_by_owner", "owner", "created"),
)

image_uses = sa.Table(
    "chat_image_uses",
    metadata,
    _message("message"),
    sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("image", sa.String(40), sa.ForeignKey("chat_images.id"), nullable=False, index=True),
)

preferences = sa.Table(
    "chat_preferences",
    metadata,
    _message("chosen"),
    _message("rejected"),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Index("chat_preferences_by_rejected", "rejected"),
)
