"""The server's secret, and what is stored in place of keys, cookies and network addresses.

The secret lies in the database's own settings, not in a file beside it: several servers on one PostgreSQL need the
same one, and a backup without its secret would be worthless. Whoever reads the database reads the secret too, but
cannot turn a digest back into a key or a cookie: these are 256 random bits, which nobody guesses. What the secret gives
is that digests are of no use outside this database, and that nobody who sends a key can steer where its look-up goes.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from foretell.errors import StoreError
from foretell.serve.accounts.tables import settings
from foretell.serve.store import insert_once

_NAME = "secret"
_KNOWN: WeakKeyDictionary[sa.Engine, bytes] = WeakKeyDictionary()


def make_secret(db: sa.Connection) -> None:
    """Give the database its secret, once; of several who do so at once, one does."""
    insert_once(db, settings, name=_NAME, value=secrets.token_hex(32))


def server_secret(db: sa.Connection) -> bytes:
    """Raises StoreError for a database that has none."""
    if (known := _KNOWN.get(db.engine)) is not None:  # it never changes, and every call needs it
        return known
    value = db.scalar(sa.select(settings.c.value).where(settings.c.name == _NAME))
    if value is None:
        raise StoreError("The database has not been set up. Do so with: foretell admin upgrade")
    return _KNOWN.setdefault(db.engine, bytes.fromhex(value))


def digest(db: sa.Connection, purpose: str, text: str) -> str:
    """Hex HMAC-SHA256 under the server's secret. purpose: digests of one are of no use for another."""
    sealed = f"{purpose}\0{text}".encode("utf-8", "surrogatepass")
    return hmac.new(server_secret(db), sealed, hashlib.sha256).hexdigest()


def mark(db: sa.Connection, address: str) -> str:
    """What stands for a network address: equal for equal ones, of IPv6 for those of one subnet (/64), which one
    subscriber has to himself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return digest(db, "address", address)[:32]
    if isinstance(parsed, ipaddress.IPv6Address):
        # The same caller by either way in.
        parsed = parsed.ipv4_mapped or ipaddress.IPv6Address(int(parsed) >> 64 << 64)
    return digest(db, "address", str(parsed))[:32]


def hold_secret(db: sa.Connection) -> None:
    """Let one transaction at a time go on from here, to its end."""
    db.execute(sa.select(settings).where(settings.c.name == _NAME).with_for_update())
