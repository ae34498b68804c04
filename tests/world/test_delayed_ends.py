"""A dead node's claims are free in seconds; ends that come early, twice, late or never break nothing."""

from __future__ import annotations

import itertools

import pytest

from cisbot.core.claims.messages import end_txn
from cisbot.core.inputs import SendFailed
from cisbot.core.room.events import JsonMap
from cisbot.core.room.wire import T_CHARTER, T_END, T_INTENT
from tests.world.delays import Fault
from tests.world.machine import Machine, dag
from tests.world.room import HOME, OPERATOR
from tests.world.world import World

JOB = dag("id: job\nscope: proj-a\non_lost: rerun\ntasks:\n  a: {shell: 'true'}\n")
DELAY_S = 4.0
LEASE_S = 30.0


def running(*, nodes: int = 2, faults: tuple[Fault, ...] = ()) -> tuple[World, Machine, str]:
    """A run that its holder has begun and that goes on."""
    world = World([JOB], nodes=0, end_delay_s=DELAY_S)
    for n in range(nodes):
        machine = Machine(
            world.room, f"node-{n + 1}", [JOB], delays=world.delays, end_delay_s=DELAY_S
        )  # fmt: skip
        machine.auto = False
        world.delays.faults[machine.account] += faults
        world.machines.append(machine)
        machine.start(world.now)
    world.settle()
    world.wait(3)
    run = world.say("!dag publish job")
    (holder,) = [machine for machine in world.machines if machine.running]
    return world, holder, run


def finish(world: World, run: str, seconds: float = 60) -> None:
    """Every task that begins succeeds; the run ends once."""
    for _ in range(int(seconds)):
        for machine in world.machines:
            if machine.alive and not machine.stopped and machine.running:
                machine.end_task("a", world.now)
        world.wait(1)
        if any(m.status(run) == "succeeded" for m in world.machines if m.alive):
            break
    assert [m.status(run) for m in world.machines if m.alive] == ["succeeded"] * sum(
        m.alive for m in world.machines
    )
    assert sum(body.startswith("✅") for body in world.room.bodies()) == 1


def ends(world: World) -> int:
    """How many ends the room has."""
    return sum(raw["type"] == T_END for raw in world.room.stream)


def until_taken(world: World, holder: Machine, seconds: float) -> float:
    """Until another machine has the run."""
    began = world.boot
    while not any(machine.running for machine in world.machines if machine is not holder):
        assert world.boot - began < seconds, world.room.bodies()
        world.wait(0.25)
    return world.boot - began


def test_a_dead_node_is_replaced_within_the_delay() -> None:
    world, holder, run = running()
    holder.crash()
    before = len(world.room.stream)
    assert until_taken(world, holder, DELAY_S + 1.5) <= DELAY_S
    assert ends(world) == 1
    said = [str(raw["type"]) for raw in world.room.stream[before:] if raw["sender"] != holder.account]
    assert T_INTENT not in said, "whose incarnation is over is no rival"
    finish(world, run)


def test_a_healthy_run_goes_on_and_a_clean_stop_says_one_end() -> None:
    world, holder, run = running()
    world.wait(100)
    assert holder.running
    assert ends(world) == 0
    assert not holder.over
    finish(world, run)
    for machine in world.machines:
        machine.stop(world.now)
    world.wait(10)
    assert ends(world) == 2
    assert not world.delays.waiting


def test_dropped_the_lease_frees_it() -> None:
    world, holder, run = running()
    world.delays.late(holder.account)
    holder.crash()
    assert until_taken(world, holder, LEASE_S * 1.1) > LEASE_S / 2
    finish(world, run)


def test_late_it_hits_nobody() -> None:
    world, holder, run = running()
    world.delays.late(holder.account, by_s=LEASE_S + 10)
    holder.crash()
    until_taken(world, holder, LEASE_S * 1.1)
    holder.start(world.now)
    world.wait(20)
    assert ends(world) == 2, "the one that the new process said, and the late one"
    assert not any(machine.over for machine in world.machines)
    finish(world, run)


def test_early_and_twice_it_ends_this_incarnation_and_the_node_goes_on_as_another() -> None:
    world, holder, run = running()
    world.delays.early(holder.account, times=2)
    world.settle()
    world.wait(3)
    assert len(holder.over) == 1
    assert holder.alive
    assert holder.halted is None
    finish(world, run)


def test_a_lone_node_takes_its_run_up_again() -> None:
    world, holder, run = running(nodes=1)
    world.delays.early(holder.account)
    world.wait(3)
    assert holder.began == ["a@1", "a@2"]
    finish(world, run)


def test_restarts_that_fail_now_and_then_harm_nothing() -> None:
    world, holder, run = running()
    for fault in (Fault.UNSENT, Fault.LOST, Fault.UNANSWERED, Fault.REFUSED, Fault.LIMITED):
        world.delays.faults[holder.account].append(fault)
        world.wait(DELAY_S)
    assert holder.running
    assert not holder.over
    finish(world, run)


def test_without_a_word_from_the_homeserver_the_tasks_are_dead_before_anybody_else_begins() -> None:
    world, holder, run = running()
    world.delays.away.add(holder.account)
    holder.mute = True
    until_taken(world, holder, DELAY_S + 2)
    assert not holder.running
    world.delays.away.clear()
    holder.mute = False
    world.wait(3)
    assert holder.alive
    assert len(holder.over) == 1
    finish(world, run)


def test_a_restart_that_is_refused_for_ever_costs_an_incarnation_and_no_run() -> None:
    world = World([JOB], nodes=1, end_delay_s=DELAY_S)
    (node,) = world.machines
    world.delays.faults[node.account] += [Fault.REFUSED] * 2  # one restart, and the next arming
    world.wait(2 * DELAY_S)
    assert len(node.over) == 1
    finish(world, world.say("!dag publish job"))


def test_restarts_whose_answers_are_lost_keep_it_from_being_sent_but_prove_nothing() -> None:
    world, holder, run = running()
    world.delays.faults[holder.account] += [Fault.UNANSWERED] * 12
    world.wait(DELAY_S + 1)
    assert not holder.running, "it could not know"
    world.wait(10)
    finish(world, run)


@pytest.mark.parametrize("seconds", [3.0, 5.0, 40.0])
def test_a_node_that_is_stopped_and_continued_overlaps_with_nobody(seconds: float) -> None:
    world, holder, run = running()
    holder.stopped = True
    world.wait(seconds)
    holder.go_on(world.now)
    world.wait(5)
    assert bool(holder.over) == (seconds > DELAY_S)
    assert holder.alive
    finish(world, run)


@pytest.mark.parametrize("fault", [Fault.LOST, Fault.UNANSWERED])
def test_an_arming_that_nobody_answers_costs_an_incarnation_and_no_run(fault: Fault) -> None:
    world, holder, run = running(faults=(fault,))
    assert [len(machine.over) for machine in world.machines] == [1, 1]
    world.wait(DELAY_S + 1)
    assert ends(world) == (2 if fault is Fault.UNANSWERED else 0)
    assert holder.running, "what was sent ends an incarnation that held nothing"
    finish(world, run)


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LIMITED, Fault.UNSENT])
def test_without_it_all_works(fault: Fault) -> None:
    world, holder, run = running(faults=(fault,))
    world.wait(40)
    assert holder.running
    assert not holder.over
    finish(world, run)


def test_limited_at_first_it_is_armed_later() -> None:
    world, _, run = running(nodes=1, faults=(Fault.LIMITED, Fault.LIMITED))
    assert not world.delays.waiting, "a run had begun by then"
    finish(world, run)
    world.wait(5)
    assert len(world.delays.waiting) == 1


def test_a_charter_can_forbid_it() -> None:
    world, holder, run = running()
    assert world.delays.waiting
    charter: JsonMap = {"version": 1, "home": HOME, "lease_s_max": 600, "delayed_ends": False}
    world.room.put(OPERATOR, T_CHARTER, charter, state_key="")
    world.wait(3)
    assert not world.delays.waiting
    assert holder.running
    world.delays.away.update(machine.account for machine in world.machines)
    world.wait(60)
    assert holder.running, "its lease alone holds"
    finish(world, run)
    assert ends(world) == 0


@pytest.mark.parametrize("fault", [Fault.LIMITED, Fault.UNSENT, Fault.LOST, Fault.REFUSED])
def test_forbidden_by_the_charter_it_is_taken_back_though_not_at_the_first_try(fault: Fault) -> None:
    world, holder, run = running()
    world.delays.faults[holder.account].append(fault)
    charter: JsonMap = {"version": 1, "home": HOME, "lease_s_max": 600, "delayed_ends": False}
    asked = len(world.delays.requests)
    world.room.put(OPERATOR, T_CHARTER, charter, state_key="")
    world.settle()
    assert len(world.delays.requests) == asked + 2, "each once"
    world.wait(DELAY_S + 1)
    assert not world.delays.waiting
    finish(world, run)


def test_an_end_that_was_refused_leaves_the_delayed_one_in_place() -> None:
    world = World([JOB], nodes=1, end_delay_s=DELAY_S)
    (node,) = world.machines
    node.mute = True
    node.stop(world.now)
    assert node.done
    last = end_txn(node.coordinator.me.incarnation)
    node.feed(SendFailed(last, "M_FORBIDDEN", "no"), world.now)
    assert len(world.delays.waiting) == 1
    world.delays.fire(world.boot + DELAY_S)
    assert ends(world) == 1


FAULTS = [Fault.NONE, Fault.LOST, Fault.UNANSWERED]


@pytest.mark.parametrize("plan", list(itertools.product(FAULTS, repeat=3)))
def test_every_short_plan_of_faults_ends_well(plan: tuple[Fault, ...]) -> None:
    """The first request arms, the others restart; then the node dies or is stopped, and comes back."""
    for stop in (True, False):
        world, holder, run = running(faults=plan)
        if stop:
            holder.stopped = True
            world.wait(6)
            holder.go_on(world.now)
        else:
            holder.crash()
            world.wait(6)
            holder.start(world.now)
        finish(world, run)
