"""Delayed events (MSC4140): whether the homeserver has them, and the three requests about the delayed end.

A homeserver that does not know them sends the event at once: nothing is asked for that it does not offer.
No request is repeated here; what became of it is told apart as the core needs it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import Final

from cisbot.core.effects import ArmEnd, AskEnd, CancelEnd, RestartEnd
from cisbot.core.ids import RoomId
from cisbot.core.inputs import EndAnswer, EndReply
from cisbot.core.room.events import JsonMap
from cisbot.matrix.http import Api, Method, Path, PathBuilder, RateLimited, Refused, TokenDead, Unreachable

CAPABILITY: Final = "org.matrix.msc4140.delayed_events"
FEATURE: Final = "org.matrix.msc4140"
DELAY: Final = "org.matrix.msc4140.delay"
_NOT_FOUND: Final = "M_NOT_FOUND"


async def delay_s_max(api: Api) -> float:
    """The longest delay that the homeserver allows this account, seconds; 0: it has no delayed events.

    Synapse tells it as a capability; homeservers that only name the feature don't tell a limit.
    Raises TokenDead, RateLimited or Unreachable.
    """
    every = (await _if_any(api, Path.v3.capabilities)).get("capabilities")
    offer = every.get(CAPABILITY) if isinstance(every, dict) else None
    if isinstance(offer, dict):
        most = offer.get("max_delay_ms")
        most_ms = most if isinstance(most, int) else 0
        return 0.0 if offer.get("max_scheduled") == 0 else max(0, most_ms) / 1000
    features = (await _if_any(api, Path.versions)).get("unstable_features")
    return math.inf if isinstance(features, dict) and features.get(FEATURE) is True else 0.0


async def _if_any(api: Api, path: PathBuilder) -> JsonMap:
    try:
        return await api.read(Method.GET, path)
    except TokenDead:
        raise
    except Refused:
        return {}


async def ask_end(api: Api, room_id: RoomId, ask: AskEnd) -> EndAnswer:
    """Arm, restart or cancel: one request, answered within its time."""
    match ask:
        case ArmEnd():
            path = Path.v3.rooms[room_id].send[ask.send.type][ask.send.txn]
            query = {DELAY: str(math.ceil(ask.delay_s * 1000))}
            put = api.call(Method.PUT, path, ask.send.content, query=query, timeout_s=ask.timeout_s)
            return await _told(ask, put)
        case RestartEnd():
            return await _told(ask, _act(api, _event(ask.delay_id).restart, ask.timeout_s))
        case CancelEnd():
            return await _told(ask, _act(api, _event(ask.delay_id).cancel, ask.timeout_s))


def _event(delay_id: str) -> PathBuilder:
    return Path.unstable[FEATURE].delayed_events[delay_id]


def _act(api: Api, path: PathBuilder, timeout_s: float) -> Awaitable[JsonMap]:
    return api.call(Method.POST, path, timeout_s=timeout_s)


async def _told(ask: AskEnd, request: Awaitable[JsonMap]) -> EndAnswer:
    try:
        answer = await request
    except RateLimited as limited:
        return EndAnswer(ask, EndReply.LIMITED, wait_s=limited.retry_after_s, why=str(limited))
    except Unreachable as lost:
        return EndAnswer(ask, EndReply.UNKNOWN if lost.sent else EndReply.UNSENT, why=str(lost))
    except Refused as refused:
        gone = refused.errcode == _NOT_FOUND and not isinstance(ask, ArmEnd)
        return EndAnswer(ask, EndReply.GONE if gone else EndReply.REFUSED, why=str(refused))
    if not isinstance(ask, ArmEnd):
        return EndAnswer(ask, EndReply.DONE)
    delay_id = answer.get("delay_id")
    if not isinstance(delay_id, str) or not delay_id:  # sent at once, or who knows
        return EndAnswer(ask, EndReply.UNKNOWN, why="the answer names no delayed event")
    return EndAnswer(ask, EndReply.DONE, delay_id)
