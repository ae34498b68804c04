"""What a sure node owes the others: heads to those who ask, and the truth in the state key.

A void write still replaces the state, so whoever reads only the state reads a wrong name or value until
somebody restates. For both there is an order of turns, and who comes later keeps silent if it is done:
the holder goes first; of a free key or public memory the sender of the void write; then all in hash order.
"""

from __future__ import annotations

from collections.abc import Container

from cisbot.core.claims.ledger import Judged, Ledger
from cisbot.core.claims.messages import Me
from cisbot.core.claims.state import Accepted, Head, from_carried
from cisbot.core.ids import ClaimKey, EventId, UserId
from cisbot.core.room.events import (
    CarriedHead,
    ClaimEvent,
    End,
    Heartbeat,
    MemoryWrite,
    Probe,
    Release,
    Restate,
    Take,
)


class Answers:
    """Heads owed to probes and restates owed to the state, each with the time of this node's turn. Pure."""

    def __init__(self, me: Me, ledger: Ledger) -> None:
        self._me = me
        self._ledger = ledger
        self._heads: dict[ClaimKey, float] = {}
        self._states: dict[ClaimKey, float] = {}

    def gap(self) -> None:
        """Events were missed: what was owed may be done, and this node can't tell the truth any more."""
        self._heads.clear()
        self._states.clear()

    def arriving(self, event: ClaimEvent | Restate) -> None:
        """Before the fold of an event: a head that is as new as this node's serves all who asked."""
        if isinstance(event, Heartbeat):
            for head in event.heads:
                if self._current(head):
                    self._heads.pop(head.key, None)

    def probed(self, event: Probe, holds: Container[ClaimKey], echo_s: float, now: float) -> None:
        """Somebody asks for heads: the holder answers at once, the others in turn."""
        if event.sender == self._me.account:
            return
        for key in event.keys:
            head = self._ledger.sure(key)
            if head is not None and head.after is not None:
                self._heads[key] = now + (0.0 if key in holds else self._turn(key, event.event_id, echo_s))

    def judged(self, found: Judged, holds: Container[ClaimKey], echo_s: float, now: float) -> None:
        """A verdict: a void lock event, or an end, leaves the state key naming what is not so."""
        event, accepted = found.event, isinstance(found.verdict, Accepted)
        match event:
            case Take() | Release() | MemoryWrite() if accepted:
                self._states.pop(found.key, None)
            case Take() | Release() | MemoryWrite():
                self.wrong(found.key, event.sender, event.event_id, holds, echo_s, now)
            case End() if accepted:
                self.wrong(found.key, event.sender, event.event_id, holds, echo_s, now)
            case _:
                pass

    def restated(self, event: Restate, holds: Container[ClaimKey], echo_s: float, now: float) -> None:
        """Somebody restates: either that is the truth, or it came too late and has to be said again."""
        head = self._ledger.sure(event.key)
        if head is None:
            return
        if from_carried(event.head).says() == head.says():
            self._states.pop(event.key, None)
        else:
            self.wrong(event.key, event.sender, event.event_id, holds, echo_s, now)

    def wrong(
        self,
        key: ClaimKey,
        sender: UserId,
        event: EventId,
        holds: Container[ClaimKey],
        echo_s: float,
        now: float,
    ) -> None:
        """The state key names what is not so."""
        head = self._ledger.sure(key)
        if head is None:
            return
        first = key in holds if head.holders else sender == self._me.account
        turn = now if first else now + self._turn(key, event, echo_s)
        self._states[key] = min(turn, self._states.get(key, turn))

    def due(self, now: float) -> tuple[list[CarriedHead], list[CarriedHead]]:
        """The heads to send in a heartbeat now, and those to restate."""
        return self._take(self._heads, now), self._take(self._states, now)

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        return min((*self._heads.values(), *self._states.values()), default=None)

    def _take(self, owed: dict[ClaimKey, float], now: float) -> list[CarriedHead]:
        keys = [key for key, at in owed.items() if at <= now]
        for key in keys:
            del owed[key]
        return [head for key in keys if (head := self._ledger.carried(key)) is not None]

    def _current(self, head: CarriedHead) -> bool:
        mine: Head | None = self._ledger.sure(head.key)
        return mine is not None and mine.after == head.after

    def _turn(self, key: ClaimKey, event: EventId, echo_s: float) -> float:
        return (1 + self._me.rank(key, event)) * max(3 * echo_s, 0.5)
