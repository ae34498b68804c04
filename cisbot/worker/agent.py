"""The worker's mind: which attempts it has, which of them run, what a frame does to them."""

from __future__ import annotations

import asyncio
import heapq
import os
import sys
import traceback
from collections.abc import Callable

from cisbot.core.frames import (
    CancelRun,
    FromWorker,
    SetDeadline,
    StartTask,
    TaskEnded,
    TaskStarted,
)
from cisbot.worker.attempt import Attempt
from cisbot.worker.procs import read_table, reap_orphans
from cisbot.worker.spare import Spares

Key = tuple[str, str, int]
EX_SOFTWARE = 70
_SPARE_S = 0.05  # from a task's start to the next fork: neither the start nor its report waits for that
_REAP_S = 1.0  # at most one search for dead orphans in this time


class Agent:
    """Queue and slots. `send` writes a frame to the node; `data` is the node's mark for its processes."""

    def __init__(self, *, max_concurrent: int, data: str, send: Callable[[FromWorker], None]) -> None:
        self._free = max_concurrent
        self._data = data
        self._send = send
        self._live: dict[int, str] = {}
        self._spares = Spares(self._live)
        self._spares.prepare()
        self._attempts: dict[Key, Attempt] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._queue: list[tuple[int, int, int, Key]] = []
        self._count = 0
        self._reaping = False
        self._drained = False

    def start(self, frame: StartTask) -> None:
        """Queue a task; the same attempt twice is one attempt."""
        key = (frame.run, frame.task, frame.attempt)
        if key in self._attempts:
            return
        attempt = Attempt(
            frame,
            worker=os.getpid(),
            data=self._data,
            live=self._live,
            spares=self._spares,
            send=self._started,
        )
        self._attempts[key] = attempt
        self._count += 1
        heapq.heappush(self._queue, (-frame.priority, frame.order, self._count, key))
        job = asyncio.get_running_loop().create_task(self._live_through(key, attempt))
        self._jobs.add(job)
        job.add_done_callback(self._job_done)
        self._fill()

    def cancel(self, frame: CancelRun) -> None:
        """Stop the attempts of a run."""
        for key, attempt in self._attempts.items():
            if key[0] == frame.run:
                attempt.stop("cancelled", frame.grace_s)

    def move_deadline(self, frame: SetDeadline) -> None:
        """Move the deadline of the attempts of a run."""
        for key, attempt in self._attempts.items():
            if key[0] == frame.run:
                attempt.move_deadline(frame.deadline)

    async def drain(self, grace_s: float | None) -> None:
        """Stop all attempts, each with its own grace if `grace_s` is None, and wait for their ends."""
        for attempt in self._attempts.values():
            attempt.stop("cancelled", attempt.frame.grace_s if grace_s is None else grace_s)
        while self._jobs:
            await asyncio.wait(self._jobs)
        self._drained = True
        self._spares.close()

    def _started(self, frame: TaskStarted) -> None:
        """Tell it first, then see to the next one's spare."""
        self._send(frame)
        asyncio.get_running_loop().call_later(_SPARE_S, self._prepare)

    def _prepare(self) -> None:
        if not self._drained:
            self._spares.prepare()

    def child_died(self) -> None:
        """SIGCHLD: adopted orphans may be dead; they are reaped a little later, many at once."""
        if not self._reaping:
            self._reaping = True
            asyncio.get_running_loop().call_later(_REAP_S, self._reap)

    def _reap(self) -> None:
        self._reaping = False
        reap_orphans(read_table(), self._live)

    def _job_done(self, job: asyncio.Task[None]) -> None:
        """A fault of ours ends the worker at once: its tasks die with it, the node finds the rest."""
        self._jobs.discard(job)
        if (error := job.exception()) is not None:
            traceback.print_exception(error, file=sys.stderr)
            sys.stderr.flush()
            os._exit(EX_SOFTWARE)

    def _fill(self) -> None:
        while self._free > 0 and self._queue:
            attempt = self._attempts.get(heapq.heappop(self._queue)[-1])
            if attempt is not None:
                self._free -= 1
                attempt.grant()

    async def _live_through(self, key: Key, attempt: Attempt) -> None:
        ended: TaskEnded = await attempt.run()
        del self._attempts[key]
        self._send(ended)
        if attempt.granted:
            self._free += 1
        self._fill()
