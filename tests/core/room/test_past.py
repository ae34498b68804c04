"""Reading back: never below an accepted epoch, and never so high that a fold refuses what comes next."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.claims.fold import fold
from cisbot.core.claims.state import FREE, Accepted, Bounds, Head, carried
from cisbot.core.ids import EventId
from cisbot.core.room.events import CarriedHead, ClaimEvent, Rejected, Restate
from cisbot.core.room.past import Highest, Past
from cisbot.core.room.wire import EPOCH_MAX, T_LOCK
from tests.core.claims.made import KEY, MEMORY, OTHER, account, head, probe, release, restate, take, write

STEP = 100


def read(events: Sequence[ClaimEvent | Restate | Rejected], key: str = KEY) -> tuple[Highest, int]:
    """What a reading of this stream finds, and how many events it took."""
    past = Past(KEY if key == KEY else MEMORY, STEP)
    for count, event in enumerate(reversed(events), start=1):
        if past.reaches(event):
            return past.highest(), count
    return past.highest(), len(events)


def at(epoch: int, after: str, takes: int) -> CarriedHead:
    """A carried head."""
    return CarriedHead(KEY, epoch, EventId(after), (), None, takes)


def test_nothing() -> None:
    assert read([]) == (Highest(0, 0), 0)


def test_the_highest_of_all_void_ones_too() -> None:
    events: list[ClaimEvent] = [
        take("$1"), take("$2", epoch=2, after="$1"), take("$3", epoch=3, after="$1")
    ]  # fmt: skip
    assert read(events) == (Highest(3, 3), 3)


@pytest.mark.parametrize("huge", [301, 2**40, EPOCH_MAX])
def test_what_no_fold_can_have_accepted_does_not_count(huge: int) -> None:
    events = [take("$1"), take("$2", "evil", epoch=huge, after="$x"), take("$3", epoch=2, after="$1")]
    assert read(events)[0] == Highest(2, 3)


def test_a_jump_that_may_have_been_accepted_counts() -> None:
    assert read([take("$1"), take("$2", epoch=101, after="$1")])[0].epoch == 101


def test_it_ends_at_what_a_head_names() -> None:
    old: list[ClaimEvent] = [take(f"$old{n}", epoch=n + 1) for n in range(7)]
    since: list[ClaimEvent] = [
        release("$r", epoch=7),
        take("$8", epoch=8, after="$r", carries=at(7, "$r", 7)),
        take("$lost", "b", epoch=8, after="$r", carries=at(7, "$r", 7)),
    ]
    assert read([*old, *since]) == (Highest(8, 9), 3)


def test_it_does_not_end_at_what_a_head_of_another_key_names() -> None:
    other = CarriedHead(OTHER, 9, EventId("$2"), ())
    events = [take("$1", epoch=5), take("$2", epoch=4), take("$3", key=OTHER, epoch=10, carries=other)]
    assert read(events) == (Highest(5, 2), 3)


def test_the_head_of_a_restatement_ends_it_too() -> None:
    events: list[ClaimEvent | Restate] = [
        take("$1", epoch=50),
        release("$2", epoch=50),
        restate("$3", "b", head(50, "$2")),
    ]
    assert read(events) == (Highest(50, 1), 2)


def test_a_head_that_names_nothing_does_not_end_it() -> None:
    assert read([take("$1", epoch=5), restate("$2", "b", FREE)]) == (Highest(5, 1), 2)


def test_an_illegible_event_may_be_what_a_head_names_and_is_nothing_else() -> None:
    gone = Rejected(EventId("$2"), account("a"), 0, T_LOCK, "redacted", KEY, True)
    assert read([take("$1", epoch=9), gone]) == (Highest(9, 1), 2)
    assert read([take("$1", epoch=9), gone, restate("$3", "b", head(9, "$2"))])[1] == 2


def test_memory() -> None:
    assert read([write("$1", version=1), write("$2", version=2, after="$1")], MEMORY)[0] == Highest(2, 2)


Sent = tuple[str, str, int, bool, bool, int]
SENT = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "release", "probe"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([1, 1, 1, 2, STEP, STEP + 1, 2 * STEP, 7 * STEP, 2**40]),  # above the head's
        st.booleans(),  # names the head's `after`
        st.booleans(),  # fresh
        st.integers(0, 3),  # how many events ago its sender knew the head that it carries; 0: none
    ),
    max_size=14,
)


@given(SENT)
def test_a_fresh_take_above_it_is_above_all_accepted_and_is_accepted(sent: list[Sent]) -> None:
    bounds, now = Bounds(epoch_step_max=STEP), FREE
    heads: list[Head] = [FREE]
    events: list[ClaimEvent] = []
    for n, (kind, name, more, follows, fresh, ago) in enumerate(sent):
        known = heads[-ago] if 0 < ago <= len(heads) else FREE
        carries = carried(KEY, known) if known.after else None
        after = now.after if follows else EventId("$elsewhere")
        event: ClaimEvent
        match kind:
            case "take":
                epoch = min(now.epoch + more, EPOCH_MAX)
                event = take(f"${n}", name, epoch=epoch, after=after, fresh=fresh, carries=carries)
            case "release":
                event = release(f"${n}", name, epoch=now.epoch, carries=carries)
            case _:
                event = probe(f"${n}")
        now, _ = fold(KEY, now, event, bounds)
        heads.append(now)
        events.append(event)
    found, _ = read(events)
    assert found.epoch >= now.epoch
    asked, _ = fold(KEY, now, probe("$asked"), bounds)
    fresh_take = take("$fresh", epoch=found.epoch + 1, after=asked.after, fresh=True, takes=found.takes)
    assert isinstance(fold(KEY, asked, fresh_take, bounds)[1], Accepted)
    assert found.epoch + 1 <= STEP * (found.takes + 1)
