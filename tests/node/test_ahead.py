"""What asks for a claim goes out while the disk still writes; what must outlive a crash waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import SecretStr

from cisbot.core.claims.messages import Me
from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import Ask, Priority, Put, Send, Step, Work, Write
from cisbot.core.ids import Incarnation, NodeId, UserId
from cisbot.core.outbound import Kept
from cisbot.core.settings import Matrix, Node, Settings
from cisbot.node.definitions import DagFiles
from cisbot.node.loop import NodeLoop
from cisbot.node.system import SystemClock

TAKE = Send("take", "t", {}, Priority.LOCK, state_key="k")
RELEASE = Send("release", "t", {}, Priority.LOCK, state_key="k", durable=True)
BEAT = Send("beat", "h", {}, Priority.RENEWAL)
RECORD = Send("record", "n", {}, Priority.CHAT, state_key="@n:hs")


class Edge:
    """Room, store and workers in one: notes what came in which order."""

    def __init__(self) -> None:
        self.order: list[str] = []

    async def commit(self, writes: Sequence[Write]) -> None:
        """All at once."""
        self.order.append("commit")

    async def rows(self, table: str) -> list[dict[str, str | int | float | None]]:
        """Nothing was kept."""
        return []

    def send(self, send: Send) -> None:
        """One send."""
        self.order.append(send.txn)

    def withdraw(self, txn: str) -> None:
        """One that is taken back."""
        self.order.append(f"not {txn}")

    def ask(self, ask: Ask) -> None:
        """Nothing is asked."""
        raise AssertionError(ask)

    def do(self, work: Work) -> None:
        """Nothing is started."""
        raise AssertionError(work)


async def test_only_asking_and_renewing_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    settings = Settings(
        node=Node(id=NodeId("node-1"), data_dir=tmp_path),
        matrix=Matrix(homeserver="http://hs", user_id="@n:hs", access_token=SecretStr("x"), room="!r"),
    )
    me = Me(NodeId("node-1"), UserId("@n:hs"), Incarnation("one"))
    edge = Edge()
    loop = NodeLoop(
        Coordinator(settings, me, Kept(), "test"), room=edge, store=edge, workers=edge,
        clock=SystemClock(), files=DagFiles(()), say=lambda text: None,
    )  # fmt: skip
    row = Put("meta", {"key": "k", "value": "v"})
    await loop._perform(Step(persist=(row,), withdraw=("old",), send=(RELEASE, TAKE, RECORD, BEAT)))
    assert edge.order == ["not old", "take", "beat", "commit", "release", "record"]
