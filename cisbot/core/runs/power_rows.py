"""Power levels and the room's creation as rows of the store's `meta` table: neither is told twice."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from cisbot.core.effects import Put
from cisbot.core.room.events import PowerLevels, RoomCreate

_POWERS = TypeAdapter(PowerLevels)
_CREATE = TypeAdapter(RoomCreate)


def powers_to_row(event: PowerLevels | RoomCreate) -> Put:
    """The row of the newest power levels, or of the room's creation."""
    if isinstance(event, PowerLevels):
        return Put("meta", {"key": "powers", "value": _POWERS.dump_json(event).decode()})
    return Put("meta", {"key": "create", "value": _CREATE.dump_json(event).decode()})


def powers_from_meta(meta: Mapping[str, str]) -> tuple[PowerLevels | RoomCreate, ...]:
    """What was kept."""
    kept: list[PowerLevels | RoomCreate] = []
    if "create" in meta:
        kept.append(_CREATE.validate_json(meta["create"]))
    if "powers" in meta:
        kept.append(_POWERS.validate_json(meta["powers"]))
    return tuple(kept)
