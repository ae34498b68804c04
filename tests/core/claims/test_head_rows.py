"""Heads survive the store whole, with what was known of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.claims.rows import head_from_row, head_to_row
from cisbot.core.claims.state import Head
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, RunId, UserId
from cisbot.core.room.events import Holder

TEXT = st.text(max_size=30)
NUMBER = st.integers(0, 2**53)
HOLDERS = st.builds(
    Holder,
    slot=st.integers(0, 63),
    account=TEXT.map(UserId),
    node=TEXT.map(NodeId),
    incarnation=TEXT.map(Incarnation),
    epoch=NUMBER,
    run=TEXT.map(RunId),
    lease_s=NUMBER,
)
HEADS = st.builds(
    Head,
    epoch=NUMBER,
    after=st.none() | TEXT.map(EventId),
    holders=st.lists(HOLDERS, max_size=3).map(tuple),
    value=st.none() | TEXT,
    touched=st.booleans(),
    takes=NUMBER,
    later=NUMBER,
)


@given(TEXT.map(ClaimKey), HEADS, st.booleans())
def test_a_head_comes_back_as_it_was(key: ClaimKey, head: Head, sure: bool) -> None:
    assert head_from_row(head_to_row(key, head, sure=sure).row) == (key, head, sure)
