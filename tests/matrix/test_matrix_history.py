"""Reading a room for an audit: all pages, nothing written, and how far back."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from cisbot.core.audit.found import Reading
from cisbot.core.ids import RoomId
from cisbot.core.room.events import Message, Rejected, Take
from cisbot.errors import CisbotError
from cisbot.matrix.history import read_room, read_saved
from cisbot.matrix.http import Api, Unreachable
from tests.matrix.scripted import ROOM, Scripted, answer, lose, message, refused
from tests.matrix.test_matrix_reads import CREATE, serve, taken

NOW_MS = 99_000


async def read(api: Api, *, since_ms: int | None = None, save: io.StringIO | None = None) -> Reading:
    """Read the room; progress must grow."""
    told = [0]

    def progress(count: int) -> None:
        assert count >= told[-1]
        told.append(count)

    return await read_room(api, RoomId(ROOM), since_ms=since_ms, progress=progress, save=save, now_ms=NOW_MS)


def said(number: int, block: dict[str, Any] | None) -> dict[str, Any]:
    """A message with structured content."""
    raw = message(number)
    raw["content"] |= {"io.cisbot": block} if block else {}
    return raw


async def test_all_pages_oldest_first_and_the_state(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/state", answer([taken("$t2", 2)]))
    serve(scripted, [taken("$t2", 2), message(5)], [taken("$t1", 1)], [CREATE])
    reading = await read(api)
    assert [event.event_id for event in reading.events] == ["$t1", "$t2"]
    assert [event.event_id for event in reading.state] == ["$t2"]
    assert (reading.whole, reading.as_of_ms) == (True, NOW_MS)
    assert {request.method for request in scripted.requests} == {"GET"}, "nothing is written"
    asked = scripted.of("GET", "/messages")
    assert [request.query.get("from") for request in asked] == [None, "p1", "p2"]
    assert "io.cisbot.heartbeat" in json.loads(asked[0].query["filter"])["types"]


async def test_of_messages_only_what_nodes_say_of_tasks(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/state", answer([]))
    serve(scripted, [said(3, {"kind": "final"}), said(2, {"kind": "answer"}), said(1, None), CREATE])
    reading = await read(api)
    assert [event.event_id for event in reading.events] == ["$m3"]
    assert isinstance(reading.events[0], Message)


async def test_a_history_that_ends_before_the_room_began_is_not_whole(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/state", answer([]))
    serve(scripted, [taken("$t2", 2)], [taken("$t1", 1)])
    reading = await read(api)
    assert (len(reading.events), reading.whole) == (2, False)


async def test_back_to_a_time_only(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/state", answer([]))
    old, new = taken("$t1", 1), taken("$t2", 2)
    new["origin_server_ts"] = 5_000
    serve(scripted, [new, old], [CREATE])
    reading = await read(api, since_ms=4_000)
    assert [event.event_id for event in reading.events] == ["$t2"]
    assert not reading.whole
    assert len(scripted.of("GET", "/messages")) == 1


async def test_what_is_saved_reads_the_same(api: Api, scripted: Scripted) -> None:
    redacted = taken("$t1", 1)
    redacted |= {"content": {}, "unsigned": {"redacted_because": {"sender": "@op:test"}}}
    scripted.on("GET", "/state", answer([taken("$t2", 2)]))
    serve(scripted, [taken("$t2", 2), redacted, CREATE])
    saved = io.StringIO()
    reading = await read(api, save=saved)
    again = read_saved(saved.getvalue().splitlines())
    assert (again.events, again.state, again.whole) == (reading.events, reading.state, True)
    assert again.reader == reading.reader == api.user_id
    bare, take = again.events
    assert isinstance(bare, Rejected) and (bare.redacted, bare.redacted_by) == (True, "@op:test")
    assert isinstance(take, Take)


async def test_a_room_that_may_not_be_read(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/state", refused(403, "M_FORBIDDEN"))
    with pytest.raises(CisbotError, match="must invite it, and it must join"):
        await read(api)
    assert len(scripted.requests) == 1


@pytest.mark.usefixtures("brief")
async def test_a_page_is_asked_for_again(api: Api, scripted: Scripted) -> None:
    scripted.on("GET", "/state", answer([]))
    scripted.on("GET", "/messages", lose, answer({"chunk": [CREATE]}))
    assert (await read(api)).whole


async def test_a_homeserver_that_goes_away(
    api: Api, scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisbot.matrix.waiting.Backoff.next_s", lambda self: 1_000.0)
    scripted.on("GET", "/state", answer([]))
    scripted.on("GET", "/messages", lose)
    with pytest.raises(Unreachable):
        await read(api)


@pytest.mark.parametrize(("line", "said"), [("{", "line 2 is no JSON"), ("[]", "line 2 is no event")])
def test_a_file_that_is_something_else(line: str, said: str) -> None:
    with pytest.raises(CisbotError, match=said):
        read_saved([json.dumps(CREATE), line])
