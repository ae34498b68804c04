"""Reading a room for an audit: all that concerns claims, and nothing written anywhere.

`/messages` from the room's end backwards, as any member may; the account must be in the room already, for
joining would write. Its order is topological; `core/audit/order.py` says what that means for claims.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TextIO

from cisbot.core.audit.found import Reading
from cisbot.core.ids import RoomId, UserId
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Message, Rejected, RoomCreate, RoomEvent
from cisbot.core.room.wire import STATE_TYPES, TIMELINE_TYPES
from cisbot.errors import CisbotError
from cisbot.matrix.http import Api, Method, Path, Refused, TokenDead
from cisbot.matrix.reads import whole_state

TYPES: Final = (*STATE_TYPES, *TIMELINE_TYPES, "m.room.message", "m.room.create")
PAGE_EVENTS: Final = 500
STATE: Final = "state"  # the one field of a saved line that is an event of the state
READER: Final = "reader"  # and of the one that says by whose account the room was read

Raw = Mapping[str, object]


async def read_room(
    api: Api,
    room_id: RoomId,
    *,
    since_ms: int | None,
    progress: Callable[[int], None],
    save: TextIO | None,
    now_ms: int,
) -> Reading:
    """The room's history up to now (`now_ms`), from its beginning or from `since_ms` on.

    `progress` is told how many events were read so far; `save` gets each as a line of JSON, for `read_saved`.

    Raises CisbotError: not in the room; RateLimited or Unreachable when the homeserver is away.
    """
    try:
        state = await whole_state(api, room_id)
    except TokenDead:
        raise
    except Refused as refused:
        raise CisbotError(
            f"{api.user_id} can't read {room_id} ({refused}); somebody in the room must invite it, "
            "and it must join: an audit writes nothing, so it doesn't join by itself"
        ) from refused
    reader = UserId(api.user_id)
    _save(save, {READER: reader})
    found: list[RoomEvent | Rejected] = []
    query = {"dir": "b", "limit": str(PAGE_EVENTS), "filter": json.dumps({"types": list(TYPES)})}
    whole = over = False
    while not over:
        answer = await api.read(Method.GET, Path.v3.rooms[room_id].messages, query=query)
        chunk = answer.get("chunk")
        page: list[Raw] = [raw for raw in chunk if isinstance(raw, dict)] if isinstance(chunk, list) else []
        for raw in page:
            if since_ms is not None and _ts_ms(raw) < since_ms:
                over = True
                break
            whole = whole or raw.get("type") == "m.room.create"
            _save(save, raw)
            _keep(found, raw)
        progress(len(found))
        end = answer.get("end")
        over = over or whole or not isinstance(end, str) or end == query.get("from")
        query["from"] = str(end)
    for stated in state:
        _save(save, {STATE: stated})
    found.reverse()
    return Reading(tuple(found), _decoded(state), whole, now_ms, reader)


def read_saved(lines: Iterable[str]) -> Reading:
    """What `read_room` saved, the newest first, then the state. Raises CisbotError, naming the line."""
    reader: UserId | None = None
    found: list[RoomEvent | Rejected] = []
    state: list[Raw] = []
    whole = False
    for number, line in enumerate(lines, 1):
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError):
            raise CisbotError(f"line {number} is no JSON") from None
        if not isinstance(raw, dict):
            raise CisbotError(f"line {number} is no event")
        if isinstance(stated := raw.get(STATE), dict):
            state.append(stated)
        elif isinstance(account := raw.get(READER), str):
            reader = UserId(account)
        else:
            whole = whole or raw.get("type") == "m.room.create"
            _keep(found, raw)
    found.reverse()
    newest_ms = max((event.ts_ms for event in found), default=0)
    return Reading(tuple(found), _decoded(state), whole, newest_ms, reader)


def _keep(found: list[RoomEvent | Rejected], raw: Raw) -> None:
    """Keep it unless it proves nothing: people's messages are only read past."""
    event = decode(raw)
    if event is None or isinstance(event, RoomCreate):
        return
    if isinstance(event, Message) and (event.block or {}).get("kind") not in ("status", "final"):
        return
    found.append(event)


def _save(save: TextIO | None, raw: Raw) -> None:
    if save is not None:
        save.write(json.dumps(raw, separators=(",", ":")) + "\n")


def _decoded(raw: Iterable[Raw]) -> tuple[RoomEvent | Rejected, ...]:
    return tuple(event for one in raw if (event := decode(one)) is not None)


def _ts_ms(raw: Raw) -> int:
    ts = raw.get("origin_server_ts")
    return ts if isinstance(ts, int) else 0
