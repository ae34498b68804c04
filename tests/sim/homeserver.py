"""A model of the homeserver as measured: one stream, forks, a state that resolution settles otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cisbot.core.effects import ReadBack
from cisbot.core.ids import EventId, run_event
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Json, Message, Reaction, Rejected, RoomEvent
from cisbot.core.room.past import Highest, Past
from cisbot.core.room.wire import place_of

Seen = RoomEvent | Rejected
HISTORY_MAX = 500


@dataclass(frozen=True, slots=True)
class Stated:
    """What the state names under a key, when it was done, and what it replaced, the newest first."""

    event: Seen
    rank: tuple[int, str]
    done: float
    past: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """An event as one server hands it to the others."""

    event: Seen
    place: tuple[str, str] | None
    rank: tuple[int, str]
    past: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One sync: the timeline in stream order, and whether it is limited; then also what it hides."""

    events: tuple[Seen, ...]
    cursor: int
    gap: bool = False
    state: tuple[Seen, ...] = ()
    history: tuple[Seen, ...] = ()


class Homeserver:
    """Concurrent writes of one state key fork; the greatest (timestamp, event id) of them is the state."""

    def __init__(self, name: str = "hs") -> None:
        self.name = name
        self.stream: list[Seen] = []
        self.state: dict[tuple[str, str], Stated] = {}
        self.clock_ms = 1_700_000_000_000  # what its clock shows at the beginning; it may be set
        self._keys: list[tuple[str, str] | None] = []
        self._txns: dict[tuple[str, str], EventId] = {}
        self._past: dict[str, tuple[str, ...]] = {}

    def persist(
        self,
        sender: str,
        kind: str,
        content: Mapping[str, Json],
        began: float,
        done: float,
        *,
        state_key: str | None = None,
        txn: str | None = None,
        mark: int = 0,
    ) -> EventId:
        """Append an event whose request came at `began`. `mark` makes its id, which breaks ties."""
        if state_key is None and txn is not None and (known := self._txns.get((sender, txn))):
            return known
        event_id = EventId(
            f"${mark:04x}.{len(self.stream)}{self.name.removeprefix('hs') and '.' + self.name}"
        )
        ts_ms = self.clock_ms + int(began * 1000)
        raw: dict[str, Json] = {
            "event_id": event_id,
            "sender": sender,
            "type": kind,
            "origin_server_ts": ts_ms,
            "content": dict(content),
        }
        if state_key is not None:
            raw["state_key"] = state_key
        event = decode(raw)
        assert event is not None, kind
        if state_key is not None:
            rank, key = (ts_ms, event_id), (kind, state_key)
            old = self.state.get(key)
            later = old is not None and old.done <= began
            past = () if old is None else (old.event.event_id, *old.past) if later else old.past
            self._past[event_id] = past
            if old is None or later or old.rank < rank:
                self.state[key] = Stated(event, rank, done, past)
            self._keys.append(key)
        else:
            self._keys.append(None)
            if txn is not None:
                self._txns[(sender, txn)] = event_id
        self.stream.append(event)
        return event_id

    def receive(self, written: Written, now: float) -> None:
        """An event of another server. What knew the other replaces it; of a fork the greater rank stays."""
        if written.place is not None:
            old = self.state.get(written.place)
            known = old is not None and written.event.event_id in old.past
            later = old is None or old.event.event_id in written.past
            if later or (not known and old is not None and old.rank < written.rank):
                self.state[written.place] = Stated(written.event, written.rank, now, written.past)
        self._keys.append(written.place)
        self.stream.append(written.event)

    def last(self) -> Written:
        """The newest event, for the others."""
        event = self.stream[-1]
        past = self._past.get(event.event_id, ())
        return Written(event, self._keys[-1], (event.ts_ms, event.event_id), past)

    def sync(self, since: int, limit: int) -> Answer:
        """What came after `since`; only the last `limit` events where there are more."""
        start = max(since, len(self.stream) - limit)
        events = tuple(self.stream[start:])
        if start == since:
            return Answer(events, len(self.stream))
        hidden = {
            key: event
            for key, event in zip(self._keys[since:start], self.stream[since:start], strict=True)
            if key
        }
        return Answer(events, len(self.stream), True, tuple(hidden.values()), self._said(since, start))

    def join(self) -> Answer:
        """An initial sync: the whole state, and nothing of the timeline that could be judged."""
        state = tuple(s.event for s in self.state.values())
        end = len(self.stream)
        return Answer((), end, True, state, self._said(max(0, end - HISTORY_MAX), end))

    def _said(self, start: int, end: int) -> tuple[Seen, ...]:
        return tuple(e for e in self.stream[start:end] if isinstance(e, Message | Reaction))

    def named(self, kind: str, key: str) -> Seen | None:
        """What the state names."""
        found = self.state.get((kind, key))
        return found.event if found else None

    def highest(self, ask: ReadBack) -> Highest:
        """Above which epoch a fresh take must be, read from the room's end."""
        past, place = Past(ask.key, ask.epoch_step_max), place_of(ask.key)
        for key, event in zip(reversed(self._keys), reversed(self.stream), strict=True):
            if key == place and past.reaches(event):
                break
        return past.highest()

    def story(self, run: str) -> tuple[Seen, ...]:
        """The lock events that refer to the run."""
        return tuple(e for e in self.stream if getattr(e, "run", None) == run)

    def about(self, runs: tuple[str, ...]) -> tuple[Message | Reaction, ...]:
        """The messages that published the runs, and what was said of them."""
        asked = {run_event(run) for run in runs}  # type: ignore[arg-type]
        said = (e for e in self.stream if isinstance(e, Message | Reaction))
        return tuple(e for e in said if {e.event_id, getattr(e, "target", None)} & asked)
