"""What faults alone bring about is told, and is no inconsistency; and what the holds say."""

from __future__ import annotations

from dataclasses import replace

from cisbot.core.audit.found import Breach, HoldEnd, Remark
from cisbot.core.ids import ClaimKey, EventId, UserId
from cisbot.core.room.events import Outcome, Rejected
from tests.core.audit.history import KEY, LEASE_S, History, lie


def kinds(history: History) -> list[Remark]:
    """The remarks of a history without a breach."""
    report = history.report()
    assert report.consistent, report.breaches
    return [Remark(finding.kind) for finding in report.remarks]


def test_a_takeover_is_told_with_the_time_without_a_lease() -> None:
    history = History()
    first = history.take("a")
    sign = history.beat("a")
    history.wait(LEASE_S + 4)
    take = history.take("b")
    release = history.release("b", 2)
    (one, other) = history.report().holds
    assert (one.end, one.since_ms, one.until_ms, one.renewals) == (
        HoldEnd.TAKEN, first.ts_ms, take.ts_ms, 1
    )  # fmt: skip
    assert (one.last_sign_ms, one.lapsed_ms) == (sign.ts_ms, 5_000)
    assert (other.end, other.outcome, other.until_ms) == (
        HoldEnd.RELEASED, Outcome.SUCCEEDED, release.ts_ms
    )  # fmt: skip
    assert kinds(history) == [Remark.LAPSED]


def test_a_clock_that_was_set_back_makes_no_takeover_early() -> None:
    history = History()
    history.take("a")
    history.wait(LEASE_S + 4)
    history.wait(-60)
    history.take("b")
    assert kinds(history) == [Remark.CLOCK_SET_BACK]


def test_an_outcome_that_came_too_late() -> None:
    history = History()
    history.take("a")
    history.wait(LEASE_S + 4)
    history.take("b")
    history.release("a")
    history.release("b", 2)
    assert kinds(history) == [Remark.LAPSED, Remark.LATE_OUTCOME]
    assert [(void.action, void.why) for void in history.report().voids] == [
        ("release", "it does not hold this key")
    ]


def test_tasks_that_were_told_of_beyond_the_hold() -> None:
    history = History()
    history.take("a")
    history.say("a")
    history.wait(LEASE_S + 4)
    history.take("b")
    history.say("a")
    assert kinds(history) == [Remark.LAPSED, Remark.RAN_ON]


def test_a_final_reply_follows_the_release() -> None:
    history = History()
    history.take("a")
    history.say("a")
    history.release("a")
    history.wait(5)
    history.say("a", status="succeeded")
    assert kinds(history) == []


def test_a_request_of_a_dead_process_arrives_late() -> None:
    history = History()
    history.take("a")
    history.end("a")
    history.beat("a")
    assert kinds(history) == [Remark.LATE_WORDS]


def test_a_successor_says_the_releases_of_its_predecessor_again() -> None:
    history = History()
    history.take("a")
    history.end("a")
    history.wait(60)
    history.record("a", life=2)
    history.release("a")
    assert kinds(history) == [Remark.LATE_OUTCOME]


def test_a_lease_that_runs_and_one_that_ran_out() -> None:
    history = History()
    history.take("a")
    history.take("b", "$s", key=ClaimKey("other/project-p"))
    history.wait(LEASE_S - 1)
    history.beat("b", key=ClaimKey("other/project-p"))
    held = {str(hold.key): (hold.end, hold.until_ms) for hold in history.report().holds}
    assert held == {KEY: (HoldEnd.LAPSED, None), "other/project-p": (HoldEnd.HELD, None)}


def test_the_state_is_not_restated_yet() -> None:
    history = History()
    history.take("a")
    history.state.append(history.rival("b"))
    history.beat("a")
    assert kinds(history) == [Remark.STATE_OLD]


def test_the_last_node_that_stops_leaves_nobody_to_restate() -> None:
    history = History()
    take = history.take("a")
    history.end("a")
    history.state.append(take)
    history.wait(600)
    assert kinds(history) == [Remark.STATE_OLD]


def test_a_release_of_one_slot_is_the_truth_though_another_has_a_higher_epoch() -> None:
    history = History()
    history.take("a")
    history.take("b", "$s", slot=1)
    history.release("b", 2, run="$s")
    history.state.append(history.release("a"))
    history.wait(600)
    assert kinds(history) == []


def test_an_event_that_cannot_be_read_changes_nothing() -> None:
    history = History()
    nonsense = EventId("$x"), UserId("@c:hs"), history.ms, "io.cisbot.lock", "action: missing", str(KEY)
    history.add(Rejected(*nonsense))
    history.take("a")
    history.release("a")
    assert kinds(history) == [Remark.UNREADABLE]


def test_a_part_of_the_room_is_judged_from_its_first_carried_head_on() -> None:
    history = History()
    history.take("a")
    history.beat("a")
    history.release("a")
    history.take("b", "$s")
    history.release("b", 2, run="$s")
    whole = history.report()
    history.events, history.whole = history.events[6:], False  # the first take and renewal are not read
    assert kinds(history) == [Remark.NOT_WHOLE]
    assert [hold.event for hold in history.report().holds] == [whole.holds[1].event]


def test_a_liar_is_found_in_a_part_of_the_room_too() -> None:
    history = History()
    history.take("a")
    history.beat("a")
    history.beat("b", 0)
    history.beat("c", 0, heads=(lie(history.head(), epoch=9),))
    history.beat("a")
    history.events, history.whole = history.events[5:], False
    assert {finding.kind for finding in history.report().breaches} == {Breach.HEAD_DIFFERS}


def test_evidence_that_was_taken_away_accuses_nobody_of_anything_else() -> None:
    history = History()
    take = history.take("a")
    beat = history.beat("a")
    history.release("a")
    history.take("b", "$s")
    history.release("b", 2, run="$s")
    history.redact(take)
    report = history.report()
    assert [finding.kind for finding in report.breaches] == [Breach.EVIDENCE_TAKEN]
    assert "by @op:hs" in report.breaches[0].what
    assert [(hold.epoch, hold.node) for hold in report.holds] == [(1, "a"), (2, "b")]
    assert beat.event_id not in {hold.event for hold in report.holds}


def test_a_lower_epoch_after_evidence_was_taken_away() -> None:
    history = History()
    history.take("a", epoch=7)
    release = history.release("a", 7)
    later = history.probe("c")
    history.beat("b", 0, heads=(lie(history.head(), epoch=3, after=later.event_id),))
    history.redact(release)
    found = {finding.kind for finding in history.report().breaches}
    assert found == {Breach.EVIDENCE_TAKEN, Breach.EPOCH_BACKWARDS}


def test_a_message_of_people_accuses_nobody() -> None:
    history = History()
    forged = history.say("c", status="succeeded")
    history.events[-1] = replace(forged, sender=UserId("@guest:hs"))
    assert kinds(history) == []
