"""One attempt's life: wait for a slot, run, be stopped, leave nothing behind, report."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, MutableMapping

from cisbot.core.frames import Reason, StartTask, TaskEnded, TaskStarted
from cisbot.worker.moments import Waiter, boot
from cisbot.worker.procs import (
    Proc,
    death_fds,
    owned,
    read_table,
    reap_orphans,
    send_signal,
)
from cisbot.worker.results import OutputError, SkillError, read_outputs, read_tail, remove_output
from cisbot.worker.shell import Child, LaunchError, launch, new_mark
from cisbot.worker.spare import Spares

MARGIN_S = 0.5  # between KILL and the deadline, and the least that a death may take
_WATCHED_MAX = 100  # processes waited for at once, each costs a descriptor
_RETRY_S = 1.0  # until KILL is sent again to what has not died of it


class Attempt:
    """A task's attempt in this worker.

    `live` holds first process -> `CIS_ATTEMPT` of all running attempts; this one enters and leaves it.
    """

    def __init__(
        self,
        frame: StartTask,
        *,
        worker: int,
        data: str,
        live: MutableMapping[int, str],
        spares: Spares,
        send: Callable[[TaskStarted], None],
    ) -> None:
        self.frame = frame
        self.granted = False
        self._worker = worker
        self._data = data
        self._live = live
        self._spares = spares
        self._send = send
        self._deadline = frame.deadline
        self._timeout_at = math.inf
        self._stopping: Reason | None = None
        self._kill_at = math.inf
        self._waiter = Waiter()

    def grant(self) -> None:
        """It has a slot: it may start."""
        self.granted = True
        self._waiter.nudge()

    def stop(self, reason: Reason, grace_s: float) -> None:
        """TERM now, KILL after `grace_s`. A second stop may only hasten the first."""
        self._stopping = self._stopping or reason
        self._kill_at = min(self._kill_at, boot() + grace_s)
        self._waiter.nudge()

    def move_deadline(self, deadline: float) -> None:
        """The boot time when the last process must be dead."""
        self._deadline = deadline
        self._waiter.nudge()

    async def run(self) -> TaskEnded:
        """From the queue to the report; when it returns, none of its processes lives."""
        while not self.granted and self._stopping is None:
            await self._step(())
        if self._stopping is not None or self._fence_due():
            return self._ended(self._stopping or "fenced", error="it was not started")
        mark = new_mark(self.frame)
        try:
            child = launch(self.frame, mark, self._data, self._spares)
        except LaunchError as error:
            return self._ended("error", error=str(error))
        pid = child.pid
        self._live[pid] = mark
        if self.frame.timeout_s is not None:
            self._timeout_at = boot() + self.frame.timeout_s
        self._send(TaskStarted(self.frame.run, self.frame.task, self.frame.attempt, pid))
        while self._stopping is None and not child.exited():
            await self._step((child.pidfd,))
        untouched = await self._sweep(child)
        del self._live[pid]
        return self._report(child, untouched)

    def _fence_due(self) -> bool:
        return boot() >= self._fence_at()

    def _fence_at(self) -> float:
        return self._deadline - self.frame.fence_s - MARGIN_S

    async def _step(self, fds: tuple[int, ...]) -> None:
        """Wait for `fds`, a nudge or the next moment that stops the attempt, and stop it if it has come."""
        if self._fence_due():
            self.stop("fenced", self.frame.fence_s)
        elif boot() >= self._timeout_at:
            self.stop("timeout", self.frame.grace_s)
        else:
            await self._waiter.wait(fds, min(self._fence_at(), self._timeout_at))

    async def _sweep(self, child: Child) -> set[str]:
        """TERM, grace, KILL to all that is left, escaped ones too, until nothing lives.

        Returns the names of processes that we may not signal (another user's).
        """
        if self._stopping is None:  # it ended by itself; what it left in the background has a grace too
            self._kill_at = boot() + self.frame.grace_s
        warned: set[tuple[int, int]] = set()
        untouched: dict[tuple[int, int], str] = {}
        quiet = 0
        while quiet < 2:  # a process that forks and ends may slip through one reading of the table
            members = [proc for proc in self._members(child) if (proc.pid, proc.start) not in untouched]
            quiet = 0 if members else quiet + 1
            if not members:
                continue
            kill_at = min(self._kill_at, self._deadline - MARGIN_S)
            killing = boot() >= kill_at
            for proc in members:
                key = (proc.pid, proc.start)
                if not self._signal(proc, killing=killing, warned=key in warned):
                    untouched[key] = f"{proc.name} ({proc.pid})"
                warned.add(key)
            await self._wait_for_deaths(members, boot() + _RETRY_S if killing else kill_at)
        reap_orphans(read_table(), self._live)
        return set(untouched.values())

    def _members(self, child: Child) -> list[Proc]:
        return owned(read_table(), self._worker, child.pid, self._live)

    def _signal(self, proc: Proc, *, killing: bool, warned: bool) -> bool:
        if killing:
            return send_signal(proc, signal.SIGKILL)
        return warned or send_signal(proc, signal.SIGTERM, signal.SIGCONT)

    async def _wait_for_deaths(self, members: list[Proc], until: float) -> None:
        fds = death_fds(members, _WATCHED_MAX)
        try:
            if fds:
                await self._waiter.wait(fds, until)
        finally:
            for fd in fds:
                os.close(fd)

    def _report(self, child: Child, untouched: set[str]) -> TaskEnded:
        """Read what it left, free it, and put it into a frame."""
        reason: Reason = self._stopping or "exit"
        problems = []
        outputs: dict[str, str] = {}
        try:
            outputs = read_outputs(child.output, self.frame.kind)
        except OutputError as error:
            problems.append(str(error))
            if reason == "exit" and child.succeeded():  # followers would go on without what it gave them
                reason = "error"
        except SkillError as error:
            problems.append(str(error))
            reason = "error" if reason == "exit" else reason
        if problem := remove_output(child.output):
            problems.append(problem)
        if untouched:
            problems.append(f"another user's processes may live on: {', '.join(sorted(untouched))}")
        tail = read_tail(child.log_fd, child.log_start)
        return self._ended(
            reason, error="; ".join(problems), tail=tail, outputs=outputs, status=child.close()
        )

    def _ended(
        self,
        reason: Reason,
        *,
        error: str,
        tail: str = "",
        outputs: dict[str, str] | None = None,
        status: int | None = None,
    ) -> TaskEnded:
        frame = self.frame
        code = status if status is not None and status >= 0 else None
        number = -status if status is not None and status < 0 else None
        return TaskEnded(
            frame.run, frame.task, frame.attempt, code, number, reason, error, tail, outputs or {}
        )
