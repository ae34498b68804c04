"""What runs tasks on one machine: a model of the worker, which kills its tasks at their deadline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cisbot.core.effects import Answer, CancelWork, MoveDeadline, StartWork, Work
from cisbot.core.frames import Reason, StartTask, TaskEnded, TaskStarted
from cisbot.core.ids import ClaimKey
from cisbot.core.inputs import Input, WorkerReport
from cisbot.core.scopes import lock_key
from tests.sim.violation import Violation

if TYPE_CHECKING:
    from tests.sim.machine import Machine


@dataclass(slots=True)
class Attempt:
    """A task's processes, `began` and `ended` in true time; at the deadline they are dead."""

    node: str
    incarnation: str
    run: str
    task: str
    attempt: int
    epoch: int
    began: float
    deadline: float  # of its machine's clock
    clock: Callable[[], float]
    locks: dict[ClaimKey, int]  # their epochs
    ended: float | None = None
    good: bool = False

    def alive(self) -> bool:
        """Whether it may do something now."""
        return self.ended is None and self.clock() < self.deadline


class Workers:
    """`node.ports.Workers` of one process; what it started dies with it."""

    def __init__(self, machine: Machine, emit: Callable[[Input], None]) -> None:
        self._machine = machine
        self._world = machine.world
        self._emit = emit
        self._attempts: list[Attempt] = []

    def do(self, work: Work) -> None:
        """Start, cancel, re-deadline."""
        match work:
            case StartWork():
                self._start(work.frame)
            case CancelWork():
                for attempt in [a for a in self._attempts if a.run == work.run]:
                    self._end(attempt, "cancelled")
            case MoveDeadline():
                for attempt in [a for a in self._attempts if a.run == work.run]:
                    if not attempt.alive():
                        raise Violation(f"{attempt} is revived after its deadline")
                    attempt.deadline = work.deadline
                    self._watch(attempt)
            case Answer():
                self._machine.answered(work)

    def killed(self) -> None:
        """The guard kills all of them, for their node is dead."""
        for attempt in self._attempts:
            attempt.ended = self._world.now
        self._attempts.clear()

    def _start(self, frame: StartTask) -> None:
        world = self._world
        attempt = Attempt(
            self._machine.name, self._machine.incarnation, frame.run, frame.task, frame.attempt,
            int(frame.env["CIS_FENCE"]), world.now, frame.deadline, self._machine.clock,
            {lock_key(name): int(epoch) for name, epoch in _pairs(frame.env["CIS_LOCKS"])},
        )  # fmt: skip
        if not attempt.alive():
            self._report(TaskEnded(frame.run, frame.task, frame.attempt, None, None, "fenced", "", "", {}))
            return
        world.checkers.began(attempt, world.now)
        world.checkers.effect(attempt)
        world.log("{} RUNS {} of {} under epoch {}", attempt.node, attempt.task, attempt.run, attempt.epoch)
        self._attempts.append(attempt)
        self._report(TaskStarted(frame.run, frame.task, frame.attempt, 1))
        self._watch(attempt)
        world.after(world.lasts(), lambda: self._complete(attempt))

    def _watch(self, attempt: Attempt) -> None:
        deadline = attempt.deadline

        def look() -> None:
            if attempt.ended is None and attempt.deadline == deadline:
                if self._machine.clock() < deadline:  # it stood still meanwhile
                    self._watch(attempt)
                elif not attempt.alive():
                    self._end(attempt, "fenced")

        wait = self._machine.true(deadline) - self._world.now
        self._world.after(max(1e-6, wait), look)

    def _complete(self, attempt: Attempt) -> None:
        if attempt.ended is not None:
            return
        if frozen := self._machine.frozen():
            self._world.after(frozen + 0.05, lambda: self._complete(attempt))
            return
        if not attempt.alive():
            self._end(attempt, "fenced")
            return
        self._world.checkers.effect(attempt)
        attempt.good = True
        self._end(attempt, "exit")

    def _end(self, attempt: Attempt, reason: Reason) -> None:
        if attempt.ended is not None:
            return
        attempt.ended = self._world.now
        if attempt in self._attempts:
            self._attempts.remove(attempt)
        code = 0 if reason == "exit" else None
        self._world.log("{}: {} of {} ends: {}", attempt.node, attempt.task, attempt.run, reason)
        self._report(TaskEnded(attempt.run, attempt.task, attempt.attempt, code, None, reason, "", "", {}))

    def _report(self, frame: TaskStarted | TaskEnded) -> None:
        self._emit(WorkerReport(frame))


def _pairs(text: str) -> list[tuple[str, str]]:
    """`a=1 b=2`."""
    return [(name, epoch) for name, _, epoch in (word.partition("=") for word in text.split())]
