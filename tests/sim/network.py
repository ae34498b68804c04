"""The way to the homeserver: one paced queue of sends; requests and answers that are late or lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cisbot.core.effects import Send
from cisbot.core.ids import EventId

if TYPE_CHECKING:
    from tests.sim.world import World

ANSWER_MAX_S = 5.0
Report = Callable[[Send, EventId | None], None]  # None: it may or may not have taken effect


@dataclass(slots=True)
class _Waiting:
    send: Send
    seq: int


class Outbox:
    """What one process sends. It dies with its process; a request on its way arrives all the same."""

    def __init__(self, world: World, account: str, report: Report) -> None:
        self._world = world
        self._account = account
        self._report = report
        self._waiting: list[_Waiting] = []
        self._busy = False
        self._seq = 0
        self.alive = True

    def send(self, send: Send) -> None:
        """Queue one send."""
        if any(w.send.txn == send.txn for w in self._waiting):
            return
        if send.coalesce is not None:
            self._waiting = [w for w in self._waiting if w.send.coalesce != send.coalesce]
        self._seq += 1
        self._waiting.append(_Waiting(send, self._seq))
        self._pump()

    def _pump(self) -> None:
        if self._busy or not self._waiting or not self.alive:
            return
        self._busy = True
        world, rng, faults = self._world, self._world.rng, self._world.faults
        if rng.random() < faults.limited:
            world.after(rng.uniform(0.2, 2.0), self._free)
            return
        item = min(self._waiting, key=lambda w: (w.send.priority, w.seq))
        self._waiting.remove(item)
        if rng.random() < faults.request_lost:
            world.after(ANSWER_MAX_S, lambda: self._unknown(item.send))
            return
        late = rng.random() < faults.late
        way = rng.uniform(0, 3 * world.lease_max_s) if late else rng.uniform(0.002, 0.02)
        world.after(way, lambda: self._arrive(item.send, answered=way < ANSWER_MAX_S))
        if way >= ANSWER_MAX_S:
            world.after(ANSWER_MAX_S, lambda: self._unknown(item.send))

    def _arrive(self, send: Send, *, answered: bool) -> None:
        began, rng = self._world.now, self._world.rng
        self._world.after(rng.uniform(0.03, 0.06), lambda: self._persist(send, began, answered=answered))

    def _persist(self, send: Send, began: float, *, answered: bool) -> None:
        world = self._world
        event_id = world.persist(self._account, send, began)
        if not answered:
            return
        if world.rng.random() < world.faults.answer_lost:
            world.after(ANSWER_MAX_S, lambda: self._unknown(send))
        else:
            world.after(world.rng.uniform(0.001, 0.02), lambda: self._done(send, event_id))

    def _done(self, send: Send, event_id: EventId) -> None:
        if self.alive:
            self._report(send, event_id)
        self._free()

    def _unknown(self, send: Send) -> None:
        if self.alive:
            if send.state_key is None:  # sent again under the same transaction id
                self._seq += 1
                self._waiting.append(_Waiting(send, self._seq))
            else:
                self._report(send, None)
        self._free()

    def _free(self) -> None:
        self._busy = False
        self._pump()
