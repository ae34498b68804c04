"""The rule of acceptance, row by row of the protocol's table, and what holds for every stream."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.claims.fold import concerns, fold, judge, touch
from cisbot.core.claims.state import FREE, Accepted, Bounds, Head, Void, VoidReason
from cisbot.core.room.events import ClaimEvent, MemoryWrite, Take
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
    take,
    write,
)  # fmt: skip

BOUNDS = Bounds(lease_s_max=60, epoch_step_max=100)
A, B = holder("a", 5), holder("b", 4, slot=1)
HELD = head(5, "$5", A, B)
A2 = holder("a", 4, slot=2)
TWICE = head(5, "$5", A, A2)
BARE = head(5, "$5")

ACCEPTED: list[tuple[str, Head, ClaimEvent, Head, Accepted]] = [
    ("the first take", FREE, take("$1"), head(1, "$1", holder()), Accepted(holder())),
    (
        "a take of a free slot",
        BARE, take("$6", epoch=6, after="$5"), head(6, "$6", holder("a", 6)), Accepted(holder("a", 6)),
    ),
    (
        "a take over: the slot's holder loses it, others stay",
        HELD, take("$6", "c", epoch=6, after="$5"), head(6, "$6", holder("c", 6), B),
        Accepted(holder("c", 6), freed=(A,)),
    ),
    (
        "a fresh take empties all slots",
        HELD, take("$6", "c", epoch=6, after="$5", fresh=True), head(6, "$6", holder("c", 6)),
        Accepted(holder("c", 6), freed=(A, B)),
    ),
    (
        "a take may go a step further",
        BARE, take("$6", epoch=105, after="$5"), head(105, "$6", holder("a", 105)),
        Accepted(holder("a", 105)),
    ),
    ("a release", HELD, release("$6", epoch=5), head(5, "$6", B), Accepted(freed=(A,))),
    ("a heartbeat", HELD, beat("$6", "a", (KEY, 5)), head(5, "$6", A, B), Accepted(renewed=(A,))),
    (
        "a heartbeat that names two epochs, one of them a holder's",
        HELD, beat("$6", "a", (KEY, 3), (KEY, 5)), head(5, "$6", A, B), Accepted(renewed=(A,)),
    ),
    (
        "a heartbeat that renews two slots", TWICE, beat("$6", "a", (KEY, 5), (KEY, 4)),
        head(5, "$6", A, A2), Accepted(renewed=(A2, A)),
    ),
    ("an end", HELD, end("$6", "b"), head(5, "$6", A), Accepted(freed=(B,))),
    ("a probe", HELD, probe("$6"), head(5, "$6", A, B), Accepted()),
    (
        "a write", head(2, "$2", value="old"), write("$3", version=3, after="$2", value="new"),
        head(3, "$3", value="new"), Accepted(),
    ),
    (
        "a write of nothing", head(2, "$2", value="old"), write("$3", version=3, after="$2", value=None),
        head(3, "$3"), Accepted(),
    ),
]  # fmt: skip

VOID: list[tuple[str, Head, ClaimEvent, VoidReason]] = [
    ("another came first", HELD, take("$6", epoch=6, after="$4"), VoidReason.NOT_AFTER),
    ("it names nothing", HELD, take("$6", epoch=6), VoidReason.NOT_AFTER),
    ("there is nothing yet", FREE, take("$6", after="$5"), VoidReason.NOT_AFTER),
    ("the same epoch", HELD, take("$6", epoch=5, after="$5"), VoidReason.EPOCH_NOT_HIGHER),
    ("a lower epoch", HELD, take("$6", epoch=4, after="$5", fresh=True), VoidReason.EPOCH_NOT_HIGHER),
    ("too far", HELD, take("$6", epoch=106, after="$5"), VoidReason.EPOCH_TOO_FAR),
    ("too far though fresh", HELD, take("$6", epoch=106, after="$5", fresh=True), VoidReason.EPOCH_TOO_FAR),
    ("too long", HELD, take("$6", epoch=6, after="$5", lease_s=61), VoidReason.LEASE_TOO_LONG),
    ("another's release", HELD, release("$6", "c", epoch=5), VoidReason.NOT_A_HOLDER),
    ("a release of an older epoch", HELD, release("$6", epoch=4), VoidReason.NOT_A_HOLDER),
    ("a release of a free key", BARE, release("$6", epoch=5), VoidReason.NOT_A_HOLDER),
    ("another's heartbeat", HELD, beat("$6", "c", (KEY, 5)), VoidReason.NOT_A_HOLDER),
    ("a heartbeat of an older epoch", HELD, beat("$6", "a", (KEY, 4)), VoidReason.NOT_A_HOLDER),
    ("an end of one who holds nothing", HELD, end("$6", "c"), VoidReason.NOT_A_HOLDER),
    ("a probe of an untouched key", FREE, probe("$6"), VoidReason.NEVER_LOCKED),
    ("a write that came second", head(2, "$2"), write("$4", version=3, after="$1"), VoidReason.NOT_AFTER),
    ("an old version", head(2, "$2"), write("$4", version=2, after="$2"), VoidReason.EPOCH_NOT_HIGHER),
    ("a version too far", head(2, "$2"), write("$4", version=103, after="$2"), VoidReason.EPOCH_TOO_FAR),
]


def counted(before: Head, event: ClaimEvent, after: Head) -> Head:
    """The expected head with its takes counted, which the tables leave out."""
    return replace(after, takes=before.takes + isinstance(event, Take | MemoryWrite))


@pytest.mark.parametrize(
    ("before", "event", "after", "verdict"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_accepted(before: Head, event: ClaimEvent, after: Head, verdict: Accepted) -> None:
    assert fold(KEY, before, event, BOUNDS) == (counted(before, event, after), verdict)


@pytest.mark.parametrize(("before", "event", "why"), [r[1:] for r in VOID], ids=[r[0] for r in VOID])
def test_void(before: Head, event: ClaimEvent, why: VoidReason) -> None:
    after, verdict = fold(KEY, before, event, BOUNDS)
    assert verdict == Void(why)
    assert after.says() == before.says()
    assert after.after == before.after


def test_an_incarnation_holds_nothing_of_the_one_before_it() -> None:
    restarted = head(5, "$5", A)
    again = replace(end("$6", "a"), incarnation=B.incarnation)
    assert fold(KEY, restarted, again, BOUNDS)[1] == Void(VoidReason.NOT_A_HOLDER)


def test_an_end_frees_all_slots_of_its_incarnation() -> None:
    both = head(5, "$5", holder("a", 4), holder("a", 5, slot=1))
    assert fold(KEY, both, end("$6", "a"), BOUNDS)[0].holders == ()


def test_void_lock_events_touch_a_key_and_then_probes_count() -> None:
    after, _ = fold(KEY, FREE, release("$1"), BOUNDS)
    assert after.touched
    assert fold(KEY, after, probe("$2"), BOUNDS)[1] == Accepted()
    assert touch(FREE).touched


def test_takes_are_counted_void_ones_too_apart_from_those_before_the_last_change() -> None:
    now = FREE
    for event in (take("$1"), take("$2"), take("$3", epoch=9, after="$x")):
        now, _ = fold(KEY, now, event, BOUNDS)
    assert (now.takes, now.later) == (1, 2)
    now, _ = fold(KEY, now, beat("$4", "a", (KEY, 1)), BOUNDS)
    assert (now.takes, now.later) == (3, 0)


@pytest.mark.parametrize(("epoch", "good"), [(101, True), (300, True), (301, False)])
def test_a_fresh_take_may_be_above_every_take_that_the_key_ever_had(epoch: int, good: bool) -> None:
    now = replace(head(1, "$1"), takes=1, later=1)
    verdict = judge(KEY, now, take("$9", epoch=epoch, after="$1", fresh=True), BOUNDS)
    assert isinstance(verdict, Accepted) is good


@pytest.mark.parametrize(
    ("event", "keys"),
    [
        (take("$1"), {KEY}),
        (release("$1", key=OTHER), {OTHER}),
        (write("$1"), {MEMORY}),
        (beat("$1", "a", (KEY, 1), (OTHER, 2)), {KEY, OTHER}),
        (beat("$1", "a"), set()),
        (probe("$1", "z", OTHER), {OTHER}),
        (end("$1"), {KEY, OTHER, MEMORY}),
    ],
)
def test_what_could_matter_to_a_key(event: ClaimEvent, keys: set[str]) -> None:
    assert {key for key in (KEY, OTHER, MEMORY) if concerns(event, key)} == keys


NAMES, EPOCHS = st.sampled_from(["a", "b"]), st.integers(1, 4)
AFTERS = st.none() | st.integers(0, 11).map(lambda n: f"${n}")
KINDS = st.one_of(
    st.builds(
        lambda name, epoch, after, slot, fresh: lambda event: take(
            event, name, epoch=epoch, after=after, slot=slot, fresh=fresh
        ),
        NAMES, EPOCHS, AFTERS, st.integers(0, 1), st.booleans(),
    ),
    st.builds(lambda name, epoch: lambda event: release(event, name, epoch=epoch), NAMES, EPOCHS),
    st.builds(lambda name, epoch: lambda event: beat(event, name, (KEY, epoch)), NAMES, EPOCHS),
    st.builds(lambda name: lambda event: end(event, name), NAMES),
    st.just(probe),
)  # fmt: skip


@given(st.lists(KINDS, max_size=12))
def test_of_every_stream(made: list) -> None:  # type: ignore[type-arg]
    now, granted = FREE, set()
    for n, kind in enumerate(made):
        event = kind(f"${n}")
        after, verdict = fold(KEY, now, event, BOUNDS)
        if isinstance(verdict, Accepted):
            assert after.after == event.event_id
            assert after.epoch >= now.epoch
            if verdict.granted is not None:
                assert verdict.granted.epoch not in granted, "one execution per epoch"
                granted.add(verdict.granted.epoch)
        else:
            assert (after.says(), after.after) == (now.says(), now.after)
        slots = [h.slot for h in after.holders]
        assert slots == sorted(set(slots))
        assert all(h.epoch <= after.epoch for h in after.holders)
        now = after
