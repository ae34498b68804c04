"""A pool with real workers, and its events to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from cisbot.core.frames import TaskEnded, TaskStarted
from cisbot.supervisor.events import PoolEvent
from cisbot.supervisor.pool import Pool
from tests.worker.real_processes import LIMIT_S, boot

E = TypeVar("E", bound=PoolEvent)


class Events:
    """All that the pool has emitted; each is waited for once, in any order."""

    def __init__(self) -> None:
        self.all: list[PoolEvent] = []
        self._unseen: list[PoolEvent] = []
        self._more = asyncio.Event()

    def emit(self, event: PoolEvent) -> None:
        """For the pool."""
        self.all.append(event)
        self._unseen.append(event)
        self._more.set()

    async def until(self, kind: type[E], **fields: object) -> E:
        """The first unseen event of that kind with those fields."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                for event in self._unseen:
                    if isinstance(event, kind) and all(
                        getattr(event, name) == value for name, value in fields.items()
                    ):
                        self._unseen.remove(event)
                        return event
                self._more.clear()
                await self._more.wait()

    async def started(self, task: str) -> TaskStarted:
        """The start of a task."""
        return await self.until(TaskStarted, task=task)

    async def ended(self, task: str) -> TaskEnded:
        """The end of a task."""
        return await self.until(TaskEnded, task=task)


@asynccontextmanager
async def pool(folder: Path, **change: Any) -> AsyncIterator[tuple[Pool, Events]]:
    """A pool that is closed at the end, and its events."""
    events = Events()
    values: dict[str, Any] = {
        "max_concurrent": 4,
        "idle_timeout_s": 1_000.0,
        "max_workers": 8,
        "emit": events.emit,
        "clock": boot,
    }
    it = Pool(folder, **(values | change))
    try:
        yield it, events
    finally:
        await it.close(0.2)
