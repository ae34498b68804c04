"""What a node is sure of: gaps, carried heads, the tail, fresh takes; and never of what is not so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.claims import ledger as ledgers
from cisbot.core.claims.ledger import Adopted, Judged, Ledger
from cisbot.core.claims.state import FREE, Accepted, Bounds, Void, VoidReason, carried
from cisbot.core.ids import ClaimKey, RunId
from cisbot.core.room.events import CarriedHead, ClaimEvent, Restate
from cisbot.core.room.wire import EPOCH_MAX
from tests.core.claims.made import (
    KEY,
    MEMORY,
    OTHER,
    beat,
    end,
    head,
    holder,
    probe,
    release,
    restate,
    take,
    write,
)  # fmt: skip

BOUNDS = Bounds(lease_s_max=60, epoch_step_max=100)


def followed(*events: ClaimEvent | Restate) -> Ledger:
    """A ledger that saw all of them."""
    ledger = Ledger(BOUNDS)
    feed(ledger, events)
    return ledger


def feed(ledger: Ledger, events: Iterable[ClaimEvent | Restate]) -> None:
    """Fold them."""
    for event in events:
        ledger.observe(event)


def lost(*keys: ClaimKey) -> Ledger:
    """A ledger that knows no more than that these keys had lock events."""
    ledger = Ledger(BOUNDS)
    ledger.gap(keys or (KEY,))
    return ledger


def head_of(ledger: Ledger, key: ClaimKey = KEY) -> CarriedHead:
    """The head to carry."""
    found = ledger.carried(key)
    assert found is not None
    return found


def test_a_key_that_nobody_named_is_sure_and_free() -> None:
    ledger = lost(OTHER)
    assert ledger.sure(KEY) == FREE
    assert ledger.sure(OTHER) is None


def test_after_a_gap_all_known_keys_are_unsure_and_those_of_the_state() -> None:
    ledger = followed(take("$1"))
    ledger.dirty.clear()
    ledger.gap([OTHER])
    assert [ledger.is_unsure(key) for key in (KEY, OTHER, MEMORY)] == [True, True, False]
    assert list(ledger.known()) == sorted([KEY, OTHER])
    assert ledger.dirty == {KEY, OTHER}
    assert ledger.carried(KEY) is None
    assert ledger.gaps == 1


def test_an_unsure_key_is_not_judged() -> None:
    assert lost().observe(take("$1", after="$0")) == []


def test_a_head_whose_after_was_seen_makes_sure_and_what_came_since_counts() -> None:
    sender = followed(take("$1"))
    told = head_of(sender)
    ledger = lost()
    feed(ledger, [take("$1"), release("$2"), take("$3", "b", epoch=2, after="$2")])
    found = ledger.observe(restate("$4", "b", sender.sure(KEY) or FREE))
    assert found == [Adopted(KEY, ledger.sure(KEY) or FREE)]
    assert ledger.sure(KEY) == replace(head(2, "$3", holder("b", 2)), takes=2)
    assert told.takes == 1


@pytest.mark.parametrize("after", ["$before the gap", None])
def test_a_head_whose_after_was_not_seen_proves_nothing(after: str | None) -> None:
    ledger = lost()
    ledger.observe(beat("$2", "a", (KEY, 1)))
    assert ledger.observe(beat("$3", "b", heads=(carried(KEY, head(9, after)),))) == []
    assert ledger.is_unsure(KEY)


def test_a_head_for_one_key_says_nothing_of_another() -> None:
    ledger = lost(KEY, OTHER)
    feed(ledger, [probe("$1", "z", KEY, OTHER), beat("$2", "a", heads=(carried(KEY, head(3, "$1")),))])
    assert ledger.sure(KEY) == head(3, "$1")
    assert ledger.is_unsure(OTHER)


def test_the_carrier_itself_is_judged_on_top_of_its_head() -> None:
    ledger = lost()
    feed(ledger, [probe("$1")])
    found = ledger.observe(take("$2", "b", epoch=4, after="$1", carries=carried(KEY, head(3, "$1"))))
    assert [type(f) for f in found] == [Adopted, Judged]
    now = ledger.sure(KEY)
    assert now is not None
    assert now.holders == (holder("b", 4),)


def test_events_before_a_gap_are_no_proof_after_it() -> None:
    ledger = lost()
    ledger.observe(probe("$1"))
    ledger.gap()
    assert ledger.since(KEY, probe("$1").event_id) is None
    assert ledger.observe(beat("$2", "a", heads=(carried(KEY, head(3, "$1")),))) == []


def test_one_missed_event_makes_its_keys_unsure_and_the_tail_worthless() -> None:
    ledger = lost(OTHER)
    feed(ledger, [take("$1"), probe("$2", "z", OTHER)])
    ledger.missed([KEY])
    assert ledger.is_unsure(KEY)
    assert ledger.observe(beat("$3", "a", heads=(carried(OTHER, head(3, "$2")),))) == []


def test_the_tail_is_bounded_and_what_was_cut_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "TAIL_MAX", 40)
    ledger = lost()
    feed(ledger, (beat(f"${n}", "a", *[(KEY, 1)] * 9) for n in range(50)))
    kept = [n for n in range(50) if ledger.since(KEY, beat(f"${n}").event_id) is not None]
    assert 0 < len(kept) <= 4
    assert kept[-1] == 49
    assert ledger.observe(beat("$x", "b", heads=(carried(KEY, head(3, "$0")),))) == []
    assert ledger.observe(beat("$y", "b", heads=(carried(KEY, head(3, "$49")),)))


def test_the_tail_holds_nothing_of_sure_keys_and_no_heads() -> None:
    ledger = lost()
    feed(ledger, [take("$1", key=OTHER), beat("$2", "a", (KEY, 1), heads=(carried(OTHER, head(9, "$9")),))])
    assert ledger.since(KEY, take("$1").event_id) is None
    feed(ledger, [end("$3")])
    assert ledger.since(KEY, beat("$2").event_id) == [end("$3")]


FRESH = take("$2", "b", epoch=8, after="$1", fresh=True, takes=7)


def test_a_fresh_take_makes_those_sure_who_saw_its_probe_and_nothing_else() -> None:
    ledger = lost()
    ledger.observe(probe("$1"))
    found = ledger.observe(FRESH)
    assert isinstance(found[0], Adopted)
    assert isinstance(found[1], Judged)
    assert found[1].verdict == Accepted(holder("b", 8))
    now = ledger.sure(KEY)
    assert now is not None
    assert (now.epoch, now.after, now.holders, now.takes) == (8, "$2", (holder("b", 8),), 8)


@pytest.mark.parametrize(
    "between",
    [
        [],
        [probe("$1", "z", OTHER)],
        [probe("$1"), beat("$s", "a", (KEY, 7))],
        [probe("$1"), release("$s", epoch=7)],
        [probe("$1"), end("$s", "c")],
        [probe("$1"), probe("$s", "y")],
        [probe("$1"), take("$s", "c", epoch=8, after="$x")],
        [beat("$1", "a", (KEY, 7))],
    ],
    ids=["no probe", "other key", "heartbeat", "release", "end", "probe", "take", "no probe either"],
)
def test_a_spoilt_or_unseen_probe_makes_nobody_sure(between: list[ClaimEvent]) -> None:
    ledger = lost()
    feed(ledger, [*between, FRESH])
    assert ledger.is_unsure(KEY)


def test_what_matters_to_other_keys_spoils_nothing() -> None:
    ledger = lost(KEY, OTHER)
    feed(ledger, [probe("$1"), take("$s", key=OTHER, after="$x"), FRESH])
    assert ledger.sure(KEY) is not None


@pytest.mark.parametrize(
    "bad",
    [
        take("$2", "b", epoch=8, after="$1", fresh=True, takes=7, lease_s=61),
        take("$2", "b", epoch=801, after="$1", fresh=True, takes=7),
        take("$2", "b", epoch=EPOCH_MAX, after="$1", fresh=True),
    ],
    ids=["lease", "epoch", "huge"],
)
def test_a_fresh_take_out_of_bounds_makes_nobody_sure(bad: ClaimEvent) -> None:
    ledger = lost()
    feed(ledger, [probe("$1"), bad])
    assert ledger.is_unsure(KEY)


def test_fresh_writes_likewise() -> None:
    ledger = lost(MEMORY)
    feed(ledger, [probe("$1", "z", MEMORY), write("$2", version=4, after="$1", fresh=True, takes=3)])
    now = ledger.sure(MEMORY)
    assert now is not None
    assert (now.epoch, now.value) == (4, "v")


def test_a_head_too_big_for_an_event_is_not_carried() -> None:
    ledger = lost()
    long = RunId("$" + "r" * 300)
    many = [holder("x" * 60, slot=n, run=long) for n in range(64)]
    ledger.load({KEY: head(1, "$1", *many)}, ())
    assert ledger.sure(KEY) is not None
    assert ledger.carried(KEY) is None


def test_a_stored_ledger_knows_what_it_knew_but_has_no_tail() -> None:
    first = followed(take("$1"))
    ledger = Ledger(BOUNDS)
    ledger.load({KEY: first.sure(KEY) or FREE}, [OTHER])
    assert ledger.sure(KEY) == first.sure(KEY)
    assert ledger.is_unsure(OTHER)
    assert ledger.observe(take("$2", "b", epoch=2)) [0] == Judged(
        KEY, take("$2", "b", epoch=2), Void(VoidReason.NOT_AFTER), ledger.sure(KEY) or FREE
    )  # fmt: skip


Made = tuple[str, str, bool, bool]
STREAMS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "release", "beat", "probe", "end", "fresh"]),
        st.sampled_from(["a", "b"]),
        st.booleans(),  # names the true head's `after`
        st.booleans(),  # carries the true head
    ),
    max_size=14,
)


def made(n: int, what: Made, true: Ledger) -> ClaimEvent:
    """An event as an honest sender that is sure could have sent it, or one that came too late."""
    kind, name, follows, tells = what
    now = true.sure(KEY) or FREE
    told = carried(KEY, now) if tells and now.after else None
    after = now.after if follows else None
    match kind:
        case "take":
            return take(f"${n}", name, epoch=now.epoch + 1, after=after, carries=told)
        case "release":
            return release(f"${n}", name, epoch=now.epoch, carries=told)
        case "beat":
            return beat(f"${n}", name, (KEY, now.epoch), heads=(told,) if told else ())
        case "probe":
            return probe(f"${n}")
        case "end":
            return end(f"${n}", name)
        case _:  # the sender read back, so it knows the epoch, and how many takes there were
            takes = now.takes + now.later
            return take(f"${n}", name, epoch=now.epoch + 1, after=after, fresh=True, takes=takes)


@given(STREAMS, st.integers(0, 14))
def test_who_missed_the_beginning_is_never_sure_of_what_is_not_so(stream: list[Made], gap: int) -> None:
    true, late = Ledger(BOUNDS), Ledger(BOUNDS)
    for n, what in enumerate(stream):
        event = made(n, what, true)
        true.observe(event)
        if n == gap:
            late.gap([KEY])
        elif n > gap:
            late.observe(event)
        if n >= gap and not late.is_unsure(KEY):
            assert late.sure(KEY) == true.sure(KEY)
