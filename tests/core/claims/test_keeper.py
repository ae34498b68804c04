"""Holding: two clocks, never compared; a deadline that only the own echo moves, and that nothing revives."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cisbot.core.claims.facts import Ended, Extended, Fact, Freed, Refused, Taken, Won
from cisbot.core.claims.holds import Hold
from cisbot.core.claims.keeper import RHO, SENT_MAX, Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.state import Bounds, Head, carried
from cisbot.core.ids import EventId, Incarnation, Nonce, RunId
from cisbot.core.room.events import ClaimEvent, Heartbeat, Rejected, Release, Restate
from cisbot.core.room.wire import T_HEARTBEAT, T_LOCK
from tests.core.claims.made import (
    KEY,
    LEASE_S,
    OTHER,
    account,
    beat,
    end,
    head,
    holder,
    me,
    probe,
    release,
    restate,
    take,
)
from tests.core.claims.sends import told

SPAN = LEASE_S * (1 - RHO) - 0.5
LAPSE = LEASE_S * (1 + 2 * RHO)


def keeper(name: str = "a") -> Keeper:
    """A node that knows the room from its beginning."""
    return Keeper(me(name), Ledger(Bounds()))


def see(node: Keeper, event: ClaimEvent | Restate, now: float) -> list[Fact]:
    """Fold an event; the facts."""
    return node.observe(event, now)[0]


def holding(sent: float = 100.0, echo: float = 101.0) -> Keeper:
    """A node that holds the key at epoch 1."""
    node = keeper()
    node.note_sent(Nonce("n"), sent)
    assert isinstance(see(node, take("$1"), echo)[0], Won)
    return node


def renewed(node: Keeper, now: float) -> Heartbeat:
    """The heartbeat that the node sends then."""
    _, sends = node.due(now)
    (event,) = (told(s, "a", f"$beat{now}") for s in sends if s.type == T_HEARTBEAT)
    assert isinstance(event, Heartbeat)
    return event


def test_the_deadline_counts_from_before_the_send() -> None:
    node = holding(sent=100.0, echo=109.0)
    assert node.holds[KEY, 0] == Hold(KEY, 0, 1, holder().run, LEASE_S, 100.0 + SPAN)


def test_a_take_of_which_it_is_not_known_when_it_was_sent_is_worth_nothing() -> None:
    node = keeper()
    see(node, take("$1"), 50.0)
    assert node.holds[KEY, 0].deadline == 50.0
    assert isinstance(node.due(50.0)[0][0], Ended)


def test_it_renews_a_third_of_the_lease_after_it_sent_and_the_echo_moves_the_deadline() -> None:
    node = holding(sent=100.0)
    assert node.due(109.9) == ([], [])
    assert node.deadline() == 110.0
    event = renewed(node, 110.0)
    assert [(r.key, r.epoch) for r in event.renews] == [(KEY, 1)]
    assert node.holds[KEY, 0].deadline == 100.0 + SPAN, "not yet: nobody has seen it"
    assert see(node, event, 115.0) == [Extended(node.holds[KEY, 0])]
    assert node.holds[KEY, 0].deadline == 110.0 + SPAN


@pytest.mark.parametrize(
    "wrong",
    [
        {"sender": account("b")},
        {"nonce": Nonce("unknown")},
        {"incarnation": Incarnation("a-0")},
        {"renews": ()},
    ],
)
def test_nothing_but_the_own_echo_moves_it(wrong: dict[str, object]) -> None:
    node = holding()
    event = renewed(node, 110.0)
    assert see(node, replace(event, **wrong), 111.0) == []  # type: ignore[arg-type]
    assert node.holds[KEY, 0].deadline == 100.0 + SPAN


def test_an_earlier_echo_that_comes_later_moves_nothing_back() -> None:
    node = holding()
    first, second = renewed(node, 110.0), renewed(node, 121.0)
    see(node, second, 122.0)
    see(node, first, 123.0)
    assert node.holds[KEY, 0].deadline == 121.0 + SPAN


def test_a_passed_deadline_is_never_revived() -> None:
    node = holding()
    event = renewed(node, 110.0)
    late = 100.0 + SPAN
    assert see(node, event, late) == [
        Ended(Hold(KEY, 0, 1, holder().run, LEASE_S, late), "its lease ran out before a renewal came back")
    ]
    assert node.holds == {}
    assert see(node, replace(event, event_id=EventId("$again")), late) == []


def test_a_stranger_s_take_ends_the_hold() -> None:
    node = holding()
    facts = see(node, take("$2", "b", epoch=2, after="$1"), 105.0)
    assert [type(f) for f in facts] == [Freed, Ended, Taken]
    assert node.holds == {}


def test_a_void_take_is_refused_and_ends_nothing() -> None:
    node = holding()
    assert see(node, take("$2", nonce="m"), 105.0) == [Refused(KEY, Nonce("m"))]
    assert (KEY, 0) in node.holds


def test_its_own_release_late_in_the_stream_frees_the_slot_once() -> None:
    node = holding()
    send = node.release(node.holds[KEY, 0], None)
    event = told(send, "a", "$2")
    assert isinstance(event, Release)
    assert [type(f) for f in see(node, event, 106.0)] == [Freed]
    assert see(node, replace(event, event_id=EventId("$3")), 107.0) == []


def test_an_ended_process_holds_nothing_and_never_wins_again() -> None:
    node = holding()
    assert [type(f) for f in see(node, end("$2"), 105.0)] == [Ended, Freed]
    assert node.mine_over
    node.note_sent(Nonce("m"), 105.0)
    facts = see(node, take("$3", epoch=2, after="$2", nonce="m"), 106.0)
    assert [type(f) for f in facts] == [Taken]
    assert node.holds == {}


def test_the_end_of_the_process_before_it_is_not_its_own() -> None:
    node = holding()
    see(node, replace(end("$2"), incarnation=Incarnation("a-0")), 105.0)
    assert not node.mine_over
    assert (KEY, 0) in node.holds


# -- gaps ------------------------------------------------------------------------------------------


def test_after_a_gap_a_holder_renews_at_once_and_its_echo_counts_though_unsure() -> None:
    node = holding()
    node.gap((), 104.0)
    event = renewed(node, 104.0)
    assert event.heads == (), "an unsure node carries no head"
    assert see(node, event, 105.0) == [Extended(node.holds[KEY, 0])]
    assert node.holds[KEY, 0].deadline == 104.0 + SPAN


def test_a_take_over_in_a_gap_ends_the_hold_when_it_becomes_known() -> None:
    node = holding()
    node.gap((), 104.0)
    see(node, beat("$3", "b", (KEY, 2)), 105.0)
    now = carried(KEY, head(2, "$3", holder("b", 2)))
    facts = see(node, beat("$4", "b", (KEY, 2), heads=(now,)), 106.0)
    assert [f.why for f in facts if isinstance(f, Ended)] == [
        "another node took over while this one could not see it"
    ]


def test_a_win_in_a_gap_is_given_back() -> None:
    node = keeper()
    node.gap([KEY], 104.0)
    see(node, probe("$3"), 105.0)
    facts, sends = node.observe(beat("$4", "b", heads=(carried(KEY, head(7, "$3", holder("a", 7))),)), 106.0)
    assert facts == []
    (event,) = (told(send, "a", "$5") for send in sends)
    assert isinstance(event, Release)
    assert (event.epoch, event.outcome) == (7, None)
    assert node.holds == {}


def test_a_win_that_was_seen_is_no_unwanted_one() -> None:
    node = holding()
    node.gap((), 104.0)
    see(node, probe("$3"), 105.0)
    _, sends = node.observe(beat("$4", "b", heads=(carried(KEY, head(1, "$3", holder())),)), 106.0)
    assert sends == []
    assert (KEY, 0) in node.holds


def test_a_fresh_take_is_won_by_its_sender_though_it_was_unsure() -> None:
    node = keeper()
    node.gap([KEY], 100.0)
    see(node, probe("$1"), 101.0)
    node.note_sent(Nonce("n"), 170.0)
    facts, sends = node.observe(take("$2", epoch=9, after="$1", fresh=True, takes=8), 171.0)
    assert [type(f) for f in facts] == [Won]
    assert sends == []
    assert node.holds[KEY, 0].deadline == 170.0 + SPAN


# -- the observer's clock --------------------------------------------------------------------------


def lapse(node: Keeper, now: float) -> float:
    """When the observer may take over."""
    return node.lapses_at(KEY, 0, now)


def test_an_observer_counts_from_its_own_receipt() -> None:
    node = keeper("z")
    assert lapse(node, 5.0) == 5.0, "a free slot may be taken now"
    see(node, take("$1"), 10.0)
    assert lapse(node, 20.0) == 10.0 + LAPSE
    see(node, beat("$2", "a", (KEY, 1)), 30.0)
    assert lapse(node, 31.0) == 30.0 + LAPSE
    see(node, beat("$3", "a", (KEY, 9)), 40.0)
    assert lapse(node, 41.0) == 30.0 + LAPSE, "a void heartbeat is no sign of life"
    see(node, probe("$4", "y"), 50.0)
    assert lapse(node, 51.0) == 30.0 + LAPSE, "nor is a probe"


def test_after_a_restart_its_clocks_start_anew() -> None:
    ledger = Ledger(Bounds())
    ledger.load({KEY: head(1, "$1", holder())}, ())
    node = Keeper(me("z"), ledger)
    assert lapse(node, 1000.0) == 1000.0 + LAPSE
    assert lapse(node, 1010.0) == 1000.0 + LAPSE


def test_after_a_gap_its_clocks_start_anew() -> None:
    node = keeper("z")
    see(node, take("$1"), 10.0)
    node.gap((), 20.0)
    see(node, probe("$2", "y"), 25.0)
    see(node, beat("$3", "y", heads=(carried(KEY, head(1, "$2", holder())),)), 30.0)
    assert lapse(node, 35.0) == 30.0 + LAPSE


def test_a_freed_slot_may_be_taken_at_once() -> None:
    node = keeper("z")
    see(node, take("$1"), 10.0)
    assert see(node, release("$2"), 11.0) == [Freed(KEY, holder(), release("$2"))]
    assert lapse(node, 12.0) == 12.0


# -- what can't be read ------------------------------------------------------------------------------


def rejected(kind: str, *, redacted: bool, state_key: str | None = KEY, sender: str = "x") -> Rejected:
    """An illegible event."""
    return Rejected(EventId("$r"), account(sender), 0, kind, "why", state_key, redacted)


@pytest.mark.parametrize(
    ("event", "gap", "unsure"),
    [
        (rejected(T_LOCK, redacted=True), True, {KEY}),
        (rejected(T_LOCK, redacted=False), False, set()),
        (rejected(T_HEARTBEAT, redacted=True, state_key=None), True, {KEY, OTHER}),
        (rejected(T_HEARTBEAT, redacted=False, state_key=None), False, set()),
        (rejected(T_LOCK, redacted=True, state_key="no key"), False, set()),
        (rejected("m.room.message", redacted=True, state_key=None), False, set()),
    ],
)
def test_an_illegible_event_is_nothing_unless_others_saw_more_of_it(
    event: Rejected, gap: bool, unsure: set[str]
) -> None:
    node = holding()
    see(node, take("$o", "b", key=OTHER), 102.0)
    assert node.reject(event, 103.0) is gap
    assert {key for key in (KEY, OTHER) if node.ledger.is_unsure(key)} == unsure
    assert (KEY, 0) in node.holds, "a holder needs no proof"
    if gap:
        assert renewed(node, 103.0)


def test_the_state_is_mended_after_an_illegible_lock_event() -> None:
    node = holding()
    node.reject(rejected(T_LOCK, redacted=False), 103.0)
    (send,) = node.due(103.0)[1]
    assert told(send, "a", "$9") == restate("$9", "a", node.ledger.sure(KEY) or Head())


# -- bounds ------------------------------------------------------------------------------------------


def test_what_was_sent_is_remembered_within_bounds() -> None:
    node = holding()
    for n in range(3 * SENT_MAX):
        node.note_sent(Nonce(f"x{n}"), 101.0)
    assert len(node._sent) == SENT_MAX


def test_a_hold_is_renewed_in_time_though_another_has_a_longer_lease() -> None:
    node = holding(sent=100.0)
    node.note_sent(Nonce("m"), 101.0)
    see(node, take("$2", key=OTHER, lease_s=6, nonce="m"), 101.5)
    assert node.deadline() == 103.5
    event = renewed(node, 103.5)
    assert {r.key for r in event.renews} == {KEY, OTHER}, "one heartbeat renews everything"
    assert node.deadline() == 105.5


def test_a_renewal_that_waits_unsent_is_replaced_by_the_next() -> None:
    node = holding()
    marks = [send.coalesce for now in (110.0, 121.0) for send in node.due(now)[1]]
    assert marks == ["heartbeat 0", "heartbeat 0"]


def test_the_echo_is_measured_as_it_goes() -> None:
    node = keeper()
    for n in range(30):
        node.note_sent(Nonce(f"m{n}"), n * 10.0)
        see(node, probe(f"$p{n}", "a", nonce=f"m{n}"), n * 10.0 + 2.0)
    assert node.echo_s == pytest.approx(2.0, abs=0.01)
    see(node, probe("$q", "b", nonce="m29"), 900.0)
    assert node.echo_s == pytest.approx(2.0, abs=0.01)
    steps = ((1000.0, 2.5, 2.5), (1010.0, 1.0, 2.05), (1020.0, 9.0, 3.0))
    for sent, echo_s, known_s in steps:  # slower at once, faster by and by, a limit is no echo
        node.note_sent(Nonce(f"m{sent}"), sent)
        see(node, probe(f"$p{sent}", "a", nonce=f"m{sent}"), sent + echo_s)
        assert node.echo_s == pytest.approx(known_s)


def test_who_takes_its_own_lapsed_slot_again_counts_the_living_too() -> None:
    node, late = keeper("z"), LAPSE + 10.0
    runs = [RunId(f"$r{slot}") for slot in range(3)]
    after = None
    for slot, run in enumerate(runs):  # three at once, while the DAG allowed it
        see(
            node,
            take(f"${slot}", "abc"[slot], epoch=slot + 1, after=after, slot=slot, run=run),
            40.0 * (slot > 0),
        )
        after = f"${slot}"
    assert node.slot_for(KEY, runs[0], 2, late)[0] is None
    assert node.slot_for(KEY, runs[0], 3, late)[0] == 0
