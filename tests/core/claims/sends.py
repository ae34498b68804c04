"""What others read of a send."""

from __future__ import annotations

from cisbot.core.effects import Send
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Rejected, RoomEvent
from tests.core.claims.made import account


def told(send: Send, name: str, event: str) -> RoomEvent | Rejected:
    """The event that a node's send becomes."""
    raw: dict[str, object] = {
        "event_id": event, "sender": account(name), "type": send.type, "content": dict(send.content),
    }  # fmt: skip
    found = decode(raw if send.state_key is None else {**raw, "state_key": send.state_key})
    assert found is not None
    return found
