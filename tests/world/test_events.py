"""What cisbot says, counted: the table in `docs/protocol.md` is what coordinators send in the model room."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from cisbot.core.chat.status import gap_s
from cisbot.core.effects import Priority
from cisbot.core.ids import ClaimKey
from cisbot.core.inputs import RoomBatch, Stop
from cisbot.core.room.wire import T_HEARTBEAT, T_INTENT, T_LOCK, T_PROBE
from tests.world.machine import Machine, dag
from tests.world.room import OPERATOR
from tests.world.world import World

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
HELLO = dag("id: hello\nscope: proj-a\ntasks: {a: {shell: 'true'}}\n")
AGAIN = dag("id: again\nscope: proj-a\non_lost: rerun\ntasks: {a: {shell: 'true'}}\n")
GATED = dag("id: gated\nscope: proj-a\napproval: {count: 1}\ntasks: {a: {shell: 'true'}}\n")
LOCKED = dag("id: locked\nscope: proj-a\nlocks: [db]\ntasks: {a: {shell: 'true'}}\n")
MANY = dag("id: many\nscope: proj-a\ntasks:\n" + "".join(f"  t{n}: {{shell: 'true'}}\n" for n in range(1000)))
DAGS = [HELLO, AGAIN, GATED, LOCKED, MANY]
LEASE_S = 300.0
LAG_PER_NODE_S = 0.01  # a busy Synapse: 50 bots hear of an event after 250 to 750 ms


def of_nodes(world: World, start: int) -> Counter[str]:
    """The events of nodes since a place in the stream, by type."""
    return Counter(str(raw["type"]) for raw in world.room.stream[start:] if raw["sender"] != OPERATOR)


def opened(nodes: int = 1, *, auto: bool = True, lag_s: float = 0.0) -> tuple[World, int]:
    """A world at rest, and where its stream ends."""
    world = World(DAGS, nodes=nodes, lease_s=LEASE_S, lag_s=lag_s)
    for machine in world.machines:
        machine.auto = auto
    world.wait(10)
    return world, len(world.room.stream)


def holder(world: World) -> Machine:
    """The machine that runs something."""
    (busy,) = [machine for machine in world.machines if machine.running]
    return busy


def a_run(nodes: int) -> Counter[str]:
    """One short run that any of so many nodes may take."""
    world, start = opened(nodes, lag_s=LAG_PER_NODE_S * nodes)
    world.say("!dag publish hello", wait_s=40)
    assert len(world.began()) == 1
    return of_nodes(world, start)


def a_run_with_approval() -> Counter[str]:
    world, start = opened()
    run = world.say("!dag publish gated")
    world.react(run, "✅", wait_s=20)
    assert world.machines[0].status(run) == "succeeded"
    return of_nodes(world, start)


def a_locked_run() -> Counter[str]:
    world, start = opened()
    run = world.say("!dag publish locked", wait_s=20)
    assert world.machines[0].status(run) == "succeeded"
    return of_nodes(world, start)


def a_cancelled_run() -> Counter[str]:
    world, start = opened(auto=False)
    run = world.say("!dag publish hello", wait_s=20)
    world.say("!dag cancel " + world.machines[0].short(run), wait_s=20)
    assert world.machines[0].status(run) == "cancelled"
    return of_nodes(world, start)


def a_takeover() -> Counter[str]:
    """A node dies with a run that another one runs anew; the first one's part counts too."""
    world, start = opened(2, auto=False)
    run = world.say("!dag publish again", wait_s=5)
    dead = holder(world)
    dead.crash()
    other = next(machine for machine in world.machines if machine is not dead)
    other.auto = True
    world.wait(LEASE_S * 1.1)
    assert other.status(run) == "succeeded"
    return of_nodes(world, start)


def a_thousand_tasks(seconds: float = 3600.0) -> Counter[str]:
    """They end one after the other."""
    world, start = opened(auto=False)
    node = world.machines[0]
    run = world.say("!dag publish many", wait_s=5)
    for _, task, _ in sorted(node.running):
        world.boot += seconds / 1000
        world.room.boot = world.boot
        world.settle()
        node.end_task(task, world.now)
        world.settle()
    world.wait(10)
    assert node.status(run) == "succeeded"
    return of_nodes(world, start)


def a_held_hour() -> Counter[str]:
    """Renewals alone, for three runs."""
    world, _ = opened(auto=False)
    for scope in ("a", "b", "c"):
        world.say(f"!dag publish hello scope=proj-{scope}", wait_s=5)
    start = len(world.room.stream)
    world.wait(3600)
    return Counter({T_HEARTBEAT: of_nodes(world, start)[T_HEARTBEAT]})


def an_idle_hour() -> Counter[str]:
    world, start = opened(3)
    world.wait(3600)
    return of_nodes(world, start)


def a_probe() -> Counter[str]:
    """One node of 50 missed something and wants a key that the others know; its own run is not counted."""
    world, _ = opened(50, lag_s=LAG_PER_NODE_S * 50)
    world.say("!dag publish hello", wait_s=20)
    asker = world.machines[7]
    asker.feed(RoomBatch(str(asker._place), (), gap=True), world.now)
    start = len(world.room.stream)
    world.say("!dag publish hello target=node-8", wait_s=30)
    found = of_nodes(world, start)
    assert asker.began
    return Counter({kind: found[kind] for kind in (T_PROBE, T_HEARTBEAT)})


def a_join() -> Counter[str]:
    world, start = opened(10)
    late = Machine(world.room, "node-late", DAGS)
    world.machines.append(late)
    late.start(world.now)
    world.wait(60)
    return of_nodes(world, start)


def a_stop() -> Counter[str]:
    world, start = opened(2)
    world.machines[0].feed(Stop(), world.now)
    world.wait(60)
    return of_nodes(world, start)


SCENES: dict[str, Callable[[], Counter[str]]] = {
    "a run that one node matches, over within 1.5 s": lambda: a_run(1),
    "the same among 2 nodes": lambda: a_run(2),
    "the same among 10 nodes": lambda: a_run(10),
    "the same among 50 nodes": lambda: a_run(50),
    "a run with approval, one node": a_run_with_approval,
    "a run that needs a lock": a_locked_run,
    "a run that is cancelled after 20 s": a_cancelled_run,
    "a run that changes hands when its node dies": a_takeover,
    "a run of 1,000 tasks that end one by one within an hour": a_thousand_tasks,
    "an hour of holding any number of runs": a_held_hour,
    "an idle hour of a node": an_idle_hour,
    "a probe, among 50 nodes": a_probe,
    "a node joins": a_join,
    "a node stops": a_stop,
}


def told() -> dict[str, int]:
    """The docs' table: what, and how many events."""
    rows = re.findall(r"^\| ([^|]+?) \| (\d+) \|", PAGE.read_text(), flags=re.MULTILINE)
    return {name: int(number) for name, number in rows}


@pytest.mark.parametrize("name", SCENES)
def test_the_docs_tell_what_it_costs(name: str) -> None:
    found = SCENES[name]()
    if name.startswith("a run of 1,000"):
        del found[T_HEARTBEAT]  # of the node, whatever it holds
    assert found.total() == told()[name], found


def test_the_docs_tell_nothing_that_is_not_counted() -> None:
    assert told().keys() == SCENES.keys()


@pytest.mark.long
@pytest.mark.parametrize("seconds", [20, 600, 12 * 3600.0])
def test_a_thousand_tasks_cost_at_most_40_events(seconds: float) -> None:
    found = a_thousand_tasks(seconds)
    del found[T_HEARTBEAT]
    assert found.total() <= 39  # and one intent, where others match too


def test_the_status_of_a_year_is_edited_33_times() -> None:
    age, edits = 0.0, 0
    while age + gap_s(age, edits) < 365 * 86_400:
        age, edits = age + gap_s(age, edits), edits + 1
    assert edits <= 33  # with take, intent, status, last edit, release and final reply: 39


@pytest.mark.long
def test_fifty_nodes_cost_no_more_than_ten() -> None:
    """Whoever is asked: void writes, an end, twenty runs at once."""
    for nodes in (10, 50):
        world, _ = opened(nodes, lag_s=LAG_PER_NODE_S * nodes)
        for number in range(20):
            world.room.say(OPERATOR, f"!dag publish hello scope=proj-{number}")
        start = len(world.room.stream)
        world.wait(60)
        found = of_nodes(world, start)
        assert len(world.began()) == 20
        assert found[T_LOCK] == 40
        assert found[T_INTENT] <= 24
        assert found.total() <= 84
        start = len(world.room.stream)
        key = ClaimKey("hello/project-proj-1")
        world.room.put("@stranger:hs.test", T_LOCK, {"action": "take", "epoch": "all"}, state_key=key)
        world.wait(90)
        assert of_nodes(world, start)[T_LOCK] <= 3  # the stranger's, and the truth again


def test_priorities_are_in_the_order_that_the_docs_name() -> None:
    assert [p.name for p in Priority] == ["RENEWAL", "LOCK", "FINAL", "CHAT", "EDIT"]
