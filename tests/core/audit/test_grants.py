"""Rooms of several servers: who holds by a grant, what an `available` room allows, whose order decides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cisbot.core.audit.found import Breach, HoldEnd, Remark
from cisbot.core.ids import NodeId, Nonce, UserId
from cisbot.core.room.events import Asker, Outcome, Rejected
from cisbot.core.room.wire import T_INTENT
from tests.core.audit.history import LEASE_S, History, account, process
from tests.core.audit.test_breaches import Plant, Plants, found_by_name, plants
from tests.core.audit.test_remarks import kinds

PLANTS: Plants = []


def abroad(*, available: bool = False) -> History:
    """Two nodes at home and one on another server."""
    history = History("a", "b", "away", available=available)
    history.take("a", "$before")
    history.release("a", 1, run="$before")
    return history


def test_the_asker_holds_renews_and_gives_back() -> None:
    history = abroad()
    history.take("a", asker=history.ask("away"))
    history.beat("away", 2, heads=())
    history.say("away", 2)
    history.release("away", 2)
    hold = history.report().holds[-1]
    assert (hold.node, hold.account, hold.incarnation) == ("away", account("away"), process("away", 1))
    assert (hold.renewals, hold.end, hold.outcome) == (1, HoldEnd.RELEASED, Outcome.SUCCEEDED)
    assert kinds(history) == []


def test_a_void_grant_is_its_askers() -> None:
    history = History("a", "b", "away")
    asker = history.ask("away")
    history.take("b")
    history.rival("a", asker=asker)
    history.beat("b")
    (void,) = history.report().voids
    assert (void.node, void.account) == ("away", account("away"))


def test_the_askers_end_ends_what_it_was_granted() -> None:
    history = abroad()
    grant = history.take("a", asker=history.ask("away"))
    history.end("away")
    history.state.append(grant)
    history.wait(600)
    assert history.report().holds[-1].end is HoldEnd.ENDED
    assert kinds(history) == [Remark.STATE_OLD]


def test_a_grant_to_the_holder_itself_is_no_takeover() -> None:
    history = abroad()
    history.take("a", asker=history.ask("away"))
    history.take("b", asker=history.ask("away"))
    assert kinds(history) == []


def test_a_takeover_by_a_grant_names_who_takes_over() -> None:
    history = abroad()
    history.take("b")
    history.wait(LEASE_S)
    history.take("a", asker=history.ask("away"))
    (lapsed,) = history.report().remarks
    assert lapsed.kind is Remark.LAPSED
    assert "a took for away over from b" in lapsed.what


def test_a_request_that_was_redacted_may_have_been_made() -> None:
    history = abroad()
    asker = history.ask("away")
    intent = history.events[-1]
    bare = Rejected(
        intent.event_id, intent.sender, intent.ts_ms, T_INTENT, "empty", "k/project-p", True, None
    )
    history.events[-1] = bare
    history.take("a", asker=asker)
    assert kinds(history) == []


def own_claims(history: History) -> None:
    """While the link is cut, `away` claims by its own server's stream, twice; `a` holds the key at home."""
    free = str(history.head().after)
    history.take("a")
    own = history.take("away", epoch=2, after=free)
    history.say("away", 2)
    history.beat("away", 2, heads=())
    history.release("away", 2)
    history.take("away", "$s", epoch=3, after=own.event_id)
    history.release("a", 2)


def test_an_available_room_allows_to_run_apart() -> None:
    history = abroad(available=True)
    own_claims(history)
    assert set(kinds(history)) == {Remark.RAN_APART}


def test_any_other_does_not() -> None:
    history = abroad()
    own_claims(history)
    assert {finding.kind for finding in history.report().breaches} == {Breach.VOID_RAN, Breach.HEAD_DIFFERS}


def test_nor_does_a_second_charter() -> None:
    history = abroad()
    history.charter(available=True)
    own_claims(history)
    found = {finding.kind for finding in history.report().breaches}
    assert found == {Breach.CHARTER_CHANGED, Breach.VOID_RAN, Breach.HEAD_DIFFERS}


def test_a_second_charter_moves_no_claim() -> None:
    history = abroad()
    history.charter("elsewhere")
    history.take("a", asker=history.ask("away"))
    history.release("away", 2)
    report = history.report()
    assert [finding.kind for finding in report.breaches] == [Breach.CHARTER_CHANGED]
    assert (len(report.holds), report.voids) == (2, ())


def test_a_backlog_of_another_server_sets_no_clock_back() -> None:
    history = abroad()
    history.wait(120)
    history.probe("a")
    history.wait(-60)
    asker = history.ask("away")
    history.wait(60)
    history.take("a", asker=asker)
    assert kinds(history) == []


def test_who_reads_off_the_home_server_is_told_so() -> None:
    history = abroad()
    history.reader = UserId("@eve:elsewhere")
    (said,) = history.report().remarks
    assert (said.kind, said.sender) == (Remark.OFF_HOME, "@eve:elsewhere")
    assert "read from elsewhere, but the order of events on hs decides" in said.what
    history.reader = UserId("@op:hs")
    assert kinds(history) == []


# -- what contradicts the rules, and its healthy twin --------------------------------------------------


def a_void_grant(h: History) -> Asker:
    """A take of `b` comes before the grant of `a`."""
    h.record("away")
    asker = h.ask("away")
    h.take("b")
    h.rival("a", asker=asker)
    return asker


@plants(Breach.VOID_RAN, PLANTS)
def who_asked_for_a_void_grant_gives_an_outcome(h: History, wrong: bool) -> None:
    a_void_grant(h)
    h.release("away" if wrong else "b")


@plants(Breach.VOID_RAN, PLANTS)
def who_asked_for_a_void_grant_tells_of_tasks(h: History, wrong: bool) -> None:
    a_void_grant(h)
    h.say("away" if wrong else "b")


@plants(Breach.VOID_RAN, PLANTS)
def who_asked_for_a_void_grant_renews(h: History, wrong: bool) -> None:
    a_void_grant(h)
    h.beat("b")
    h.beat("away" if wrong else "b", heads=())


@plants(Breach.NOT_HELD, PLANTS)
def who_granted_gives_the_outcome(h: History, wrong: bool) -> None:
    h.record("away")
    h.take("a", asker=h.ask("away"))
    h.release("a" if wrong else "away")


@plants(Breach.TAKEN_EARLY, PLANTS)
def who_granted_takes_at_once(h: History, wrong: bool) -> None:
    h.record("away")
    h.take("b")
    if not wrong:
        h.wait(LEASE_S)
    h.take("a", asker=h.ask("away"))


@plants(Breach.SPEAKS_FOR_ANOTHER, PLANTS)
def a_grant_that_nobody_asked_for(h: History, wrong: bool) -> None:
    h.record("away")
    asker = h.ask("away")
    h.take("a", asker=replace(asker, nonce=Nonce("forged")) if wrong else asker)


@plants(Breach.SPEAKS_FOR_ANOTHER, PLANTS)
def a_grant_under_another_nodes_id_in_a_part_of_the_room(h: History, wrong: bool) -> None:
    h.record("away")
    asker = h.ask("away")
    h.take("a", asker=replace(asker, node=NodeId("b")) if wrong else asker)
    h.whole = False


@plants(Breach.SPEAKS_FOR_ANOTHER, PLANTS)
def a_request_under_another_nodes_id_is_its_askers_lie_alone(h: History, wrong: bool) -> None:
    h.record("away")
    h.take("a", asker=h.ask("away", node="b" if wrong else "away"))


@pytest.mark.parametrize(("kind", "plant"), PLANTS, ids=lambda one: getattr(one, "__name__", ""))
@pytest.mark.parametrize("wrong", [True, False], ids=["wrong", "healthy"])
def test_it_is_found_by_name(kind: Breach, plant: Plant, wrong: bool) -> None:
    found_by_name(kind, plant, wrong=wrong)
