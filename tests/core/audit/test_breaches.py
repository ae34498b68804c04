"""Every kind of inconsistency is found where it is planted, by its name, and not in its healthy twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from cisbot.core.audit.found import Breach
from cisbot.core.ids import ClaimKey, EventId, NodeId
from cisbot.core.room.events import Outcome
from tests.core.audit.history import (
    KEY,
    LEASE_MAX_S,
    LEASE_S,
    MEMORY,
    STEP_MAX,
    History,
    account,
    lie,
    process,
)

GLOBAL = ClaimKey("global")
LOCK = ClaimKey("lock:db")
Plant = Callable[[History, bool], None]
Plants = list[tuple[Breach, Plant]]
PLANTS: Plants = []


def plants(kind: Breach, into: Plants = PLANTS) -> Callable[[Plant], Plant]:
    """Register a history that is wrong, or its healthy twin."""

    def note(plant: Plant) -> Plant:
        into.append((kind, plant))
        return plant

    return note


@pytest.mark.parametrize(("kind", "plant"), PLANTS, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize("wrong", [True, False], ids=["wrong", "healthy"])
def test_it_is_found_by_name(kind: Breach, plant: Plant, wrong: bool) -> None:
    found_by_name(kind, plant, wrong=wrong)


def found_by_name(kind: Breach, plant: Plant, *, wrong: bool) -> None:
    """Its own kind is found, and no other; of its twin nothing."""
    history = History()
    plant(history, wrong)
    report = history.report()
    assert {finding.kind for finding in report.breaches} == ({kind} if wrong else set()), report.breaches
    assert report.consistent is not wrong
    assert all(finding.what for finding in report.breaches)


def test_every_kind_is_planted() -> None:
    assert {kind for kind, _ in PLANTS} == set(Breach)


# -- heads -----------------------------------------------------------------------------------------


@plants(Breach.HEAD_DIFFERS)
def a_carried_head_names_another_holder(h: History, wrong: bool) -> None:
    h.take("a")
    head = h.head()
    holder = replace(head.holders[0], node=NodeId("b"), account=account("b"))
    h.beat("b", 0, heads=(lie(head, holders=(holder,)) if wrong else head,))


@plants(Breach.HEAD_DIFFERS)
def a_carried_head_has_another_epoch(h: History, wrong: bool) -> None:
    h.take("a")
    h.beat("b", 0, heads=(lie(h.head(), epoch=9) if wrong else h.head(),))


@plants(Breach.HEAD_DIFFERS)
def a_carried_head_names_a_void_take(h: History, wrong: bool) -> None:
    h.take("a")
    void = h.rival("b")
    h.wait(60)
    h.beat("b", 0, heads=(lie(h.head(), after=void.event_id) if wrong else h.head(),))


@plants(Breach.HEAD_DIFFERS)
def a_carried_head_names_what_never_was(h: History, wrong: bool) -> None:
    h.take("a")
    h.beat("b", 0, heads=(lie(h.head(), after=EventId("$nowhere")) if wrong else h.head(),))


@plants(Breach.HEAD_DIFFERS)
def a_carried_head_of_a_key_that_never_was(h: History, wrong: bool) -> None:
    h.take("a")
    h.beat("b", 0, heads=(lie(h.head(), key=ClaimKey("x/y")) if wrong else h.head(),))


@plants(Breach.HEAD_DIFFERS)
def a_take_stands_on_what_never_was(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("a")
    h.take("b", "$s", after="$nowhere" if wrong else "")


@plants(Breach.HEAD_DIFFERS)
def a_write_carries_another_value(h: History, wrong: bool) -> None:
    h.write("a", 1, "green")
    head = h.head(MEMORY)
    h.beat("b", 0, heads=(lie(head, value="blue") if wrong else head,))


@plants(Breach.RESTATE_FALSE)
def a_restate_names_another_holder(h: History, wrong: bool) -> None:
    h.take("a")
    h.restate("b", lie(h.head(), holders=()) if wrong else h.head())


@plants(Breach.STATE_DIFFERS)
def the_state_names_a_loser(h: History, wrong: bool) -> None:
    take = h.take("a")
    h.state.append(h.rival("b") if wrong else take)
    h.wait(400)


@plants(Breach.STATE_DIFFERS)
def the_state_restates_what_is_not_so(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("a")
    restate = h.restate("b", h.head())
    h.state.append(replace(restate, head=lie(restate.head, epoch=7)) if wrong else restate)
    h.wait(400)


# -- bounds ----------------------------------------------------------------------------------------


@plants(Breach.EPOCH_BACKWARDS)
def an_epoch_that_is_no_higher(h: History, wrong: bool) -> None:
    h.take("a", epoch=5)
    h.release("a", 5)
    h.take("b", "$s", epoch=4 if wrong else 6)


@plants(Breach.EPOCH_BACKWARDS)
def a_version_that_is_no_higher(h: History, wrong: bool) -> None:
    h.write("a", 3, "green")
    h.write("b", 2 if wrong else 4, "blue")


@plants(Breach.EPOCH_TOO_FAR)
def an_epoch_that_jumps(h: History, wrong: bool) -> None:
    h.take("a", epoch=STEP_MAX + 1 if wrong else STEP_MAX)


@plants(Breach.LEASE_TOO_LONG)
def a_lease_beyond_the_charter(h: History, wrong: bool) -> None:
    h.take("a", lease_s=LEASE_MAX_S + 1 if wrong else LEASE_MAX_S)


@plants(Breach.TAKEN_EARLY)
def a_live_holder_is_replaced(h: History, wrong: bool) -> None:
    h.take("a")
    h.wait(LEASE_S / 2)
    h.beat("a")
    h.wait(LEASE_S / 2 if wrong else LEASE_S)
    h.take("b")


@plants(Breach.CHARTER_CHANGED)
def the_room_moves(h: History, wrong: bool) -> None:
    h.charter("elsewhere" if wrong else "hs")


@plants(Breach.CHARTER_CHANGED)
def the_longest_lease_changes(h: History, wrong: bool) -> None:
    h.charter(lease_s_max=LEASE_MAX_S + 60 if wrong else LEASE_MAX_S)


# -- executions ------------------------------------------------------------------------------------


def a_race(h: History) -> None:
    """Two takes on one head; that of `a` comes first."""
    h.take("a")
    h.rival("b")


@plants(Breach.VOID_RAN)
def the_loser_gives_an_outcome(h: History, wrong: bool) -> None:
    a_race(h)
    h.release("b" if wrong else "a")


@plants(Breach.VOID_RAN)
def the_loser_tells_of_tasks(h: History, wrong: bool) -> None:
    a_race(h)
    h.say("b" if wrong else "a")


@plants(Breach.VOID_RAN)
def the_loser_renews(h: History, wrong: bool) -> None:
    a_race(h)
    h.beat("a")
    h.beat("b" if wrong else "a", heads=())


@plants(Breach.NOT_HELD)
def an_outcome_by_a_stranger(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("b" if wrong else "a")


@plants(Breach.NOT_HELD)
def an_outcome_of_another_run(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("a", run="$other" if wrong else "$r")


@plants(Breach.NOT_HELD)
def a_renewal_of_what_was_never_held(h: History, wrong: bool) -> None:
    h.take("a")
    h.beat("a", 2 if wrong else 1)


@plants(Breach.NOT_HELD)
def a_renewal_of_a_key_that_nobody_ever_asked_for(h: History, wrong: bool) -> None:
    h.take("a")
    h.beat("a", 1, key=ClaimKey("x/y") if wrong else KEY, heads=())


@plants(Breach.NOT_HELD)
def a_final_reply_by_a_stranger(h: History, wrong: bool) -> None:
    h.take("a")
    h.say("c" if wrong else "a", status="succeeded")


@plants(Breach.OUTCOMES_DIFFER)
def two_outcomes_at_one_epoch(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("a")
    h.release("a", outcome=Outcome.FAILED if wrong else Outcome.SUCCEEDED)  # said again after a crash


@plants(Breach.RUN_TWICE)
def executed_again_after_its_outcome(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("a", outcome=Outcome.SUCCEEDED if wrong else Outcome.LOST)
    h.take("b")
    h.release("b", 2)


@plants(Breach.RUN_TWICE)
def executed_again_after_it_was_cancelled(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("a", outcome=Outcome.CANCELLED if wrong else None)
    h.take("b")
    h.release("b", 2, Outcome.FAILED)


@plants(Breach.RUN_TWICE)
def executed_again_under_another_key_with_the_same_epoch(h: History, wrong: bool) -> None:
    h.take("a")
    h.release("a", outcome=Outcome.SUCCEEDED if wrong else Outcome.LOST)
    other = ClaimKey("dag/project-other")
    h.take("b", key=other)
    h.release("b", key=other)


@plants(Breach.TWO_HOLDERS)
def the_cluster_wide_scope_by_two_keys(h: History, wrong: bool) -> None:
    h.take("a", key=GLOBAL, scope="global")
    if not wrong:
        h.release("a", key=GLOBAL)
    h.take("b", "$s", key=ClaimKey("deploy/global"), scope="global")


@plants(Breach.TWO_HOLDERS)
def the_cluster_wide_scope_in_two_slots(h: History, wrong: bool) -> None:
    h.take("a", key=GLOBAL, scope="global")
    if not wrong:
        h.release("a", key=GLOBAL)
    h.take("b", "$s", key=GLOBAL, scope="global", slot=1)


@plants(Breach.TWO_HOLDERS)
def one_run_in_two_slots(h: History, wrong: bool) -> None:
    h.take("a")
    h.take("b", "$r" if wrong else "$s", slot=1)


@plants(Breach.TWO_HOLDERS)
def a_lock_in_two_slots(h: History, wrong: bool) -> None:
    h.take("a", key=LOCK)
    h.take("a")  # a run under its own key and its locks is in one place
    if not wrong:
        h.release("a")
        h.release("a", key=LOCK, outcome=None)
    h.take("b", "$s", key=LOCK, slot=1)


@plants(Breach.TAKEN_EARLY)
def a_lock_before_its_lease_was_over(h: History, wrong: bool) -> None:
    h.take("a", key=LOCK)
    h.wait(1 if wrong else 1.1 * LEASE_S)
    h.take("b", "$s", key=LOCK)


@plants(Breach.NOT_HELD)
def tasks_that_are_told_of_under_a_locks_epoch(h: History, wrong: bool) -> None:
    h.take("b", "$s", key=LOCK)
    h.release("b", key=LOCK, outcome=None, run="$s")
    h.take("a", key=LOCK)
    h.take("a")
    h.say("a", epoch=2 if wrong else 1)


# -- who spoke -------------------------------------------------------------------------------------


@plants(Breach.SPEAKS_FOR_ANOTHER)
def a_take_under_another_nodes_id(h: History, wrong: bool) -> None:
    h.take("c", node="a" if wrong else "c")


@plants(Breach.SPEAKS_FOR_ANOTHER)
def an_end_of_another_nodes_process(h: History, wrong: bool) -> None:
    h.take("a")
    end = h.end("c" if wrong else "a")
    h.events[-1] = replace(end, node=NodeId("a"), incarnation=process("a", 1))


@plants(Breach.ZOMBIE)
def a_renewal_after_the_end(h: History, wrong: bool) -> None:
    h.take("a")
    if wrong:
        h.end("a")
    h.wait(25)
    h.beat("a")
    h.wait(25)
    h.beat("a")


@plants(Breach.TWIN)
def two_accounts_with_one_id(h: History, wrong: bool) -> None:
    h.beat("a", 0)
    h.record("c", node="a")
    if not wrong:  # the newcomer finds the other and stops
        h.record("c", node="a", gone=True)
    h.wait(30)
    h.beat("a", 0)
    if wrong:
        h.beat("c", 0, node="a")


@plants(Breach.TWIN)
def two_processes_of_one_account(h: History, wrong: bool) -> None:
    h.beat("a", 0)
    h.record("a", life=2)
    h.wait(30)
    h.beat("a", 0, life=1 if wrong else 2)
    h.beat("a", 0, life=2)


@plants(Breach.TWIN)
def a_process_that_outlives_one_that_came_between(h: History, wrong: bool) -> None:
    h.beat("a", 0)
    h.record("a", life=2)
    h.beat("a", 0, life=1 if wrong else 2)
    h.wait(30)
    h.beat("a", 0, life=3)
    h.wait(30)
    h.beat("a", 0, life=1 if wrong else 3)
    h.beat("a", 0, life=3)


@plants(Breach.EVIDENCE_TAKEN)
def a_redacted_take(h: History, wrong: bool) -> None:
    take = h.take("a")
    h.beat("a")
    h.release("a")
    if wrong:
        h.redact(take)


@plants(Breach.EVIDENCE_TAKEN)
def a_redacted_renewal(h: History, wrong: bool) -> None:
    h.take("a")
    beat = h.beat("a")
    h.beat("a")
    h.release("a")
    h.take("b", "$s")
    h.release("b", 2, run="$s")
    if wrong:
        h.redact(beat)
