"""Named locks and slots among whole nodes: who waits, what people are told, and what is let go."""

from __future__ import annotations

from typing_extensions import override

from cisbot.core.claims.holds import Hold
from cisbot.core.claims.messages import release
from cisbot.core.effects import CancelWork, Work
from cisbot.core.ids import RunId
from cisbot.core.inputs import Instant
from cisbot.core.room.wire import T_END
from cisbot.core.scopes import is_lock, lock_key
from tests.world.machine import Machine, dag
from tests.world.servers import Consistent
from tests.world.world import World

TASK = "tasks: {a: {shell: 'true'}}\n"
DUMP = dag(f"id: dump\nscope: proj-a\nlocks: [tape, db]\non_lost: rerun\n{TASK}")
ONE = dag(f"id: one-lock\nscope: proj-a\nlocks: [tape]\non_lost: rerun\n{TASK}")
MOVE = dag(f"id: move\nscope: proj-b\nlocks: [db]\non_lost: rerun\n{TASK}")
PAIR = dag(f"id: pair\nscope: proj-c\noverlap: {{allow: 2}}\non_lost: rerun\n{TASK}")
FAR = dag(f"id: far\nscope: proj-d\ntarget: hs2-1\nlocks: [tape, db]\non_lost: rerun\n{TASK}")
FAR_PAIR = dag(f"id: farpair\nscope: proj-d\ntarget: hs2-1\noverlap: {{allow: 2}}\non_lost: rerun\n{TASK}")
LEASE_S = 30.0


def said(machine: Machine, run: str, world: World) -> str:
    """What `!dag status` tells of the run there."""
    core = machine.coordinator
    return core.desk.describe(core.board.runs[RunId(run)], world.now).plain


def locked(machine: Machine) -> set[str]:
    """The locks that the node holds."""
    return {hold.key for hold in machine.coordinator.keeper.holds.values() if is_lock(hold.key)}


def test_runs_of_two_dags_that_name_one_lock_go_one_after_the_other() -> None:
    world = World([DUMP, MOVE], nodes=2).slow()
    one, two = world.machines
    first = world.say("!dag publish dump target=node-1")
    second = world.say("!dag publish move target=node-2", wait_s=5)
    assert (one.status(first), two.status(second)) == ("running", "pending")
    assert locked(one) == {lock_key("tape"), lock_key("db")} and not locked(two)
    for machine in world.machines:
        assert "lock db is held by dump" in said(machine, second, world)
        assert "on node-1, for " in said(machine, second, world)
    one.end_task("a", world.now)
    world.wait(5)
    assert (one.status(first), two.status(second)) == ("succeeded", "running")
    two.end_task("a", world.now)
    world.wait(5)
    assert not locked(one) and not locked(two)


def test_a_run_that_waits_for_a_lock_takes_no_other_and_can_be_cancelled() -> None:
    world = World([DUMP, MOVE], nodes=2).slow()
    one, two = world.machines
    busy = world.say("!dag publish move target=node-1")
    waiting = world.say("!dag publish dump target=node-2", wait_s=LEASE_S)
    assert two.status(waiting) == "pending" and not locked(two), "it takes no tape while the db is held"
    world.say(f"!dag cancel {two.short(waiting)}")
    one.end_task("a", world.now)
    world.wait(5)
    assert (one.status(busy), two.status(waiting)) == ("succeeded", "cancelled")
    assert not locked(one) and not locked(two)


def test_a_node_that_dies_leaves_its_locks_to_another() -> None:
    world = World([DUMP], nodes=2).slow()
    run = world.say("!dag publish dump")
    (busy,) = [machine for machine in world.machines if machine.running]
    (other,) = [machine for machine in world.machines if machine is not busy]
    busy.crash()
    other.auto = True
    world.wait(1.1 * LEASE_S)
    assert other.status(run) == "succeeded"
    assert not locked(other)


def test_two_of_three_runs_go_on_at_once_on_one_node_and_the_third_is_told_why_it_waits() -> None:
    world = World([PAIR], nodes=1).slow()
    (node,) = world.machines
    runs = [world.say("!dag publish pair") for _ in range(3)]
    world.wait(2 * LEASE_S)
    assert [node.status(run) for run in runs] == ["running", "running", "pending"]
    why = said(node, runs[2], world)
    assert "all 2 slots of pair/project-proj-c are taken by pair" in why
    assert all(node.short(run) in why for run in runs[:2])
    node.end_task("a", world.now)
    world.wait(5)
    assert sorted(node.status(run) for run in runs) == ["running", "running", "succeeded"]


def test_the_limit_of_runs_counts_runs_and_not_what_they_hold() -> None:
    world = World([DUMP, PAIR], nodes=1, max_runs=2).slow()
    (node,) = world.machines
    runs = [world.say(f"!dag publish {name}") for name in ("dump", "pair", "pair")]
    world.wait(5)
    assert [node.status(run) for run in runs] == ["running", "running", "pending"]


def test_a_node_elsewhere_gets_locks_by_grants_and_keeps_them_while_home_nodes_tell_so() -> None:
    world = Consistent([FAR]).slow()
    run = world.say("!dag publish far", wait_s=4 * LEASE_S)
    home, away = world.machines
    assert (home.status(run), away.status(run)) == ("running", "running")
    assert locked(away) == {lock_key("tape"), lock_key("db")}
    away.end_task("a", world.now)
    world.wait(10)
    assert (home.status(run), away.status(run)) == ("succeeded", "succeeded")
    for name in ("tape", "db"):
        head = home.coordinator.ledger.sure(lock_key(name))
        assert head is not None and not head.holders


def test_a_node_elsewhere_gets_as_many_slots_as_its_dag_allows() -> None:
    world = Consistent([FAR_PAIR]).slow()
    runs = [world.say("!dag publish farpair") for _ in range(3)]
    world.wait(3 * LEASE_S)
    away = world.machines[-1]
    assert [away.status(run) for run in runs] == ["running", "running", "pending"]
    away.end_task("a", world.now)
    world.wait(10)
    assert sorted(away.status(run) for run in runs) == ["running", "running", "succeeded"]


class Hung(Machine):
    """A node whose worker is stopped: what it runs dies at the deadline, and not before."""

    @override
    def _do(self, work: Work, now: Instant) -> None:
        if not isinstance(work, CancelWork):
            super()._do(work, now)


def robbed(*, lock: bool) -> tuple[World, Hung, Hold]:
    """A hung node that runs a task, and one of its two claims was given back in its name; the other one."""
    world = World([ONE], nodes=1).slow()
    (node,) = world.machines
    node.__class__ = Hung
    assert isinstance(node, Hung)
    world.say("!dag publish one-lock")
    core = node.coordinator
    gone, kept = sorted(core.keeper.holds.values(), key=lambda hold: is_lock(hold.key) is not lock)
    send = release(core.me, gone.key, gone.epoch, gone.run, None, None)
    world.room.put(node.account, send.type, send.content, state_key=send.state_key, txn="not by it")
    world.settle()
    assert node.running
    return world, node, kept


def ended(world: World) -> bool:
    return any(event["type"] == T_END for event in world.room.stream)


def test_a_clean_stop_waits_for_what_was_fenced() -> None:
    world, node, lock = robbed(lock=False)
    node.stop(world.now)
    world.wait(1.0)
    assert not ended(world), "its task may live, and needs the lock"
    world.wait(lock.deadline - world.boot)
    assert ended(world)


def test_a_deadline_never_grows_past_that_of_a_lost_lock() -> None:
    world, node, own = robbed(lock=True)
    before = node.deadlines[own.run]
    world.wait(2 * LEASE_S)
    assert node.deadlines[own.run] <= before
