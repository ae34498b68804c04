"""Whether a limited sync left out any event that the claims need.

A server marks a timeline as limited when it left events out, and also when it knows that another server has
some that its own stream will never have: after a cut link that is so for all nodes at once, and none of them
could say any more what holds. So ask for the claim events between the two sync tokens: if the timeline has
them all, nothing is missing. The answer's order does not matter. Only Synapse's tokens are positions in its
stream, so that nothing after the first is left out; with others, limited means that something is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Final

from cisbot.core.ids import RoomId
from cisbot.core.room.wire import T_LOCK, T_MEMORY, TIMELINE_TYPES
from cisbot.matrix.http import Api, Method, Path, Refused, TokenDead

PAGES_MAX: Final = 10
_STREAM_TOKEN: Final = re.compile(r"s\d+(_\d+)+\Z")
_FILTER: Final = json.dumps({"types": [T_LOCK, T_MEMORY, *TIMELINE_TYPES]}, separators=(",", ":"))


async def has_all(api: Api, room_id: RoomId, since: str, until: str, known: Container[object]) -> bool:
    """Whether every claim event of the room's stream between two sync tokens is known.

    Raises Unreachable or RateLimited where that can't be asked now, TokenDead.
    """
    token: object = since
    for _ in range(PAGES_MAX):
        if not (isinstance(token, str) and _STREAM_TOKEN.match(since) and _STREAM_TOKEN.match(until)):
            return False
        query = {"dir": "f", "from": token, "to": until, "limit": "100", "filter": _FILTER}
        try:
            answer = await api.read(Method.GET, Path.v3.rooms[room_id].messages, query=query)
        except TokenDead:
            raise
        except Refused:
            return False
        chunk = answer.get("chunk")
        events = chunk if isinstance(chunk, list) else [None]
        if any(not isinstance(event, dict) or event.get("event_id") not in known for event in events):
            return False
        following = answer.get("end")
        if following is None:
            return True
        token = following if following != token else None
    return False
