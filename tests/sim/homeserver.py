"""A model of the homeserver as measured: one stream, forks, a state that resolution settles otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from cisbot.core.effects import ReadBack, Send
from cisbot.core.ids import EventId
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Json, MemoryWrite, Rejected, Release, Restate, RoomEvent, Take
from cisbot.core.room.past import Highest, Past
from cisbot.core.room.wire import place_of

Seen = RoomEvent | Rejected


@dataclass(frozen=True, slots=True)
class Stated:
    """What the state names under a key, and when it was begun and done."""

    event: Seen
    rank: tuple[int, str]
    done: float
    index: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One sync: the timeline in stream order, and whether it is limited; then also the state it hides."""

    events: tuple[Seen, ...]
    cursor: int
    gap: bool
    state: tuple[Seen, ...]


class Homeserver:
    """Concurrent writes of one state key fork; the greatest (timestamp, event id) of them is the state."""

    def __init__(self) -> None:
        self.stream: list[Seen] = []
        self.state: dict[tuple[str, str], Stated] = {}
        self._txns: dict[tuple[str, str], EventId] = {}

    def persist(self, sender: str, send: Send, began: float, done: float, mark: int) -> EventId:
        """Append an event whose request came at `began`. `mark` makes its id, which breaks ties."""
        if send.state_key is None and (known := self._txns.get((sender, send.txn))):
            return known
        event_id = EventId(f"${mark:04x}.{len(self.stream)}")
        raw: dict[str, Json] = {
            "event_id": event_id,
            "sender": sender,
            "type": send.type,
            "origin_server_ts": int(began * 1000),
            "content": dict(send.content),
        }
        if send.state_key is not None:
            raw["state_key"] = send.state_key
        event = decode(raw)
        assert event is not None
        if send.state_key is None:
            self._txns[(sender, send.txn)] = event_id
        else:
            rank, key = (int(began * 1000), event_id), (send.type, send.state_key)
            old = self.state.get(key)
            if old is None or old.done <= began or old.rank < rank:
                self.state[key] = Stated(event, rank, done, len(self.stream))
        self.stream.append(event)
        return event_id

    def sync(self, since: int, limit: int) -> Answer:
        """What came after `since`; only the last `limit` events where there are more."""
        start = max(since, len(self.stream) - limit)
        hidden = self.stream[since:start]
        state = tuple(e for e in hidden if _kind(e))
        return Answer(tuple(self.stream[start:]), len(self.stream), bool(hidden), state)

    def join(self) -> Answer:
        """An initial sync: the whole state, and nothing of the timeline that could be judged."""
        return Answer((), len(self.stream), True, tuple(s.event for s in self.state.values()))

    def named(self, kind: str, key: str) -> Seen | None:
        """What the state names."""
        found = self.state.get((kind, key))
        return found.event if found else None

    def highest(self, ask: ReadBack) -> Highest:
        """Above which epoch a fresh take must be, read from the room's end."""
        past = Past(ask.key, ask.epoch_step_max)
        kind = place_of(ask.key)[0]
        for event in reversed(self.stream):
            if _kind(event) == kind and past.reaches(event):
                break
        return past.highest()


def _kind(event: Seen) -> str:
    match event:
        case Take() | Release() | MemoryWrite() | Restate():
            return place_of(event.key)[0]
        case Rejected():
            return event.type
        case _:
            return ""
