"""Who answers, and when: one node, whichever is alive.

Nodes are ranked for every question by a hash; the first answers at once, each next one waits longer and
keeps silent when it sees an answer. So a dead node costs a few seconds, never the answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from cisbot.core.chat.posts import Post, send_of
from cisbot.core.effects import Send
from cisbot.core.frozen import dataclass
from cisbot.core.ids import EventId, RunId, UserId
from cisbot.core.inputs import Instant
from cisbot.core.runs.board import Board
from cisbot.core.runs.state import RunStatus

TURN_S = 4.0
ANSWERED_MAX = 500


@dataclass(frozen=True, slots=True)
class Pending:
    """An answer whose turn has not come. `topic` is what it answers: it is given once in the room."""

    topic: str
    at: float
    post: Post
    run: RunId | None = None
    only_if: RunStatus | None = None


class Answers:
    """The answers that this node would give. Pure."""

    def __init__(self, board: Board, me: UserId) -> None:
        self._board = board
        self._me = me
        self._pending: dict[str, Pending] = {}
        self._given: dict[str, None] = {}
        self._if: dict[str, tuple[RunId, RunStatus, str]] = {}  # said, while this is so: by transaction

    def offer(
        self,
        post: Post,
        topic: str,
        now: Instant,
        *,
        first: Iterable[UserId] = (),
        delay_s: float = 0.0,
        run: RunId | None = None,
        only_if: RunStatus | None = None,
    ) -> None:
        """Give this answer when it is this node's turn, unless another node gives one before."""
        if topic in self._given or topic in self._pending:
            return
        rank = self._board.answer_rank(self._me, EventId(topic), first)
        post.block["answers"] = topic
        at = now.boot + delay_s + rank * TURN_S
        self._pending[topic] = Pending(topic, at, post, run, only_if)

    def heard(self, topic: str) -> None:
        """Another node answered."""
        self._pending.pop(topic, None)
        self._given[topic] = None
        while len(self._given) > ANSWERED_MAX:
            self._given.pop(next(iter(self._given)))

    def due(self, now: Instant) -> list[Send]:
        """The answers whose turn has come."""
        sends: list[Send] = []
        for topic, pending in list(self._pending.items()):
            if pending.at > now.boot:
                continue
            del self._pending[topic]
            run = self._board.runs.get(pending.run) if pending.run else None
            if pending.only_if is not None and (run is None or run.status is not pending.only_if):
                continue
            self.heard(topic)
            if pending.run is not None and pending.only_if is not None:
                self._if[pending.post.txn] = (pending.run, pending.only_if, topic)
            sends.append(send_of(pending.post))
        return sends

    def sent(self, txn: str) -> bool:
        """It is in the room, or will never be; whether it depended on something."""
        return self._if.pop(txn, None) is not None

    def take_stale(self) -> list[str]:
        """What was to be said, may not be sent yet, and is not so any more. If it is so again, it is said.

        If it was sent all the same, its echo tells that nobody needs to say it.
        """
        if not self._if:
            return []
        runs = self._board.runs
        stale = [
            txn
            for txn, (run, status, _) in self._if.items()
            if run not in runs or runs[run].status is not status
        ]
        for txn in stale:
            _, _, topic = self._if.pop(txn)
            self._given.pop(topic, None)
        return stale

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        return min(p.at for p in self._pending.values()) if self._pending else None
