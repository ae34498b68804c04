"""Histories for the tests of the audit: honest nodes by default, and whatever a test adds to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from cisbot.core.audit.examine import audit
from cisbot.core.audit.found import Reading, Report
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.state import FREE, Bounds, carried
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, Nonce, RunId, UserId
from cisbot.core.room.events import (
    Asker,
    Asks,
    CarriedHead,
    Charter,
    ClaimEvent,
    End,
    Heartbeat,
    Intent,
    JsonMap,
    MemoryWrite,
    Message,
    NodeRecord,
    Outcome,
    Probe,
    Rejected,
    Release,
    Renewal,
    Restate,
    RoomEvent,
    Take,
)

E = TypeVar("E", bound="RoomEvent | Rejected")
KEY = ClaimKey("backup/project-p")
MEMORY = ClaimKey("memory:m")
LEASE_S, LEASE_MAX_S, STEP_MAX = 30, 60, 1_000


class History:
    """A room that `audit` may read. Every method appends one event, a second after the one before."""

    def __init__(self, *names: str, ms: int = 1_000_000, available: bool = False) -> None:
        self.events: list[RoomEvent | Rejected] = []
        self.state: list[RoomEvent | Rejected] = []
        self.ledger = Ledger(Bounds(LEASE_MAX_S, STEP_MAX))
        self.ms = ms
        self.whole = True
        self.reader: UserId | None = None
        self.charter(available=available)
        for name in names or ("a", "b", "c"):
            self.record(name)

    def report(self) -> Report:
        """The audit, a second after the last event."""
        return audit(Reading(tuple(self.events), tuple(self.state), self.whole, self.ms + 1_000, self.reader))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.ms += int(seconds * 1000)

    def add(self, event: E) -> E:
        """Append it, and let all nodes see it."""
        self.events.append(event)
        if isinstance(event, ClaimEvent | Restate):
            self.ledger.observe(event)
        return event

    def head(self, key: ClaimKey = KEY) -> CarriedHead:
        """What is so now."""
        head = self.ledger.sure(key)
        assert head is not None
        return carried(key, head)

    # -- events ------------------------------------------------------------------------------------

    def charter(
        self, home: str = "hs", lease_s_max: int = LEASE_MAX_S, *, available: bool = False
    ) -> Charter:
        """The room's rules; the first of them names the home."""
        said = Charter(*self._envelope("op"), 1, home, lease_s_max, STEP_MAX, available=available)
        if not self.ledger.bounds.home:
            self.ledger.bounds = Bounds(lease_s_max, STEP_MAX, home, available)
        return self.add(said)

    def record(self, name: str, *, node: str = "", life: int = 1, gone: bool = False) -> NodeRecord:
        return self.add(
            NodeRecord(
                *self._envelope(name), NodeId(node or name), process(name, life), True, {}, {}, gone, "1"
            )
        )  # fmt: skip

    def take(
        self, name: str, run: str = "$r", *, key: ClaimKey = KEY, epoch: int = 0, after: str = "",
        slot: int = 0, scope: str = "project-p", lease_s: int = LEASE_S, life: int = 1, node: str = "",
        seen: CarriedHead | None = None, asker: Asker | None = None,
    ) -> Take:  # fmt: skip
        """Asks for the next epoch on the head as it is, or as its sender saw it, unless told otherwise."""
        head = seen or self.head(key)
        stands = EventId(after) if after else head.after
        return self.add(
            Take(
                *self._envelope(name), key, NodeId(node or name), process(name, life), self._nonce(), slot,
                epoch or head.epoch + 1, stands, RunId(run), "backup", scope, lease_s, "0", False,
                head if head.after is not None and not after else None, asker=asker,
            )
        )  # fmt: skip

    def rival(self, name: str, run: str = "$r", *, asker: Asker | None = None) -> Take:
        """A take on the key as it was at first: it comes second, and is void."""
        return self.take(name, run, seen=carried(KEY, FREE), asker=asker)

    def ask(self, name: str, run: str = "$r", *, node: str = "") -> Asker:
        """Asks for a grant; what that must name."""
        said = self.add(
            Intent(
                *self._envelope(name), KEY, NodeId(node or name), process(name, 1), self._nonce(), 1,
                RunId(run), Asks("backup", "project-p", LEASE_S, "0"),
            )
        )  # fmt: skip
        return Asker(said.sender, said.node, said.incarnation, said.nonce)

    def release(
        self, name: str, epoch: int = 1, outcome: Outcome | None = Outcome.SUCCEEDED, run: str = "$r", *,
        key: ClaimKey = KEY, life: int = 1, seen: CarriedHead | None = None,
    ) -> Release:  # fmt: skip
        """Given back on the head as it is, or as its sender saw it last."""
        return self.add(
            Release(
                *self._envelope(name), key, NodeId(name), process(name, life), self._nonce(), epoch,
                RunId(run), outcome, seen or self.head(key),
            )
        )  # fmt: skip

    def beat(
        self, name: str, epoch: int = 1, *, key: ClaimKey = KEY, life: int = 1, node: str = "",
        heads: tuple[CarriedHead, ...] | None = None,
    ) -> Heartbeat:  # fmt: skip
        carries = heads if heads is not None else (self.head(key),)
        renews = (Renewal(key, epoch),) if epoch else ()
        node = node or name
        return self.add(
            Heartbeat(
                *self._envelope(name), NodeId(node), process(name, life), self._nonce(), renews, carries
            )
        )  # fmt: skip

    def probe(self, name: str, *, life: int = 1) -> Probe:
        return self.add(
            Probe(*self._envelope(name), NodeId(name), process(name, life), self._nonce(), (KEY,))
        )

    def end(self, name: str, life: int = 1) -> End:
        return self.add(End(*self._envelope(name), NodeId(name), process(name, life)))

    def restate(self, name: str, head: CarriedHead) -> Restate:
        return self.add(Restate(*self._envelope(name), head.key, process(name, 1), head))

    def write(self, name: str, version: int, value: str, *, after: str = "") -> MemoryWrite:
        head = self.head(MEMORY)
        stands = EventId(after) if after else head.after
        return self.add(
            MemoryWrite(
                *self._envelope(name), MEMORY, process(name, 1), self._nonce(), version, stands, value,
                False, head if head.after and not after else None,
            )
        )  # fmt: skip

    def say(self, name: str, epoch: int = 1, status: str = "running", run: str = "$r") -> Message:
        """A status message, or a final one."""
        kind = "status" if status == "running" else "final"
        block: JsonMap = {"kind": kind, "run": run, "epoch": epoch, "node": name, "status": status}
        return self.add(
            Message(*self._envelope(name), "m.notice", status, EventId(run), None, None, block, None)
        )

    def redact(self, event: RoomEvent) -> None:
        """Take its content away."""
        kind = "io.cisbot.lock" if isinstance(event, Take | Release) else "io.cisbot.heartbeat"
        state_key = str(KEY) if isinstance(event, Take | Release) else None
        bare = Rejected(
            event.event_id, event.sender, event.ts_ms, kind, "empty", state_key, True, UserId("@op:hs")
        )
        self.events[self.events.index(event)] = bare

    def swap(self, one: RoomEvent, other: RoomEvent) -> None:
        """The reading tells them the other way round."""
        a, b = self.events.index(one), self.events.index(other)
        self.events[a], self.events[b] = self.events[b], self.events[a]

    def _nonce(self) -> Nonce:
        return Nonce(f"n{len(self.events)}")

    def _envelope(self, name: str) -> tuple[EventId, UserId, int]:
        self.ms += 1_000
        return EventId(f"$e{len(self.events)}"), account(name), self.ms


def account(name: str) -> UserId:
    """The account of a node: on the home server, but that of `away` is on another."""
    return UserId(f"@{name}:{'elsewhere' if name == 'away' else 'hs'}")


def process(name: str, life: int) -> Incarnation:
    """An incarnation of a node."""
    return Incarnation(f"{name}-{life}")


def lie(head: CarriedHead, **changes: object) -> CarriedHead:
    """A head that says something else."""
    return replace(head, **changes)  # type: ignore[arg-type]
