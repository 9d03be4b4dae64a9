import pytest
from argon2 import PasswordHasher

from foretell.serve.accounts import passwords


@pytest.fixture(autouse=True)
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time: what they cost is argon2's affair, how many are made is ours."""
    monkeypatch.setattr(passwords, "hasher", lambda made=PasswordHasher(1, 8, 1): made)
