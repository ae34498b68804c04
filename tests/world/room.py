"""The room of the pure world: one stream of raw events, state by key, a person who speaks and reacts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from cisbot.core.room.decode import decode
from cisbot.core.room.events import Json, Rejected, RoomEvent
from cisbot.core.room.wire import T_CHARTER

Raw = dict[str, Json]
HOME = "hs.test"
OPERATOR = f"@operator:{HOME}"


class ModelRoom:
    """Events in stream order; state PUTs replace."""

    def __init__(self, lease_s_max: int = 600, mode: str = "consistent") -> None:
        self.stream: list[Raw] = []
        self.times: list[float] = []  # when each came, by the world's clock
        self.boot = 0.0
        self.state: dict[tuple[str, str], Raw] = {}
        self._count = itertools.count(1)
        self._txns: dict[tuple[str, str], str] = {}
        self.wall_ms = 1_700_000_000_000
        self.put(OPERATOR, "m.room.create", {"room_version": "12"}, state_key="")
        self.put(OPERATOR, "m.room.power_levels", {"users": {}, "users_default": 0}, state_key="")
        charter: dict[str, Json] = {
            "version": 1, "home": HOME, "lease_s_max": lease_s_max, "mode": mode,
        }  # fmt: skip
        self.put(OPERATOR, T_CHARTER, charter, state_key="")

    def event_name(self, number: int) -> str:
        """The id of the room's event of that number."""
        return f"$event{number}"

    def put(
        self,
        sender: str,
        kind: str,
        content: Mapping[str, Json],
        *,
        state_key: str | None = None,
        txn: str | None = None,
    ) -> str:
        """Append an event; its id. The same transaction id gives the same event."""
        if txn is not None and state_key is None:
            known = self._txns.get((sender, txn))
            if known is not None:
                return known
        event_id = self.event_name(next(self._count))
        raw: Raw = {
            "event_id": event_id,
            "sender": sender,
            "type": kind,
            "origin_server_ts": self.wall_ms,
            "content": dict(content),
        }
        if state_key is not None:
            raw["state_key"] = state_key
            self.state[(kind, state_key)] = raw
        elif txn is not None:
            self._txns[(sender, txn)] = event_id
        self.stream.append(raw)
        self.times.append(self.boot)
        return event_id

    def events(self, start: int, end: int | None = None) -> tuple[RoomEvent | Rejected, ...]:
        """The decoded events from that place in the stream, up to another."""
        found = (decode(raw) for raw in self.stream[start:end])
        return tuple(event for event in found if event is not None)

    def whole_state(self) -> tuple[RoomEvent | Rejected, ...]:
        """The decoded state."""
        found = (decode(raw) for raw in self.state.values())
        return tuple(event for event in found if event is not None)

    def bodies(self) -> list[str]:
        """What nodes said, in order; edits left out."""
        return [
            str(raw["content"]["body"])
            for raw in self.stream
            if raw["type"] == "m.room.message"
            and isinstance(raw["content"], dict)
            and "io.cisbot" in raw["content"]
            and "m.new_content" not in raw["content"]
        ]

    def say(self, sender: str, body: str, **more: Json) -> str:
        """A person's message."""
        return self.put(sender, "m.room.message", {"msgtype": "m.text", "body": body, **more})

    def react(self, sender: str, target: str, key: str) -> str:
        """A person's reaction."""
        relates: Json = {"rel_type": "m.annotation", "event_id": target, "key": key}
        return self.put(sender, "m.reaction", {"m.relates_to": relates})
