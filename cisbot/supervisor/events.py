"""What the pool tells the node."""

from __future__ import annotations

from dataclasses import dataclass

from cisbot.core.frames import TaskEnded, TaskStarted

TaskKey = tuple[str, str, int]  # run, task, attempt


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """A worker is ready for tasks."""

    worker: str
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerGone:
    """A worker died, or could not be started, with tasks unfinished. All it left behind is dead."""

    worker: str
    runs: tuple[TaskKey, ...]
    why: str


@dataclass(frozen=True, slots=True)
class WorkerIdle:
    """A worker ended because it had nothing to do for the idle time."""

    worker: str


@dataclass(frozen=True, slots=True)
class Evicted:
    """An idle worker ended to make room for another scope's."""

    worker: str


PoolEvent = TaskStarted | TaskEnded | WorkerStarted | WorkerGone | WorkerIdle | Evicted
