"""The DAG table and its companions on SQLite: one commit a step, in one hop to the database's thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import aiosqlite

from cisbot.core.effects import Drop, Put, Write
from cisbot.store.open import prepare, understood

KEYS = {
    "meta": "key",
    "heads": "key",
    "runs": "id",
    "tasks": "id",
    "nodes": "account",
    "definitions": "hash",
    "outbox": "txn",
    "unread": "event",
}

T = TypeVar("T")
Value = str | int | float | None


class SqliteStore:
    """`node.ports.Store` on one file. Close it: aiosqlite's thread is no daemon."""

    def __init__(self, connection: aiosqlite.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    @classmethod
    async def open(cls, path: Path) -> SqliteStore:
        """Open or create the file. Raises `StoreError`."""
        connection = aiosqlite.connect(path)
        try:
            await connection
        except sqlite3.Error as error:
            raise understood(error, path) from error
        store = cls(connection, path)
        try:
            await store._on_thread(lambda raw: prepare(raw, path))
        except BaseException:
            await connection.close()
            raise
        return store

    async def close(self) -> None:
        """Close the file and end its thread."""
        await self._connection.close()

    async def commit(self, writes: Sequence[Write]) -> None:
        """All writes in one transaction. Raises `StoreFull` or `StoreError`; then none was made."""
        await self._on_thread(lambda raw: _commit(raw, writes))

    async def rows(self, table: str) -> list[dict[str, Value]]:
        """All rows of a table, in primary-key order; those of the outbox as they were last put."""
        return await self._on_thread(lambda raw: _rows(raw, table))

    async def _on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            # aiosqlite offers statements one by one, each a thread hop: this is one hop a transaction
            found: T = await self._connection._execute(lambda: work(self._connection._conn))  # type: ignore[no-untyped-call]
            return found
        except sqlite3.Error as error:
            raise understood(error, self._path) from error


def _commit(raw: sqlite3.Connection, writes: Sequence[Write]) -> None:
    raw.execute("BEGIN IMMEDIATE")
    try:
        for write in writes:
            match write:
                case Put():
                    assert write.table in KEYS
                    columns = list(write.row)
                    marks = ", ".join("?" for _ in columns)
                    raw.execute(
                        f"INSERT OR REPLACE INTO {write.table} ({', '.join(columns)}) VALUES ({marks})",
                        [write.row[c] for c in columns],
                    )
                case Drop():
                    key = KEYS[write.table]
                    raw.execute(f"DELETE FROM {write.table} WHERE {key} = ?", [write.key])
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK")
        raise


def _rows(raw: sqlite3.Connection, table: str) -> list[dict[str, Value]]:
    order = "rowid" if table == "outbox" else KEYS[table]  # a status is said before its final reply
    cursor = raw.execute(f"SELECT * FROM {table} ORDER BY {order}")
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
