"""The questions to the room that the core may ask: one function each, answers as inputs.

None of them raises for what the homeserver does: an answer that can't be had is said so.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from typing import Final

from cisbot.core.effects import ReadBack, ReadLog, ReadState, ReadStory
from cisbot.core.ids import RoomId, run_event
from cisbot.core.inputs import BackRead, StateRead, StoryRead, TextRead
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Rejected, Release, RoomCreate, RoomEvent, Take
from cisbot.core.room.past import Past
from cisbot.core.room.wire import place_of
from cisbot.matrix.http import Api, Method, Path, RateLimited, Refused, Unreachable

BACK_PAGES_MAX: Final = 400
BACK_PAGE_EVENTS: Final = 500
STORY_PAGES_MAX: Final = 50
_FIRST: Final = "m.room.create"


async def read_state(api: Api, room_id: RoomId, ask: ReadState) -> StateRead:
    """What the state names under the key; None also where it can't be read."""
    path = Path.v3.rooms[room_id].state[ask.type]
    if ask.state_key:
        path = path[ask.state_key]
    try:
        raw = await api.read(Method.GET, path, query={"format": "event"})
        if not isinstance(raw.get("event_id"), str):  # a homeserver that tells the content only
            return StateRead(ask.tag, await _from_whole_state(api, room_id, ask))
    except (Refused, RateLimited, Unreachable):
        return StateRead(ask.tag, None)
    return StateRead(ask.tag, decode(raw))


async def _from_whole_state(api: Api, room_id: RoomId, ask: ReadState) -> RoomEvent | Rejected | None:
    for raw in await whole_state(api, room_id):
        if raw.get("type") == ask.type and raw.get("state_key") == ask.state_key:
            return decode(raw)
    return None


async def whole_state(api: Api, room_id: RoomId) -> list[Mapping[str, object]]:
    """All state events of the room. Raises Refused, RateLimited or Unreachable."""
    answer = await api.listing(Path.v3.rooms[room_id].state)
    return [raw for raw in answer if isinstance(raw, dict)]


async def read_back(api: Api, room_id: RoomId, ask: ReadBack) -> BackRead:
    """Above which epoch a fresh take of the key must be; None where the reading did not get far enough.

    The room's first event must have been seen, unless a head ends the reading before: a homeserver that
    shows a member only a part of the history ends its pages too. `core/room/past.py` says why it may end.
    """
    past = Past(ask.key, ask.epoch_step_max)
    kinds = [place_of(ask.key)[0], _FIRST]
    query = {"dir": "b", "limit": str(BACK_PAGE_EVENTS), "filter": json.dumps({"types": kinds})}
    for _ in range(BACK_PAGES_MAX):
        try:
            answer = await api.read(Method.GET, Path.v3.rooms[room_id].messages, query=query)
        except (Refused, RateLimited, Unreachable):
            return BackRead(ask.tag, None)
        chunk = answer.get("chunk")
        for raw in chunk if isinstance(chunk, list) else ():
            event = decode(raw) if isinstance(raw, dict) else None
            if event is not None and (isinstance(event, RoomCreate) or past.reaches(event)):
                return BackRead(ask.tag, past.highest())
        end = answer.get("end")
        if not isinstance(end, str) or end == query.get("from"):
            return BackRead(ask.tag, None)
        query = {**query, "from": end}
    return BackRead(ask.tag, None)


async def read_story(api: Api, room_id: RoomId, ask: ReadStory) -> StoryRead:
    """The takes and releases that refer to the run, all pages of them."""
    event = run_event(ask.run)
    path = Path.v1.rooms[room_id].relations[event]["m.reference"]
    query = {"limit": "100"}
    found: list[RoomEvent | Rejected] = []
    for _ in range(STORY_PAGES_MAX):
        try:
            answer = await api.read(Method.GET, path, query=query)
        except (Refused, RateLimited, Unreachable):
            return StoryRead(ask.tag, None)
        chunk = answer.get("chunk")
        for raw in chunk if isinstance(chunk, list) else ():
            known = decode(raw) if isinstance(raw, dict) else None
            if isinstance(known, Take | Release) and known.run == ask.run:
                found.append(known)
        following = answer.get("next_batch")
        if not isinstance(following, str) or following == query.get("from"):
            return StoryRead(ask.tag, tuple(found))
        query = {"limit": "100", "from": following}
    return StoryRead(ask.tag, None)


def read_log(ask: ReadLog) -> TextRead:
    """The end of a log file: whole lines, at most `bytes_max`. Blocks, so call it in a thread."""
    try:
        handle = os.open(ask.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return TextRead(ask.tag, None, f"{ask.path} is no ordinary file")
            start = max(0, facts.st_size - ask.bytes_max)
            file.seek(start)
            raw = file.read(ask.bytes_max)
    except OSError as error:
        return TextRead(ask.tag, None, f"{ask.path}: {error.strerror or error}")
    if start and b"\n" in raw[:-1]:
        raw = raw[raw.index(b"\n") + 1 :]
    return TextRead(ask.tag, raw.decode("utf-8", "replace"))
