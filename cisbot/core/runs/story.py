"""What the lock events that refer to a run tell of it, in no order that matters. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cisbot.core.ids import UserId
from cisbot.core.room.events import Rejected, Release, RoomEvent, Take


def begun_before(
    story: Iterable[RoomEvent | Rejected], own: Take, is_node: Callable[[UserId], bool]
) -> Take | None:
    """The last lock request before `own` that may have begun the run and was not given back.

    Whether it was accepted can't be told from here: in doubt the run counts as begun.
    """
    events = tuple(story)
    back = {(e.sender, e.epoch) for e in events if isinstance(e, Release) and e.outcome is None}
    takes = [
        e
        for e in events
        if isinstance(e, Take)
        and e.key == own.key
        and e.epoch < own.epoch
        and (e.who.account, e.who.incarnation) != (own.who.account, own.who.incarnation)
        and (e.who.account, e.epoch) not in back
        and is_node(e.sender)
    ]
    return max(takes, key=lambda e: e.epoch, default=None)
