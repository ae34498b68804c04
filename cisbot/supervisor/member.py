"""What the pool knows of one scope's worker."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field, replace
from typing import Literal

from cisbot.core.frames import StartTask, TaskEnded
from cisbot.supervisor.events import TaskKey
from cisbot.supervisor.process import WorkerProcess

BACKOFF_S = 0.5  # after the first crash, doubled by each further one
BACKOFF_S_MAX = 30.0
BACKSTOP_S = 0.25  # before a deadline, when a worker should have reported and has not: it is killed
START_TRIES_MAX = 5  # starts without one `Ready` before the waiting tasks are given up

Ending = Literal["idle", "evicted", "closed"]


@dataclass(slots=True)
class Open:
    """A task that the worker has: its first process once started, its grace, its deadline (boot seconds).

    `over_by` is when a cancelled task should have ended.
    """

    pid: int | None
    grace_s: float
    deadline: float
    over_by: float = math.inf

    @property
    def due(self) -> float:
        """When the worker should have reported its end; if it has not, it is stuck."""
        return min(self.fenced_by, self.over_by)

    @property
    def fenced_by(self) -> float:
        """When its lease counts as over: what is killed then is lost with it, and has not failed."""
        return self.deadline - BACKSTOP_S


@dataclass(slots=True)
class Member:
    """One scope: tasks that wait for its worker, tasks that the worker has, and the process, if any."""

    name: str
    pending: dict[TaskKey, StartTask] = field(default_factory=dict)
    open: dict[TaskKey, Open] = field(default_factory=dict)
    process: WorkerProcess | None = None
    ready: bool = False
    ending: Ending | None = None  # why it was asked to end
    queued: bool = False  # waits for a place
    idle_since: float = 0.0
    idle_timer: asyncio.TimerHandle | None = None
    retry_timer: asyncio.TimerHandle | None = None
    fence_timer: asyncio.TimerHandle | None = None
    ping_timer: asyncio.TimerHandle | None = None
    unanswered: int = 0  # pings since the last frame
    verdict: str = ""  # why we killed it
    crashes: int = 0  # since a task ended well
    not_before: float = 0.0  # loop time of the next start

    @property
    def idle(self) -> bool:
        """It could do something and has nothing to do."""
        return self.ready and self.ending is None and not self.open and not self.pending

    def crashed(self, now: float) -> None:
        """Put the next start off; `now` is loop time."""
        self.crashes += 1
        delay = BACKOFF_S * 2.0 ** min(self.crashes - 1, 16)
        self.not_before = now + min(delay, BACKOFF_S_MAX)

    def groups(self) -> list[int]:
        """The first processes of its unfinished tasks."""
        return [task.pid for task in self.open.values() if task.pid is not None]

    def move_deadline(self, run: str, deadline: float) -> bool:
        """Note a run's new deadline; whether the worker has tasks of that run."""
        for key, frame in self.pending.items():
            if key[0] == run:
                self.pending[key] = replace(frame, deadline=deadline)
        mine = [task for key, task in self.open.items() if key[0] == run]
        for task in mine:
            task.deadline = deadline
        return bool(mine)

    def cancel(self, run: str, over_by: float) -> bool:
        """Note when a run's tasks should have ended; whether the worker has any of that run."""
        mine = [task for key, task in self.open.items() if key[0] == run]
        for task in mine:
            task.over_by = min(task.over_by, over_by)
        return bool(mine)

    def tell_guard(self) -> None:
        """What it has, for the case that we die now."""
        if self.process is not None:
            grace_s = max((task.grace_s for task in self.open.values()), default=0.0)
            deadline = min((task.deadline for task in self.open.values()), default=math.inf)
            self.process.guard.tell(grace_s, deadline, self.groups())

    def stop_timers(self) -> None:
        """Cancel all."""
        for timer in (self.idle_timer, self.retry_timer, self.fence_timer, self.ping_timer):
            if timer is not None:
                timer.cancel()
        self.idle_timer = self.retry_timer = self.fence_timer = self.ping_timer = None


def fenced(key: TaskKey) -> TaskEnded:
    """The end of a task that was killed with its worker, which did not stop it before its lease ended."""
    return TaskEnded(*key, None, None, "fenced", "its worker was stuck", "", {})


def never_started(key: TaskKey) -> TaskEnded:
    """The end of a task that was cancelled while it waited for a worker."""
    return TaskEnded(*key, None, None, "cancelled", "it was not started", "", {})
