"""Delayed events as a homeserver may answer: what is offered, and which answers leave what open."""

from __future__ import annotations

import asyncio
import math
import secrets
from pathlib import Path

import pytest
from pydantic import SecretStr

from cisbot.core.claims.messages import Me, delayed_end
from cisbot.core.effects import ArmEnd, AskEnd, CancelEnd, RestartEnd
from cisbot.core.ids import Incarnation, NodeId, RoomId, UserId
from cisbot.core.inputs import EndReply
from cisbot.core.room.events import JsonMap
from cisbot.core.settings import Matrix
from cisbot.matrix.check import all_well, allows_delayed_ends, check_room
from cisbot.matrix.delayed import CAPABILITY, ask_end, delay_s_max
from cisbot.matrix.http import Api
from cisbot.matrix.init import RoomPlan, init_room
from cisbot.matrix.reads import whole_state
from homeserver.synapse import Synapse
from tests.conftest import MakeAccount
from tests.matrix.scripted import NODE, ROOM, Reply, Scripted, answer, hang, limited, lose, refused, text

ME = Me(NodeId("node-1"), UserId(NODE), Incarnation("i"))
ARM = ArmEnd(delayed_end(ME), 4.0, 2.0)
RESTART, CANCEL = RestartEnd("d/1", 2.0), CancelEnd("d/1", 2.0)
ASKS = (ARM, RESTART, CANCEL)


@pytest.mark.parametrize(
    ("capabilities", "features", "seconds"),
    [
        ({CAPABILITY: {"max_delay_ms": 86_400_000, "max_scheduled": 100}}, {}, 86_400.0),
        ({CAPABILITY: {"max_delay_ms": 0, "max_scheduled": 100}}, {"org.matrix.msc4140": True}, 0.0),
        ({CAPABILITY: {"max_delay_ms": 9_000, "max_scheduled": 0}}, {}, 0.0),
        ({CAPABILITY: {"max_delay_ms": "9"}}, {}, 0.0),
        ({}, {"org.matrix.msc4140": True}, math.inf),
        ({}, {"org.matrix.msc4140": False}, 0.0),
        ({}, {}, 0.0),
    ],
)
async def test_what_is_offered(
    scripted: Scripted, api: Api, capabilities: JsonMap, features: JsonMap, seconds: float
) -> None:
    scripted.on("GET", "/capabilities", answer({"capabilities": capabilities}))
    scripted.on("GET", "/versions", answer({"versions": ["v1.11"], "unstable_features": features}))
    assert await delay_s_max(api) == seconds


async def test_a_homeserver_that_tells_nothing_offers_nothing(scripted: Scripted, api: Api) -> None:
    scripted.on("GET", "/capabilities", refused(404, "M_UNRECOGNIZED"))
    scripted.on("GET", "/versions", answer({"versions": ["v1.11"]}))
    assert await delay_s_max(api) == 0.0


async def test_the_three_requests(scripted: Scripted, api: Api) -> None:
    scripted.on("PUT", "/send/io.cisbot.end/", answer({"delay_id": "d/1"}))
    scripted.on("POST", "/delayed_events/", answer({}))
    armed = await ask_end(api, RoomId(ROOM), ARM)
    assert (armed.reply, armed.delay_id) == (EndReply.DONE, "d/1")
    assert "d/1" not in repr(armed), "whoever knows it can have the end sent"
    (put,) = scripted.of("PUT", "/send/")
    assert put.query == {"org.matrix.msc4140.delay": "4000"}
    assert put.body == {"node": "node-1", "incarnation": "i"}
    assert put.path.endswith(f"/send/io.cisbot.end/{ARM.send.txn}")
    for ask, act in ((RESTART, "restart"), (CANCEL, "cancel")):
        assert (await ask_end(api, RoomId(ROOM), ask)).reply is EndReply.DONE
        assert scripted.of("POST", act)[0].path.endswith(f"org.matrix.msc4140/delayed_events/d/1/{act}")


@pytest.mark.parametrize(
    ("reply", "arming", "others"),
    [
        (limited(1500), EndReply.LIMITED, EndReply.LIMITED),
        (refused(403, "M_FORBIDDEN"), EndReply.REFUSED, EndReply.REFUSED),
        (refused(404, "M_NOT_FOUND"), EndReply.REFUSED, EndReply.GONE),
        (refused(404, "M_UNRECOGNIZED"), EndReply.REFUSED, EndReply.REFUSED),
        (refused(500, "M_UNKNOWN"), EndReply.UNKNOWN, EndReply.UNKNOWN),
        (text("<html>a proxy's page</html>", 502), EndReply.UNKNOWN, EndReply.UNKNOWN),
        (text("<html>a proxy's page</html>", 404), EndReply.UNKNOWN, EndReply.UNKNOWN),
        (lose, EndReply.UNKNOWN, EndReply.UNKNOWN),
        (answer({"event_id": "$sent"}), EndReply.UNKNOWN, EndReply.DONE),
    ],
)
async def test_what_an_answer_leaves_open(
    scripted: Scripted, api: Api, reply: Reply, arming: EndReply, others: EndReply
) -> None:
    scripted.on("PUT", "/send/", reply)
    scripted.on("POST", "/delayed_events/", reply)
    found = [await ask_end(api, RoomId(ROOM), ask) for ask in ASKS]
    assert [item.reply for item in found] == [arming, others, others]
    assert all(item.asked is ask for item, ask in zip(found, ASKS, strict=True))
    assert {item.wait_s for item in found} == {1.5 if arming is EndReply.LIMITED else 0.0}
    assert len(scripted.requests) == len(ASKS), "none is repeated here"


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: type(ask).__name__)
async def test_it_is_answered_in_time(scripted: Scripted, api: Api, ask: AskEnd) -> None:
    until = asyncio.Event()
    for method in ("PUT", "POST"):
        scripted.on(method, "/", hang(until))
    short: AskEnd = ArmEnd(ARM.send, 4.0, 0.1) if isinstance(ask, ArmEnd) else type(ask)("d/1", 0.1)
    assert (await ask_end(api, RoomId(ROOM), short)).reply is EndReply.UNKNOWN
    until.set()


async def test_no_connection_is_certain_to_have_done_nothing() -> None:
    async with Api("http://127.0.0.1:9", "t", user_id=NODE) as nowhere:
        found = [await ask_end(nowhere, RoomId(ROOM), ask) for ask in ASKS]
    assert {item.reply for item in found} == {EndReply.UNSENT}


@pytest.mark.parametrize(
    ("content", "allowed"),
    [({}, True), ({"delayed_ends": True}, True), ({"delayed_ends": False}, False), ({"version": 2}, False)],
)
def test_the_charter_decides(content: JsonMap, allowed: bool) -> None:
    charter = {
        "type": "io.cisbot.charter", "state_key": "", "event_id": "$c", "sender": NODE, "origin_server_ts": 1,
        "content": {"version": 1, "home": "test", **content},
    }  # fmt: skip
    assert allows_delayed_ends([charter]) is allowed


@pytest.mark.synapse
async def test_a_charter_that_forbids_delayed_ends(
    synapse: Synapse, make_account: MakeAccount, tmp_path: Path
) -> None:
    account = make_account("op")
    async with Api(synapse.base_url, account.access_token, user_id=account.user_id) as op:
        plan = RoomPlan("Tasks", f"own-{secrets.token_hex(4)}", delayed_ends=False)
        made = await init_room(op, plan)
        assert not allows_delayed_ends(await whole_state(op, made.room_id))
    settings = Matrix(
        homeserver=synapse.base_url, user_id=account.user_id, access_token=SecretStr(account.access_token),
        room=made.room_id,
    )  # fmt: skip
    found = await check_room(settings, tmp_path, end_delay_s=30)
    assert all_well(found)
    assert "the charter forbids delayed ends" in found[-1].what
