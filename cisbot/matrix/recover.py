"""Runs that a lock event calls open and this node does not know: what published them, and what followed.

What the room's history hides from a node without its database is read by name; nothing that the homeserver
refuses or can't give now is an error: other nodes know these runs too.
"""

from __future__ import annotations

from typing import Final

from cisbot.core.effects import ReadRuns
from cisbot.core.ids import EventId, RoomId, run_event
from cisbot.core.inputs import RunsRead
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Message, Reaction
from cisbot.matrix.http import Api, Method, Path, RateLimited, Refused, Unreachable

RELATED_PAGES_MAX: Final = 5


async def read_runs(api: Api, room_id: RoomId, ask: ReadRuns) -> RunsRead:
    """The messages that published the runs, each followed by reactions and answers to it, oldest first."""
    found: list[Message | Reaction] = []
    for event in dict.fromkeys(run_event(run) for run in ask.runs):
        try:
            first = decode(await api.read(Method.GET, Path.v3.rooms[room_id].event[event]))
            if isinstance(first, Message):
                found += [first, *await _related(api, room_id, event)]
        except (Refused, RateLimited, Unreachable):
            continue
    return RunsRead(ask.tag, tuple(found))


async def _related(api: Api, room_id: RoomId, event: EventId) -> list[Message | Reaction]:
    """What relates to the event, or to what relates to it: reactions to the question for approval too."""
    path = Path.v1.rooms[room_id].relations[event]
    query = {"limit": "100", "dir": "f", "recurse": "true"}
    found: list[Message | Reaction] = []
    for _ in range(RELATED_PAGES_MAX):
        answer = await api.read(Method.GET, path, query=query)
        chunk = answer.get("chunk")
        known = [decode(raw) for raw in chunk if isinstance(raw, dict)] if isinstance(chunk, list) else []
        found += [item for item in known if isinstance(item, Message | Reaction)]
        following = answer.get("next_batch")
        if not isinstance(following, str) or following == query.get("from"):
            break
        query = {**query, "from": following}
    return sorted(found, key=lambda item: item.ts_ms)
