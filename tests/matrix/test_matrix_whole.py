"""A limited sync that left out nothing of the claims, by the homeserver's word, if tokens are positions."""

from __future__ import annotations

from typing import Any

import pytest

from cisbot.core.ids import RoomId
from cisbot.matrix.http import Api
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
