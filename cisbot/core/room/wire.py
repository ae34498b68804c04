"""The contents of cisbot's own events, as they travel. Unknown fields are ignored: newer nodes may speak.

Every string and list is bounded here, so that nothing behind this border meets an unbounded value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, Nonce, RunId, UserId
from cisbot.core.room.events import CarriedHead, Holder, Json, JsonMap, Outcome

T_CHARTER = "io.cisbot.charter"
T_INTENT = "io.cisbot.intent"
T_LOCK = "io.cisbot.lock"
T_NODE = "io.cisbot.node"
T_MEMORY = "io.cisbot.memory"
T_HEARTBEAT = "io.cisbot.heartbeat"
T_PROBE = "io.cisbot.probe"
T_END = "io.cisbot.end"
STATE_TYPES = (T_CHARTER, T_INTENT, T_LOCK, T_NODE, T_MEMORY)
TIMELINE_TYPES = (T_HEARTBEAT, T_PROBE, T_END)
BLOCK = "io.cisbot"  # the structured part of cisbot's messages

EPOCH_MAX = 2**52
KEYS_MAX = 200
OPEN_RUNS_MAX = 50
DAGS_MAX = 1000
VALUE_BYTES_MAX = 4096
HEAD_BYTES_MAX = 30_000  # twice that, a value that is restated, fits into an event
MEMORY_PREFIX = "memory:"  # of the claim keys of public memory; no DAG and no scope has a ":"

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
LockKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^(?:[A-Za-z0-9][A-Za-z0-9._/-]{0,219}|lock:[A-Za-z0-9][A-Za-z0-9._-]{0,63})$"
    ),
]
MemoryKey = Annotated[str, StringConstraints(pattern=r"^memory:[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Key = LockKey | MemoryKey
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Id = Annotated[str, StringConstraints(min_length=1, max_length=320)]
Sign = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")]
Short = Annotated[str, StringConstraints(max_length=128)]
Epoch = Annotated[int, Field(ge=1, le=EPOCH_MAX)]
Count = Annotated[int, Field(ge=0, le=EPOCH_MAX)]
Slot = Annotated[int, Field(ge=0, le=63)]
Lease = Annotated[int, Field(ge=1, le=86_400)]
Mode = Literal["consistent", "available"]
Value = Annotated[str, StringConstraints(max_length=VALUE_BYTES_MAX)]


class Wire(BaseModel):
    """Base of all contents: frozen and strict, newer fields ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class HolderWire(Wire):
    """A holder in a carried head."""

    slot: Slot
    account: Id
    node: Name
    incarnation: Token
    epoch: Epoch
    run: Id
    lease_s: Lease
    sign: Sign = ""


class HeadWire(Wire):
    """A carried head."""

    key: Key
    epoch: Count
    after: Id | None
    holders: Annotated[list[HolderWire], Field(max_length=64)] = []
    value: Value | None = None
    takes: Count = 0


class AskerWire(Wire):
    """For whom a home node takes: somebody on another server."""

    account: Id
    node: Name
    incarnation: Token
    nonce: Token


class LockTake(Wire):
    """`io.cisbot.lock`, action take."""

    action: Literal["take"]
    node: Name
    incarnation: Token
    nonce: Token
    slot: Slot = 0
    epoch: Epoch
    after: Id | None
    run: Id
    dag: Name
    scope: Short
    lease_s: Lease
    definition: Short
    fresh: bool = False
    takes: Count = 0
    head: HeadWire | None = None
    open_runs: Annotated[list[Id], Field(max_length=OPEN_RUNS_MAX)] = []
    asker: AskerWire | None = None


class LockRelease(Wire):
    """`io.cisbot.lock`, action release."""

    action: Literal["release"]
    node: Name
    incarnation: Token
    nonce: Token
    epoch: Epoch
    run: Id
    outcome: Outcome | None = Field(default=None, strict=False)
    head: HeadWire | None = None
    open_runs: Annotated[list[Id], Field(max_length=OPEN_RUNS_MAX)] = []


class LockRestate(Wire):
    """`io.cisbot.lock`, action restate."""

    action: Literal["restate"]
    node: Name
    incarnation: Token
    head: HeadWire
    open_runs: Annotated[list[Id], Field(max_length=OPEN_RUNS_MAX)] = []


class AsksWire(Wire):
    """What a node off the home server asks for."""

    dag: Name
    scope: Short
    lease_s: Lease
    definition: Short
    slots: Annotated[int, Field(ge=1, le=64)] = 1


class IntentWire(Wire):
    """`io.cisbot.intent`."""

    node: Name
    incarnation: Token
    nonce: Token
    epoch: Epoch
    run: Id
    asks: AsksWire | None = None


class RenewalWire(Wire):
    """One key that a heartbeat renews."""

    key: Key
    epoch: Epoch


class HeartbeatWire(Wire):
    """`io.cisbot.heartbeat`."""

    node: Name
    incarnation: Token
    nonce: Token
    renews: Annotated[list[RenewalWire], Field(max_length=KEYS_MAX)] = []
    heads: Annotated[list[HeadWire], Field(max_length=KEYS_MAX)] = []


class ProbeWire(Wire):
    """`io.cisbot.probe`."""

    node: Name
    incarnation: Token
    nonce: Token
    keys: Annotated[list[Key], Field(max_length=KEYS_MAX)]


class EndWire(Wire):
    """`io.cisbot.end`."""

    node: Name
    incarnation: Token


class MemoryWire(Wire):
    """`io.cisbot.memory`."""

    incarnation: Token
    nonce: Token
    version: Epoch
    after: Id | None
    value: Value | None
    fresh: bool = False
    takes: Count = 0
    head: HeadWire | None = None


class MemoryRestate(Wire):
    """`io.cisbot.memory` with `restate: true`; `version` and `value` are there for readers of the state."""

    restate: Literal[True]
    incarnation: Token
    head: HeadWire


class CharterWire(Wire):
    """`io.cisbot.charter`."""

    version: Annotated[int, Field(ge=1, le=1)]
    home: Id
    lease_s_max: Lease = 600
    epoch_step_max: Annotated[int, Field(ge=1, le=EPOCH_MAX)] = 1_000_000
    delayed_ends: bool = True
    mode: Mode = "consistent"


class NodeWire(Wire):
    """`io.cisbot.node`; the state key is the node's account."""

    id: Name
    incarnation: Token
    executes: bool
    labels: Annotated[dict[Short, Short], Field(max_length=64)] = {}
    dags: Annotated[dict[Short, Short], Field(max_length=DAGS_MAX)] = {}
    gone: bool = False
    version: Short = ""


_KEYS: Mapping[str, TypeAdapter[str]] = {T_LOCK: TypeAdapter(LockKey), T_MEMORY: TypeAdapter(MemoryKey)}


def key_of(kind: str, state_key: str | None) -> ClaimKey | None:
    """The claim key whose state an event of this type and state key is; None where it can be none's."""
    if state_key is None or kind not in _KEYS:
        return None
    name = MEMORY_PREFIX + state_key if kind == T_MEMORY else state_key
    try:
        return ClaimKey(_KEYS[kind].validate_python(name))
    except ValidationError:
        return None


def place_of(key: ClaimKey) -> tuple[str, str]:
    """The type and the state key under which the room's state names the key: the inverse of `key_of`."""
    if key.startswith(MEMORY_PREFIX):
        return T_MEMORY, key.removeprefix(MEMORY_PREFIX)
    return T_LOCK, key


def head_to_wire(head: CarriedHead) -> JsonMap:
    """The content of a carried head."""
    holders: list[Json] = [
        {
            "slot": h.slot,
            "account": h.account,
            "node": h.node,
            "incarnation": h.incarnation,
            "epoch": h.epoch,
            "run": h.run,
            "lease_s": h.lease_s,
            "sign": h.sign,
        }
        for h in head.holders
    ]
    return {
        "key": head.key,
        "epoch": head.epoch,
        "after": head.after,
        "holders": holders,
        "value": head.value,
        "takes": head.takes,
    }


def head_bytes(head: CarriedHead) -> int:
    """How much of an event a carried head takes."""
    return len(json.dumps(head_to_wire(head)))


def head_from_wire(wire: HeadWire) -> CarriedHead:
    """A carried head as a value."""
    return CarriedHead(
        ClaimKey(wire.key),
        wire.epoch,
        EventId(wire.after) if wire.after is not None else None,
        tuple(
            Holder(
                h.slot,
                UserId(h.account),
                NodeId(h.node),
                Incarnation(h.incarnation),
                h.epoch,
                RunId(h.run),
                h.lease_s,
                Nonce(h.sign),
            )
            for h in wire.holders
        ),
        wire.value,
        wire.takes,
    )


def fitting(texts: Iterable[tuple[str, str]], bytes_max: int) -> dict[str, Json]:
    """The first of these names and texts, as many as have room in so many bytes of JSON."""
    told: dict[str, Json] = {}
    for name, text in texts:
        bytes_max -= len(name.encode()) + len(text.encode()) + 6
        if bytes_max < 0:
            break
        told[name] = text
    return told
