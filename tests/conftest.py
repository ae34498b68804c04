"""Fixtures for tests that need a real homeserver; mark those tests with `pytest.mark.synapse`."""

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for a bare `pytest`

from homeserver.accounts import Account, Accounts  # noqa: E402
from homeserver.synapse import Synapse  # noqa: E402


class MakeAccount(Protocol):
    """Make a user with a name nobody had before, beginning with `prefix`."""

    def __call__(self, prefix: str, *, admin: bool = False) -> Account: ...


@pytest.fixture(scope="session")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    """A Synapse without rate limits, one for all tests."""
    with Synapse.start(tmp_path_factory.mktemp("synapse"), limits="lifted") as running:
        yield running


@pytest.fixture(scope="session")
def synapse_default_limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    """A Synapse with the rate limits it comes with, one for all tests."""
    with Synapse.start(tmp_path_factory.mktemp("synapse-limited"), limits="default") as running:
        yield running


@pytest.fixture
def accounts(synapse: Synapse) -> Accounts:
    """The accounts of the `synapse` fixture's server."""
    return synapse.accounts


@pytest.fixture
def make_account(accounts: Accounts) -> MakeAccount:
    """Make fresh users on the `synapse` fixture's server."""

    def make(prefix: str, *, admin: bool = False) -> Account:
        name = f"{prefix}-{secrets.token_hex(4)}"
        return accounts.create(name, secrets.token_urlsafe(12), admin=admin)

    return make
