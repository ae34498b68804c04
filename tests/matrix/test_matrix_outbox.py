"""The outbox: pacing, order, what is sent again and what never is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from cisbot.core.effects import Priority, Send
from cisbot.core.ids import EventId, RoomId
from cisbot.core.inputs import SendDone, SendFailed
from cisbot.matrix import outbox as module
from cisbot.matrix.http import Api, TokenDead
from cisbot.matrix.outbox import Outbox, content_fault
from tests.matrix.scripted import (
    NODE,
    ROOM,
    Inbox,
    Request,
    Scripted,
    answer,
    hang,
    limited,
    lose,
    refused,
    text,
)

Start = Callable[[], asyncio.Task[None]]


def chat(txn: str, **more: Any) -> Send:
    fields: dict[str, Any] = {"content": {"body": txn}, "priority": Priority.CHAT} | more
    return Send(txn, "m.room.message", **fields)


def lock(txn: str, **more: Any) -> Send:
    return Send(txn, "io.cisbot.lock", {"n": 1}, Priority.LOCK, state_key="backup/a", **more)


async def echo(request: Request) -> Any:
    """Accept a send; the event is named after its transaction."""
    return await answer({"event_id": f"${request.path.rsplit('/', 1)[-1]}"})(request)


@pytest.fixture
def out(api: Api, inbox: Inbox, scripted: Scripted) -> Outbox:
    scripted.on("PUT", "/send/", echo)
    scripted.on("PUT", "/state/", answer({"event_id": "$state"}))
    return Outbox(api, RoomId(ROOM), inbox)


@pytest.fixture
async def start(out: Outbox) -> AsyncIterator[Start]:
    tasks: list[asyncio.Task[None]] = []

    def begin() -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(out.run()))
        return tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError, TokenDead):
            await task


def sent(scripted: Scripted) -> list[str]:
    return [r.path.rsplit("/", 1)[-1] for r in scripted.of("PUT", "/send/")]


async def test_urgent_goes_first_and_equals_in_order(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    for send in (chat("a"), chat("e", priority=Priority.EDIT), chat("b")):
        out.send(send)
    out.send(chat("r", priority=Priority.RENEWAL))
    start()
    await inbox.until(4)
    assert sent(scripted) == ["r", "a", "b", "e"]


async def test_a_limit_is_waited_for_and_a_renewal_overtakes(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on("PUT", "/send/", limited(150), echo)
    out.send(chat("a"))
    start()
    await scripted.until(1, "PUT", "/send/")
    began = asyncio.get_running_loop().time()
    out.send(chat("r", priority=Priority.RENEWAL))
    await inbox.until(2)
    assert sent(scripted) == ["a", "r", "a"]
    assert asyncio.get_running_loop().time() - began >= 0.14
    assert inbox.items == [SendDone("r", EventId("$r")), SendDone("a", EventId("$a"))]


async def test_a_limited_state_event_is_sent_again(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on("PUT", "/state/", limited(50), answer({"event_id": "$s"}))
    out.send(lock("l"))
    start()
    assert await inbox.until(1) == [SendDone("l", EventId("$s"))]
    assert len(scripted.of("PUT", "/state/io.cisbot.lock/backup/a")) == 2


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("lost", [lose, text("<html>"), refused(502, "M_UNKNOWN"), answer({})])
async def test_a_lost_answer_repeats_the_same_transaction(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted, lost: Callable[[Request], Awaitable[Any]]
) -> None:
    scripted.on("PUT", "/send/", lost, lost, echo)
    out.send(chat("a"))
    start()
    assert await inbox.until(1) == [SendDone("a", EventId("$a"))]
    assert sent(scripted) == ["a", "a", "a"]


@pytest.mark.parametrize("lost", [lose, text("<html>"), refused(500, "M_UNKNOWN"), answer({})])
async def test_a_state_event_that_may_have_come_through_is_not_sent_again(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted, lost: Callable[[Request], Awaitable[Any]]
) -> None:
    out.send(chat("first"))  # so that a kept connection is there, which aiohttp would repeat on
    start()
    await inbox.until(1)
    scripted.on("PUT", "/state/", lost)
    out.send(lock("l", durable=True))
    failed = (await inbox.until(2))[1]
    assert isinstance(failed, SendFailed)
    assert (failed.txn, failed.errcode) == ("l", "UNKNOWN")
    assert len(scripted.of("PUT", "/state/")) == 1


async def test_a_hanging_state_event_is_unknown(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, api: Api
) -> None:
    over = asyncio.Event()
    scripted.on("PUT", "/state/", hang(over))
    whole = api.call
    monkeypatch.setattr(api, "call", lambda *a, **k: whole(*a, **(k | {"timeout_s": 0.2})))
    out.send(lock("l"))
    start()
    failed = (await inbox.until(1))[0]
    over.set()
    assert isinstance(failed, SendFailed)
    assert failed.errcode == "UNKNOWN"


@pytest.mark.usefixtures("brief")
async def test_no_connection_means_try_on_state_events_too(inbox: Inbox, scripted: Scripted) -> None:
    async with Api("http://127.0.0.1:1", "token", user_id=NODE) as api:
        out = Outbox(api, RoomId(ROOM), inbox)
        out.send(lock("l"))
        task = asyncio.create_task(out.run())
        assert not await out.drain(0.1)
        api.base_url = type(api.base_url)(scripted.url)
        scripted.on("PUT", "/state/", answer({"event_id": "$s"}))
        assert await inbox.until(1) == [SendDone("l", EventId("$s"))]
        task.cancel()


@pytest.mark.usefixtures("brief")
async def test_what_is_not_durable_is_given_up(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GIVE_UP_S", 0.1)
    scripted.on("PUT", "/send/", lose)
    out.send(chat("kept", durable=True))
    out.send(chat("a"))
    start()
    failed = (await inbox.until(1))[0]
    assert isinstance(failed, SendFailed)
    assert (failed.txn, failed.errcode) == ("a", "UNREACHABLE")
    scripted.on("PUT", "/send/", echo)
    assert (await inbox.until(2))[1] == SendDone("kept", EventId("$kept"))


@pytest.mark.usefixtures("brief")
async def test_one_that_always_fails_does_not_stop_the_others(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on("PUT", "/send/m.room.message/poison", refused(500, "M_UNKNOWN"))
    out.send(chat("poison", durable=True, priority=Priority.RENEWAL))
    out.send(chat("a"))
    start()
    assert await inbox.until(1) == [SendDone("a", EventId("$a"))]


async def test_a_newer_one_takes_the_place_of_an_unsent_older_one(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    out.send(chat("old", coalesce="run-1"))
    out.send(chat("other"))
    out.send(chat("new", coalesce="run-1"))
    start()
    await inbox.until(3)
    assert sent(scripted) == ["new", "other"]
    first = inbox.items[0]
    assert isinstance(first, SendFailed)
    assert (first.txn, first.errcode) == ("old", "SUPERSEDED")


async def test_what_is_withdrawn_is_not_sent(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    out.send(chat("stale"))
    out.send(chat("good"))
    out.withdraw("stale")
    out.withdraw("unknown")
    start()
    assert await out.drain(5)
    assert sent(scripted) == ["good"]
    assert [(type(item).__name__, item.txn) for item in inbox.items] == [  # type: ignore[union-attr]
        ("SendFailed", "stale"), ("SendDone", "good"),
    ]  # fmt: skip


async def test_a_transaction_is_queued_once(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    out.send(chat("a"))
    out.send(chat("a"))
    start()
    assert await out.drain(5)
    assert sent(scripted) == ["a"]
    assert len(inbox.items) == 1


async def test_refusals_are_reported(out: Outbox, start: Start, inbox: Inbox, scripted: Scripted) -> None:
    scripted.on(
        "PUT", "/send/", refused(403, "M_FORBIDDEN"), text("big", 413), refused(400, "M_DUPLICATE_ANNOTATION")
    )
    for txn in ("a", "b", "c"):
        out.send(chat(txn))
    start()
    forbidden, large, done = await inbox.until(3)
    assert isinstance(forbidden, SendFailed)
    assert isinstance(large, SendFailed)
    assert (forbidden.errcode, large.errcode) == ("M_FORBIDDEN", "M_TOO_LARGE")
    assert done == SendDone("c", EventId(""))


async def test_a_dead_token_ends_the_outbox(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on("PUT", "/send/", refused(401, "M_UNKNOWN_TOKEN"))
    out.send(chat("a"))
    with pytest.raises(TokenDead):
        await start()
    assert inbox.items == []


async def test_nothing_goes_to_an_encrypted_room(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on("GET", "state/m.room.member/", answer({"membership": "join"}))
    scripted.on("GET", "rooms/!other/state/m.room.encryption", answer({"algorithm": "m.megolm"}))
    out.send(chat("a", room="!other"))
    out.send(chat("b"))
    start()
    await inbox.until(2)
    out.forbid()
    out.send(chat("c"))
    await inbox.until(3)
    failed = [i.errcode for i in inbox.items if isinstance(i, SendFailed)]
    assert failed == ["ENCRYPTED", "ENCRYPTED"]
    assert sent(scripted) == ["b"]


async def test_another_room_is_found_and_joined(
    out: Outbox, start: Start, inbox: Inbox, scripted: Scripted
) -> None:
    scripted.on("GET", "directory/room", answer({"room_id": "!other"}))
    scripted.on("POST", "/join/", answer({"room_id": "!other"}))
    out.send(chat("a", room="#other:test"))
    start()
    assert await inbox.until(1) == [SendDone("a", EventId("$a"))]
    assert "/rooms/!other/send/" in scripted.of("PUT", "/send/")[0].path
    scripted.on("POST", "/join/", refused(403, "M_FORBIDDEN"))
    out.send(chat("b", room="#other:test"))
    failed = (await inbox.until(2))[1]
    assert isinstance(failed, SendFailed)
    assert "invite it there" in failed.why


@pytest.mark.parametrize("elsewhere", [limited(60_000), hang(asyncio.Event()), lose])
async def test_what_goes_elsewhere_delays_no_renewal(
    out: Outbox,
    start: Start,
    inbox: Inbox,
    scripted: Scripted,
    elsewhere: Callable[[Request], Awaitable[Any]],
) -> None:
    scripted.on("POST", "/join/", elsewhere)
    for txn in ("a", "b"):
        out.send(chat(txn, room="!other"))
    start()
    await scripted.until(1, "POST", "/join/")
    for txn in ("r", "s"):
        out.send(chat(txn, priority=Priority.RENEWAL))
    await inbox.until(2)
    assert sent(scripted) == ["r", "s"]
    assert not await out.drain(0.01)


def test_what_the_homeserver_would_not_take() -> None:
    assert content_fault("t", None, {"a": [1, {"b": 2**53 - 1}], "c": True, "d": None}) is None
    float_inside = content_fault("t", None, {"a": [1, {"b": 0.5}]})
    assert float_inside == ("M_BAD_JSON", "content.a[1].b: an event can't hold a float")
    for bad in ({"a": 2**53}, {"a": -(2**53)}, {"a": "\ud800"}):
        assert (content_fault("t", None, bad) or ("",))[0] == "M_BAD_JSON"
    assert (content_fault("t", None, {"a": "ä" * 31_000}) or ("",))[0] == "M_TOO_LARGE"
    assert content_fault("t", None, {"a": "x" * 60_000}) is None


async def test_too_large_is_said_at_once(out: Outbox, inbox: Inbox, scripted: Scripted) -> None:
    out.send(chat("a", content={"body": "x" * 70_000}))
    failed = inbox.items[0]
    assert isinstance(failed, SendFailed)
    assert failed.errcode == "M_TOO_LARGE"
    assert scripted.requests == []
