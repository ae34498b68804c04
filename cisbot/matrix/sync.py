"""Raw `/sync` answers → `RoomBatch`: stream order, every event once, gaps marked.

Only an incremental timeline is in stream order, so only that becomes `events`. The `state` block repeats
older events and goes to `state` alone. What `/messages` and an initial sync tell is topological: it fills
`history`, where messages and reactions are looked for, and never decides a claim.

Pure, but for `Follower`, which fetches.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from cisbot.core.ids import EventId, RoomId, UserId
from cisbot.core.inputs import RoomBatch
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Rejected, RoomEvent
from cisbot.core.room.wire import STATE_TYPES, TIMELINE_TYPES
from cisbot.errors import CisbotError
from cisbot.matrix.http import Api, Method, Path, Refused, TokenDead, Unreachable
from cisbot.matrix.whole import has_all

Raw: TypeAlias = Mapping[str, object]

TYPES: Final = (
    *STATE_TYPES,
    *TIMELINE_TYPES,
    "m.room.message",
    "m.reaction",
    "m.room.power_levels",
    "m.room.create",
    "m.room.encryption",
    "m.room.member",
    "m.room.redaction",
)
HISTORY_TYPES: Final = ("m.room.message", "m.reaction", "m.room.member")
TIMELINE_MAX: Final = 100
POLL_S: Final = 30.0
POLL_MARGIN_S: Final = 15.0
FIRST_S: Final = 90.0
GAP_PAGES_MAX: Final = 20
FIRST_PAGES_MAX: Final = 5
SEEN_MAX: Final = 20_000


class LeftRoom(CisbotError):
    """The account is no longer in the room."""


class Seen:
    """The event ids that were handed on, the newest `SEEN_MAX` of them."""

    def __init__(self, most: int = SEEN_MAX) -> None:
        self._order: deque[EventId] = deque()
        self._ids: set[EventId] = set()
        self._most = most

    def __contains__(self, event_id: object) -> bool:
        return event_id in self._ids

    def add(self, event_ids: Iterable[EventId]) -> None:
        """Remember them; forget the oldest beyond the limit."""
        for event_id in event_ids:
            if event_id and event_id not in self._ids:
                self._ids.add(event_id)
                self._order.append(event_id)
        while len(self._order) > self._most:
            self._ids.discard(self._order.popleft())


@dataclass(frozen=True, slots=True)
class Gap:
    """What a batch doesn't tell: the room between `since` (None: its beginning) and `prev_batch`.

    `start` are the raw timeline events of an initial sync, which come after the gap.
    """

    prev_batch: str | None
    since: str | None
    start: tuple[Raw, ...] = ()


def sync_filter(room_id: RoomId) -> str:
    """The filter, as JSON: one room, the types that concern us, nothing else."""
    events = {"types": list(TYPES), "lazy_load_members": True}
    nothing = {"not_types": ["*"]}
    room = {
        "rooms": [room_id],
        "timeline": {**events, "limit": TIMELINE_MAX},
        "state": {"types": list(TYPES)},  # all members, those too who left: they are no nodes any more
        "ephemeral": nothing,
        "account_data": nothing,
    }
    return _json({"room": room, "presence": nothing, "account_data": nothing})


def to_batch(
    raw: Raw, room_id: RoomId, *, since: str | None, seen: Container[object] = ()
) -> tuple[RoomBatch, Gap | None]:
    """One answer as a batch without history, and the gap before it, if any.

    Raises Unreachable for an answer that is no sync, and LeftRoom when the room was left.
    """
    cursor = raw.get("next_batch")
    if not isinstance(cursor, str) or not cursor:
        raise Unreachable("the answer to a sync has no next_batch", sent=False)
    rooms = _map(raw.get("rooms"))
    if room_id in _map(rooms.get("leave")) and room_id not in _map(rooms.get("join")):
        raise LeftRoom(f"this account is no longer in {room_id}; invite it again, then restart")
    room = _map(_map(rooms.get("join")).get(room_id))
    timeline = _map(room.get("timeline"))
    events = _list(timeline.get("events"))
    state = _list(_map(room.get("state")).get("events"))
    prev = timeline.get("prev_batch")
    prev_batch = prev if isinstance(prev, str) else None
    if since is None:
        if not room:
            raise LeftRoom(f"this account is not in {room_id}; invite it, then restart")
        whole = _newest_state([*state, *(e for e in events if isinstance(e.get("state_key"), str))])
        batch = RoomBatch(cursor, (), gap=True, initial=True, state=_decoded(whole))
        return batch, Gap(prev_batch, None, tuple(events))
    fresh = _once(_decoded(events), seen)
    if timeline.get("limited") is True:
        return RoomBatch(cursor, fresh, True, False, _decoded(state)), Gap(prev_batch, since)
    return RoomBatch(cursor, fresh, state=_decoded(state)), None


def history_of(raw: Iterable[Raw], *, seen: Container[object] = ()) -> tuple[RoomEvent | Rejected, ...]:
    """The messages and reactions among raw events, each once, oldest first as given."""
    kept = [e for e in raw if e.get("type") in ("m.room.message", "m.reaction")]
    return _once(_decoded(kept), seen)


class Follower:
    """Fetches what comes after a cursor of our own, and what a gap hid."""

    def __init__(self, api: Api, room_id: RoomId, user_id: UserId, cursor: str | None) -> None:
        self.api = api
        self.room_id = room_id
        self.cursor = cursor
        self._user_id = user_id
        self._filter = sync_filter(room_id)
        self._seen = Seen()

    async def fetch(self, poll_s: float) -> Raw:
        """One `/sync` after the cursor. Raises what `Api.call` raises."""
        query = {"filter": self._filter, "set_presence": "offline"}
        if self.cursor is None:
            # Synapse keeps answers to equal initial syncs for two minutes: never ask the same twice.
            query["timeout"] = str(int(asyncio.get_running_loop().time() * 1000) % 1000)
            return await self._sync(query, FIRST_S)
        query |= {"since": self.cursor, "timeout": str(int(poll_s * 1000))}
        return await self._sync(query, poll_s + POLL_MARGIN_S)

    async def _sync(self, query: Mapping[str, str], timeout_s: float) -> Raw:
        return await self.api.call(Method.GET, Path.v3.sync, query=query, timeout_s=timeout_s)

    async def digest(self, raw: Raw) -> RoomBatch:
        """The batch of one answer, its history read; only then the cursor moves.

        Raises Unreachable or RateLimited when the history can't be had now, LeftRoom, TokenDead.
        """
        batch, gap = to_batch(raw, self.room_id, since=self.cursor, seen=self._seen)
        if gap is not None:
            hidden = await self._hidden(gap)
            ids = frozenset(event.event_id for event in batch.events)
            known = _Either(self._seen, ids)
            whole = gap.since is not None and await has_all(
                self.api, self.room_id, gap.since, batch.cursor, known
            )
            batch = replace(batch, history=history_of(hidden, seen=known), whole=whole)
        if batch.initial:
            batch = replace(batch, state=(*batch.state, *await self._creation()))
        self._seen.add(event.event_id for event in batch.events)
        self.cursor = batch.cursor
        return batch

    def forget_cursor(self) -> None:
        """Begin with an initial sync: the homeserver doesn't know the cursor."""
        self.cursor = None

    async def _hidden(self, gap: Gap) -> list[Raw]:
        joined = _last_own_join(gap.start, self._user_id)
        if joined is not None:
            return list(gap.start[joined + 1 :])
        pages: list[list[Raw]] = []
        token = gap.prev_batch
        most = FIRST_PAGES_MAX if gap.since is None else GAP_PAGES_MAX
        while token is not None and len(pages) < most:
            page, following = await self._page(token, gap.since)
            page.reverse()
            joined = _last_own_join(page, self._user_id) if gap.since is None else None
            pages.append(page if joined is None else page[joined + 1 :])
            token = following if joined is None and following != token else None
        older = [event for page in reversed(pages) for event in page]
        return [*older, *gap.start]

    async def _creation(self) -> tuple[RoomEvent | Rejected, ...]:
        """The room's first event. A filter for a room leaves it out since version 12, where it names none."""
        path = Path.v3.rooms[self.room_id].state["m.room.create"]
        try:
            return _decoded([await self.api.read(Method.GET, path, query={"format": "event"})])
        except TokenDead:
            raise
        except Refused:
            return ()

    async def _page(self, token: str, since: str | None) -> tuple[list[Raw], str | None]:
        query = {
            "dir": "b",
            "from": token,
            "limit": "100",
            "filter": _json({"types": list(HISTORY_TYPES), "lazy_load_members": True}),
        }
        if since is not None:
            query["to"] = since
        path = Path.v3.rooms[self.room_id].messages
        try:
            answer = await self.api.read(Method.GET, path, query=query)
        except TokenDead:
            raise
        except Refused:
            return [], None  # no history is a loss for people, not for claims
        end = answer.get("end")
        return _list(answer.get("chunk")), end if isinstance(end, str) else None


class _Either:
    """What is in one or the other."""

    def __init__(self, *parts: Container[object]) -> None:
        self._parts = parts

    def __contains__(self, item: object) -> bool:
        return any(item in part for part in self._parts)


def _last_own_join(events: Iterable[Raw], user_id: UserId) -> int | None:
    """Where the account last came in (a change of its name looks alike, but was in before)."""
    found = None
    for at, event in enumerate(events):
        if event.get("type") != "m.room.member" or event.get("state_key") != user_id:
            continue
        before = _map(_map(event.get("unsigned")).get("prev_content")).get("membership")
        if _map(event.get("content")).get("membership") == "join" and before != "join":
            found = at
    return found


def _newest_state(events: Iterable[Raw]) -> list[Raw]:
    newest: dict[tuple[object, object], Raw] = {}
    for event in events:
        key = (str(event.get("type")), str(event.get("state_key")))
        newest.pop(key, None)
        newest[key] = event
    return list(newest.values())


def _decoded(events: Iterable[Raw]) -> tuple[RoomEvent | Rejected, ...]:
    found = (decode(event) for event in events)
    return tuple(event for event in found if event is not None)


def _once(
    events: Iterable[RoomEvent | Rejected], seen: Container[object]
) -> tuple[RoomEvent | Rejected, ...]:
    here: set[EventId] = set()
    kept: list[RoomEvent | Rejected] = []
    for event in events:
        if event.event_id and (event.event_id in here or event.event_id in seen):
            continue
        here.add(event.event_id)
        kept.append(event)
    return tuple(kept)


def _map(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Raw]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
