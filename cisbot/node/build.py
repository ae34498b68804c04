"""The composition root: settings and an account's API become a node. Both hosts call it, and nothing else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import cisbot
from cisbot.core.claims.messages import Me
from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import Answer, ArmEnd, CancelWork, MoveDeadline, Put, RestartEnd, StartWork, Work
from cisbot.core.frames import TaskEnded, TaskStarted
from cisbot.core.ids import RoomId, UserId
from cisbot.core.inputs import EndAnswer, EndReply, Input, Stop, WorkerLost, WorkerReport
from cisbot.core.outbound import Kept
from cisbot.core.settings import Settings
from cisbot.errors import CisbotError
from cisbot.matrix.check import allows_delayed_ends, room_findings
from cisbot.matrix.delayed import delay_s_max
from cisbot.matrix.http import Api, RateLimited, Unreachable
from cisbot.matrix.outbox import Outbox
from cisbot.matrix.reads import whole_state
from cisbot.matrix.rooms import MatrixRoom, join
from cisbot.matrix.waiting import Backoff, pause
from cisbot.node.datadir import Identity, check_ways, identities, watch
from cisbot.node.definitions import DagFiles
from cisbot.node.kept import load_kept
from cisbot.node.loop import Anew, NodeLoop
from cisbot.node.socket import LocalDoor
from cisbot.node.system import SystemClock, boot_time, new_incarnation
from cisbot.node.trace import TraceFile
from cisbot.store.dag_table import SqliteStore
from cisbot.supervisor.events import PoolEvent, WorkerGone
from cisbot.supervisor.leftovers import kill_leftovers
from cisbot.supervisor.lock import NodeLock
from cisbot.supervisor.pool import Pool

DATABASE = "node.db"
SOCKET = "node.sock"
GOODBYE_S = 5.0
STEADY_S = 60.0  # an incarnation that lived so long was not hasty
VAIN_MAX = 3  # then one incarnation does without a delayed end

Say = Callable[[str], None]
Follow = Callable[[RoomId, str | None, "Node"], Awaitable[None]]


class Node:
    """One running node. `serve` ends when `stop` was called, or raises why it can't go on."""

    def __init__(
        self,
        settings: Settings,
        api: Api,
        say: Say,
        *,
        trace: Path | None = None,
        code_path: Path | None = None,
        alone: bool = False,
    ) -> None:
        self.settings = settings
        self.api = api
        self.say = say
        self._trace = trace
        self._alone = alone  # no other code in this process has children
        self._code_path = code_path  # what workers import cisbot from, if not from where we are
        self.outbox: Outbox | None = None
        self._loop: NodeLoop | None = None
        self._stopped = asyncio.Event()
        self._vain = 0  # armings of which nobody knows what became, refused restarts; none worked since
        self._held: dict[Path, Identity] = {}

    def emit(self, item: Input) -> None:
        """Hand one input to the loop."""
        assert self._loop is not None
        match item:
            case EndAnswer(ArmEnd(), EndReply.UNKNOWN) | EndAnswer(RestartEnd(), EndReply.REFUSED):
                self._vain += 1
            case EndAnswer(RestartEnd(), EndReply.DONE):
                self._vain = 0
            case _:
                pass
        self._loop.emit(item)

    async def handled(self) -> None:
        """Wait until all that was handed in so far is done."""
        assert self._loop is not None
        await self._loop.handled()

    def fail(self, error: BaseException) -> None:
        """End the node with this error."""
        assert self._loop is not None
        self._loop.fail(error)

    def stop(self) -> bool:
        """End cleanly: give back what is held, say goodbye. False where it has not begun yet."""
        if self._loop is None:
            return False
        self._stopped.set()
        self._loop.emit(Stop())
        return True

    async def serve(self, follow: Follow) -> None:
        """Run the node; `follow` feeds it the room's batches until it is cancelled.

        One incarnation after the other, where the homeserver ends them. Raises `CisbotError` where the node
        can't start or go on.
        """
        backoff = Backoff(self.settings.matrix.user_id, first_s=0.2, most_s=30.0)
        again = False
        while not self._stopped.is_set():
            began = boot_time()
            try:
                await self._serve(follow)
                return
            except Anew as over:
                self.say(f"{over}; going on as a new one")
                again = True
            except (Unreachable, RateLimited) as away:
                if not again:
                    raise
                self.say(f"can't go on yet, trying: {away}")
            if boot_time() - began > STEADY_S:
                backoff.reset()
            await pause(backoff.next_s(), self._stopped)

    async def _serve(self, follow: Follow) -> None:
        """Be one incarnation. Raises `Anew` when that is over."""
        data_dir = self.settings.node.data_dir
        data_dir.mkdir(parents=True, exist_ok=True)
        check_ways(data_dir)
        async with AsyncExitStack() as stack:
            held = [data_dir / DATABASE, stack.enter_context(NodeLock(data_dir)).path]
            await asyncio.to_thread(kill_leftovers, data_dir)
            store = await SqliteStore.open(data_dir / DATABASE)
            stack.push_async_callback(store.close)
            self._held = identities(held)
            kept = await load_kept(store)
            room_id = await join(self.api, self.settings.matrix.room)
            allowed = await self._check_fit(room_id)
            await self._check_room(store, room_id)
            delay_s = await self._end_delay_s() if allowed else 0.0
            await self._run(stack, store, kept, room_id, follow, delay_s)

    async def _end_delay_s(self) -> float:
        """The delay of this incarnation's delayed end; 0: it does without."""
        delay_s = self.settings.coordinator.armed_s if self.settings.node.execute else 0.0
        if not delay_s or self._vain >= VAIN_MAX:
            self._vain = 0
            return 0.0
        return delay_s if delay_s <= await delay_s_max(self.api) else 0.0

    async def _check_room(self, store: SqliteStore, room_id: RoomId) -> None:
        meta = {str(r["key"]): str(r["value"]) for r in await store.rows("meta")}
        if meta.get("room", room_id) != room_id:
            raise CisbotError(
                f"node.data_dir: {self.settings.node.data_dir} belongs to a node in room {meta['room']}, not "
                f"{room_id}; expected a data_dir of its own for every room"
            )
        await store.commit([Put("meta", {"key": "room", "value": room_id})])

    async def _check_fit(self, room_id: RoomId) -> bool:
        """Refuse a room in which this node can't work; `cisbot check` says the same.

        Returns whether its charter allows delayed ends.
        """
        state = await whole_state(self.api, room_id)
        findings = room_findings(state, self.api.user_id, room_id)
        lacking = [f"{f.what}; {f.how_to_mend}" for f in findings if not f.ok]
        if lacking:
            raise CisbotError("\n".join(lacking))
        return allows_delayed_ends(state)

    async def _run(
        self,
        stack: AsyncExitStack,
        store: SqliteStore,
        kept: Kept,
        room_id: RoomId,
        follow: Follow,
        delay_s: float,
    ) -> None:
        settings, data_dir = self.settings, self.settings.node.data_dir
        me = Me(settings.node.id, UserId(settings.matrix.user_id), new_incarnation())
        coordinator = Coordinator(settings, me, kept, cisbot.__version__, search_path(), delay_s)
        outbox = Outbox(self.api, room_id, self.emit)
        room = MatrixRoom(self.api, room_id, outbox, self.emit)
        door = LocalDoor(data_dir / SOCKET, self.emit)
        pool = Pool(
            data_dir,
            max_concurrent=settings.worker.max_concurrent_tasks,
            idle_timeout_s=settings.coordinator.worker_idle_timeout,
            max_workers=settings.coordinator.max_workers,
            emit=self._pool_event,
            clock=boot_time,
            code_path=self._code_path,
            alone=self._alone,
        )
        loop = NodeLoop(
            coordinator,
            room=room,
            store=store,
            workers=PoolWorkers(pool, door, self.emit),
            clock=SystemClock(),
            files=DagFiles(tuple(settings.node.dags)),
            say=self.say,
            trace=self._open_trace(stack),
        )
        self.outbox, self._loop = outbox, loop
        if self._stopped.is_set():
            loop.emit(Stop())
        stack.push_async_callback(room.close)
        stack.push_async_callback(pool.close, settings.coordinator.kill_grace)
        await door.open()
        stack.push_async_callback(door.close)
        await self._together(loop, kept, room, outbox, follow(room_id, kept.cursor, self))

    def _open_trace(self, stack: AsyncExitStack) -> TraceFile | None:
        if self._trace is None:
            return None
        trace = TraceFile(self._trace)
        stack.callback(trace.close)
        return trace

    async def _together(
        self, loop: NodeLoop, kept: Kept, room: MatrixRoom, outbox: Outbox, following: Awaitable[None]
    ) -> None:
        """The loop is the node; when it ends, the others end. When another fails, the loop hears it."""

        def ended(helper: asyncio.Future[None]) -> None:
            if not helper.cancelled() and (error := helper.exception()) is not None:
                loop.fail(error)

        helpers = [asyncio.ensure_future(work) for work in (outbox.run(), following, watch(self._held))]
        for helper in helpers:
            helper.add_done_callback(ended)
        try:
            await loop.run(kept)
            await outbox.drain(GOODBYE_S)
            await loop.note_sent()
            await room.settle(GOODBYE_S)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    def _pool_event(self, event: PoolEvent) -> None:
        match event:
            case TaskStarted() | TaskEnded():
                self.emit(WorkerReport(event))
            case WorkerGone():
                self.emit(WorkerLost(event.worker, event.runs, event.why))
            case _:
                pass


def search_path() -> str:
    """The PATH of tasks: this Python and its `cisbot` first, then the system's."""
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


class PoolWorkers:
    """`node.ports.Workers` on the pool, and the local door for answers."""

    def __init__(self, pool: Pool, door: LocalDoor, emit: Callable[[Input], None]) -> None:
        self._emit = emit
        self._pool = pool
        self._door = door

    def _start(self, work: StartWork) -> None:
        frame = work.frame
        try:
            for folder in (Path(frame.log_path).parent, Path(frame.workdir)):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:  # that task's error, not the node's
            why = f"{error.filename}: {error.strerror}"
            ended = TaskEnded(frame.run, frame.task, frame.attempt, None, None, "error", why, "", {})
            self._emit(WorkerReport(ended))
        else:
            self._pool.start_task(work.worker, frame)

    def do(self, work: Work) -> None:
        """Start, cancel, re-deadline, answer."""
        match work:
            case StartWork():
                self._start(work)
            case CancelWork():
                self._pool.cancel_run(work.run, work.grace_s)
            case MoveDeadline():
                self._pool.set_deadline(work.run, work.deadline)
            case Answer():
                self._door.answer(work)
