"""Events for the tests of claims: short names, and defaults where nothing depends on it."""

from __future__ import annotations

from cisbot.core.claims.messages import Me
from cisbot.core.claims.state import Head, carried
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, Nonce, RunId, UserId
from cisbot.core.room.events import (
    CarriedHead,
    End,
    Heartbeat,
    Holder,
    MemoryWrite,
    Probe,
    Release,
    Renewal,
    Restate,
    Take,
)

KEY = ClaimKey("d/project-p")
OTHER = ClaimKey("e/project-p")
MEMORY = ClaimKey("memory:m")
RUN = RunId("$run")
LEASE_S = 30


def me(name: str = "a") -> Me:
    """A process of a node."""
    return Me(NodeId(name), account(name), process(name))


def account(name: str) -> UserId:
    """The account of a node."""
    return UserId(f"@{name}:hs")


def process(name: str) -> Incarnation:
    """The incarnation of a node."""
    return Incarnation(f"{name}-1")


def _who(name: str) -> tuple[NodeId, Incarnation]:
    return NodeId(name), process(name)


def holder(name: str = "a", epoch: int = 1, *, slot: int = 0, run: RunId = RUN) -> Holder:
    """Who holds a slot."""
    return Holder(slot, account(name), *_who(name), epoch, run, LEASE_S)


def head(epoch: int, after: str | None, *holders: Holder, value: str | None = None) -> Head:
    """A head of a key that has had a lock event."""
    return Head(epoch, EventId(after) if after else None, holders, value, touched=True)


def take(
    event: str,
    name: str = "a",
    *,
    key: ClaimKey = KEY,
    epoch: int = 1,
    after: str | None = None,
    slot: int = 0,
    run: RunId = RUN,
    lease_s: int = LEASE_S,
    fresh: bool = False,
    nonce: str = "n",
    carries: CarriedHead | None = None,
    takes: int = 0,
) -> Take:
    """A lock request."""
    return Take(
        EventId(event), account(name), 0, key, *_who(name), Nonce(nonce), slot, epoch,
        EventId(after) if after else None, run, "d", "s", lease_s, "0", fresh, carries, takes,
    )  # fmt: skip


def release(
    event: str, name: str = "a", *, key: ClaimKey = KEY, epoch: int = 1, carries: CarriedHead | None = None
) -> Release:
    """A slot is given back."""
    return Release(EventId(event), account(name), 0, key, *_who(name), Nonce("r"), epoch, RUN, None, carries)


def beat(
    event: str, name: str = "a", *renews: tuple[ClaimKey, int], heads: tuple[CarriedHead, ...] = (),
    nonce: str = "b",
) -> Heartbeat:  # fmt: skip
    """A sign of life."""
    renewed = tuple(Renewal(key, epoch) for key, epoch in renews)
    return Heartbeat(EventId(event), account(name), 0, *_who(name), Nonce(nonce), renewed, heads)


def probe(event: str, name: str = "z", *keys: ClaimKey, nonce: str = "p") -> Probe:
    """A question for heads."""
    return Probe(EventId(event), account(name), 0, *_who(name), Nonce(nonce), keys or (KEY,))


def end(event: str, name: str = "a") -> End:
    """A process is over."""
    return End(EventId(event), account(name), 0, *_who(name))


def write(
    event: str,
    name: str = "a",
    *,
    key: ClaimKey = MEMORY,
    version: int = 1,
    after: str | None = None,
    value: str | None = "v",
    fresh: bool = False,
    nonce: str = "w",
    takes: int = 0,
) -> MemoryWrite:
    """A write to public memory."""
    return MemoryWrite(
        EventId(event), account(name), 0, key, process(name), Nonce(nonce), version,
        EventId(after) if after else None, value, fresh, None, takes,
    )  # fmt: skip


def restate(event: str, name: str, said: Head, *, key: ClaimKey = KEY) -> Restate:
    """The truth is stated again."""
    return Restate(EventId(event), account(name), 0, key, process(name), carried(key, said))
