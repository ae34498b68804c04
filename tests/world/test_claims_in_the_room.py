"""What nodes do when the room's state, its events or another process contradict their claims."""

from __future__ import annotations

import pytest

from cisbot.core.ids import ClaimKey
from cisbot.core.room.wire import T_END, T_LOCK
from tests.world.machine import dag
from tests.world.world import World

HELLO = dag("id: hello\nscope: proj-a\ntasks: {a: {shell: 'true'}}\n")
KEY = ClaimKey("hello/project-proj-a")
STRANGER = "@stranger:hs.test"


def stated(world: World) -> object:
    """What whoever reads only the state sees: the action, and the epoch of a restated head."""
    content = world.room.state[T_LOCK, KEY]["content"]
    assert isinstance(content, dict)
    head = content.get("head")
    return content.get("action"), head["epoch"] if isinstance(head, dict) else None


def test_the_state_names_the_truth_again_after_resolution_changed_its_mind() -> None:
    world = World([HELLO], nodes=2)
    world.say("!dag publish hello", wait_s=0)
    won = next(raw for raw in world.room.stream if raw["type"] == T_LOCK)
    world.room.state[T_LOCK, KEY] = won  # it forked, and the older take is what the state names now
    world.wait(10)
    assert stated(world) == ("restate", 1)


def test_what_is_illegible_is_overwritten_with_the_truth() -> None:
    world = World([HELLO], nodes=2)
    world.say("!dag publish hello")
    world.room.put(STRANGER, T_LOCK, {"action": "take", "epoch": "all"}, state_key=KEY)
    world.wait(10)
    assert stated(world) == ("restate", 1)


@pytest.mark.audit_finds("evidence-taken")
def test_a_lock_event_that_was_redacted_before_it_came_is_a_gap() -> None:
    world = World([HELLO], nodes=2, lease_s_max=30)
    world.say("!dag publish hello")
    world.room.put(world.machines[0].account, T_LOCK, {}, state_key=KEY)
    world.room.stream[-1]["unsigned"] = {"redacted_because": {}}
    world.settle()
    assert all(m.coordinator.ledger.is_unsure(KEY) for m in world.machines)
    run = world.say("!dag publish hello", wait_s=60)  # nobody knows: a probe, a quiet lease, a fresh take
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert world.began()[1].endswith("a@2")


def test_a_process_that_was_ended_by_its_twin_stops() -> None:
    world = World([HELLO], nodes=1)
    node = world.machines[0]
    node.auto = False
    world.say("!dag publish hello")
    assert node.running
    incarnation = node.coordinator.me.incarnation
    world.room.put(node.account, T_END, {"node": "node-1", "incarnation": incarnation})
    world.settle()
    assert node.halted is not None
    assert "its own account" in node.halted
    assert not node.coordinator.executions


def test_a_clean_stop_is_no_halt() -> None:
    from cisbot.core.inputs import Stop

    world = World([HELLO], nodes=1)
    node = world.machines[0]
    node.feed(Stop(), world.now)
    world.wait(2)
    assert node.done
    assert node.halted is None
