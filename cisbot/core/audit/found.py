"""What an audit is given and what it finds: values only.

A *breach* contradicts the protocol: no room of honest nodes shows it. A *remark* is what people may want to
know and what faults alone can bring about: a lapsed lease, an outcome that came too late, an unproven order.
"""

from __future__ import annotations

from enum import StrEnum

from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, RunId, UserId
from cisbot.core.room.events import Outcome, Rejected, RoomEvent


class Breach(StrEnum):
    """An inconsistency, by name."""

    HEAD_DIFFERS = "head-differs"  # a carried head is not what the fold has there
    RESTATE_FALSE = "restate-false"
    STATE_DIFFERS = "state-differs"  # the room's state names another than the fold
    EPOCH_BACKWARDS = "epoch-backwards"
    EPOCH_TOO_FAR = "epoch-too-far"
    LEASE_TOO_LONG = "lease-too-long"
    TAKEN_EARLY = "taken-early"  # from another node whose lease had not run out
    VOID_RAN = "void-ran"  # something was done under a claim that was void
    NOT_HELD = "not-held"  # an outcome or a renewal of what its sender never held
    OUTCOMES_DIFFER = "outcomes-differ"
    RUN_TWICE = "run-twice"  # executed again after its outcome
    TWO_HOLDERS = "two-holders"  # of one run, or of a scope with one worker in the cluster
    SPEAKS_FOR_ANOTHER = "speaks-for-another"
    ZOMBIE = "zombie"  # an incarnation that speaks after its end
    TWIN = "twin"  # two processes under one node id at a time
    CHARTER_CHANGED = "charter-changed"
    EVIDENCE_TAKEN = "evidence-taken"  # a claim event was redacted


class Remark(StrEnum):
    """Worth knowing, and no inconsistency."""

    LAPSED = "lapsed"  # a lease ran out, and another node took over
    LATE_OUTCOME = "late-outcome"
    RAN_ON = "ran-on"  # tasks were told of after the hold had ended
    RAN_APART = "ran-apart"  # under a claim void at home, off it, in a room that allows for that
    LATE_WORDS = "late-words"  # a request of a process that was over by then
    STATE_OLD = "state-old"  # the state waits for somebody to restate it
    ORDER_MENDED = "order-mended"  # read elsewhere than where it was in the stream
    ORDER_UNPROVEN = "order-unproven"
    CLOCK_SET_BACK = "clock-set-back"  # the homeserver's: times before and after can't be compared
    OFF_HOME = "off-home"  # read on a server whose order does not decide
    NOT_WHOLE = "not-whole"  # the reading does not begin with the room
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach or remark; `what` is a sentence for people. Times are the homeserver's, in ms."""

    kind: Breach | Remark
    what: str
    ts_ms: int
    key: ClaimKey | None = None
    run: RunId | None = None
    event: EventId | None = None
    sender: UserId | None = None


class HoldEnd(StrEnum):
    """How a hold ended."""

    HELD = "held"  # not at all, and its lease runs
    LAPSED = "lapsed"  # its lease ran out, and nobody took the key since
    RELEASED = "released"
    ENDED = "ended"  # its process was over
    TAKEN = "taken over"
    UNKNOWN = "unknown"  # the evidence was taken away


@dataclass(frozen=True, slots=True)
class Hold:
    """One accepted take: who held the key, from when to when. `lapsed_ms`: how long without a lease."""

    key: ClaimKey
    slot: int
    epoch: int
    node: NodeId
    account: UserId
    incarnation: Incarnation
    run: RunId
    dag: str
    scope: str
    lease_s: int
    event: EventId
    since_ms: int
    last_sign_ms: int
    renewals: int
    until_ms: int | None
    end: HoldEnd
    outcome: Outcome | None
    lapsed_ms: int


@dataclass(frozen=True, slots=True)
class VoidClaim:
    """A take or a release that changed nothing, and why."""

    key: ClaimKey
    epoch: int
    node: NodeId
    account: UserId
    run: RunId
    action: str
    event: EventId
    ts_ms: int
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """The room as it was read: `events` in the homeserver's order, the oldest first.

    `whole`: from the room's first event. `as_of_ms`: the time of the reading, by the homeserver's clock as
    nearly as it is known. `state` is empty where it could not be read. `reader`: whose homeserver told; None
    where that is not known.
    """

    events: tuple[RoomEvent | Rejected, ...]
    state: tuple[RoomEvent | Rejected, ...]
    whole: bool
    as_of_ms: int
    reader: UserId | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The result. `whole`: the reading began with the room."""

    events: int
    whole: bool
    from_ms: int
    as_of_ms: int
    holds: tuple[Hold, ...]
    voids: tuple[VoidClaim, ...]
    breaches: tuple[Finding, ...]
    remarks: tuple[Finding, ...]

    @property
    def consistent(self) -> bool:
        """Whether nothing contradicts the rules."""
        return not self.breaches
