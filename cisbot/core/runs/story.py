"""What lock events tell of runs: those that refer to one, and those that the room's state names. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cisbot.core.ids import RunId, UserId
from cisbot.core.room.events import LockEvent, Rejected, Release, RoomEvent, Take

OPEN_ASKED_MAX = 100  # each costs two requests and more


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


def called_open(state: Iterable[RoomEvent | Rejected]) -> tuple[set[RunId], tuple[RunId, ...]]:
    """All runs that lock events of the state call open; and those that are worth asking for, newest first.

    A key that nobody claimed for long names runs that ended since. Whoever knew of them has said more since
    then, so only each account's newest lock event counts.
    """
    locks = sorted((e for e in state if isinstance(e, LockEvent)), key=lambda e: -e.ts_ms)
    newest: dict[UserId, LockEvent] = {}
    for event in locks:
        newest.setdefault(event.sender, event)
    named = {run for event in locks for run in event.open_runs}
    return named, tuple(dict.fromkeys(run for event in newest.values() for run in event.open_runs))
