"""What must hold after every step, apart from how it came about."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.state import Bounds, from_carried
from cisbot.core.ids import ClaimKey, RunId
from cisbot.core.room import events as ev
from cisbot.core.room.wire import key_of
from tests.sim.homeserver import Homeserver
from tests.sim.reference import Reference, truth_of


class Violation(AssertionError):
    """A guarantee is broken."""


@dataclass(slots=True)
class Execution:
    """Tasks of a run on a node, in true time: they are dead at the deadline, whatever their node does."""

    node: str
    key: ClaimKey
    slot: int
    epoch: int
    run: RunId
    began: float
    deadline: float
    ended: float | None = None

    def runs_at(self, now: float) -> bool:
        """Whether its tasks may run."""
        return self.ended is None and now < self.deadline


class Checkers:
    """Safety, agreement with the complete fold, and at the end liveness."""

    def __init__(self, bounds: Bounds) -> None:
        self.truth = Reference(bounds)
        self.executions: list[Execution] = []
        self._fences: set[tuple[ClaimKey, int]] = set()
        self.counted = Counter[str]()

    def began(self, new: Execution, now: float) -> None:
        """A node begins to execute: nobody else may, and its fence must be new and the highest."""
        if (new.key, new.epoch) in self._fences:
            raise Violation(f"{new.key} epoch {new.epoch} was granted twice, now to {new.node}")
        self._fences.add((new.key, new.epoch))
        if any(e.key == new.key and e.slot == new.slot and e.epoch > new.epoch for e in self.executions):
            raise Violation(f"{new.key}: epoch {new.epoch} of {new.node} is below one that was executed")
        self.executions.append(new)
        self.alone(new, now)

    def extended(self, execution: Execution, deadline: float, now: float) -> None:
        """A renewal came back: a passed deadline ends the claim for ever."""
        if not execution.runs_at(now):
            raise Violation(f"{execution.node} revives {execution.key} epoch {execution.epoch}")
        execution.deadline = deadline
        self.alone(execution, now)

    def alone(self, mine: Execution, now: float) -> None:
        """At most one runs the tasks of a slot, and of a run."""
        for other in self.executions[-50:]:
            if other is mine or not other.runs_at(now):
                continue
            if other.run == mine.run or (other.key, other.slot) == (mine.key, mine.slot):
                raise Violation(f"{mine} while {other}")

    def folded(self, node: str, ledger: Ledger, place: int, stream: Homeserver) -> None:
        """Every head of which a node is sure is that of the complete fold."""
        self.truth.follow(stream.stream)
        for key in {*ledger.known(), *self.truth.keys()}:
            head = ledger.sure(key)
            if head is not None and truth_of(head) != self.truth.at(key, place):
                true = self.truth.at(key, place)
                raise Violation(f"{node} is sure of {key} at {place}: {truth_of(head)}, but it is {true}")

    def settled(self, server: Homeserver, crashed: float) -> None:
        """In the end whoever reads only the state reads the truth, if who owed it lived on."""
        self.truth.follow(server.stream)
        for (kind, name), stated in server.state.items():
            if (key := key_of(kind, name)) is None or stated.done <= crashed:
                continue
            truth, event = self.truth.at(key, len(server.stream)), stated.event
            if isinstance(event, ev.Restate):
                said = truth_of(from_carried(event.head))
                true = (said[0], said[2:]) == (truth[0], truth[2:])
            elif isinstance(event, ev.MemoryWrite):
                true = (event.version, event.value) == (truth[0], truth[3])
            else:
                true = event.event_id == self.truth.stated.get(key)
            if not true:
                raise Violation(f"{key}: it is {truth}, but the state says {event}")
