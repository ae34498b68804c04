"""The takes of one key, read from the room's end backwards: above which epoch must a fresh take be?

Read in the order of `/messages`, which is no order of verdicts: it can't be told which takes were accepted,
but none was later than the reading got to. Two things end it: the room's beginning, or the event that a
carried head names as its `after`. All that was accepted since then was sent by who had seen that event,
so it is nearer to the room's end; and the head itself tells of all before, and how many takes there were.

A take whose epoch no fold can have accepted must not count, or one void take with a huge epoch would leave
no epoch for anybody. A fold accepts none above `epoch_step_max` for each take that the key ever had
(`core/claims/fold.py`), so whoever wants to move that bound has to send an event for each step.
"""

from __future__ import annotations

from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId
from cisbot.core.room.events import CarriedHead, MemoryWrite, Rejected, Release, Restate, RoomEvent, Take


@dataclass(frozen=True, slots=True)
class Highest:
    """No accepted take of the key has an epoch above `epoch`; `takes` there were, void ones too."""

    epoch: int
    takes: int


class Past:
    """One reading. Pure: fed with the events of the key's type, the newest first."""

    def __init__(self, key: ClaimKey, epoch_step_max: int) -> None:
        self._key = key
        self._step = epoch_step_max
        self._takes: dict[EventId, int] = {}
        self._heads: dict[EventId, CarriedHead] = {}
        self._base = CarriedHead(key, 0, None, ())

    def reaches(self, event: RoomEvent | Rejected) -> bool:
        """Take one event; whether the reading may end with it. It must not go on then."""
        if event.event_id in self._heads:
            self._base = self._heads[event.event_id]
            return True
        match event:
            case Take() | MemoryWrite() if event.key == self._key:
                self._takes[event.event_id] = event.epoch if isinstance(event, Take) else event.version
            case Release() | Restate() if event.key == self._key:
                pass
            case _:
                return False
        if event.head is not None and event.head.after is not None:
            self._heads[event.head.after] = event.head
        return False

    def highest(self) -> Highest:
        """What a fresh take must be above: of the room so far, or since the head where the reading ended."""
        takes = self._base.takes + len(self._takes)
        limit = max(self._step * takes, self._base.epoch + self._step * len(self._takes))
        epoch = max([self._base.epoch, *(found for found in self._takes.values() if found <= limit)])
        return Highest(epoch, max(takes, -(-epoch // self._step)))
