"""Values of the claim fold: the head of a key, its holders, and verdicts."""

from __future__ import annotations

from enum import Enum

from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId, Incarnation, UserId, server_of
from cisbot.core.room.events import CarriedHead, Holder


@dataclass(frozen=True, slots=True)
class Head:
    """The state of one key after its last accepted event (`after`). `value` is for public memory only.

    `touched`: the key has had a lock event, be it void or illegible. The room's state names it from then
    on, so whoever joins is unsure of it and asks; and what answers such a probe must be after it.
    `takes` and `later`: how many takes it had up to its `after`, void ones too, and since then. They bound
    a fresh take's epoch; told apart, whoever adopts the head and folds the rest on top counts none twice.
    """

    epoch: int = 0
    after: EventId | None = None
    holders: tuple[Holder, ...] = ()
    value: str | None = None
    touched: bool = False
    takes: int = 0
    later: int = 0

    def holder_of(self, slot: int) -> Holder | None:
        """The holder of a slot, or None."""
        return next((h for h in self.holders if h.slot == slot), None)

    def held_by(self, account: UserId, incarnation: Incarnation, epoch: int) -> Holder | None:
        """The holder with that account, incarnation and epoch, or None."""
        for holder in self.holders:
            if (holder.account, holder.incarnation, holder.epoch) == (account, incarnation, epoch):
                return holder
        return None

    def says(self) -> tuple[int, tuple[Holder, ...], str | None]:
        """What a reader of the state wants to know; renewals don't change it."""
        return self.epoch, self.holders, self.value


FREE = Head()


def with_holder(holders: tuple[Holder, ...], holder: Holder) -> tuple[Holder, ...]:
    """Holders with that slot given to `holder`."""
    rest = [h for h in holders if h.slot != holder.slot]
    return tuple(sorted((*rest, holder), key=lambda h: h.slot))


class VoidReason(Enum):
    """Why an event changes nothing; the value is what the room and the auditor read."""

    NOT_AFTER = "another event came first"
    EPOCH_NOT_HIGHER = "the epoch is not above the head's"
    EPOCH_TOO_FAR = "the epoch jumps further than the charter allows"
    LEASE_TOO_LONG = "the lease is longer than the charter allows"
    NOT_A_HOLDER = "it does not hold this key"
    NEVER_LOCKED = "the key has had no lock event"
    OFF_HOME = "its sender is not on the room's home server"
    AT_HOME = "who is on the home server needs no grant"


@dataclass(frozen=True, slots=True)
class Void:
    """The event changes nothing."""

    reason: VoidReason


@dataclass(frozen=True, slots=True)
class Accepted:
    """The event is the head's new `after`. `granted` is the new holder; `freed` lost their slots."""

    granted: Holder | None = None
    freed: tuple[Holder, ...] = ()
    renewed: tuple[Holder, ...] = ()


Verdict = Accepted | Void


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the charter says: bounds against broken senders, and whose stream decides (`home`; "": every one).

    `available`: whoever gets no grant in time claims by the stream of its own server.
    """

    lease_s_max: int = 600
    epoch_step_max: int = 1_000_000
    home: str = ""
    available: bool = False

    def at_home(self, account: UserId) -> bool:
        """Whether the account is on the home server."""
        return not self.home or server_of(account) == self.home


def carried(key: ClaimKey, head: Head) -> CarriedHead:
    """A head as it travels."""
    return CarriedHead(key, head.epoch, head.after, head.holders, head.value, head.takes)


def from_carried(head: CarriedHead) -> Head:
    """A head that another node carried."""
    return Head(head.epoch, head.after, head.holders, head.value, touched=True, takes=head.takes)
