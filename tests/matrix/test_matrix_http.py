"""The HTTP client: every failure is told apart, every wait is bounded."""

from __future__ import annotations

import asyncio

import pytest

from cisbot.matrix import http
from cisbot.matrix.http import Api, Method, Path, RateLimited, Refused, TokenDead, Unreachable
from tests.matrix.scripted import Scripted, answer, hang, limited, lose, refused, text


async def get(api: Api, timeout_s: float = 5) -> object:
    return await api.call(Method.GET, Path.v3.test, timeout_s=timeout_s)


async def test_the_wait_of_a_429_is_kept(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/test", limited(1234), text("slow down", 429))
    with pytest.raises(RateLimited) as told:
        await get(api)
    assert told.value.retry_after_s == pytest.approx(1.234)
    with pytest.raises(RateLimited) as untold:
        await get(api)
    assert untold.value.retry_after_s == 1.0


@pytest.mark.parametrize(
    "reply", [lose, text("<html>nginx"), text("{", kind="application/json"), answer([1])]
)
async def test_no_usable_answer(api: Api, scripted: Scripted, reply: object) -> None:
    scripted.on("GET", "/test", reply)  # type: ignore[arg-type]
    with pytest.raises(Unreachable) as lost:
        await get(api)
    assert lost.value.sent


async def test_a_proxys_page_is_not_the_homeserver(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/test", text("404 page not found", 404))
    with pytest.raises(Unreachable) as lost:
        await get(api)
    assert lost.value.status == 404


async def test_no_connection_was_never_sent() -> None:
    async with Api("http://127.0.0.1:1") as api:
        with pytest.raises(Unreachable) as lost:
            await get(api)
    assert not lost.value.sent


async def test_a_hanging_request_ends(api: Api, scripted: Scripted) -> None:
    over = asyncio.Event()
    scripted.on("GET", "/test", hang(over))
    with pytest.raises(Unreachable) as lost:
        await get(api, 0.1)
    over.set()
    assert lost.value.sent


async def test_refusals(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/test", refused(403, "M_FORBIDDEN"), refused(401, "M_UNKNOWN_TOKEN"))
    with pytest.raises(Refused) as no:
        await get(api)
    assert (no.value.status, no.value.errcode) == (403, "M_FORBIDDEN")
    with pytest.raises(TokenDead):
        await get(api)


async def test_an_answer_without_end_is_dropped(
    api: Api, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "ANSWER_BYTES_MAX", 1000)
    scripted.on("GET", "/test", answer({"a": "x" * 2000}))
    with pytest.raises(Unreachable):
        await get(api)


@pytest.mark.usefixtures("brief")
async def test_a_read_is_tried_again(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/test", limited(50), lose, text("<html>", 502), answer({"ok": 1}))
    assert await api.read(Method.GET, Path.v3.test) == {"ok": 1}
    scripted.on("GET", "/test", lose)
    with pytest.raises(Unreachable):
        await api.read(Method.GET, Path.v3.test, patience_s=0.05)


async def test_the_whole_state_is_asked_for_again_when_its_answer_is_lost(
    api: Api, scripted: Scripted
) -> None:
    scripted.on("GET", "/test", lose, answer([1, 2]))
    assert await api.listing(Path.v3.test) == [1, 2]


async def test_a_list_that_never_comes_is_given_up(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/test", answer({}))
    with pytest.raises(Unreachable):
        await api.listing(Path.v3.test, patience_s=0)
