"""One room, fresh accounts and node processes for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeserver.synapse import Synapse
from tests.conftest import MakeAccount
from tests.integration.nodes import Nodes


@pytest.fixture
def nodes(
    synapse: Synapse, make_account: MakeAccount, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Nodes]:
    """A room's nodes, not yet started. A module that waits for leases to end sets `LEASE_S`.

    Others get leases that a busy machine can't lose.
    """
    lease_s: int = getattr(request.module, "LEASE_S", 30)
    with Nodes(synapse, make_account, tmp_path, lease_s=lease_s) as made:
        yield made


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Synapse]:
    """A homeserver of the test's own, to stop and start."""
    with Synapse.start(tmp_path / "synapse", limits="lifted") as running:
        yield running


@pytest.fixture
def lone(own: Synapse, tmp_path: Path) -> Iterator[Nodes]:
    """A room's nodes on the test's own homeserver."""
    count = iter(range(1000))

    def account(prefix: str, *, admin: bool = False):  # type: ignore[no-untyped-def]
        return own.accounts.create(f"{prefix}-{next(count)}", "secret word", admin=admin)

    with Nodes(own, account, tmp_path) as made:
        yield made
