"""The same against a real Synapse: a room made, checked, spoken in, followed and read."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydantic import SecretStr

from cisbot.core.effects import Ask, Priority, ReadBack, ReadMedia, ReadRuns, ReadState, ReadStory, Send
from cisbot.core.ids import ClaimKey, RoomId, RunId, UserId
from cisbot.core.inputs import BackRead, RoomBatch, SendDone, SendFailed, StateRead, StoryRead, TextRead
from cisbot.core.room.events import Message, Reaction, Take
from cisbot.core.room.past import Highest
from cisbot.core.room.wire import T_LOCK
from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError
from cisbot.matrix.check import all_well, check_room
from cisbot.matrix.follow import SyncLoop, SyncTap
from cisbot.matrix.http import Api, Method
from cisbot.matrix.http import Path as ApiPath
from cisbot.matrix.init import Role, RoomPlan, init_room
from cisbot.matrix.login import log_in
from cisbot.matrix.outbox import Outbox
from cisbot.matrix.recover import read_runs
from cisbot.matrix.rooms import MatrixRoom, join
from tests.matrix.scripted import Inbox

pytestmark = pytest.mark.synapse


class Made(Protocol):
    """An account that the fixture made."""

    user_id: str
    access_token: str
    password: str


class Cluster:
    """A room that `op` made for `node`, both logged in and in it."""

    def __init__(self, url: str, op: Api, node: Api, room_id: RoomId, alias: str) -> None:
        self.url, self.op, self.node, self.room_id, self.alias = url, op, node, room_id, alias

    def settings(self, password: str) -> Matrix:
        return Matrix(
            homeserver=self.url, user_id=self.node.user_id, password=SecretStr(password), room=self.alias
        )

    async def say(self, text: str, *, by: Api | None = None) -> str:
        path = ApiPath.v3.rooms[self.room_id].send["m.room.message"][secrets.token_hex(6)]
        sent = await (by or self.op).call(Method.PUT, path, {"msgtype": "m.text", "body": text})
        return str(sent["event_id"])


@pytest.fixture(params=["11", "12"])
async def cluster(synapse: Any, make_account: Any, request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    one, two = make_account("op"), make_account("node")
    async with AsyncExitStack() as stack:
        op, node = [
            await stack.enter_async_context(Api(synapse.base_url, a.access_token, user_id=a.user_id))
            for a in (one, two)
        ]
        plan = RoomPlan(
            "Tasks", f"tasks-{secrets.token_hex(4)}", {node.user_id: Role.NODE}, room_version=request.param
        )
        made = await init_room(op, plan)
        assert made.created
        await join(node, made.alias)
        yield Cluster(synapse.base_url, op, node, made.room_id, made.alias)


def take(epoch: int, run: str, *, after: str | None = None) -> dict[str, Any]:
    return {
        "action": "take", "node": "node-1", "incarnation": "i1", "nonce": f"n{epoch}", "epoch": epoch,
        "after": after, "run": run, "dag": "backup", "scope": "global", "lease_s": 300,
        "definition": "x", "m.relates_to": {"rel_type": "m.reference", "event_id": run},
    }  # fmt: skip


@asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(c) for c in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_init_is_idempotent_and_completes(cluster: Cluster, make_account: Any) -> None:
    again = await init_room(cluster.op, RoomPlan("Tasks", cluster.alias, {cluster.node.user_id: Role.NODE}))
    assert (again.created, again.room_id, again.done) == (False, cluster.room_id, ())
    with pytest.raises(CisbotError, match="is consistent, for ever"):
        await init_room(cluster.op, RoomPlan("Tasks", cluster.alias, mode="available"))
    late = make_account("late").user_id
    more = await init_room(cluster.op, RoomPlan("Tasks", cluster.alias, {late: Role.OPERATOR}))
    assert more.done == ("set power levels", f"invited {late}")
    with pytest.raises(CisbotError, match="power 100"):
        await init_room(cluster.node, RoomPlan("Tasks", cluster.alias, {cluster.op.user_id: Role.NODE,
                                                                        "@x:y": Role.NODE}))  # fmt: skip


async def test_init_completes_a_room_that_people_made(synapse: Any, make_account: Any) -> None:
    account = make_account("op")
    async with Api(synapse.base_url, account.access_token, user_id=account.user_id) as op:
        alias = f"own-{secrets.token_hex(4)}"
        await op.call(Method.POST, ApiPath.v3.createRoom, {"room_alias_name": alias})
        made = await init_room(op, RoomPlan("Tasks", alias))
        assert made.done == ("wrote its charter", "set power levels")
        assert (await init_room(op, RoomPlan("Tasks", alias))).done == ()


async def test_check_finds_all_well(cluster: Cluster, accounts: Any, tmp_path: Path) -> None:
    name = f"late-{secrets.token_hex(4)}"
    account = accounts.create(name, "pw")
    await init_room(cluster.op, RoomPlan("T", cluster.alias, {account.user_id: Role.NODE}))
    settings = cluster.settings("pw").model_copy(update={"user_id": account.user_id})
    found = await check_room(settings, tmp_path)  # joins by the invitation
    assert all_well(found), found
    assert len(found) >= 9
    wrong = await check_room(settings.model_copy(update={"password": SecretStr("no")}), tmp_path / "b")
    assert "wrong password" in wrong[0].how_to_mend


async def test_check_tells_what_is_missing(cluster: Cluster, accounts: Any, tmp_path: Path) -> None:
    account = accounts.create(f"weak-{secrets.token_hex(4)}", "pw")
    settings = cluster.settings("pw").model_copy(update={"user_id": account.user_id})
    outside = await check_room(settings, tmp_path)
    assert f"/invite {account.user_id}" in outside[-1].how_to_mend
    await init_room(cluster.op, RoomPlan("T", cluster.alias, {account.user_id: Role.MEMBER}))
    weak = [f for f in await check_room(settings, tmp_path) if not f.ok]
    assert len(weak) == 2
    assert all(f"give {account.user_id} power 50" in f.how_to_mend for f in weak)


async def test_an_encrypted_room_is_refused(cluster: Cluster, tmp_path: Path, inbox: Inbox) -> None:
    path = ApiPath.v3.rooms[cluster.room_id].state["m.room.encryption"]
    await cluster.op.call(Method.PUT, path, {"algorithm": "m.megolm.v1.aes-sha2"})
    out = Outbox(cluster.node, cluster.room_id, inbox)
    out.send(Send("t1", "m.room.message", {"msgtype": "m.text", "body": "x"}, Priority.CHAT))
    async with running(out.run()):
        failed = (await inbox.until(1))[0]
    assert isinstance(failed, SendFailed)
    assert failed.errcode == "ENCRYPTED"
    with pytest.raises(CisbotError, match="encrypted"):
        await init_room(cluster.op, RoomPlan("T", cluster.alias))


async def test_sends_are_followed_in_order(cluster: Cluster, inbox: Inbox) -> None:
    run = await cluster.say("!dag publish backup")
    reports = Inbox()
    out = Outbox(cluster.node, cluster.room_id, reports)
    loop = SyncLoop(
        cluster.node, cluster.room_id, UserId(cluster.node.user_id), cursor=None, emit=inbox, say=print
    )
    async with running(out.run(), loop.run()):
        first = (await inbox.until(1))[0]
        assert isinstance(first, RoomBatch)
        assert first.initial
        assert {type(e).__name__ for e in first.state} >= {"Charter", "PowerLevels", "RoomCreate"}
        for n in range(20):
            out.send(Send(f"t{n}", "m.room.message", {"msgtype": "m.text", "body": str(n)}, Priority.CHAT))
        out.send(Send("lock", T_LOCK, take(1, run), Priority.LOCK, state_key="backup/global"))
        await reports.until(21)
        async with asyncio.timeout(20):
            while len(seen := _events(inbox)) < 21:
                await inbox.until(len(inbox.items) + 1)
    sent = [r.event_id for r in reports.items if isinstance(r, SendDone)]
    assert [e.event_id for e in seen] == sent
    assert sum(isinstance(e, Take) for e in seen) == 1


def _events(inbox: Inbox) -> list[Any]:
    return [e for b in inbox.items if isinstance(b, RoomBatch) for e in b.events]


async def test_a_lost_answer_does_not_double_a_message(cluster: Cluster, inbox: Inbox) -> None:
    message = Send("same-txn", "m.room.message", {"msgtype": "m.text", "body": "once"}, Priority.CHAT)
    for _ in range(2):  # as a node does that crashed before it heard the answer
        out = Outbox(cluster.node, cluster.room_id, inbox)
        out.send(message)
        async with running(out.run()):
            assert await out.drain(10)
    first, second = inbox.items
    assert isinstance(first, SendDone)
    assert first == second


async def test_a_gap_is_marked_and_read_back(cluster: Cluster, inbox: Inbox) -> None:
    node = UserId(cluster.node.user_id)
    async with running(
        SyncLoop(cluster.node, cluster.room_id, node, cursor=None, emit=inbox, say=print).run()
    ):
        first = (await inbox.until(1))[0]
    assert isinstance(first, RoomBatch)
    sent = [await cluster.say(f"m{n}") for n in range(230)]
    later = Inbox()
    async with running(
        SyncLoop(cluster.node, cluster.room_id, node, cursor=first.cursor, emit=later, say=print).run()
    ):
        batch = (await later.until(1))[0]
    assert isinstance(batch, RoomBatch)
    assert batch.gap
    assert not batch.initial
    assert len(batch.events) == 100
    assert [e.event_id for e in (*batch.history, *batch.events)] == sent


async def test_a_first_join_sees_no_message_from_before_it(cluster: Cluster, make_account: Any) -> None:
    await cluster.say("before")
    account = make_account("late")
    await init_room(cluster.op, RoomPlan("T", cluster.alias, {account.user_id: Role.NODE}))
    inbox = Inbox()
    async with Api(cluster.url, account.access_token, user_id=account.user_id) as api:
        await join(api, cluster.alias)
        wanted = [await cluster.say(f"after {n}") for n in range(120)]
        loop = SyncLoop(api, cluster.room_id, UserId(account.user_id), cursor=None, emit=inbox, say=print)
        async with running(loop.run()):
            batch = (await inbox.until(1))[0]
    assert isinstance(batch, RoomBatch)
    assert [e.event_id for e in batch.history if isinstance(e, Message)] == wanted


async def test_reads(cluster: Cluster, inbox: Inbox) -> None:
    run = RunId(await cluster.say("!dag publish backup"))
    reports = Inbox()
    out = Outbox(cluster.node, cluster.room_id, reports)
    room = MatrixRoom(cluster.node, cluster.room_id, out, inbox)
    async with running(out.run()):
        for epoch in (1, 7, 3):
            content = take(epoch, run)
            room.send(Send(f"l{epoch}", T_LOCK, content, Priority.LOCK, state_key="backup/global"))
            await reports.until(len(reports.items) + 1)
        ids = [r.event_id for r in reports.items if isinstance(r, SendDone)]
        key = ClaimKey("backup/global")
        asks: list[Ask] = [
            ReadState("now", T_LOCK, key),
            ReadState("none", T_LOCK, "no/such"),
            ReadBack("all", key, 1_000),
            ReadBack("bounded", key, 2),
            ReadBack("other", ClaimKey("other/x"), 1_000),
            ReadStory("story", run),
        ]
        for ask in asks:
            room.ask(ask)
        found = {i.tag: i for i in await inbox.until(len(asks)) if hasattr(i, "tag")}
    await room.close()
    now, none, story = found["now"], found["none"], found["story"]
    assert isinstance(now, StateRead)
    assert isinstance(now.event, Take)
    assert (now.event.epoch, now.event.event_id) == (3, ids[2])
    assert none == StateRead("none", None)
    back = {t: i.found for t, i in found.items() if isinstance(i, BackRead)}
    assert back == {"all": Highest(7, 3), "bounded": Highest(3, 3), "other": Highest(0, 0)}
    assert isinstance(story, StoryRead)
    assert story.events is not None
    assert {e.event_id for e in story.events} == set(ids)


async def test_media_is_bounded_and_text(cluster: Cluster, inbox: Inbox) -> None:
    urls, server = [], cluster.op.user_id.partition(":")[2]
    for raw in (b"dag: x\n", b"\xff\xfe", b"y" * 5000):
        async with cluster.op.session.post(
            f"{cluster.url}/_matrix/media/v3/upload",
            data=raw,
            headers={"Authorization": f"Bearer {cluster.op.token}", "Content-Type": "text/plain"},
        ) as response:
            urls.append((await response.json())["content_uri"])
    room = MatrixRoom(cluster.node, cluster.room_id, Outbox(cluster.node, cluster.room_id, inbox), inbox)
    for tag, url in zip("abcde", [*urls, f"mxc://{server}/nosuch", "https://x/y"], strict=True):
        room.ask(ReadMedia(tag, url, 1000))
    found = {i.tag: i for i in await inbox.until(5) if isinstance(i, TextRead)}
    assert found["a"] == TextRead("a", "dag: x\n")
    assert "UTF-8" in found["b"].why
    assert "5000 bytes" in found["c"].why
    assert "HTTP 404" in found["d"].why
    assert "not the address" in found["e"].why


async def test_a_kept_session_works(synapse: Any, make_account: Any, tmp_path: Path) -> None:
    account = make_account("node")
    settings = Matrix(
        homeserver=synapse.base_url,
        user_id=account.user_id,
        password=SecretStr(account.password),
        room="#x:y",
    )
    tokens = set()
    for _ in range(2):
        async with await log_in(settings, tmp_path, print) as api:
            tokens.add(api.token)
    assert len(tokens) == 1
    async with Api(synapse.base_url, tokens.pop(), user_id=account.user_id) as api:
        await api.call(Method.POST, ApiPath.v3.logout)
    async with await log_in(settings, tmp_path, print) as api:
        assert (await api.call(Method.GET, ApiPath.v3.account.whoami))["user_id"] == account.user_id


async def test_check_tries_the_password_and_leaves_no_device(
    cluster: Cluster, accounts: Any, tmp_path: Path
) -> None:
    account = accounts.create(f"node-{secrets.token_hex(4)}", "pw")
    await init_room(cluster.op, RoomPlan("T", cluster.alias, {account.user_id: Role.NODE}))
    settings = cluster.settings("pw").model_copy(update={"user_id": account.user_id})
    async with await log_in(settings, tmp_path, print) as running_node:
        devices = await running_node.call(Method.GET, ApiPath.v3.devices)
        assert all_well(await check_room(settings, tmp_path))
        wrong = settings.model_copy(update={"password": SecretStr("no")})
        lacking = [f for f in await check_room(wrong, tmp_path) if not f.ok]
        assert [f.what.partition(":")[0] for f in lacking] == ["the password of the settings does not work"]
        assert await running_node.call(Method.GET, ApiPath.v3.devices) == devices
        await running_node.call(Method.POST, ApiPath.v3.logout)
    found = await check_room(wrong, tmp_path)
    assert "wrong password" in found[0].how_to_mend, "the session was revoked: only the password counts"


async def test_a_login_that_has_to_wait_says_so(synapse_default_limits: Any, tmp_path: Path) -> None:
    account = synapse_default_limits.accounts.create(f"node-{secrets.token_hex(4)}", "pw")
    settings = Matrix(
        homeserver=synapse_default_limits.base_url, user_id=account.user_id, password=SecretStr("pw"),
        room="#x:y",
    )  # fmt: skip
    said: asyncio.Queue[str] = asyncio.Queue()

    async def many() -> None:
        for n in range(50):
            await (await log_in(settings, tmp_path / str(n), said.put_nowait)).close()

    async with running(many()), asyncio.timeout(30):
        line = await said.get()
    assert re.fullmatch(r"the homeserver asks to wait \d+ s before the next login; waiting", line)


async def test_a_tap_on_anothers_sync_keeps_stream_order(cluster: Cluster, inbox: Inbox) -> None:
    """A feeder as maubot is: its own cursor and timelines of 50, waiting for `feed` each time."""
    start = await cluster.node.call(Method.GET, ApiPath.v3.sync, query={"timeout": "0"})
    node = UserId(cluster.node.user_id)
    sent: list[str] = []

    async def fail(error: CisbotError) -> None:
        raise error

    tap = SyncTap(
        cluster.node, cluster.room_id, node, cursor=str(start["next_batch"]), emit=inbox, say=print,
        fail=lambda error: pytest.fail(str(error)),
    )  # fmt: skip

    async def feeder() -> None:
        cursor = str(start["next_batch"])
        while True:
            query = {"since": cursor, "timeout": "1000"}
            raw = await cluster.node.call(Method.GET, ApiPath.v3.sync, query=query)
            cursor = str(raw["next_batch"])
            await tap.feed(raw)

    for n in range(5):
        sent.append(await cluster.say(f"before {n}"))
    async with running(feeder()):
        await tap.start()
        for n in range(60):
            sent.append(await cluster.say(f"m{n}"))
        async with asyncio.timeout(20):
            while len(seen := _events(inbox)) < len(sent):
                await inbox.until(len(inbox.items) + 1)
    assert [e.event_id for e in seen] == sent
    assert tap.aligned
    assert not any(b.gap for b in inbox.items if isinstance(b, RoomBatch))


async def test_a_run_is_read_by_name_with_all_that_was_said_of_it(cluster: Cluster) -> None:
    async def send(by: Api, kind: str, content: dict[str, Any]) -> str:
        path = ApiPath.v3.rooms[cluster.room_id].send[kind][secrets.token_hex(6)]
        return str((await by.call(Method.PUT, path, content))["event_id"])

    def reaction(target: str) -> dict[str, Any]:
        return {"m.relates_to": {"rel_type": "m.annotation", "event_id": target, "key": "✅"}}

    def answer(body: str) -> dict[str, Any]:
        thread = {"rel_type": "m.thread", "event_id": run}
        return {"msgtype": "m.text", "body": body, "m.relates_to": thread}

    run = await cluster.say("!dag publish gated")
    question = await send(cluster.node, "m.room.message", answer("waits for approval"))
    first = await send(cluster.op, "m.reaction", reaction(run))
    second = await send(cluster.node, "m.reaction", reaction(question))
    word = await send(cluster.op, "m.room.message", answer("!dag approve"))
    ask = ReadRuns("open", (RunId(run), RunId(f"{run}|node-1"), RunId("$nothing")))
    read = await read_runs(cluster.node, cluster.room_id, ask)
    assert [item.event_id for item in read.events] == [run, question, first, second, word]
    assert [type(item) for item in read.events] == [Message, Message, Reaction, Reaction, Message]
