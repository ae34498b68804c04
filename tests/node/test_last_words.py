"""After the node's end what the homeserver still confirms is kept, so that it is not said again."""

from __future__ import annotations

from pathlib import Path

from pydantic import SecretStr

from cisbot.core.claims.messages import Me
from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import Ask, Send, Work
from cisbot.core.ids import EventId, Incarnation, NodeId, UserId
from cisbot.core.inputs import SendDone, Stop
from cisbot.core.outbound import Kept
from cisbot.core.settings import Matrix, Node, Settings
from cisbot.node.definitions import DagFiles
from cisbot.node.loop import NodeLoop
from cisbot.node.system import SystemClock
from cisbot.store.dag_table import SqliteStore


class SlowRoom:
    """Takes sends and confirms nothing by itself."""

    def __init__(self) -> None:
        self.sent: list[Send] = []

    def send(self, send: Send) -> None:
        self.sent.append(send)

    def withdraw(self, txn: str) -> None:
        raise AssertionError(txn)

    def ask(self, ask: Ask) -> None:
        raise AssertionError(ask)


class NoWorkers:
    """Nothing runs here."""

    def do(self, work: Work) -> None:
        raise AssertionError(work)


async def test_the_last_words_are_said_once(tmp_path: Path) -> None:
    settings = Settings(
        node=Node(id=NodeId("node-1"), data_dir=tmp_path),
        matrix=Matrix(homeserver="http://hs", user_id="@n:hs", access_token=SecretStr("x"), room="!r"),
    )
    me = Me(NodeId("node-1"), UserId("@n:hs"), Incarnation("one"))
    store = await SqliteStore.open(tmp_path / "node.db")
    room, kept = SlowRoom(), Kept()
    loop = NodeLoop(
        Coordinator(settings, me, kept, "test"), room=room, store=store, workers=NoWorkers(),
        clock=SystemClock(), files=DagFiles(()), say=lambda text: None,
    )  # fmt: skip
    loop.emit(Stop())
    await loop.run(kept)
    waiting = {str(row["txn"]) for row in await store.rows("outbox")}
    assert waiting == {send.txn for send in room.sent if send.durable}
    assert waiting
    for send in room.sent:
        loop.emit(SendDone(send.txn, EventId("$done")))
    await loop.note_sent()
    assert await store.rows("outbox") == []
    await store.close()
