"""The pool: tasks go to the worker of their scope, which is found, started, reused, and ended when idle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cisbot.core.frames import (
    PROTOCOL,
    CancelRun,
    FrameError,
    FromWorker,
    Hello,
    Ping,
    Pong,
    Ready,
    SetDeadline,
    Shutdown,
    StartTask,
    TaskEnded,
    TaskStarted,
    ToWorker,
)
from cisbot.supervisor.events import (
    Evicted,
    PoolEvent,
    WorkerGone,
    WorkerIdle,
    WorkerStarted,
)
from cisbot.supervisor.leftovers import adopted, become_subreaper, kill_children
from cisbot.supervisor.member import START_TRIES_MAX, Ending, Member, Open, fenced, never_started
from cisbot.supervisor.process import WorkerProcess

READY_S = 30.0  # from spawn to `Ready`
LATE_S = 0.5  # for a report to come in, when we learn of a deadline, or look at it, too late
CANCEL_S = 3.0  # beyond the grace, for a worker to report the end of what was cancelled
PING_S = 5.0  # between two pings to a worker that has tasks
PINGS_MAX = 3  # unanswered for `PING_S` each: the worker is stuck
ADOPTED_S = 10.0  # for what a dead worker left without a mark to be killed
CLOSE_S = 5.0  # beyond the grace, for workers to end when they are asked to


class Pool:
    """Workers by name, at most `max_workers` at once, each with `max_concurrent` tasks at once.

    A worker ends after `idle_timeout_s` without a task; when there is no place, the longest-idle one ends
    sooner, and when none is idle, the scope waits its turn. `emit` gets the events, in the event loop and
    possibly from inside a call of ours; `clock` gives CLOCK_BOOTTIME seconds. `code_path` is what workers
    import cisbot from, if not from where we are. `alone` says that nothing else in this process has children:
    then all that is adopted from a dead worker is killed, marked or not. Made inside the running loop, by the
    holder of the `NodeLock`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        max_concurrent: int,
        idle_timeout_s: float,
        max_workers: int,
        emit: Callable[[PoolEvent], None],
        clock: Callable[[], float],
        code_path: Path | None = None,
        alone: bool = False,
    ) -> None:
        assert max_workers >= 1
        assert max_concurrent >= 1
        self._data_dir = data_dir.resolve()
        self._max_concurrent = max_concurrent
        self._idle_timeout_s = idle_timeout_s
        self._max_workers = max_workers
        self._emit = emit
        self._clock = clock
        self._code_path = code_path
        self._alone = alone
        self._loop = asyncio.get_running_loop()
        self._members: dict[str, Member] = {}
        self._waiting: deque[Member] = deque()
        self._jobs: dict[str, asyncio.Task[None]] = {}  # one for each process, by worker name
        self._closed = False
        become_subreaper()

    def start_task(self, worker_name: str, frame: StartTask) -> None:
        """Hand a task to the scope's worker, now or when there is one."""
        key = (frame.run, frame.task, frame.attempt)
        if self._closed:
            self._emit(never_started(key))
            return
        member = self._members.setdefault(worker_name, Member(worker_name))
        if key not in member.open:
            member.pending[key] = frame
            self._advance(member)

    def cancel_run(self, run: str, grace_s: float) -> None:
        """Stop the run's tasks; `TaskEnded` follows for each, or `WorkerGone` if the worker is stuck."""
        for member in tuple(self._members.values()):
            if member.cancel(run, self._clock() + grace_s + CANCEL_S):
                self._send(member, CancelRun(run, grace_s))
                self._watch(member)
            self._drop_pending(member, run)

    def set_deadline(self, run: str, deadline: float) -> None:
        """When the run's last process must be dead (CLOCK_BOOTTIME seconds)."""
        for member in self._members.values():
            if member.move_deadline(run, deadline):
                self._send(member, SetDeadline(run, deadline))
                self._watch(member)

    async def close(self, grace_s: float) -> None:
        """End all workers: TERM to their tasks, KILL after `grace_s`. When it returns, nothing lives."""
        self._closed = True
        self._waiting.clear()
        for member in tuple(self._members.values()):
            self._drop_pending(member, None)
            self._end(member, "closed", grace_s)
        if self._jobs:
            await asyncio.wait(self._jobs.values(), timeout=grace_s + CLOSE_S)
        for member in self._members.values():
            if member.process is not None:
                member.process.kill()
        if self._jobs:
            await asyncio.wait(self._jobs.values())

    def _drop_pending(self, member: Member, run: str | None) -> None:
        for key in [key for key in member.pending if run is None or key[0] == run]:
            if member.pending.pop(key, None) is not None:
                self._emit(never_started(key))

    def _send(self, member: Member, frame: ToWorker) -> None:
        """Write a frame to the worker, and kill one that does not read."""
        assert member.process is not None
        try:
            member.process.pipe.send(frame)
        except FrameError:
            member.process.kill()

    def _advance(self, member: Member) -> None:
        """Do the next thing for a member that has tasks waiting."""
        if member.ready and member.ending is None:
            if member.idle_timer is not None:
                member.idle_timer.cancel()
            frames = tuple(member.pending.values())
            member.open |= {key: Open(None, f.grace_s, f.deadline) for key, f in member.pending.items()}
            member.pending.clear()
            self._watch(member)
            for frame in frames:
                self._send(member, frame)
        elif member.pending and not (member.name in self._jobs or member.queued or member.retry_timer):
            delay = member.not_before - self._loop.time()
            if delay > 0:
                member.retry_timer = self._loop.call_later(delay, self._retry, member)
            else:
                member.queued = True
                self._waiting.append(member)
                self._admit()

    def _retry(self, member: Member) -> None:
        member.retry_timer = None
        self._advance(member)

    def _admit(self) -> None:
        """Give places to those that wait, the first first; make room by ending idle workers."""
        while self._waiting and len(self._jobs) < self._max_workers:
            member = self._waiting.popleft()
            member.queued = False
            if member.pending:
                job = self._loop.create_task(self._live(member))
                job.add_done_callback(self._check)
                self._jobs[member.name] = job
        leaving = sum(member.ending is not None for member in self._members.values())
        idle = sorted((m for m in self._members.values() if m.idle), key=lambda m: m.idle_since)
        for victim in idle[: max(len(self._waiting) - leaving, 0)]:
            self._end(victim, "evicted", 0.0)

    def _end(self, member: Member, why: Ending, grace_s: float) -> None:
        """Ask the worker to end; what it has is cancelled."""
        if member.process is not None:
            member.ending = why
            if member.idle_timer is not None:
                member.idle_timer.cancel()
            self._send(member, Shutdown(grace_s))
            if why != "closed":  # `close` sees to it by itself
                if member.fence_timer is not None:
                    member.fence_timer.cancel()
                member.fence_timer = self._loop.call_later(grace_s + CLOSE_S, member.process.kill)

    def _settle(self, member: Member) -> None:
        """Start the idle time of a worker that has nothing to do, or let another have its place."""
        if member.idle:
            member.idle_since = self._clock()
            member.idle_timer = self._loop.call_later(self._idle_timeout_s, self._end, member, "idle", 0.0)
            self._admit()

    def _watch(self, member: Member) -> None:
        """See that tasks end when they must: the worker does so by itself, unless it is stuck."""
        member.tell_guard()
        if member.fence_timer is not None:
            member.fence_timer.cancel()
            member.fence_timer = None
        if member.open:
            if member.ping_timer is None:
                self._ping_in(member, PING_S)
            now = self._clock()
            rest = min(task.due for task in member.open.values()) - now
            delay = min(rest, 3_600.0) if rest > 0 else LATE_S
            member.fence_timer = self._loop.call_later(delay, self._due, member, now + delay)

    def _due(self, member: Member, planned: float) -> None:
        """Kill a worker in which a task is overdue; `planned` is when this was to happen."""
        now = self._clock()
        missed = any(task.due <= now for task in member.open.values())
        # After a pause of ours the worker's report may lie unread in the pipe: read it first.
        if missed and now <= planned + LATE_S and member.process is not None:
            member.process.kill()
        else:
            self._watch(member)

    def _ping_in(self, member: Member, delay: float) -> None:
        planned = self._clock() + delay
        member.ping_timer = self._loop.call_later(delay, self._ping, member, planned)

    def _ping(self, member: Member, planned: float) -> None:
        """Ask a worker that has tasks whether it is there, and kill one that did not answer.

        Pings are counted, not time: while we, or the machine, stood still, nobody could answer.
        """
        member.ping_timer = None
        process = member.process
        if process is None or not member.open or member.ending is not None:
            member.unanswered = 0
        elif member.unanswered < PINGS_MAX:
            member.unanswered += 1
            self._send(member, Ping())
            self._ping_in(member, PING_S)
        elif self._clock() > planned + LATE_S:  # the answer may lie unread in the pipe
            self._ping_in(member, LATE_S)
        else:
            member.verdict = f"the worker did not answer for {PINGS_MAX * PING_S:g} s; "
            process.kill()

    def _check(self, job: asyncio.Task[None]) -> None:
        """A fault of ours must not pass in silence."""
        if not job.cancelled() and (error := job.exception()) is not None:
            self._loop.call_exception_handler({"message": "the pool failed", "exception": error})

    async def _live(self, member: Member) -> None:
        """One worker process, from its spawn to the death of all that it left."""
        try:
            process = WorkerProcess(member.name, self._data_dir, self._code_path)
        except OSError as error:
            self._gone(member, f"it can't be started: {error}")
            return
        member.process = process
        if self._closed:
            process.kill()
        why = ""
        try:
            await self._converse(member, process)
        except FrameError as error:
            why = f"it broke the protocol: {error}; "
            process.kill()
        except TimeoutError:
            why = f"it was not ready within {READY_S:g} s; "
            process.kill()
        how = await process.end(member.groups())
        if self._alone:
            await self._kill_adopted(process.born)
        self._gone(member, (why or member.verdict) + how)

    async def _kill_adopted(self, since: int) -> None:
        """Kill what a worker born at `since` left and we adopted, whoever's it is of several dead workers."""
        tried: set[tuple[int, int]] = set()  # another user's can't be killed
        until = self._clock() + ADOPTED_S
        while self._clock() < until:  # what forks faster than it is killed must not hold up the rest
            found = await asyncio.to_thread(adopted, since)
            # Only now, in the loop's turn, every process that we have started ourselves is known as ours.
            living = [member.process for member in self._members.values() if member.process is not None]
            own = {process.pid for process in living} | {process.guard.pid for process in living}
            strays = [p for p in found if p.pid not in own and (p.pid, p.start) not in tried]
            if not strays:
                return
            tried |= {(proc.pid, proc.start) for proc in strays}
            await asyncio.to_thread(kill_children, strays)  # their children come to us

    async def _converse(self, member: Member, process: WorkerProcess) -> None:
        """Greet the worker and take its frames, to the end of its output.

        Raises `FrameError` for a breach of the protocol, `TimeoutError` for a worker that never gets ready.
        """
        await process.connect()
        process.pipe.send(Hello(PROTOCOL, member.name, self._max_concurrent))
        frames = process.pipe.frames()
        async with asyncio.timeout(READY_S):
            ready = await anext(frames, None)
        if ready is None:
            return
        if not isinstance(ready, Ready) or ready.protocol != PROTOCOL:
            raise FrameError(f"{ready} is no greeting")
        member.ready = True
        self._emit(WorkerStarted(member.name, process.pid))
        self._advance(member)
        self._settle(member)
        async for frame in frames:
            self._take(member, frame)

    def _take(self, member: Member, frame: FromWorker) -> None:
        """Note a report and pass it on. Raises `FrameError` for one about a task it doesn't have."""
        member.unanswered = 0
        if isinstance(frame, Pong):
            return
        if isinstance(frame, Ready):
            raise FrameError("it greets twice")
        key = (frame.run, frame.task, frame.attempt)
        task = member.open.get(key)
        match frame:
            case TaskStarted() if task is not None and task.pid is None:
                task.pid = frame.pid
            case TaskEnded() if task is not None:
                del member.open[key]
                member.crashes = 0
            case _:
                raise FrameError(f"{type(frame).__name__} for a task that it does not have")
        member.tell_guard()
        self._emit(frame)
        if isinstance(frame, TaskEnded):
            self._settle(member)

    def _gone(self, member: Member, why: str) -> None:
        """The process and all its kin are dead: tell what is lost, and go on with what waits."""
        now = self._clock()
        over = [key for key, task in member.open.items() if task.fenced_by <= now]
        lost = [key for key in member.open if key not in over]
        ending, was_ready = member.ending, member.ready
        member.open.clear()
        member.stop_timers()
        member.process, member.ready, member.ending = None, False, None
        member.unanswered, member.verdict = 0, ""
        self._jobs.pop(member.name)
        if ending is None:
            member.crashed(self._loop.time())
            if not was_ready and member.crashes >= START_TRIES_MAX:
                lost += member.pending
                member.pending.clear()
        for key in over:
            self._emit(fenced(key))
        if lost:
            self._emit(WorkerGone(member.name, tuple(lost), why))
        if ending == "idle":
            self._emit(WorkerIdle(member.name))
        elif ending == "evicted":
            self._emit(Evicted(member.name))
        if member.pending:
            self._advance(member)
        elif member.crashes == 0:
            self._members.pop(member.name, None)
        self._admit()
