"""The store on real files: each step whole or not at all, under SIGKILL and a full disk too."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


async def test_damage_inside_is_named_too(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    first = await SqliteStore.open(path)
    await first.commit([Put("meta", {"key": f"k{n}", "value": "x" * 2000}) for n in range(50)])
    await first.close()
    raw = bytearray(path.read_bytes())
    raw[4096 * 20 :] = b"\xff" * (len(raw) - 4096 * 20)
    path.write_bytes(raw)
    store = await SqliteStore.open(path)
    with pytest.raises(StoreError, match="is damaged.*Move it away"):
        await store.rows("meta")
    await store.close()


async def test_what_waits_to_be_sent_keeps_its_order(store: SqliteStore) -> None:
    sends = [Send(txn, "m.room.message", {}, Priority.CHAT, durable=True) for txn in ("status", "final", "a")]
    await store.commit([send_to_row(send) for send in sends])
    assert [send_from_row(row) for row in await store.rows("outbox")] == sends


async def test_another_writer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cisbot.store.open.BUSY_MS", 1)
    path = tmp_path / "node.db"
    store = await SqliteStore.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="in use by another process"):
        await store.commit([Put("meta", {"key": "a", "value": "1"})])
    other.execute("ROLLBACK")
    other.close()
    await store.commit([Put("meta", {"key": "a", "value": "1"})])
    await store.close()


@pytest.mark.parametrize("good", [True, False])
async def test_no_thread_is_left_that_would_hold_the_process(tmp_path: Path, good: bool) -> None:
    path = tmp_path / ("node.db" if good else "missing/node.db")
    before = set(threading.enumerate())
    try:
        await (await SqliteStore.open(path)).close()
    except StoreError as error:
        assert not good and "missing" in str(error)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
        assert not thread.is_alive()


async def test_a_failed_migration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "node.db"
    await (await SqliteStore.open(path)).close()
    steps = [*migrations(), "CREATE TABLE more (a TEXT) STRICT; CREATE TABLE meta (a TEXT) STRICT;"]
    monkeypatch.setattr("cisbot.store.open.migrations", lambda: steps)
    with pytest.raises(StoreError, match="already exists"):
        await SqliteStore.open(path)
    raw = sqlite3.connect(path)
    assert raw.execute("SELECT name FROM sqlite_master WHERE name = 'more'").fetchall() == []
    assert raw.execute("PRAGMA user_version").fetchone() == (len(steps) - 1,)
    raw.close()


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


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
SHORT = st.text(min_size=1, max_size=20)


@given(
    st.builds(
        Send, SHORT, SHORT, st.dictionaries(SHORT, JSON, max_size=4), st.sampled_from(Priority),
        st.none() | st.text(max_size=9), st.just(True), st.none() | SHORT, st.none() | SHORT,
    )
)  # fmt: skip
def test_a_send_comes_back_as_it_was(send: Send) -> None:
    assert send_from_row(send_to_row(send).row) == send
