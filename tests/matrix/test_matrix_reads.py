"""Reading back through a room's pages: how far, what counts, and when it was not far enough."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cisbot.core.claims.messages import Claim, Me, memory_write, release, take
from cisbot.core.effects import ReadBack, Send
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, RoomId, RunId, UserId
from cisbot.core.inputs import BackRead
from cisbot.core.room.events import CarriedHead
from cisbot.core.room.past import Highest
from cisbot.core.room.wire import EPOCH_MAX, T_LOCK, T_MEMORY
from cisbot.matrix import reads
from cisbot.matrix.http import Api
from tests.matrix.scripted import NODE, ROOM, Request, Scripted, answer, refused

KEY = ClaimKey("d/project-p")
ASK = ReadBack("back", KEY, 1_000)
ME = Me(NodeId("node-1"), UserId(NODE), Incarnation("i"))
CREATE = {
    "event_id": "$create", "type": "m.room.create", "sender": NODE, "origin_server_ts": 1, "state_key": "",
    "content": {"room_version": "12"},
}  # fmt: skip


def raw(event: str, send: Send) -> dict[str, Any]:
    """A send as the homeserver tells it."""
    return {
        "event_id": event, "type": send.type, "sender": NODE, "origin_server_ts": 1, "content": send.content,
        "state_key": send.state_key,
    }  # fmt: skip


def taken(event: str, epoch: int, *, key: ClaimKey = KEY, head: CarriedHead | None = None) -> dict[str, Any]:
    """A raw take."""
    claim, after = Claim(RunId("$run"), "d", "p", 30, "0"), EventId("$x")
    send = take(ME, ME.nonce(), key, 0, epoch, after, claim, fresh=False, head=head)
    return raw(event, send)


def given_back(event: str, head: CarriedHead) -> dict[str, Any]:
    """A raw release."""
    return raw(event, release(ME, KEY, 1, RunId("$run"), None, head))


def head(epoch: int, after: str, takes: int) -> CarriedHead:
    """A carried head."""
    return CarriedHead(KEY, epoch, EventId(after), (), None, takes)


def serve(scripted: Scripted, *pages: list[dict[str, Any]]) -> None:
    """The room's pages, the newest first; each but the last names the next."""
    ends = [*(f"p{n}" for n in range(1, len(pages))), None]
    bodies = [{"chunk": page, **({"end": end} if end else {})} for page, end in zip(pages, ends, strict=True)]
    scripted.on("GET", "/messages", *(answer(body) for body in bodies))


async def read(api: Api, ask: ReadBack = ASK) -> Highest | None:
    """What the reading finds."""
    found = await reads.read_back(api, RoomId(ROOM), ask)
    assert found == BackRead("back", found.found)
    return found.found


def asked(scripted: Scripted) -> list[Request]:
    """The requests for pages."""
    return scripted.of("GET", "/messages")


async def test_to_the_beginning(scripted: Scripted, api: Api) -> None:
    serve(scripted, [taken("$3", 2)], [taken("$2", 7), taken("$1", 1), CREATE])
    assert await read(api) == Highest(7, 3)
    first, second = asked(scripted)
    assert "from" not in first.query, "from the room's end: `prev_batch` would skip some"
    assert second.query["from"] == "p1"
    assert json.loads(first.query["filter"]) == {"types": [T_LOCK, "m.room.create"]}


async def test_a_part_of_the_history_is_not_enough(scripted: Scripted, api: Api) -> None:
    serve(scripted, [taken("$3", 2)], [taken("$2", 7)])
    assert await read(api) is None


async def test_not_further_than_what_a_head_names(scripted: Scripted, api: Api) -> None:
    pages = [[taken("$4", 9, head=head(8, "$3", 8))], [given_back("$3", head(8, "$2", 8)), taken("$old", 8)]]
    serve(scripted, *pages, [CREATE])
    assert await read(api) == Highest(9, 9)
    assert len(asked(scripted)) == 2


async def test_a_huge_void_epoch_does_not_count(scripted: Scripted, api: Api) -> None:
    serve(scripted, [taken("$evil", EPOCH_MAX), taken("$2", 2), taken("$1", 1), CREATE])
    assert await read(api) == Highest(2, 3)


async def test_other_keys_and_what_is_illegible_are_nothing(scripted: Scripted, api: Api) -> None:
    broken: list[Any] = [7, None, {}, {**taken("$b", 5), "content": {"action": "take"}}]
    serve(scripted, [*broken, taken("$o", 6, key=ClaimKey("other/x"))], [taken("$1", 1), CREATE])
    assert await read(api) == Highest(1, 1)


async def test_memory_is_read_from_its_own_events(scripted: Scripted, api: Api) -> None:
    key = ClaimKey("memory:name")
    send = memory_write(ME, ME.nonce(), key, 3, EventId("$x"), "v", fresh=False, head=None)
    serve(scripted, [raw("$1", send), CREATE])
    assert await read(api, ReadBack("back", key, 1_000)) == Highest(3, 1)
    assert json.loads(asked(scripted)[0].query["filter"])["types"] == [T_MEMORY, "m.room.create"]


async def test_a_refusal_in_the_middle(scripted: Scripted, api: Api) -> None:
    replies = answer({"chunk": [taken("$1", 1)], "end": "p1"}), refused(403, "M_FORBIDDEN")
    scripted.on("GET", "/messages", *replies)
    assert await read(api) is None


@pytest.mark.parametrize("body", [{}, {"chunk": 7}, {"chunk": [], "end": 7}, {"chunk": {}, "end": None}])
async def test_odd_answers(scripted: Scripted, api: Api, body: dict[str, object]) -> None:
    scripted.on("GET", "/messages", answer(body))
    assert await read(api) is None


async def test_a_homeserver_that_names_the_same_page_for_ever(scripted: Scripted, api: Api) -> None:
    scripted.on("GET", "/messages", answer({"chunk": [taken("$1", 1)], "end": "p"}))
    assert await read(api) is None
    assert len(asked(scripted)) == 2


async def test_pages_are_bounded(scripted: Scripted, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "BACK_PAGES_MAX", 3)
    serve(scripted, *([] for _ in range(9)))
    assert await read(api) is None
    assert len(asked(scripted)) == 3
