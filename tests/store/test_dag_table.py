"""The store on real files: each step whole or not at all, under SIGKILL and a full disk too."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cisbot.core.effects import Drop, Priority, Put, Send
from cisbot.store.dag_table import SqliteStore
from cisbot.store.open import StoreError, StoreFull, migrations
from cisbot.store.outbox_rows import send_from_row, send_to_row

WRITER = """
import asyncio, sys
from pathlib import Path
from cisbot.core.effects import Put
from cisbot.store.dag_table import SqliteStore

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    number = 0
    while True:
        number += 1
        pair = [Put("meta", {"key": name, "value": str(number)}) for name in ("left", "right")]
        await store.commit(pair)
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """An open store."""
    opened = await SqliteStore.open(tmp_path / "node.db")
    yield opened
    await opened.close()


async def test_what_is_put_is_there_and_what_is_dropped_is_not(store: SqliteStore) -> None:
    await store.commit([Put("meta", {"key": "a", "value": "1"}), Put("meta", {"key": "b", "value": "2"})])
    await store.commit([Put("meta", {"key": "a", "value": "3"}), Drop("meta", "b")])
    assert await store.rows("meta") == [{"key": "a", "value": "3"}]


async def test_a_transaction_is_whole_or_nothing(store: SqliteStore) -> None:
    good, bad = Put("meta", {"key": "a", "value": "1"}), Put("meta", {"key": "b", "value": None})
    with pytest.raises(StoreError):
        await store.commit([good, bad])
    assert await store.rows("meta") == []
    await store.commit([good])
    assert len(await store.rows("meta")) == 1


async def test_it_survives_reopening(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    first = await SqliteStore.open(path)
    await first.commit([Put("meta", {"key": "a", "value": "1"})])
    await first.close()
    second = await SqliteStore.open(path)
    assert await second.rows("meta") == [{"key": "a", "value": "1"}]
    await second.close()


async def test_a_full_disk_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    store = await SqliteStore.open(path)
    await store.commit([Put("meta", {"key": "a", "value": "1"})])
    await store._on_thread(lambda raw: raw.execute("PRAGMA max_page_count = 1"))
    big = [Put("meta", {"key": f"k{n}", "value": "x" * 4000}) for n in range(200)]
    with pytest.raises(StoreFull, match="is full; make room"):
        await store.commit(big)
    assert await store.rows("meta") == [{"key": "a", "value": "1"}]
    await store.close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    raw.close()
    with pytest.raises(StoreError, match="newer cisbot"):
        await SqliteStore.open(path)


async def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"this is no database" * 1000)
    with pytest.raises(StoreError, match=r"node\.db is damaged"):
        await SqliteStore.open(path)


async def test_sigkill_leaves_a_commit_boundary(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    for number in (1, 5, 20):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(number):
            assert await writer.stdout.readline()
        writer.kill()
        await writer.wait()
        store = await SqliteStore.open(path)
        values = {row["value"] for row in await store.rows("meta")}
        await store.close()
        assert len(values) == 1
        assert int(str(values.pop())) >= number


def test_a_send_comes_back_as_it_was() -> None:
    send = Send("t", "m.room.message", {"body": "x", "n": [1, None, True]}, Priority.FINAL, durable=True)
    row = send_to_row(send)
    assert send_from_row(row.row) == send
