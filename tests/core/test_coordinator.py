"""The coordinator in a pure world: publishing, claiming, approving, cancelling, losing and taking over."""

from __future__ import annotations

import pytest

from tests.world.machine import dag
from tests.world.world import World

HELLO = dag("id: hello\nscope: proj-a\ntasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n")
GATED = dag("id: gated\nscope: proj-a\napproval: {count: 1, deadline: 1m}\ntasks: {a: {shell: 'true'}}\n")
RESUME = dag(
    "id: resume\nscope: proj-a\non_lost: resume\n"
    "tasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n"
)
STRANGER = "@stranger:hs.test"


def holder(world: World) -> int:
    """The index of the only machine that runs something."""
    busy = [n for n, machine in enumerate(world.machines) if machine.running]
    assert len(busy) == 1, busy
    return busy[0]


def test_one_of_many_runs_it_once_and_all_know() -> None:
    world = World([HELLO], nodes=4)
    run = world.say("!dag publish hello")
    assert len(world.began()) == 2
    assert len({what.partition(":")[0] for what in world.began()}) == 1
    assert {machine.status(run) for machine in world.machines} == {"succeeded"}
    finals = [body for body in world.room.bodies() if "succeeded" in body]
    assert len(finals) == 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("!dag publish helo", "Did you mean 'hello'?"),
        ("!dag publish hello target=node-9", "no node is called 'node-9'"),
        ("!dag publish hello scope=a/b", "scope"),
        ("!dag publish hello day=1", "day"),
        ("!dag publsh hello", "publish"),
        ("!dag publish", "dag: is missing"),
        ("!dag status zzzzzz", "no run is called 'zzzzzz'"),
    ],
)
def test_wrong_input_gets_one_short_answer_and_makes_no_run(command: str, expected: str) -> None:
    world = World([HELLO], nodes=3)
    world.say(command, wait_s=30)
    assert len(world.room.bodies()) == 1, world.room.bodies()
    assert expected in world.room.bodies()[0]
    assert world.began() == []
    assert not world.machines[0].coordinator.board.runs


def test_the_answer_comes_though_the_first_in_turn_is_dead() -> None:
    for dead in range(3):
        world = World([HELLO], nodes=3)
        world.machines[dead].crash()
        world.say("!dag list", wait_s=30)
        assert len(world.room.bodies()) == 1


def test_a_stranger_may_not_publish() -> None:
    world = World([HELLO])
    world.say("!dag publish hello", STRANGER, wait_s=20)
    assert world.began() == []
    assert [b for b in world.room.bodies() if "may not" in b]


def test_approval_comes_before_the_claim_and_only_from_those_who_may() -> None:
    world = World([GATED])
    run = world.say("!dag publish gated", wait_s=10)
    assert world.began() == []
    world.react(run, "✅", STRANGER, wait_s=10)
    world.react(run, "✅", STRANGER, wait_s=10)
    assert world.began() == []
    assert len([b for b in world.room.bodies() if "may not" in b]) == 1
    world.react(run, "✅")
    assert len(world.began()) == 1
    assert world.machines[0].status(run) == "succeeded"


def test_approval_expires() -> None:
    world = World([GATED])
    run = world.say("!dag publish gated", wait_s=70)
    world.react(run, "✅")
    assert world.machines[1].status(run) == "expired"
    assert world.began() == []


def test_reject() -> None:
    world = World([GATED])
    run = world.say("!dag publish gated")
    world.react(run, "❌")
    assert {m.status(run) for m in world.machines} == {"rejected"}


def test_cancel_while_it_runs() -> None:
    world = World([HELLO])
    for machine in world.machines:
        machine.auto = False
    run = world.say("!dag publish hello")
    assert world.machines[holder(world)].running
    world.react(run, "❌", STRANGER)
    assert world.machines[holder(world)].running
    world.react(run, "❌")
    assert {m.status(run) for m in world.machines} == {"cancelled"}
    assert [w.partition(":")[2] for w in world.began()] == ["a@1"]


def test_two_runs_of_a_key_go_one_after_the_other() -> None:
    world = World([HELLO], nodes=3)
    for machine in world.machines:
        machine.auto = False
    first = world.say("!dag publish hello", wait_s=1)
    second = world.say("!dag publish hello", wait_s=10)
    at = holder(world)
    world.machines[at].end_task("a", world.now)
    world.settle()
    world.machines[at].end_task("b", world.now)
    world.wait(5)
    assert world.machines[0].status(first) == "succeeded"
    assert world.machines[0].status(second) == "running"
    assert holder(world) in (0, 1, 2)


def test_a_dead_holder_is_replaced_after_its_lease_and_done_tasks_stay_done() -> None:
    world = World([RESUME], nodes=3)
    for machine in world.machines:
        machine.auto = False
    run = world.say("!dag publish resume", wait_s=1)
    dead = holder(world)
    world.machines[dead].end_task("a", world.now)
    world.wait(8)  # until the status message told that `a` is done
    world.machines[dead].crash()
    world.wait(20)
    assert not any(m.running for m in world.machines)
    world.wait(20)
    taker = holder(world)
    assert taker != dead
    assert [k[1] for k in world.machines[taker].running] == ["b"]
    world.machines[taker].end_task("b", world.now)
    world.wait(3)
    assert world.machines[taker].status(run) == "succeeded"


def test_a_lost_run_asks_unless_its_policy_says_otherwise() -> None:
    world = World([HELLO], nodes=2)
    for machine in world.machines:
        machine.auto = False
    run = world.say("!dag publish hello", wait_s=1)
    dead = holder(world)
    world.machines[dead].crash()
    other = world.machines[1 - dead]
    world.wait(50)
    assert other.status(run) == "lost"
    assert not other.running
    assert len([b for b in world.room.bodies() if "Not known to be done" in b]) == 1
    other.auto = True
    world.react(run, "✅")
    assert other.status(run) == "succeeded"


def test_a_restarted_node_takes_its_run_up_again() -> None:
    world = World([RESUME], nodes=1)
    node = world.machines[0]
    node.auto = False
    run = world.say("!dag publish resume", wait_s=1)
    node.end_task("a", world.now)
    world.settle()
    node.crash()
    node.auto = True
    node.start(world.now)
    world.wait(5)
    assert node.status(run) == "succeeded"
    assert node.began == ["a@1", "b@1", "b@2"]


def test_a_node_without_its_database_executes_nothing_again() -> None:
    world = World([HELLO], nodes=1, lease_s_max=60)
    node = world.machines[0]
    world.say("!dag publish hello")
    node.lose()
    node.start(world.now)
    world.wait(5)
    assert node.began == ["a@1", "b@1"]
    run = world.say("!dag publish hello", wait_s=90)  # nobody answers its probe: it waits a lease
    assert node.status(run) == "succeeded"
    assert node.began[2:] == ["a@2", "b@2"]


def test_a_clean_stop_frees_the_claim_only_when_the_tasks_are_dead() -> None:
    from cisbot.core.inputs import Stop

    world = World([RESUME], nodes=2)
    for machine in world.machines:
        machine.auto = False
    world.say("!dag publish resume", wait_s=1)
    at = holder(world)
    stopped = world.machines[at]
    stopped.feed(Stop(), world.now)
    assert stopped.done
    assert not stopped.running
    stopped.alive = False
    world.wait(5)
    assert holder(world) == 1 - at


def test_two_nodes_with_one_id() -> None:
    from tests.world.machine import Machine

    world = World([HELLO], nodes=1)
    twin = Machine(world.room, "node-1", [HELLO])
    twin.account = "@other:hs.test"
    world.machines.append(twin)
    twin.start(world.now)
    assert twin.halted is not None
    assert "node-1" in twin.halted
    world.say("!dag publish hello")
    assert world.machines[0].began == ["a@1", "b@1"]
