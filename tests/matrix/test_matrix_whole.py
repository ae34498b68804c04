"""A limited sync that left out nothing of the claims, by the homeserver's word, if tokens are positions."""

from __future__ import annotations

from typing import Any

import pytest

from cisbot.core.ids import RoomId, UserId
from cisbot.matrix.http import Api, Method, Path
from cisbot.matrix.sync import Follower
from cisbot.matrix.whole import has_all
from tests.matrix.scripted import NODE, ROOM, Scripted, answer, message, refused, synced

ROOM_ID = RoomId(ROOM)
SINCE, NOW = "s5_1_2", "s9_1_2"


def beat(number: int) -> dict[str, Any]:
    """A claim event."""
    return {
        "event_id": f"$b{number}", "type": "io.cisbot.heartbeat", "sender": "@a:test", "origin_server_ts": 1,
        "content": {"node": "a", "incarnation": "i", "nonce": f"n{number}"},
    }  # fmt: skip


async def test_what_is_known_is_not_missing(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/messages", answer({"chunk": [beat(1)], "end": "t7-7_1_2"}), answer({"chunk": []}))
    assert await has_all(api, ROOM_ID, SINCE, NOW, {"$b1"})
    first, second = scripted.of("GET", "/messages")
    assert (first.query["dir"], first.query["from"], first.query["to"]) == ("f", SINCE, NOW)
    assert second.query["from"] == "t7-7_1_2"
    assert "m.room.message" not in first.query["filter"]


@pytest.mark.parametrize(
    "reply",
    [
        answer({"chunk": [beat(1), beat(2)]}),
        answer({"chunk": [beat(1)], "end": "t7-7_1_2"}),
        answer({"chunk": "none"}),
        refused(403, "M_FORBIDDEN"),
    ],
    ids=["one more", "no end", "illegible", "refused"],
)
async def test_anything_else_is_a_gap(api: Api, scripted: Scripted, reply: Any) -> None:
    scripted.on("GET", "/messages", reply)
    assert not await has_all(api, ROOM_ID, SINCE, NOW, {"$b1"})


@pytest.mark.parametrize("tokens", [("c1", NOW), (SINCE, "c2"), ("m5~1.9_1", NOW), ("t1-5_1", NOW)])
async def test_other_tokens_say_nothing_about_the_stream(
    api: Api, scripted: Scripted, tokens: tuple[str, str]
) -> None:
    scripted.on("GET", "/messages", answer({"chunk": []}))
    assert not await has_all(api, ROOM_ID, *tokens, set())
    assert scripted.of("GET", "/messages") == []


@pytest.mark.parametrize(("missing", "whole"), [([], True), ([beat(1)], False)])
async def test_a_batch_says_so(
    api: Api, scripted: Scripted, missing: list[dict[str, Any]], *, whole: bool
) -> None:
    async def pages(request: Any) -> Any:
        forth = [*missing, beat(2)]
        return await answer({"chunk": [message(1)] if request.query["dir"] == "b" else forth})(request)

    scripted.on("GET", "/messages", pages)
    follower = Follower(api, ROOM_ID, NODE, SINCE)  # type: ignore[arg-type]
    batch = await follower.digest(synced(NOW, [beat(2)], is_limited=True))
    assert batch.gap
    assert batch.whole is whole
    assert [event.event_id for event in batch.history] == ["$m1"]


@pytest.mark.synapse
@pytest.mark.parametrize("claims", [0, 1])
async def test_on_a_real_homeserver_chat_hides_no_claim_event(
    synapse: Any, make_account: Any, claims: int
) -> None:
    account = make_account("node")
    async with Api(synapse.base_url, account.access_token, user_id=account.user_id) as api:
        room = RoomId(str((await api.call(Method.POST, Path.v3.createRoom, {}))["room_id"]))
        follower = Follower(api, room, UserId(account.user_id), None)
        await follower.digest(await follower.fetch(0))
        send = Path.v3.rooms[room].send
        for number in range(claims):
            await api.call(Method.PUT, send["io.cisbot.heartbeat"][f"b{number}"], beat(number)["content"])
        for number in range(120):
            await api.call(Method.PUT, send["m.room.message"][f"m{number}"], message(number)["content"])
        batch = await follower.digest(await follower.fetch(0))
    assert (batch.gap, batch.whole) == (True, claims == 0)
