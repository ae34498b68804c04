"""Who may send what in a room: power levels as the room's own events say. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cisbot.core.room.wire import STATE_TYPES, T_CHARTER, TIMELINE_TYPES

NODE_LEVEL: Final = 50
OPERATOR_LEVEL: Final = 100
CREATORS_ABOVE: Final = 12  # from this room version on, creators stand above every level

NODE_STATE: Final = tuple(t for t in STATE_TYPES if t != T_CHARTER)
NODE_TIMELINE: Final = (*TIMELINE_TYPES, "m.room.message", "m.reaction")

WANTED_EVENTS: Final[Mapping[str, int]] = {
    **dict.fromkeys((*NODE_STATE, *TIMELINE_TYPES), NODE_LEVEL),
    T_CHARTER: OPERATOR_LEVEL,
    "m.room.power_levels": OPERATOR_LEVEL,
    "m.room.redaction": OPERATOR_LEVEL,
    "m.room.encryption": OPERATOR_LEVEL,
    "m.room.message": 0,
    "m.reaction": 0,
}


def levels_content(
    old: Mapping[str, object] | None, users: Mapping[str, int], *, fresh: bool
) -> dict[str, object]:
    """The power levels that the room should have: `old` with what is missing.

    No level that somebody set is lowered; the guarded types and redactions are raised.
    """
    content: dict[str, object] = dict(old or {})
    events = dict(_ints(content.get("events")))
    if fresh:
        events |= dict.fromkeys(("m.room.name", "m.room.avatar", "m.room.canonical_alias"), NODE_LEVEL)
        events |= dict.fromkeys(
            ("m.room.history_visibility", "m.room.server_acl", "m.room.tombstone"), OPERATOR_LEVEL
        )
    for event_type, level in WANTED_EVENTS.items():
        kept = events.setdefault(event_type, level)
        if level == OPERATOR_LEVEL:
            events[event_type] = max(level, kept)
    members = dict(_ints(content.get("users")))
    for user, level in users.items():
        members[user] = max(level, members.get(user, 0))
    content["events"] = events
    content["users"] = members
    content["redact"] = max(OPERATOR_LEVEL, _int(content.get("redact"), 0))
    if fresh:
        content |= {"users_default": 0, "events_default": 0, "state_default": 50}
        content |= {"kick": OPERATOR_LEVEL, "ban": OPERATOR_LEVEL, "invite": NODE_LEVEL}
    return content


@dataclass(frozen=True, slots=True)
class Levels:
    """The rules of one room."""

    users: Mapping[str, int]
    users_default: int
    events: Mapping[str, int]
    events_default: int
    state_default: int
    creators: frozenset[str]

    def of(self, user_id: str) -> float:
        """The user's level."""
        if user_id in self.creators:
            return float("inf")
        return self.users.get(user_id, self.users_default)

    def needed(self, event_type: str, *, state: bool) -> int:
        """The level that sending the type takes."""
        return self.events.get(event_type, self.state_default if state else self.events_default)


def read_levels(create: Mapping[str, object], power: Mapping[str, object] | None) -> Levels:
    """The rules, from the raw `m.room.create` and the content of `m.room.power_levels`, if there is one."""
    content = create.get("content")
    made = content if isinstance(content, Mapping) else {}
    more = made.get("additional_creators")
    extra = [user for user in more if isinstance(user, str)] if isinstance(more, list) else []
    creators = {str(create.get("sender", "")), *extra}
    above = stands_above(room_version(create))
    if power is None:
        users = {} if above else dict.fromkeys(creators, 100)
        return Levels(users, 0, {}, 0, 0, frozenset(creators if above else ()))
    return Levels(
        _ints(power.get("users")),
        _int(power.get("users_default"), 0),
        _ints(power.get("events")),
        _int(power.get("events_default"), 0),
        _int(power.get("state_default"), 50),
        frozenset(creators if above else ()),
    )


def room_version(create: Mapping[str, object]) -> str:
    """The room's version; a room that names none has version 1."""
    content = create.get("content")
    version = content.get("room_version") if isinstance(content, Mapping) else None
    return version if isinstance(version, str) else "1"


def stands_above(version: str) -> bool:
    """Whether creators of such rooms have power without being listed, and must not be listed."""
    return version.isdecimal() and int(version) >= CREATORS_ABOVE


def _int(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _ints(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, int)}
