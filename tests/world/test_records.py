"""What nodes say of themselves: the state beside a limited timeline may be older than what was heard before.

The homeserver tells the state before the timeline begins, and that event may have forked from before
the newest record. Seen on a real Synapse: a node stopped because it took its own predecessor for a twin.
"""

from __future__ import annotations

from cisbot.core.ids import UserId
from cisbot.core.inputs import RoomBatch
from cisbot.core.room.decode import decode
from cisbot.core.room.wire import T_NODE
from tests.world.machine import dag
from tests.world.room import Raw
from tests.world.world import World

JOB = dag("id: job\nscope: proj-a\ntasks: {a: {shell: 'true'}}\n")


def gap(raw: Raw) -> RoomBatch:
    """A limited answer whose state is that record."""
    event = decode(raw)
    assert event is not None
    return RoomBatch("x", (), gap=True, state=(event,))


def restarted() -> tuple[World, Raw]:
    """The first node is started again; the record of its predecessor."""
    world = World([JOB], 2)
    node = world.machines[0]
    old = world.room.state[T_NODE, node.account]
    node.crash()
    world.wait(1)
    node.start(world.now)
    world.wait(1)
    assert world.room.state[T_NODE, node.account] is not old
    return world, old


def test_a_node_does_not_take_its_predecessor_for_a_twin() -> None:
    world, old = restarted()
    node = world.machines[0]
    node.feed(gap(old), world.now)
    assert node.halted is None


def test_a_twin_that_came_in_a_gap_is_one() -> None:
    world, old = restarted()
    node = world.machines[0]
    content = old["content"]
    assert isinstance(content, dict)
    twin: Raw = {
        **old,
        "content": {**content, "incarnation": "twin"},
        "origin_server_ts": world.room.wall_ms + 1,
    }
    node.feed(gap(twin), world.now)
    assert node.halted is not None
    assert "another process" in node.halted


def test_an_old_word_of_another_node_changes_nothing() -> None:
    world, old = restarted()
    node, other = world.machines
    content = old["content"]
    assert isinstance(content, dict)
    other.feed(gap({**old, "content": {**content, "gone": True}}), world.now)
    known = other.coordinator.board.nodes[UserId(node.account)]
    assert (known.incarnation, known.gone) == (node.coordinator.me.incarnation, False)
