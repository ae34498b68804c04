"""The way to the homeserver: one paced queue of sends; requests and answers that are late or lost.

A model of `cisbot.matrix.outbox` and its reports, for one process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cisbot.core.effects import Send
from cisbot.core.ids import EventId
from cisbot.core.inputs import Input, SendDone, SendFailed

if TYPE_CHECKING:
    from tests.sim.world import World

ANSWER_MAX_S = 5.0


@dataclass(slots=True)
class Fate:
    """What a script has happen to one request: lost, its answer lost, or kept on its way until let go."""

    lost: bool = False
    answered: bool = True
    let_go: Callable[[], None] | None = None
    kept: bool = False
    late_s: float | None = None  # of what is kept: it arrives by itself then
    send: Send | None = None  # once it is on its way


@dataclass(slots=True)
class _Waiting:
    send: Send
    seq: int


class Outbox:
    """What one process sends. It dies with its process; a request on its way arrives all the same."""

    def __init__(self, world: World, account: str, emit: Callable[[Input], None]) -> None:
        self._world = world
        self._account = account
        self._emit = emit
        self._waiting: list[_Waiting] = []
        self._flying: Send | None = None
        self._quiet = False
        self._seq = 0
        self.alive = True

    @property
    def empty(self) -> bool:
        """Whether nothing waits and nothing is on its way."""
        return not self._waiting and self._flying is None

    def send(self, send: Send) -> None:
        """Queue one send."""
        if (self._flying and self._flying.txn == send.txn) or any(
            w.send.txn == send.txn for w in self._waiting
        ):
            return
        if send.coalesce is not None:
            for older in [w for w in self._waiting if w.send.coalesce == send.coalesce]:
                self._waiting.remove(older)
                self._emit(SendFailed(older.send.txn, "SUPERSEDED", ""))
        self._seq += 1
        self._waiting.append(_Waiting(send, self._seq))
        self._pump()

    def withdraw(self, txn: str) -> None:
        """Take back a send that waits."""
        for item in [w for w in self._waiting if w.send.txn == txn]:
            self._waiting.remove(item)
            self._emit(SendFailed(txn, "WITHDRAWN", ""))

    def _pump(self) -> None:
        if self._flying is not None or self._quiet or not self._waiting or not self.alive:
            return
        world, rng, faults = self._world, self._world.rng, self._world.faults
        if faults.limited and rng.random() < faults.limited:
            self._quiet = True
            world.after(rng.uniform(0.2, 2.0), self._free)
            return
        item = min(self._waiting, key=lambda w: (w.send.priority, w.seq))
        self._waiting.remove(item)
        self._flying = item.send
        if (fate := world.fate(self._account, item.send)) is not None:
            self._decided(item.send, fate)
            return
        if faults.request_lost and rng.random() < faults.request_lost:
            world.after(ANSWER_MAX_S, lambda: self._unknown(item.send))
            return
        late = faults.late and rng.random() < faults.late
        way = rng.uniform(0, 3 * world.plan.lease_max_s) if late else rng.uniform(0.002, 0.02)
        world.after(way, lambda: self._arrive(item.send, answered=way < ANSWER_MAX_S))
        if way >= ANSWER_MAX_S:
            world.after(ANSWER_MAX_S, lambda: self._unknown(item.send))

    def _decided(self, send: Send, fate: Fate) -> None:
        """What a script says; whose answer does not come in time has none."""
        came = answered = False

        def arrive() -> None:
            nonlocal came, answered
            if not came:
                came, answered = True, fate.answered and self._flying is send
                self._arrive(send, answered=answered)

        fate.send, fate.let_go = send, arrive
        self._world.after(ANSWER_MAX_S, lambda: None if answered else self._unknown(send))
        if fate.late_s is not None:
            self._world.after(fate.late_s, arrive)
        elif not fate.kept and not fate.lost:
            arrive()

    def _arrive(self, send: Send, *, answered: bool) -> None:
        began, rng = self._world.now, self._world.rng
        self._world.after(rng.uniform(0.03, 0.06), lambda: self._persist(send, began, answered=answered))

    def _persist(self, send: Send, began: float, *, answered: bool) -> None:
        world, rng = self._world, self._world.rng
        event_id = world.persist(self._account, send, began)
        if not answered:
            return
        if world.faults.answer_lost and rng.random() < world.faults.answer_lost:
            world.after(ANSWER_MAX_S, lambda: self._unknown(send))
        else:
            world.after(rng.uniform(0.001, 0.02), lambda: self._done(send, event_id))

    def _done(self, send: Send, event_id: EventId) -> None:
        if self.alive:
            self._emit(SendDone(send.txn, event_id))
        self._free()

    def _unknown(self, send: Send) -> None:
        if self.alive:
            if send.state_key is None:  # sent again under the same transaction id
                self._seq += 1
                self._waiting.append(_Waiting(send, self._seq))
            else:
                self._emit(SendFailed(send.txn, "UNKNOWN", "no answer"))
        self._free()

    def _free(self) -> None:
        self._flying, self._quiet = None, False
        self._pump()
