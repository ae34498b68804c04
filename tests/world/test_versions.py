"""Nodes with other versions of a DAG reckon other keys for a run; a take of another key is nothing to it."""

from __future__ import annotations

import pytest

from cisbot.core.inputs import Definitions
from tests.world.machine import dag
from tests.world.world import World

TASK = "tasks: {a: {shell: 'true'}}\n"
OLD = dag(f"id: job\nscope: proj-a\non_lost: ask\n{TASK}")
NEW = dag(f"id: job\nscope: proj-b\non_lost: ask\n{TASK}")


@pytest.mark.parametrize("shift", range(4))
def test_a_run_whose_scope_nodes_reckon_differently_is_begun_once(shift: int) -> None:
    world = World([OLD], nodes=2)
    one, two = world.machines
    two.feed(Definitions({NEW.id: NEW}, ()), world.now)
    world.settle()
    for _ in range(shift):  # of it depends whose turn comes first
        world.room.say("@operator:hs.test", "hello")
    world.slow()
    run = world.say("!dag publish job", wait_s=100)
    assert len(world.began()) == 1
    (busy,) = [machine for machine in world.machines if machine.running]
    busy.end_task("a", world.now)
    world.wait(5)
    assert {machine.status(run) for machine in world.machines} == {"succeeded"}
    assert len(world.began()) == 1


@pytest.mark.audit_finds("speaks-for-another")
def test_a_take_of_another_key_that_names_a_running_run_changes_nothing() -> None:
    world = World([OLD], nodes=2).slow()
    run = world.say("!dag publish job")
    (busy,) = [machine for machine in world.machines if machine.running]
    (other,) = [machine for machine in world.machines if machine is not busy]
    mine = world.room.state["io.cisbot.lock", "job/project-proj-a"]["content"]
    assert isinstance(mine, dict)
    foreign = {**mine, "after": None, "head": None, "epoch": 1, "incarnation": "x", "nonce": "x"}
    world.room.put(other.account, "io.cisbot.lock", foreign, state_key="zzz", txn="foreign")
    world.settle()
    assert busy.running and busy.status(run) == "running"
    busy.end_task("a", world.now)
    world.wait(40)
    assert busy.status(run) == "succeeded" and len(world.began()) == 1
