"""Making the cluster's room: charter, power levels, invitations. Done again, it adds what is missing.

The charter is there from the room's first moment (`initial_state`) and is never written over. Creators of
rooms of version 12 stand above every level and must not be listed in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, cast

from cisbot.core.ids import RoomId, server_of
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Charter, Json, JsonMap
from cisbot.core.room.wire import T_CHARTER, CharterWire, Mode
from cisbot.errors import CisbotError, FieldError
from cisbot.matrix.http import Api, Method, Path, PathBuilder, Refused, TokenDead
from cisbot.matrix.power import (
    NODE_LEVEL,
    OPERATOR_LEVEL,
    levels_content,
    read_levels,
    room_version,
    stands_above,
)
from cisbot.matrix.reads import whole_state
from cisbot.matrix.rooms import join

EPOCH_STEP_MAX: Final = 1_000_000
LEASE_S_MAX: Final = 600


class Role(StrEnum):
    """What an invited account is there for."""

    NODE = "node"
    OPERATOR = "operator"
    MEMBER = "member"


LEVEL: Final[Mapping[Role, int]] = {
    Role.NODE: NODE_LEVEL,
    Role.OPERATOR: OPERATOR_LEVEL,
    Role.MEMBER: 0,
}


@dataclass(frozen=True, slots=True)
class RoomPlan:
    """The room as it should be. `alias` is the part before the colon, the whole alias, or the id of a room
    that is there. `name` is needed only to make it. `mode` None: as it is, or consistent.
    """

    name: str
    alias: str
    invite: Mapping[str, Role] = field(default_factory=dict)
    lease_s_max: int = LEASE_S_MAX
    epoch_step_max: int = EPOCH_STEP_MAX
    mode: Mode | None = None
    room_version: str | None = None
    delayed_ends: bool = True


@dataclass(frozen=True, slots=True)
class RoomMade:
    """The room as it is now, and what was done for it."""

    room_id: RoomId
    alias: str
    created: bool
    done: tuple[str, ...]


async def init_room(api: Api, plan: RoomPlan) -> RoomMade:
    """Make the room, or complete the one that has the alias.

    Raises CisbotError where the homeserver refuses, or the room that is there is encrypted; FieldError where
    there is no such room and no name for a new one.
    """
    if plan.alias.startswith("!"):
        return await _complete(api, plan, RoomId(plan.alias), plan.alias)
    local = plan.alias.removeprefix("#").partition(":")[0]
    alias = f"#{local}:{server_of(api.user_id)}"
    if plan.alias.removeprefix("#") not in (local, alias.removeprefix("#")):
        raise CisbotError(f"{plan.alias} is not on {server_of(api.user_id)}: an alias is its server's own")
    try:
        found = await api.read(Method.GET, Path.v3.directory.room[alias])
    except TokenDead:
        raise
    except Refused as refused:
        if refused.status != 404:
            raise CisbotError(f"can't look for {alias}: {refused}") from refused
        if not plan.name:
            what = f"is missing, and there is no room {alias} yet"
            raise FieldError("--name", what, 'a name for the new room, such as --name "Our tasks"') from None
        return await _create(api, plan, local, alias)
    return await _complete(api, plan, RoomId(str(found.get("room_id"))), alias)


async def _create(api: Api, plan: RoomPlan, local: str, alias: str) -> RoomMade:
    version = plan.room_version or await _default_version(api)
    listed = _levels(plan.invite)
    if stands_above(version):
        listed.pop(api.user_id, None)
    else:
        listed[api.user_id] = OPERATOR_LEVEL
    invite: list[Json] = [user for user in plan.invite if user != api.user_id]
    body: JsonMap = {
        "name": plan.name,
        "room_alias_name": local,
        "preset": "private_chat",
        "room_version": version,
        "invite": invite,
        "initial_state": [{"type": T_CHARTER, "state_key": "", "content": _charter(api, plan)}],
        "power_level_content_override": cast("JsonMap", levels_content(None, listed, fresh=True)),
    }
    try:
        answer = await api.call(Method.POST, Path.v3.createRoom, body)
    except Refused as refused:
        raise CisbotError(f"the homeserver does not make the room {alias}: {refused}") from refused
    done = ("made the room", "wrote its charter", *(f"invited {user}" for user in invite))
    return RoomMade(RoomId(str(answer.get("room_id"))), alias, True, done)


async def _default_version(api: Api) -> str:
    answer = await api.read(Method.GET, Path.v3.capabilities)
    every = answer.get("capabilities")
    versions = every.get("m.room_versions") if isinstance(every, dict) else None
    default = versions.get("default") if isinstance(versions, dict) else None
    if not isinstance(default, str):
        raise CisbotError("the homeserver does not say which room version it makes; give --room-version")
    return default


async def _complete(api: Api, plan: RoomPlan, room_id: RoomId, alias: str) -> RoomMade:
    await join(api, alias)
    state = await whole_state(api, room_id)
    lone = {str(e.get("type")): e for e in state if e.get("state_key") == ""}
    if "m.room.encryption" in lone:
        raise CisbotError(f"{alias} is encrypted, which cisbot doesn't serve; choose another alias")
    path = Path.v3.rooms[room_id]
    done: list[str] = []
    _check_mode(lone.get(T_CHARTER), plan, alias)
    if T_CHARTER not in lone:
        await _put(api, path.state[T_CHARTER], _charter(api, plan), "write the charter")
        done.append("wrote its charter")
    old = lone.get("m.room.power_levels", {}).get("content")
    content = old if isinstance(old, dict) else None
    create = lone.get("m.room.create", {})
    listed = _levels(plan.invite)
    if stands_above(room_version(create)):
        for creator in read_levels(create, content).creators:
            listed.pop(creator, None)
    wanted = levels_content(content, listed, fresh=False)
    if wanted != content:
        await _put(api, path.state["m.room.power_levels"], cast("JsonMap", wanted), "set power levels")
        done.append("set power levels")
    done += [await _invite(api, room_id, user) for user in _absent(api, plan, state)]
    return RoomMade(room_id, alias, False, tuple(done))


def _check_mode(charter: Mapping[str, object] | None, plan: RoomPlan, alias: str) -> None:
    """A charter is never written over: who asks for another mode is told."""
    known = decode(charter) if charter is not None else None
    if plan.mode is None or not isinstance(known, Charter):
        return
    mode = "available" if known.available else "consistent"
    if mode != plan.mode:
        raise CisbotError(f"{alias} is {mode}, for ever; make another room for --mode {plan.mode}")


def _absent(api: Api, plan: RoomPlan, state: list[Mapping[str, object]]) -> list[str]:
    here = set()
    for event in state:
        content = event.get("content")
        membership = content.get("membership") if isinstance(content, dict) else None
        if event.get("type") == "m.room.member" and membership in ("join", "invite"):
            here.add(event.get("state_key"))
    return [user for user in plan.invite if user not in here and user != api.user_id]


async def _invite(api: Api, room_id: RoomId, user: str) -> str:
    try:
        await api.read(Method.POST, Path.v3.rooms[room_id].invite, {"user_id": user})
    except Refused as refused:
        raise CisbotError(f"can't invite {user}: {refused}") from refused
    return f"invited {user}"


async def _put(api: Api, path: PathBuilder, content: JsonMap, what: str) -> None:
    try:
        await api.call(Method.PUT, path, content)
    except Refused as refused:
        why = f"{api.user_id} can't {what}: {refused}; run this as an account with power 100"
        raise CisbotError(why) from refused


def _levels(invite: Mapping[str, Role]) -> dict[str, int]:
    return {user: LEVEL[role] for user, role in invite.items() if LEVEL[role]}


def _charter(api: Api, plan: RoomPlan) -> JsonMap:
    charter: JsonMap = CharterWire(
        version=1,
        home=server_of(api.user_id),
        lease_s_max=plan.lease_s_max,
        epoch_step_max=plan.epoch_step_max,
        mode=plan.mode or "consistent",
        delayed_ends=plan.delayed_ends,
    ).model_dump(mode="json")
    return charter
