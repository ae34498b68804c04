"""Decoded room events: small frozen values, valid once and for all after `decode`.

`ts_ms` is the homeserver's wall clock in milliseconds. It is shown to people and never decides a claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import TypeAlias

from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, Nonce, RunId, UserId

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
JsonMap: TypeAlias = "dict[str, Json]"


class Outcome(StrEnum):
    """How a run or its attempt ended; the value is what the room reads."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Event:
    """What every event of the room has."""

    event_id: EventId
    sender: UserId
    ts_ms: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a slot, since which epoch, for which run, and for how long without a sign of life.

    `sign` is the nonce of the last sign that was accepted: the request, then each heartbeat. A renewal
    changes nothing about who holds, so it is not compared.
    """

    slot: int
    account: UserId
    node: NodeId
    incarnation: Incarnation
    epoch: int
    run: RunId
    lease_s: int
    sign: Nonce = field(default=Nonce(""), compare=False)


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom a take makes a holder, and by which of its attempts."""

    account: UserId
    node: NodeId
    incarnation: Incarnation
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class CarriedHead:
    """The head of a key on which the sender of an event stands (claims protocol, "sure and unsure")."""

    key: ClaimKey
    epoch: int
    after: EventId | None
    holders: tuple[Holder, ...]
    value: str | None = None
    takes: int = 0


@dataclass(frozen=True, slots=True)
class Take(Event):
    """Asks for a slot of a key at a new epoch; accepted by compare-and-set on `after`.

    A *grant* is a take that a home node sends for an `asker` on another server.
    """

    key: ClaimKey
    node: NodeId
    incarnation: Incarnation
    nonce: Nonce
    slot: int
    epoch: int
    after: EventId | None
    run: RunId
    dag: str
    scope: str
    lease_s: int
    definition: str
    fresh: bool = False
    head: CarriedHead | None = None
    takes: int = 0
    open_runs: tuple[RunId, ...] = ()
    asker: Asker | None = None

    @property
    def who(self) -> Asker:
        """Who holds the slot if it is accepted."""
        return self.asker or Asker(self.sender, self.node, self.incarnation, self.nonce)


@dataclass(frozen=True, slots=True)
class Release(Event):
    """Gives a slot back, with the outcome if the run is over."""

    key: ClaimKey
    node: NodeId
    incarnation: Incarnation
    nonce: Nonce
    epoch: int
    run: RunId
    outcome: Outcome | None
    head: CarriedHead | None = None
    open_runs: tuple[RunId, ...] = ()


@dataclass(frozen=True, slots=True)
class Restate(Event):
    """Writes the true head into the state key again; nothing to the fold."""

    key: ClaimKey
    incarnation: Incarnation
    head: CarriedHead
    open_runs: tuple[RunId, ...] = ()


@dataclass(frozen=True, slots=True)
class Renewal:
    """One key and epoch that a heartbeat renews."""

    key: ClaimKey
    epoch: int


@dataclass(frozen=True, slots=True)
class Heartbeat(Event):
    """One node's sign of life: renews what it names, and carries heads."""

    node: NodeId
    incarnation: Incarnation
    nonce: Nonce
    renews: tuple[Renewal, ...]
    heads: tuple[CarriedHead, ...]


@dataclass(frozen=True, slots=True)
class Probe(Event):
    """Asks for the heads of some keys."""

    node: NodeId
    incarnation: Incarnation
    nonce: Nonce
    keys: tuple[ClaimKey, ...]


@dataclass(frozen=True, slots=True)
class End(Event):
    """An incarnation is over, for ever: all that it held is free."""

    node: NodeId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class MemoryWrite(Event):
    """A compare-and-set on one key of the public memory; `version` counts accepted writes."""

    key: ClaimKey
    incarnation: Incarnation
    nonce: Nonce
    version: int
    after: EventId | None
    value: str | None
    fresh: bool = False
    head: CarriedHead | None = None
    takes: int = 0


@dataclass(frozen=True, slots=True)
class Asks:
    """What a node off the home server wants a home node to take for it."""

    dag: str
    scope: str
    lease_s: int
    definition: str
    slots: int = 1  # of the key


@dataclass(frozen=True, slots=True)
class Intent(Event):
    """A node asks for the next epoch of a key: a hint for the room to pick one of several, never a right.

    With `asks`, it comes from off the home server and asks for a grant.
    """

    key: ClaimKey
    node: NodeId
    incarnation: Incarnation
    nonce: Nonce
    epoch: int
    run: RunId
    asks: Asks | None = None


@dataclass(frozen=True, slots=True)
class Charter(Event):
    """The room's rules, named once for ever by who made the room."""

    version: int
    home: str
    lease_s_max: int
    epoch_step_max: int
    delayed_ends: bool = True
    available: bool = False


@dataclass(frozen=True, slots=True)
class NodeRecord(Event):
    """What a node says of itself, under a state key that only its account can write."""

    node: NodeId
    incarnation: Incarnation
    executes: bool
    labels: Mapping[str, str]
    dags: Mapping[str, str]
    gone: bool
    version: str


@dataclass(frozen=True, slots=True)
class PowerLevels(Event):
    """Who has which power in the room. Creators of rooms of version 12 stand above every level."""

    users: Mapping[str, int]
    users_default: int
    events: Mapping[str, int]
    state_default: int
    events_default: int
    redact: int


@dataclass(frozen=True, slots=True)
class RoomCreate(Event):
    """The room's first event: its version and creators."""

    room_version: str
    creators: tuple[UserId, ...]


@dataclass(frozen=True, slots=True)
class Encryption(Event):
    """The room is encrypted, which cisbot can't serve yet."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file attached to a message."""

    url: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Message(Event):
    """An `m.room.message`. `block` is the structured content that cisbot's own messages carry."""

    msgtype: str
    body: str
    thread: EventId | None
    reply_to: EventId | None
    edits: EventId | None
    block: JsonMap | None
    file: FileRef | None
    txn: str | None = None


@dataclass(frozen=True, slots=True)
class Reaction(Event):
    """An annotation of another event."""

    target: EventId
    key: str


@dataclass(frozen=True, slots=True)
class Member(Event):
    """A membership change."""

    user: UserId
    membership: str


@dataclass(frozen=True, slots=True)
class Rejected(Event):
    """An event that can't be read: hostile, malformed, or from a newer version. `audit` shows it.

    `redacted`: its content was taken away, so that nodes which saw it before know more.
    """

    type: str
    why: str
    state_key: str | None = None
    redacted: bool = False
    redacted_by: UserId | None = None


LockEvent = Take | Release | Restate
ClaimEvent = Take | Release | Heartbeat | End | Probe | MemoryWrite
RoomEvent = (
    ClaimEvent
    | Restate
    | Intent
    | Charter
    | NodeRecord
    | PowerLevels
    | RoomCreate
    | Encryption
    | Message
    | Reaction
    | Member
)
