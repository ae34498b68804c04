"""Read in another order than the stream's: what forked is put where later events tell that it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cisbot.core.audit import order
from cisbot.core.audit.found import Breach, HoldEnd, Remark, Report
from cisbot.core.room.events import Outcome, RoomEvent
from tests.core.audit.history import KEY, LEASE_S, History

Fork = Callable[[History], tuple[RoomEvent, RoomEvent]]


def two_takes(h: History) -> tuple[RoomEvent, RoomEvent]:
    """The first wins; it renews and releases."""
    forked = h.take("a"), h.rival("b")
    h.beat("a")
    h.release("a")
    return forked


def a_take_whose_holder_only_renews(h: History) -> tuple[RoomEvent, RoomEvent]:
    """No head tells of it, but who renews has seen its own win."""
    forked = h.take("a"), h.rival("b")
    h.beat("a", heads=())
    return forked


def a_release_and_a_probe(h: History) -> tuple[RoomEvent, RoomEvent]:
    """The next take stands on what came last."""
    h.take("a")
    forked = h.release("a"), h.probe("c")
    h.take("b", "$s")
    h.beat("b", 2)
    return forked


def a_renewal_and_a_release_of_another_slot(h: History) -> tuple[RoomEvent, RoomEvent]:
    """The next take stands on the release."""
    h.take("a")
    h.take("b", "$s", slot=1)
    seen = h.head()
    forked = h.beat("a", heads=()), h.release("b", 2, run="$s", seen=seen)
    h.take("c", "$t", slot=1)
    h.beat("c", 3)
    return forked


def an_end_and_a_renewal(h: History) -> tuple[RoomEvent, RoomEvent]:
    """The renewal of one slot comes first, the end of the other's process moves the head."""
    h.take("a")
    h.take("b", "$s", slot=1)
    forked = h.beat("a", heads=()), h.end("b")
    h.take("c", "$t", slot=1)
    h.beat("c", 3)
    return forked


def a_late_renewal_and_a_takeover(h: History) -> tuple[RoomEvent, RoomEvent]:
    """The renewal saves the claim: the take on the head before it is void."""
    take = h.take("a")
    h.wait(LEASE_S)
    forked = h.beat("a", heads=()), h.take("b", epoch=2, after=take.event_id)
    h.beat("a")
    h.release("a")
    return forked


FORKS = [
    two_takes, a_take_whose_holder_only_renews, a_release_and_a_probe,
    a_renewal_and_a_release_of_another_slot, an_end_and_a_renewal, a_late_renewal_and_a_takeover,
]  # fmt: skip


def told(fork: Fork, *, swapped: bool) -> tuple[Report, bool]:
    history = History()
    one, other = fork(history)
    if swapped:
        history.swap(one, other)
    report = history.report()
    return report, any(finding.kind is Remark.ORDER_MENDED for finding in report.remarks)


@pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.__name__)
def test_the_order_of_the_stream_is_found_again(fork: Fork) -> None:
    report, mended = told(fork, swapped=False)
    assert (report.breaches, mended) == ((), False)
    swapped, mended = told(fork, swapped=True)
    assert swapped.breaches == ()
    assert mended
    assert {(hold.event, hold.end) for hold in swapped.holds} == {(h.event, h.end) for h in report.holds}
    assert {void.event for void in swapped.voids} == {void.event for void in report.voids}


@pytest.mark.parametrize("fork", FORKS, ids=lambda fork: fork.__name__)
def test_without_that_it_would_be_called_inconsistent(fork: Fork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order, "REPAIRS_MAX", 0)
    assert told(fork, swapped=True)[0].breaches


def test_what_is_too_far_apart_did_not_fork() -> None:
    history = History()
    take = history.take("a")
    history.wait(order.FORK_MS / 1000)
    rival = history.rival("b")
    history.beat("a")
    history.swap(take, rival)
    assert not history.report().consistent


def test_an_event_is_never_put_before_what_it_names() -> None:
    history = History()
    take = history.take("a")
    release = history.release("a")
    history.take("b", "$s")
    history.swap(take, release)  # no homeserver lists them so
    assert {finding.kind for finding in history.report().breaches} >= {Breach.HEAD_DIFFERS}


def test_what_nothing_proves_is_said() -> None:
    history = History()
    won = history.take("a")
    history.rival("b")
    (remark,) = history.report().remarks
    assert (remark.kind, remark.event) == (Remark.ORDER_UNPROVEN, won.event_id)


def test_a_carried_head_proves_the_order() -> None:
    history = History()
    history.take("a")
    history.rival("b")
    history.beat("a")
    assert history.report().remarks == ()


def test_contradictions_without_end_end() -> None:
    history = History()
    history.take("a")
    history.rival("b")
    head = history.head()
    lies = [history.rival(f"x{n}") for n in range(40)]
    for void in lies:
        history.beat("c", 0, heads=(head.__class__(KEY, 1, void.event_id, head.holders),))
    report = history.report()
    assert len(report.breaches) >= 40
    assert [hold.end for hold in report.holds] == [HoldEnd.LAPSED]
    assert report.holds[0].outcome is not Outcome.SUCCEEDED
