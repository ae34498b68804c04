"""A node that lacks the definitions: it follows all runs, judges none, and says nothing wrong."""

from __future__ import annotations

import pytest

from cisbot.core.effects import Answer
from cisbot.core.ids import ClaimKey
from cisbot.core.inputs import Instant, MemoryAsk
from cisbot.core.room.wire import MEMORY_PREFIX
from cisbot.core.settings import Policy
from tests.world.machine import Machine, dag
from tests.world.world import World

NAMED = dag(
    "id: named\nscope: proj-a\napproval: {users: ['@alice:hs.test'], deadline: 1m}\n"
    "tasks: {a: {shell: 'true'}}\n"
)
HELLO = dag("id: hello\nscope: proj-a\ntasks: {a: {shell: 'true'}}\n")
ALICE, STRANGER = "@alice:hs.test", "@stranger:hs.test"


def with_entry(*, nodes: int = 1) -> tuple[World, Machine]:
    """Nodes that have the DAGs, and an entry that has none."""
    world = World([NAMED, HELLO], nodes)
    entry = Machine(world.room, "entry", [], execute=False)
    world.machines.append(entry)
    entry.start(world.now)
    world.settle()
    return world, entry


@pytest.mark.parametrize(("sign", "end"), [("✅", "succeeded"), ("❌", "rejected"), (None, "expired")])
def test_it_does_not_judge_approvals_and_learns_how_they_end(sign: str | None, end: str) -> None:
    world, entry = with_entry()
    run = world.say("!dag publish named", wait_s=10)
    assert entry.status(run) == "waiting for approval"
    if sign is not None:
        world.react(run, sign, ALICE, wait_s=15)
    world.wait(70)
    assert {m.status(run) for m in world.machines} == {end}
    assert not [body for body in world.room.bodies() if "may not" in body]


def test_a_stranger_is_told_by_those_who_know() -> None:
    world, entry = with_entry()
    run = world.say("!dag publish named", wait_s=10)
    world.react(run, "✅", STRANGER, wait_s=15)
    assert len([body for body in world.room.bodies() if "may not" in body]) == 1
    assert entry.status(run) == "waiting for approval"


def test_runs_for_all_nodes_end_there_too() -> None:
    world, entry = with_entry(nodes=3)
    world.say("!dag publish hello target=all", wait_s=10)
    board = entry.coordinator.board
    assert sorted((run.target, str(run.status)) for run in board.runs.values()) == [
        ("node-1", "succeeded"), ("node-2", "succeeded"), ("node-3", "succeeded"),
    ]  # fmt: skip
    assert board.open_runs() == []


def test_the_reason_of_a_rejection_needs_no_run_in_its_thread() -> None:
    world, _ = with_entry()
    run = world.say("!dag publish named", wait_s=10)
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": run}}
    world.room.say(ALICE, "!dag reject bad idea", **thread)  # type: ignore[arg-type]
    world.wait(15)
    assert world.machines[0].status(run) == "rejected"
    assert [body for body in world.room.bodies() if "bad idea" in body]


@pytest.mark.parametrize(("op", "allowed"), [("get", True), ("set", False), ("cas", False)])
def test_an_owner_can_forbid_writing_the_public_memory(op: str, allowed: bool) -> None:
    world = World([HELLO], 1, policy=Policy(memory=False))
    node = world.machines[0].coordinator
    ask = MemoryAsk("t", op, ClaimKey(MEMORY_PREFIX + "key"), None if op == "get" else "value", None)
    (answer,) = [work for work in node.handle(ask, world.now).work if isinstance(work, Answer)]
    assert answer.body["ok"] is allowed
    assert allowed or "[policy] memory" in str(answer.body["error"])


def test_memory_waits_until_the_room_is_known() -> None:
    world = World([HELLO], 1)
    late = Machine(world.room, "node-2", [HELLO])
    late.build(world.now)
    ask = MemoryAsk("t", "get", ClaimKey(MEMORY_PREFIX + "key"))
    assert late.coordinator.handle(ask, Instant(world.boot, 0)).work == ()


def test_a_forged_record_does_not_bar_a_node_from_its_restart() -> None:
    world = World([HELLO], 1)
    node = world.machines[0]
    world.wait(1)
    forged = {**node.record(), "incarnation": "evil"}
    world.room.put("@evil:hs.test", "io.cisbot.node", forged, state_key="@evil:hs.test")
    world.settle()
    assert node.alive
    node.crash()
    node.start(world.now)
    world.wait(1)
    assert node.halted is None
    run = world.say("!dag publish hello", wait_s=20)
    assert node.status(run) == "succeeded"


def test_a_dead_nodes_id_is_free_once_its_account_is_out_of_the_room() -> None:
    world = World([HELLO], 2)
    dead = world.machines.pop()
    dead.crash()
    heir = Machine(world.room, dead.name, [HELLO])
    heir.account = "@heir:hs.test"
    heir.start(world.now)
    assert heir.halted is not None
    assert f"/kick {dead.account}" in heir.halted
    world.room.put("@operator:hs.test", "m.room.member", {"membership": "leave"}, state_key=dead.account)
    heir.start(world.now)
    world.machines.append(heir)
    world.wait(1)
    assert heir.halted is None
    run = world.say(f"!dag publish hello target={heir.name}", wait_s=20)
    assert heir.began
    assert heir.status(run) == "succeeded"
