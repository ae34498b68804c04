"""Can this node work in its room? Every finding says what is so, or what is missing and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Final

from cisbot.core.ids import RoomId, server_of
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Charter
from cisbot.core.room.wire import T_CHARTER, TIMELINE_TYPES
from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError
from cisbot.matrix.delayed import delay_s_max
from cisbot.matrix.http import Api, Unreachable
from cisbot.matrix.login import SESSION_FILE, load_session, log_in, try_password
from cisbot.matrix.power import NODE_LEVEL, NODE_STATE, Levels, read_levels, room_version
from cisbot.matrix.reads import whole_state
from cisbot.matrix.rooms import join

PATIENCE_S: Final = 20.0
_TALK: Final = ("m.room.message", "m.reaction")
_OPEN_HISTORY: Final = ("shared", "world_readable")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `how_to_mend` is empty where there is nothing to mend."""

    ok: bool
    what: str
    how_to_mend: str = ""


async def check_room(
    matrix: Matrix,
    data_dir: FilePath,
    say: Callable[[str], None] = lambda _: None,
    *,
    end_delay_s: float = 0.0,
) -> list[Finding]:
    """Log in, join the room if invited, and look whether all that a node needs is there, and how long the
    homeserver takes to free what a dead node held. Never raises CisbotError: a failure is a finding, and
    what depends on it is left out.
    """
    kept = load_session(data_dir / SESSION_FILE)
    try:
        api = await log_in(matrix, data_dir, say, patience_s=PATIENCE_S)
    except CisbotError as error:
        return [Finding(False, f"log in at {matrix.homeserver}", str(error))]
    async with api:
        found = await _credentials(matrix, kept is not None and kept.access_token == api.token, say)
        try:
            room_id = await join(api, matrix.room)
        except CisbotError as error:
            return [*found, Finding(False, f"be in the room {matrix.room}", str(error))]
        found.append(Finding(True, f"is in the room {matrix.room}"))
        try:
            state = await whole_state(api, room_id)
            found += room_findings(state, api.user_id, room_id)
            return [*found, await _delayed_end(api, state, end_delay_s)]
        except CisbotError as error:
            return [*found, Finding(False, "read the room's state", str(error))]


def allows_delayed_ends(state: Sequence[Mapping[str, object]]) -> bool:
    """Whether the charter lets nodes have delayed ends."""
    charters = (decode(event) for event in state if event.get("type") == T_CHARTER)
    return any(isinstance(charter, Charter) and charter.delayed_ends for charter in charters)


async def _delayed_end(api: Api, state: Sequence[Mapping[str, object]], delay_s: float) -> Finding:
    """Whether a dead node's claims are free sooner than their lease. A node works without it."""
    lease = "what a dead node held is free after its lease"
    if not delay_s:
        return Finding(True, f"no delayed end by its settings: {lease}")
    if not allows_delayed_ends(state):
        return Finding(True, f"the charter forbids delayed ends: {lease}")
    most_s = await delay_s_max(api)
    if most_s >= delay_s:
        return Finding(
            True, f"the homeserver has delayed events: a dead node's claims are free in {delay_s:g} s"
        )
    mend = "Synapse offers them by max_event_delay_duration: 24h"
    if most_s:
        return Finding(True, f"the homeserver delays events by {most_s:g} s at most: {lease}", mend)
    return Finding(True, f"the homeserver has no delayed events (MSC4140): {lease}", mend)


async def _credentials(matrix: Matrix, by_session: bool, say: Callable[[str], None]) -> list[Finding]:
    """Which credential let us in. A kept session says nothing of the password, so that is tried too."""
    if matrix.password is None:
        return [Finding(True, f"logged in as {matrix.user_id} with the access token of the settings")]
    if not by_session:
        return [Finding(True, f"logged in as {matrix.user_id} with the password of the settings")]
    found = [Finding(True, f"logged in as {matrix.user_id} with the session kept in {SESSION_FILE}")]
    try:
        await try_password(matrix, say, patience_s=PATIENCE_S)
    except Unreachable as lost:
        return [
            *found,
            Finding(False, f"the password of the settings could not be tried: {lost}", "try again"),
        ]
    except CisbotError as error:
        mend = "the node works only until the homeserver forgets its session: correct matrix.password"
        return [*found, Finding(False, f"the password of the settings does not work: {error}", mend)]
    return [*found, Finding(True, "the password of the settings is right")]


def room_findings(state: Sequence[Mapping[str, object]], user_id: str, room_id: RoomId) -> list[Finding]:
    """What the room's state tells about the account's place in it. Pure."""
    by_type = {event.get("type"): event for event in state if event.get("state_key") == ""}
    create = by_type.get("m.room.create", {})
    power = by_type.get("m.room.power_levels")
    content = power.get("content") if power is not None else None
    levels = read_levels(create, content if isinstance(content, Mapping) else None)
    return [
        _encryption(by_type.get("m.room.encryption")),
        *_charter(by_type.get(T_CHARTER), user_id, room_id),
        _may(levels, user_id, NODE_STATE, state=True, why="claims and memory"),
        _may(levels, user_id, TIMELINE_TYPES, state=False, why="signs of life"),
        _may(levels, user_id, _TALK, state=False, why="status and reactions"),
        _history(by_type.get("m.room.history_visibility")),
        Finding(True, f"the room has version {room_version(create)}"),
    ]


def _encryption(event: Mapping[str, object] | None) -> Finding:
    if event is None:
        return Finding(True, "the room is not encrypted")
    mend = "encryption can't be taken back: make another room with `cisbot room init`"
    return Finding(False, "the room is encrypted, which cisbot doesn't serve", mend)


def _charter(event: Mapping[str, object] | None, user_id: str, room_id: RoomId) -> list[Finding]:
    if event is None:
        mend = f"somebody with power 100 runs `cisbot room init` for {room_id}"
        return [Finding(False, "the room has no charter", mend)]
    charter = decode(event)
    if not isinstance(charter, Charter):
        why = getattr(charter, "why", "it can't be read")
        return [Finding(False, f"the room's charter is not valid: {why}", "write it anew")]
    server, mode = server_of(user_id), "available: may run twice" if charter.available else "consistent"
    there = Finding(True, f"the room has a charter; it is {mode}")
    if charter.home != server:
        what = f"the room's home is {charter.home}; this node, on {server}, claims through grants only"
        return [there, Finding(True, what)]
    return [there, Finding(True, f"the room's home is {charter.home}, as is this node's")]


def _may(levels: Levels, user_id: str, types: Sequence[str], *, state: bool, why: str) -> Finding:
    own = levels.of(user_id)
    lacking = {kind: levels.needed(kind, state=state) for kind in types}
    lacking = {kind: level for kind, level in lacking.items() if own < level}
    if not lacking:
        return Finding(True, f"may send {', '.join(types)} ({why})")
    give = max(NODE_LEVEL, *lacking.values())
    needs = ", ".join(f"{kind} needs {level}" for kind, level in lacking.items())
    mend = f"give {user_id} power {give}, it has {own:.0f}: room settings, or `cisbot room init` again"
    return Finding(False, f"may not send all of its {why}: {needs}", mend)


def _history(event: Mapping[str, object] | None) -> Finding:
    content = event.get("content") if event is not None else None
    seen = content.get("history_visibility") if isinstance(content, Mapping) else "shared"
    if seen in _OPEN_HISTORY:
        return Finding(True, f"members can read the room's history ({seen})")
    mend = "set the history's visibility to `shared`, so that a new node can read back"
    return Finding(False, f"the room's history is for {seen} members only", mend)


def all_well(findings: Sequence[Finding]) -> bool:
    """Whether a node can work."""
    return all(finding.ok for finding in findings)
