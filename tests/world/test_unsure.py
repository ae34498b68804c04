"""Runs of others while a node is not sure of their key: none is executed twice, none loses its question."""

from __future__ import annotations

import pytest

from cisbot.core.ids import RunId
from cisbot.core.inputs import RoomBatch
from cisbot.core.room.events import Json
from tests.world.machine import Machine, dag
from tests.world.world import World

JOB = dag("id: job\nscope: proj-b\ntasks:\n  a: {shell: 'true'}\n")


def published_to_the_unsure(before: int) -> tuple[World, str, Machine, Machine]:
    """A run that somebody holds and whose take the other node could not judge."""
    world = World([JOB], 2, lease_s_max=40)
    for _ in range(before):
        world.say("!dag publish job")
    two = world.machines[1]
    two.feed(RoomBatch("x", (), gap=True), world.now)
    world.settle()
    world.slow()
    run = world.say("!dag publish job", wait_s=15)
    (holder,) = [m for m in world.machines if m.running]
    (other,) = [m for m in world.machines if m is not holder]
    return world, run, holder, other


@pytest.mark.parametrize("before", range(1, 7))
def test_it_runs_once(before: int) -> None:
    world, run, holder, other = published_to_the_unsure(before)
    assert other.status(run) == "running"
    holder.end_task("a", world.now)
    world.wait(60)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert len([began for began in world.began() if began.endswith(f"a@{before + 1}")]) == 1
    assert not any(m.running for m in world.machines)


@pytest.mark.parametrize("before", range(1, 7))
def test_its_policy_is_asked_when_the_holder_dies(before: int) -> None:
    world, run, holder, other = published_to_the_unsure(before)
    holder.crash()
    world.wait(90)
    assert other.status(run) == "lost"
    assert not other.running
    assert [body for body in world.room.bodies() if "Not known to be done" in body]


@pytest.mark.parametrize("sign", ["✅", "❌"])
def test_an_answer_counts_though_a_node_learns_later_that_the_run_is_lost(sign: str) -> None:
    world = World([JOB], 3, lease_s_max=40).slow()
    run = world.say("!dag publish job", wait_s=5)
    (holder,) = [m for m in world.machines if m.running]
    slow, quick = [m for m in world.machines if m is not holder]
    holder.crash()
    world.wait(20)
    slow.crash()
    slow.start(world.now)  # its observer's clock starts anew
    for _ in range(200):
        world.wait(0.25)
        if any("Not known to be done" in body for body in world.room.bodies()):
            break
    assert (quick.status(run), slow.status(run)) == ("lost", "running")
    world.react(run, sign, wait_s=60)
    if sign == "❌":
        assert (quick.status(run), slow.status(run)) == ("failed", "failed")
    else:
        assert [m.name for m in (quick, slow) if m.running]
    assert len([body for body in world.room.bodies() if "Not known to be done" in body]) == 1


@pytest.mark.parametrize("gap", [0.0, 0.25, 1.0])
def test_a_run_that_was_cancelled_before_its_first_task_stays_so(gap: float) -> None:
    world = World([JOB], 2).slow()
    first = world.say("!dag publish job", wait_s=1)
    second = world.say("!dag publish job", wait_s=1)
    (holder,) = [m for m in world.machines if m.running]
    (other,) = [m for m in world.machines if m is not holder]
    other.crash()
    other.start(world.now)  # so that it reads the story of what waits
    holder.end_task("a", world.now)
    world.wait(gap)
    world.react(second, "❌", wait_s=60)
    assert {m.status(second) for m in world.machines} == {"cancelled"}
    assert {m.status(first) for m in world.machines} == {"succeeded"}
    assert not any(m.running for m in world.machines)


def test_a_node_that_was_away_claims_nothing_that_is_over() -> None:
    world = World([JOB], 2)
    away = world.machines[1]
    away.crash()
    runs = [world.say("!dag publish job") for _ in range(20)]
    away.start(world.now)
    world.wait(30)
    assert {away.status(run) for run in runs} == {"succeeded"}
    takes = [
        raw for raw in world.room.stream if raw["sender"] == away.account and raw["type"] == "io.cisbot.lock"
    ]
    assert takes == []


def test_runs_that_wait_for_others_do_not_use_up_a_nodes_room() -> None:
    other_scope = dag("id: other\nscope: proj-c\ntasks:\n  a: {shell: 'true'}\n")
    world = World([JOB, other_scope], 2, max_runs=1).slow()
    world.say("!dag publish job", wait_s=1)
    world.say("!dag publish job", wait_s=1)
    world.say("!dag publish other", wait_s=10)
    assert [len(m.running) for m in world.machines] == [1, 1]


def test_an_outcome_that_came_after_the_next_take_counts_for_who_would_run_it_then() -> None:
    again = dag("id: again\nscope: proj-b\non_lost: rerun\ntasks:\n  a: {shell: 'true'}\n")
    world = World([again], 3, lease_s_max=40).slow()
    run = world.say("!dag publish again")
    (first,) = [m for m in world.machines if m.running]
    first.mute = True  # its renewals and its release are late
    first.end_task("a", world.now)
    world.wait(40)
    (second,) = [m for m in world.machines if m.running]
    late = next(send for send in first.deaf if send.content.get("action") == "release")
    world.room.put(first.account, late.type, late.content, state_key=late.state_key)
    world.settle()
    assert second.running
    second.crash()
    world.wait(90)
    assert {m.status(run) for m in world.machines if m.alive} == {"succeeded"}
    assert sorted(world.began()) == sorted([f"{first.name}:a@1", f"{second.name}:a@2"])
    second.start(world.now)
    world.wait(90)
    assert second.status(run) == "succeeded"
    assert len(world.began()) == 2


def test_a_question_that_was_withdrawn_unsent_is_asked_when_it_comes_true_again() -> None:
    world = World([JOB], 2, lease_s_max=40).slow()
    run = world.say("!dag publish job", wait_s=5)
    (holder,) = [m for m in world.machines if m.running]
    (other,) = [m for m in world.machines if m is not holder]
    key = next(head.key for head in holder.coordinator.keeper.holds.values())
    epoch = other.coordinator.board.runs[RunId(run)].epoch
    holder.mute = other.mute = True
    world.wait(60)
    assert other.status(run) == "lost"
    assert [send for send in other.deaf if "Not known to be done" in str(send.content)]
    beat: dict[str, Json] = {
        "node": holder.name, "incarnation": str(holder.coordinator.me.incarnation), "nonce": "late",
        "renews": [{"key": key, "epoch": epoch}], "heads": [],
    }  # fmt: skip
    world.room.put(holder.account, "io.cisbot.heartbeat", beat)  # it was under way for that long
    world.settle()
    assert other.status(run) == "running"
    assert not [send for send in other.deaf if "Not known to be done" in str(send.content)]
    other.mute = False
    world.wait(60)
    assert other.status(run) == "lost"
    assert [body for body in world.room.bodies() if "Not known to be done" in body]
