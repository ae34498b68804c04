"""After every test of this folder an auditor reads the rooms: honest nodes leave no inconsistency.

Of several servers it reads the home's stream, the one that decides.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cisbot.core.audit.examine import audit
from cisbot.core.audit.found import Reading
from tests.world.world import World


@pytest.fixture(autouse=True)
def audited(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """A test whose members lie says by `audit_finds` what of it must be found."""
    worlds: list[World] = []
    settle = World.settle

    def settle_noted(world: World) -> None:
        if world not in worlds:
            worlds.append(world)
        settle(world)

    monkeypatch.setattr(World, "settle", settle_noted)
    yield
    marker = request.node.get_closest_marker("audit_finds")
    for world in worlds:
        room = world.room
        report = audit(Reading(room.events(0), room.whole_state(), True, room.wall_ms))
        assert {str(finding.kind) for finding in report.breaches} == set(marker.args if marker else ()), (
            report.breaches
        )
