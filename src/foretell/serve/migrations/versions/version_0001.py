"""Version 0001 of the database. What is changed here later is not changed where it has been run.

A table's columns are a name and a kind each, split by commas: str40 is a string of 40 characters at most; `?` behind a
kind may be null, and `#` never counts up by itself.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
_KINDS: dict[str, Any] = {
    "big": sa.BigInteger, "int": sa.Integer, "small": sa.SmallInteger, "float": sa.Float, "text": sa.Text,
    "bool": sa.Boolean, "json": sa.JSON, "bytes": sa.LargeBinary,
}  # fmt: skip


def _table(name: str, columns: str, *constraints: sa.Constraint, **options: Any) -> None:
    op.create_table(name, *map(_column, columns.split(", ")), *constraints, **options)


def _column(told: str) -> sa.Column[Any]:
    name, kind = told.split()
    plain = kind.rstrip("?#")
    type = sa.String(length=int(plain[3:])) if plain.startswith("str") else _KINDS[plain]()
    return sa.Column(name, type, nullable="?" in kind, autoincrement=False if "#" in kind else "auto")


def _to(column: str, target: str, **options: Any) -> sa.Constraint:
    return sa.ForeignKeyConstraint([column], [target], **options)


def upgrade() -> None:
    _table(
        "anomalies",
        "id str40, time big, kind str12, subject str64, began big, seen float, expected float, chance float, "
        "closed_by str40?, closed_at big?",
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("kind", "subject", "began"),
    )
    op.create_index("anomalies_by_time", "anomalies", ["time"])
    _table(
        "attempts",
        "bucket str64, count big, last big, until big",
        sa.PrimaryKeyConstraint("bucket"),
    )
    op.create_index(op.f("ix_attempts_last"), "attempts", ["last"])
    _table(
        "audit",
        "seq big#, time big, actor str80, action str40, subject str160, details text?, salt str32?, "
        "details_digest str64, hash str64",
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"])
    op.create_index(op.f("ix_audit_time"), "audit", ["time"])
    _table(
        "audit_ends",
        "id int#, before big, before_hash str64, last big, last_hash str64",
        sa.PrimaryKeyConstraint("id"),
    )
    _table(
        "chat_conversations",
        "id str40, owner str40, title str200, model str256, second str256?, persona str40?, system text, "
        "temperature float?, tip str40?, source str80?, created big, updated big",
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("chat_conversations_by_owner", "chat_conversations", ["owner", "updated", "id"])
    _table(
        "chat_images",
        "id str40, owner str40, name str200, kind str20, width int, height int, size int, data bytes, small bytes, "
        "created big",
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("chat_images_by_owner", "chat_images", ["owner", "created"])
    _table(
        "findings",
        "id str40, time big, user str40?, request str128?, side str8, model str256?, text text?, categories json, "
        "scores json, action str8, rule str200?, open bool, turn int, claimed_by str40?, claimed_until big?, "
        "verdict str12?, decided_by str40?, decided_at big?",
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("findings_by_claim", "findings", ["claimed_by", "claimed_until"])
    op.create_index("findings_by_time", "findings", ["time"])
    op.create_index("findings_by_user", "findings", ["user", "time"])
    op.create_index("findings_in_turn", "findings", ["open", "turn", "time", "id"])
    _table(
        "limit_marks",
        "user text, cap text, time big#, reservation text, used big",
        sa.PrimaryKeyConstraint("user", "cap", "time", "reservation"),
        sqlite_with_rowid=False,
    )
    _table(
        "limit_meters",
        "subject text, requests big, requests_at big, tokens big, tokens_at big, streams big, day big, "
        "messages big, month big, spent big, held big",
        sa.PrimaryKeyConstraint("subject"),
    )
    _table(
        "limit_processes",
        "id text, place text, beat big, load float",
        sa.PrimaryKeyConstraint("id"),
    )
    _table(
        "limit_reservations",
        "id text, process text, user text, key text?, tier text, model text, prompt_tokens big, max_tokens big, "
        "image_tokens big, streams big, free big, day big, held big, key_held big, tier_held big, time big, "
        "written big",
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_limit_reservations_process"), "limit_reservations", ["process"])
    _table(
        "links",
        "digest str64, purpose str16, subject str40, created big, expires big",
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index(op.f("ix_links_subject"), "links", ["subject"])
    _table(
        "settings",
        "name str80, value text",
        sa.PrimaryKeyConstraint("name"),
    )
    _table(
        "standings",
        "user str40, status str16, until big?, held str16, held_until big?, since big",
        sa.PrimaryKeyConstraint("user"),
    )
    _table(
        "tallies",
        "minute big#, name str40, count big",
        sa.PrimaryKeyConstraint("minute", "name"),
        sqlite_with_rowid=False,
    )
    _table(
        "usage_days",
        "user text, day big#, key text, model text, calls big, prompt_tokens big, completion_tokens big, "
        "image_tokens big, cached_tokens big, micros big, charged big",
        sa.PrimaryKeyConstraint("user", "day", "key", "model"),
        sqlite_with_rowid=False,
    )
    _table(
        "usage_events",
        "id text, time big, user text, key text?, tier text, model text, prompt_tokens big, completion_tokens big, "
        "image_tokens big, cached_tokens big, micros big, free big, status text",
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("usage_events_by_time", "usage_events", ["time"])
    op.create_index("usage_events_by_user", "usage_events", ["user", "time"])
    _table(
        "users",
        "id str40, email str254, password text?, role str16, tier str40, status str16, status_until big?, "
        "images bool?, budget big?, address str32?, created big",
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
    )
    _table(
        "chat_messages",
        "id str40, conversation str40, number int, parent str40?, role str12, side small, text text, blocks text?, "
        "status str12, error text?, code str80?, model str256?, tokens int?, rating small, note text?, "
        "place str200?, beat big?, created big",
        _to("conversation", "chat_conversations.id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("conversation", "number"),
    )
    op.create_index("chat_messages_by_status", "chat_messages", ["status"])
    _table(
        "keys",
        "id str40, user str40, name str80, digest str64, hint str8, scopes str200, budget big?, created big, "
        "expires big?, used big?, revoked big?",
        _to("user", "users.id"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index(op.f("ix_keys_user"), "keys", ["user"])
    _table(
        "labels",
        "id str40, finding str40, reviewer str40, time big, categories json",
        _to("finding", "findings.id"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("labels_by_finding", "labels", ["finding", "time"])
    _table(
        "sessions",
        "digest str64, user str40, address str32?, created big, used big, expires big",
        _to("user", "users.id"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index(op.f("ix_sessions_user"), "sessions", ["user"])
    _table(
        "strikes",
        "id str40, user str40, finding str40, time big, weight int, given_by str40?, step str12, "
        "overturned_at big?, overturned_by str40?",
        _to("finding", "findings.id"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("finding"),
    )
    op.create_index("strikes_by_time", "strikes", ["time"])
    op.create_index("strikes_by_user", "strikes", ["user", "time"])
    _table(
        "waitlist",
        "id str40, email str254, note str1000, tier str40?, joined big, invited big?, accepted big?, user str40?",
        _to("user", "users.id"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("email"),
    )
    op.create_index(op.f("ix_waitlist_joined"), "waitlist", ["joined"])
    _table(
        "appeals",
        "id str40, strike str40, user str40, time big, note text?, verdict str12?, answer text?, "
        "answered_by str40?, answered_at big?",
        _to("strike", "strikes.id"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("strike"),
    )
    op.create_index("appeals_by_user", "appeals", ["user", "time"])
    _table(
        "chat_image_uses",
        "message str40, place int#, image str40",
        _to("image", "chat_images.id"),
        _to("message", "chat_messages.id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("message", "place"),
    )
    op.create_index(op.f("ix_chat_image_uses_image"), "chat_image_uses", ["image"])
    _table(
        "chat_preferences",
        "chosen str40, rejected str40, created big",
        _to("chosen", "chat_messages.id", ondelete="CASCADE"),
        _to("rejected", "chat_messages.id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("chosen", "rejected"),
    )
    op.create_index("chat_preferences_by_rejected", "chat_preferences", ["rejected"])
