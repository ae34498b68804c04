"""The node's one loop: one queue of inputs, one timer, one `Step` after the other.

Withdraw, persist, send, ask, work. What can't be persisted is not done: the node stops then, and takes up
from its last commit when it is started again. Only what asks for or renews a claim doesn't wait for the disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import filterfalse

from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import CancelEnd, Priority, Send, Step
from cisbot.core.inputs import EndAnswer, EndReply, Input, RoomBatch, SendDone, SendFailed, Tick
from cisbot.core.outbound import Kept
from cisbot.core.room.events import Message
from cisbot.errors import CisbotError
from cisbot.node.ports import Clock, Files, Room, Store, Workers
from cisbot.store.outbox_rows import send_to_row

_Item = Input | BaseException | asyncio.Future[None]  # a future is a mark: all before it is done


class Halted(CisbotError):
    """The node can't go on; the text says why and what to do."""


class Anew(CisbotError):
    """This incarnation is over, for the reason in the text; the node goes on as a new one."""


class NodeLoop:
    """Feeds the coordinator and performs what it decides."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        room: Room,
        store: Store,
        workers: Workers,
        clock: Clock,
        files: Files,
        say: Callable[[str], None],
        trace: Callable[[Input, float, Step], None] | None = None,
    ) -> None:
        self._coordinator = coordinator
        self._room = room
        self._store = store
        self._workers = workers
        self._clock = clock
        self._files = files
        self._say = say
        self._trace = trace
        self._queue: asyncio.Queue[tuple[_Item, float]] = asyncio.Queue()  # with when it came, for the trace
        self._armed: float | None = None  # when the timer rings
        self._cancel_timer: Callable[[], None] = lambda: None

    def emit(self, item: Input) -> None:
        """Hand in one input; called by the adapters, on the loop's thread."""
        came = self._clock.now().boot if self._trace is not None else 0.0
        self._queue.put_nowait((item, came))

    async def handled(self) -> None:
        """Wait until all that was handed in so far is done."""
        mark: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((mark, 0.0))
        await mark

    def fail(self, error: BaseException) -> None:
        """An adapter can't go on: end the node with this error."""
        self._queue.put_nowait((error, 0.0))

    async def run(self, kept: Kept) -> None:
        """Run until a `Stop` is handled. Raises `Halted`, `Anew`, or what an adapter failed with."""
        await self.begin(kept)
        while not await self.turn():
            pass

    async def begin(self, kept: Kept) -> None:
        """Take up what an earlier process left. Raises `Halted`."""
        await self._read_files()
        await self._perform(self._coordinator.start(kept, self._clock.now()))

    @property
    def idle(self) -> bool:
        """Whether no input waits."""
        return self._queue.empty()

    async def turn(self) -> bool:
        """Wait for one input and do all that follows from it; whether the node's work is done for good.

        Raises `Halted`, `Anew`, or what an adapter failed with.
        """
        item, came = await self._queue.get()
        if isinstance(item, BaseException):
            raise item
        if isinstance(item, asyncio.Future):
            if not item.done():  # who waited may be cancelled
                item.set_result(None)
            return False
        if isinstance(item, RoomBatch) and _has_command(item):
            await self._read_files()
        if isinstance(item, SendFailed) and item.errcode not in ("SUPERSEDED", "WITHDRAWN"):
            self._say(f"could not send {item.txn}: {item.errcode} {item.why}")
        if isinstance(item, EndAnswer) and item.reply is EndReply.REFUSED:
            self._say(f"the homeserver refuses a delayed end: {item.why}")
        step = self._coordinator.handle(item, self._clock.now())
        if self._trace is not None:
            self._trace(item, came, step)
        await self._perform(step)
        return step.done

    async def note_sent(self) -> None:
        """After the end: keep which of the last words the homeserver has, so that they aren't said again.

        The delayed end is taken back, once the end itself is there.
        """
        while not self._queue.empty():
            item, _ = self._queue.get_nowait()
            if isinstance(item, SendDone | SendFailed):
                step = self._coordinator.handle(item, self._clock.now())
                await self._store.commit(step.persist)
                for ask in step.ask:
                    if isinstance(ask, CancelEnd):
                        self._room.ask(ask)

    async def _read_files(self) -> None:
        found = await self._files.read()
        if found is not None:
            await self._perform(self._coordinator.handle(found, self._clock.now()))

    async def _perform(self, step: Step) -> None:
        writes = [*step.persist, *[send_to_row(send) for send in step.send if send.durable]]
        for txn in step.withdraw:
            self._room.withdraw(txn)
        for send in filter(_ahead, step.send):
            self._room.send(send)
        if writes:
            await self._store.commit(writes)
        for send in filterfalse(_ahead, step.send):
            self._room.send(send)
        for ask in step.ask:
            self._room.ask(ask)
        for work in step.work:
            self._workers.do(work)
        if step.halt is not None:
            raise Anew(step.halt) if step.anew else Halted(step.halt)
        self._arm()

    def _arm(self) -> None:
        deadline = self._coordinator.deadline()
        if deadline == self._armed:
            return
        self._cancel_timer()
        self._armed = deadline
        if deadline is not None:
            self._cancel_timer = self._clock.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._armed = None
        self.emit(Tick())


def _ahead(send: Send) -> bool:
    """Whether it goes out while the step is written: asking and renewing, which a crash may lose or not.

    What a crash leaves of it in the room is that of an incarnation which is over.
    """
    return not send.durable and send.priority <= Priority.LOCK


def _has_command(batch: RoomBatch) -> bool:
    events = (*batch.history, *batch.events)
    return any(isinstance(e, Message) and "!dag" in e.body[:200].lower() for e in events)
