"""Sync: stream order, every event once, gaps marked and read back, a hung poll noticed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from cisbot.core.ids import EventId, RoomId, UserId
from cisbot.core.inputs import RoomBatch
from cisbot.core.room.events import Member, Rejected, RoomEvent
from cisbot.errors import CisbotError
from cisbot.matrix import sync as module
from cisbot.matrix.follow import SyncLoop, SyncTap
from cisbot.matrix.http import Api, Method, Path, TokenDead, Unreachable
from cisbot.matrix.sync import LeftRoom, Seen, to_batch
from tests.matrix.scripted import (
    NODE,
    ROOM,
    Inbox,
    Scripted,
    answer,
    hang,
    lose,
    message,
    refused,
    synced,
    text,
)

ROOM_ID = RoomId(ROOM)


def ids(events: tuple[RoomEvent | Rejected, ...]) -> list[str]:
    return [event.event_id for event in events]


def own(membership: str, event_id: str, before: str = "invite") -> dict[str, Any]:
    return {
        "event_id": event_id,
        "type": "m.room.member",
        "state_key": NODE,
        "sender": NODE,
        "origin_server_ts": 1,
        "content": {"membership": membership},
        "unsigned": {"prev_content": {"membership": before}},
    }


def batches(inbox: Inbox) -> list[RoomBatch]:
    return [item for item in inbox.items if isinstance(item, RoomBatch)]


def test_a_timeline_keeps_its_order_and_every_event_comes_once() -> None:
    raw = synced("c2", [message(2), message(1), message(2), message(3)], state=[own("join", "$old")])
    batch, gap = to_batch(raw, ROOM_ID, since="c1", seen={"$m3"})
    assert ids(batch.events) == ["$m2", "$m1"]
    assert (batch.cursor, batch.gap, batch.initial, gap) == ("c2", False, False, None)
    assert ids(batch.state) == ["$old"]


def test_a_limited_timeline_is_a_gap() -> None:
    batch, gap = to_batch(synced("c2", [message(9)], is_limited=True), ROOM_ID, since="c1")
    assert batch.gap
    assert gap == module.Gap("before-c2", "c1")


def test_an_initial_sync_is_state_and_history_only() -> None:
    timeline = [own("join", "$new"), message(1)]
    batch, gap = to_batch(synced("c1", timeline, state=[own("invite", "$old")]), ROOM_ID, since=None)
    assert batch.initial
    assert batch.gap
    assert batch.events == ()
    assert ids(batch.state) == ["$new"]
    assert gap is not None
    assert len(gap.start) == 2


@pytest.mark.parametrize(
    "junk",
    [
        {"rooms": []},
        {"rooms": {"join": {ROOM: 3}}},
        {"rooms": {"join": {ROOM: {"timeline": {"events": [3, None, {}, {"type": 1}]}, "state": []}}}},
    ],
)
def test_junk_does_no_harm(junk: dict[str, Any]) -> None:
    batch, _ = to_batch({"next_batch": "c2", **junk}, ROOM_ID, since="c1")
    assert batch.cursor == "c2"
    with pytest.raises(Unreachable):
        to_batch(junk, ROOM_ID, since="c1")


def test_leaving_is_an_end() -> None:
    with pytest.raises(LeftRoom):
        to_batch({"next_batch": "c", "rooms": {"leave": {ROOM: {}}}}, ROOM_ID, since="c1")
    with pytest.raises(LeftRoom):
        to_batch({"next_batch": "c"}, ROOM_ID, since=None)


def test_the_memory_of_ids_is_bounded() -> None:
    seen = Seen(2)
    seen.add(EventId(e) for e in ("a", "b", "a", "c"))
    assert [e in seen for e in ("a", "b", "c")] == [False, True, True]


@asynccontextmanager
async def loop(
    api: Api,
    inbox: Inbox,
    cursor: str | None,
    said: list[str] | None = None,
    handled: asyncio.Event | None = None,
) -> AsyncIterator[asyncio.Task[None]]:
    words = said if said is not None else []

    async def until_handled() -> None:
        if handled is not None:
            await handled.wait()

    made = SyncLoop(
        api, ROOM_ID, UserId(NODE), cursor=cursor, emit=inbox, say=words.append, handled=until_handled
    )
    task = asyncio.create_task(made.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, CisbotError):
            await task


async def test_the_loop_asks_on_once_its_batch_is_handled(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    over, handled = asyncio.Event(), asyncio.Event()
    scripted.on("GET", "/versions", answer({}))
    scripted.on("GET", "/sync", answer(synced("c2", [message(1)])), hang(over))
    async with loop(api, inbox, "c1", handled=handled):
        await inbox.until(1)
        await api.read(Method.GET, Path.versions)  # whatever it would ask by itself is asked by now
        assert len(scripted.of("GET", "/sync")) == 1
        handled.set()
        await scripted.until(2, "GET", "/sync")
    over.set()


async def test_the_loop_moves_its_cursor(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    over = asyncio.Event()
    scripted.on(
        "GET", "/sync", answer(synced("c2", [message(1)])), answer(synced("c3", [message(1), message(2)])),
        hang(over),
    )  # fmt: skip
    async with loop(api, inbox, "c1"):
        await inbox.until(2)
        asked = await scripted.until(3, "GET", "/sync")
    over.set()
    assert [ids(b.events) for b in batches(inbox)] == [["$m1"], ["$m2"]]
    assert [r.query["since"] for r in asked] == ["c1", "c2", "c3"]
    assert [r.query["timeout"] for r in asked] == ["0", "30000", "30000"]
    assert {r.query["set_presence"] for r in asked} == {"offline"}


@pytest.mark.usefixtures("brief")
async def test_being_away_is_said_once_and_being_back_too(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    over = asyncio.Event()
    bad = [lose, text("<html>", 502), text("{", kind="application/json"), answer({}), refused(500, "M_X")]
    scripted.on("GET", "/sync", *bad, answer(synced("c2", [message(1)])), hang(over))
    said: list[str] = []
    async with loop(api, inbox, "c1", said):
        await inbox.until(1)
        await scripted.until(7, "GET", "/sync")
    over.set()
    assert len(said) == 2
    assert "can't be reached" in said[0]
    assert "again" in said[1]
    assert {r.query["since"] for r in scripted.of("GET", "/sync")[:6]} == {"c1"}


@pytest.mark.usefixtures("brief")
async def test_a_hung_poll_is_dropped(
    api: Api, inbox: Inbox, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_MARGIN_S", 0.2)
    over = asyncio.Event()
    scripted.on("GET", "/sync", hang(over), answer(synced("c2", [message(1)])), hang(over))
    async with loop(api, inbox, "c1"):
        await inbox.until(1)
    assert ids(batches(inbox)[0].events) == ["$m1"]
    over.set()


async def test_a_gap_is_read_back(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    over = asyncio.Event()
    scripted.on(
        "GET", "/sync", answer(synced("c2", [message(1)])),
        answer(synced("c3", [message(6), message(7)], is_limited=True)), hang(over),
    )  # fmt: skip
    scripted.on(
        "GET", "/messages", answer({"chunk": [message(5), message(4)], "end": "p2"}),
        answer({"chunk": [message(3), message(2), message(1)]}),
    )  # fmt: skip
    async with loop(api, inbox, "c1"):
        await inbox.until(2)
    over.set()
    gap = batches(inbox)[1]
    assert gap.gap
    assert ids(gap.events) == ["$m6", "$m7"]
    assert ids(gap.history) == ["$m2", "$m3", "$m4", "$m5"]
    first, second = scripted.of("GET", "/messages")
    assert (first.query["from"], first.query["to"], first.query["dir"]) == ("before-c3", "c2", "b")
    assert second.query["from"] == "p2"


async def test_a_gap_is_read_back_for_so_many_pages(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    async def page(request: Any) -> Any:
        number = int(request.query["from"].removeprefix("p") or 0) if "p" in request.query["from"] else 0
        return await answer({"chunk": [message(number)], "end": f"p{number + 1}"})(request)

    over = asyncio.Event()
    scripted.on("GET", "/sync", answer(synced("c2", [message(900)], is_limited=True)), hang(over))
    scripted.on("GET", "/messages", page)
    async with loop(api, inbox, "c1"):
        await inbox.until(1)
    over.set()
    assert len(scripted.of("GET", "/messages")) == module.GAP_PAGES_MAX


async def test_a_first_join_reads_back_to_its_own_join(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    over = asyncio.Event()
    scripted.on("GET", "/sync", answer(synced("c1", [message(4)], state=[own("join", "$j")])), hang(over))
    renamed = own("join", "$renamed", before="join")
    page = [message(3), renamed, message(2), own("join", "$j"), message(1)]
    scripted.on("GET", "/messages", answer({"chunk": page, "end": "more"}))
    async with loop(api, inbox, None):
        await inbox.until(1)
    over.set()
    batch = batches(inbox)[0]
    assert batch.initial
    assert ids(batch.history) == ["$m2", "$m3", "$m4"]
    assert any(isinstance(event, Member) for event in batch.state)
    assert len(scripted.of("GET", "/messages")) == 1


@pytest.mark.usefixtures("brief")
async def test_an_unknown_cursor_starts_anew(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    over = asyncio.Event()
    scripted.on("GET", "/messages", answer({"chunk": []}))
    scripted.on("GET", "/sync", refused(400, "M_UNKNOWN"), answer(synced("c9", [])), hang(over))
    async with loop(api, inbox, "c1"):
        await inbox.until(1)
    over.set()
    assert batches(inbox)[0].initial


async def test_a_dead_token_is_the_end(api: Api, inbox: Inbox, scripted: Scripted) -> None:
    scripted.on("GET", "/sync", refused(401, "M_UNKNOWN_TOKEN"))
    async with loop(api, inbox, "c1") as task:
        with pytest.raises(TokenDead):
            await task


MakeTap = Callable[[str], SyncTap]


@pytest.fixture
def tap(api: Api, inbox: Inbox) -> MakeTap:
    def fail(error: CisbotError) -> None:
        raise AssertionError(error)

    return lambda cursor: SyncTap(api, ROOM_ID, UserId(NODE), cursor=cursor, emit=inbox, say=print, fail=fail)


async def test_a_tap_becomes_aligned_and_lets_nothing_through_twice(
    tap: MakeTap, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on(
        "GET", "/sync", answer(synced("c2", [message(1), message(2)])), answer(synced("c3", [message(3)])),
        answer(synced("c4", [message(4), message(5)])),
    )  # fmt: skip
    made = tap("c1")
    await made.start()
    await made.feed(synced("m1", [message(0), message(1), message(2)]))  # older than our cursor, too
    assert not made.aligned
    await made.feed(synced("m2", [message(3), message(4)]))
    assert made.aligned
    await made.feed(synced("m3", [message(4), message(5), message(6)]))
    await made.feed(synced("m4", [message(7)]))
    assert [e for b in batches(inbox) for e in ids(b.events)] == [f"$m{n}" for n in range(1, 8)]
    assert [b.gap for b in batches(inbox)] == [False] * 5
    assert [r.query["since"] for r in scripted.of("GET", "/sync")] == ["c1", "c2", "c3"]
    assert batches(inbox)[-1].cursor == "m4"


async def test_a_tap_asks_for_itself_where_the_fed_answer_is_limited(
    tap: MakeTap, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on("GET", "/sync", *(answer(synced(f"c{n}", [])) for n in (2, 3, 4)))
    made = tap("c1")
    await made.start()
    for n in (1, 2):
        await made.feed(synced(f"m{n}", []))
    scripted.on("GET", "/sync", answer(synced("c5", [message(1), message(2)])))
    await made.feed(synced("m3", [message(2)], is_limited=True))
    assert ids(batches(inbox)[-1].events) == ["$m1", "$m2"]
    assert made.aligned
    await made.feed(synced("m4", [message(2), message(3)]) | {"net.maunium.mautrix": {"is_first": True}})
    assert not made.aligned


async def test_a_tap_outlives_an_absent_homeserver(tap: MakeTap, inbox: Inbox, scripted: Scripted) -> None:
    scripted.on("GET", "/sync", lose, answer(synced("c2", [message(1)])))
    made = tap("c1")
    await made.start()
    assert inbox.items == []
    await made.feed(synced("m1", [message(1)]))
    assert ids(batches(inbox)[0].events) == ["$m1"]
