"""Whether this process may be a node of this room: its charter, and who else has its id or its account."""

from __future__ import annotations

from collections.abc import Mapping

from cisbot.core.claims.armed import Armed
from cisbot.core.claims.messages import Me
from cisbot.core.effects import Send
from cisbot.core.inputs import SendFailed
from cisbot.core.room.events import NodeRecord
from cisbot.core.runs.board import Board

AGAIN_S = 5.0
SETTLED = ("SUPERSEDED", "WITHDRAWN")  # a newer record is on its way, or none is wanted


class Presence:
    """What the room says of this node. Both questions are answered with why it must stop, or None. Pure."""

    def __init__(self, me: Me, board: Board) -> None:
        self._me = me
        self._board = board
        self.told: Mapping[str, str] | None = None  # the DAGs that this process said it has; None before
        self._txn = ""
        self._again_at: float | None = None
        self._heard = False

    def joined(self, *, chartered: bool) -> str | None:
        """The first batch is folded: refuse what can't be served."""
        me = self._me
        twin = next((n for n in self._board.living() if n.id == me.node and n.account != me.account), None)
        own = self._board.nodes.get(me.account)
        first = own is not None and own.id == me.node and twin is not None and own.since_ms < twin.since_ms
        if twin is not None and not first:
            return (
                f"node.id: '{me.node}' belongs to {twin.account} in this room; expected an id of its own. "
                f"Choose another [node] id, or stop that node; if it is gone for good: /kick {twin.account}"
            )
        return None if chartered else "the room has no charter (io.cisbot.charter). Run: cisbot room init"

    def untold(self, dags: Mapping[str, str], now: float) -> bool:
        """Whether the node's record is to be sent now."""
        return self.told != dags and (self._again_at is None or now >= self._again_at)

    def tell(self, dags: Mapping[str, str], record: Send) -> Send:
        """The record goes out."""
        self.told, self._txn, self._again_at = dags, record.txn, None
        return record

    def failed(self, failed: SendFailed, now: float) -> None:
        """Without its record the others don't know this node: it is sent again."""
        if failed.txn == self._txn and failed.errcode not in SETTLED:
            self.told, self._again_at = None, now + AGAIN_S

    def deadline(self) -> float | None:
        """When the record is sent again."""
        return self._again_at

    def ended(self, armed: Armed) -> tuple[str, bool]:
        """This incarnation was ended while it lives: why it must stop, and whether the node goes on anew.

        By its own delayed end it does. Where it had none, somebody else speaks for its account.
        """
        if armed.bound:
            return f"this incarnation is over: {armed.over}", True
        return (
            f"another process of {self._me.account} ended this one. Give every node its own account; "
            "if the other is gone, start this one again"
        ), False

    def record(self, record: NodeRecord) -> str | None:
        """A node says who it is. Whoever stands first in the stream stays, so exactly one of two yields."""
        mine = record.sender == self._me.account
        if mine and record.incarnation == self._me.incarnation:
            self._heard = True
        elif mine and self._heard and not record.gone:  # before that it is our own past
            return (
                f"another process runs as {self._me.account} and took over; this one stops. "
                "Give every node an account of its own"
            )
        late = self.told is not None and not self._heard
        if not mine and record.node == self._me.node and not record.gone and late:
            return f"node.id: '{self._me.node}' is used by {record.sender}; choose another id"
        return None
