"""What grows with the number of runs: neither the room's state nor a node's database."""

from __future__ import annotations

from collections import Counter

import pytest

from cisbot.core.runs import board
from cisbot.core.runs.story import called_open
from tests.world.machine import Machine, dag
from tests.world.room import OPERATOR
from tests.world.world import World

CHAIN = "scope: proj-a\ntasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n"
DAGS = [dag(f"id: dag-{number:02}\n{CHAIN}") for number in range(20)]


def publish(world: World, runs: int) -> None:
    """So many short runs, one after the other, of all DAGs in turn."""
    for number in range(runs):
        world.boot += 1
        world.room.boot, world.room.wall_ms = world.boot, world.room.wall_ms + 1000
        world.room.say(OPERATOR, f"!dag publish dag-{number % len(DAGS):02}")
        world.settle()


@pytest.mark.long
def test_state_and_database_stay_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "RUNS_KEPT", 60)
    monkeypatch.setattr(board, "RUNS_SLACK", 20)
    world = World(DAGS, nodes=1)
    node = world.machines[0]
    publish(world, 100)
    kinds = Counter(kind for kind, _ in world.room.state)
    size = len(str(world.room.state))
    publish(world, 900)
    assert Counter(kind for kind, _ in world.room.state) == kinds
    assert len(str(world.room.state)) < size * 1.03  # numbers with more digits
    assert sum(began.startswith("b@") for began in node.began) == 1000
    rows = {table: len(kept) for table, kept in node.rows.items()}
    assert rows["runs"] <= 80
    assert rows["tasks"] <= 160
    assert (rows["heads"], rows["definitions"], rows["nodes"]) == (20, 20, 1)
    assert rows["outbox"] == rows["unread"] == 0


def test_a_newcomer_asks_for_what_waits_and_not_for_what_is_long_over() -> None:
    world = World(DAGS, nodes=1)
    node = world.machines[0]
    node.auto = False
    old = [world.say(f"!dag publish dag-00 scope=proj-{number}", wait_s=0) for number in range(10)]
    node.auto = True
    for _ in range(2):
        for key in list(node.running):
            node.end_task(key[1], world.now)
            world.settle()
    publish(world, 200)
    waits = world.say("!dag publish dag-19 target=gpu=yes")
    publish(world, 40)
    named, asked = called_open(world.room.whole_state())
    assert len(named & set(old)) == 9  # of keys that nobody claimed since
    assert asked == (waits,)
    late = Machine(world.room, "node-2", DAGS, labels={"gpu": "yes"})
    world.machines.append(late)
    late.start(world.now)
    world.wait(20)
    assert late.status(waits) == "succeeded"
    assert not set(old) & set(late.coordinator.board.runs)
