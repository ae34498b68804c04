"""The edges as Protocols: what the node needs of the room, the store, the workers and the clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from cisbot.core.effects import Ask, Send, Work, Write
from cisbot.core.inputs import Definitions, Input, Instant

Emit = Callable[[Input], None]


class Clock(Protocol):
    """Time and timers; tests put a manual one here."""

    def now(self) -> Instant:
        """The present moment."""

    def call_at(self, boot: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back at that boot time; the result cancels."""


class Room(Protocol):
    """The room's side: sends go through one paced outbox, answers come back as inputs."""

    def send(self, send: Send) -> None:
        """Queue one send; `SendDone` or `SendFailed` follows."""

    def withdraw(self, txn: str) -> None:
        """Take back a send that waits; one in flight or unknown is left alone."""

    def ask(self, ask: Ask) -> None:
        """Start one read, or a request about the delayed end; its answer follows as an input."""


class Store(Protocol):
    """The node's own database."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """All writes in one transaction. Raises `StoreFull` when the disk is full."""

    async def rows(self, table: str) -> list[dict[str, str | int | float | None]]:
        """All rows of a table, in primary-key order."""


class Files(Protocol):
    """The node's own DAG files."""

    async def read(self) -> Definitions | None:
        """All definitions, or None where nothing changed since the last call."""


class Workers(Protocol):
    """The supervisor of the worker processes."""

    def do(self, work: Work) -> None:
        """Start, cancel or re-deadline tasks; reports follow as inputs."""
