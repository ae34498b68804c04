"""`python -m cisbot` with a fault in it: `python -m tests.crash.runner FAULT N run --config …`.

kill N   SIGKILL right after the node's Nth effect, counted over commits, sends and work handed out
full N   the database can't grow beyond N pages, as on a full disk
"""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from cisbot.__main__ import main
from cisbot.core.effects import Send, Work, Write
from cisbot.matrix.rooms import MatrixRoom
from cisbot.node.build import PoolWorkers
from cisbot.store import dag_table
from cisbot.store import open as open_module
from cisbot.store.dag_table import SqliteStore


class Countdown:
    """Kills this process at the Nth tick."""

    def __init__(self, ticks: int) -> None:
        self._left = ticks

    def tick(self) -> None:
        """One effect was done."""
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def kill_after(count: int) -> None:
    """Count effects at the three ports of the node."""
    countdown = Countdown(count)
    commit, send, do = SqliteStore.commit, MatrixRoom.send, PoolWorkers.do

    async def counted_commit(self: SqliteStore, writes: Sequence[Write]) -> None:
        await commit(self, writes)
        countdown.tick()

    def counted_send(self: MatrixRoom, item: Send) -> None:
        send(self, item)
        countdown.tick()

    def counted_do(self: PoolWorkers, work: Work) -> None:
        do(self, work)
        countdown.tick()

    SqliteStore.commit = counted_commit  # type: ignore[method-assign]
    MatrixRoom.send = counted_send  # type: ignore[method-assign, assignment]
    PoolWorkers.do = counted_do  # type: ignore[method-assign]


def full_at(pages: int) -> None:
    """Let no connection write beyond so many pages."""
    prepare = open_module.prepare

    def limited(connection: sqlite3.Connection, path: Path) -> None:
        prepare(connection, path)
        connection.execute(f"PRAGMA max_page_count = {pages}")

    dag_table.prepare = limited  # type: ignore[attr-defined]


if __name__ == "__main__":
    fault, number = sys.argv[1], int(sys.argv[2])
    {"kill": kill_after, "full": full_at}[fault](number)
    sys.exit(main(sys.argv[3:]))
