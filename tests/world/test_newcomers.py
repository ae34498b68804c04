"""A node that comes with an empty database into a room with a past repeats nothing and says nothing wrong."""

from __future__ import annotations

import pytest

from cisbot.core.inputs import RoomBatch
from cisbot.core.room.events import JsonMap
from cisbot.core.settings import Policy
from tests.world.machine import Machine, dag
from tests.world.room import OPERATOR, Raw
from tests.world.world import World

JOB = dag("id: job\nscope: proj-a\ntasks: {a: {shell: 'true'}}\n")
ASKS = dag("id: asks\nscope: proj-b\ntasks: {a: {shell: 'true'}}\n")
GATED = dag("id: gated\nscope: proj-c\napproval: {count: 1, deadline: 1m}\ntasks: {a: {shell: 'true'}}\n")
DAGS = [JOB, ASKS, GATED]


def joins(world: World, name: str = "node-9") -> Machine:
    """A machine that was never there, or has lost its database, reads the room's history."""
    machine = next((m for m in world.machines if m.name == name), None)
    if machine is None:
        machine = Machine(world.room, name, DAGS)
        world.machines.append(machine)
    else:
        machine.lose()
    machine.start(world.now, history=True)
    world.wait(60)
    return machine


def block_of(raw: Raw) -> JsonMap:
    """The structured part of a node's message."""
    content = raw["content"]
    block = content.get("io.cisbot") if isinstance(content, dict) else None
    return block if isinstance(block, dict) else {}


@pytest.fixture(params=["node-9", "node-2"])
def name(request: pytest.FixtureRequest) -> str:
    """A new node, and one that was there before."""
    return str(request.param)


def test_what_was_refused_is_not_executed(name: str) -> None:
    world = World(DAGS, 2, lease_s_max=30)
    refused = world.say("!dag publish job target=node-9", wait_s=10)
    wrong = world.say("!dag publish job size=9", wait_s=10)
    denied = world.say("!dag publish job", "@stranger:hs.test", wait_s=10)
    said = len(world.room.bodies())
    late = joins(world, name)
    assert late.began == []
    assert len(world.room.bodies()) == said
    runs = late.coordinator.board.runs
    assert all(runs[run].status.over for run in (refused, wrong, denied) if run in runs)  # type: ignore[index]


def test_a_publication_for_all_is_not_for_those_who_come_later(name: str) -> None:
    world = World(DAGS, 2, lease_s_max=30)
    world.say("!dag publish job target=all", wait_s=10)
    began = list(world.began())
    late = joins(world, name)
    assert world.began() == began
    assert late.coordinator.board.open_runs() == []


def test_how_runs_ended_is_learned_from_what_was_said(name: str) -> None:
    world = World(DAGS, 2, lease_s_max=30)
    good = world.say("!dag publish job")
    rejected = world.say("!dag publish gated")
    world.react(rejected, "❌")
    expired = world.say("!dag publish gated", wait_s=70)
    world.slow()
    cancelled = world.say("!dag publish job", wait_s=5)
    world.react(cancelled, "❌", wait_s=10)
    ends = {good: "succeeded", rejected: "rejected", expired: "expired", cancelled: "cancelled"}
    assert {run: world.machines[0].status(run) for run in ends} == ends
    said = len(world.room.bodies())
    late = joins(world, name)
    assert {run: late.status(run) for run in ends} == ends
    assert len(world.room.bodies()) == said, world.room.bodies()[said:]
    assert not late.running


def test_a_lost_run_that_was_closed_stays_closed(name: str) -> None:
    world = World(DAGS, 3, lease_s_max=30)
    world.slow()
    run = world.say("!dag publish asks", wait_s=5)
    (holder,) = [m for m in world.machines if m.running]
    holder.crash()
    world.wait(60)
    world.react(run, "❌", wait_s=10)
    alive = next(m for m in world.machines if m.alive)
    assert alive.status(run) == "failed"
    said = len(world.room.bodies())
    late = joins(world, name)
    assert late.status(run) == "failed"
    assert len(world.room.bodies()) == said, world.room.bodies()[said:]
    assert not [body for m in world.machines for body in m.running]


def test_what_waits_for_approval_still_does(name: str) -> None:
    world = World(DAGS, 2, lease_s_max=30)
    run = world.say("!dag publish gated", wait_s=5)
    said = len(world.room.bodies())
    machine = Machine(world.room, name, DAGS) if name == "node-9" else world.machines[1]
    if name == "node-9":
        world.machines.append(machine)
    else:
        machine.lose()
    machine.start(world.now, history=True)
    world.wait(20)
    assert machine.status(run) == "waiting for approval"
    assert len(world.room.bodies()) == said, world.room.bodies()[said:]
    world.react(run, "✅", wait_s=20)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert len(world.began()) == 1


def test_what_follows_upon_the_past_is_said() -> None:
    """Nothing is said of the past, and nothing else is kept back because of it."""
    world = World([GATED], 1, lease_s_max=30, policy=Policy(dags_from_room=True))
    node = world.machines[0]
    asked = "id: sent\nscope: proj-d\napproval: {count: 1}\ntasks: {a: {shell: 'true'}}\n"
    node.files["mxc://hs.test/f"] = asked
    content: JsonMap = {"msgtype": "m.file", "body": "!dag publish sent", "filename": "sent.yaml"}
    content |= {"url": "mxc://hs.test/f", "info": {"size": len(asked)}}
    run = world.room.put(OPERATOR, "m.room.message", content)
    said = tuple(e for e in world.room.events(0) if e.event_id == run)
    node.feed(RoomBatch("x", (), gap=True, history=said), world.now)  # nobody has read the file: it does
    world.wait(10)
    assert node.status(run) == "waiting for approval"
    assert [body for body in world.room.bodies() if "waits for approval" in body]


def test_an_end_without_a_start_is_told_for_those_who_cannot_judge() -> None:
    world = World([GATED], 1)
    world.say("!dag publish gated", wait_s=70)
    ends = [block["over"] for raw in world.room.stream if "over" in (block := block_of(raw))]
    assert ends == ["expired"]
