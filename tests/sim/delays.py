"""The homeserver's delayed events (MSC4140): sent when nobody restarts them; late, twice, or never.

None comes before its time: where a homeserver's clock jumps, only the fence protects (docs/claims.md).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cisbot.core.effects import ArmEnd, AskEnd, CancelEnd, RestartEnd, Send
from cisbot.core.inputs import EndAnswer, EndReply

if TYPE_CHECKING:
    from tests.sim.process import Process
    from tests.sim.world import World

DROPPED, LATE, DOUBLED = 0.1, 0.2, 0.3  # the shares of each, added up
ANSWER_S = 0.05


@dataclass(slots=True)
class _Delayed:
    account: str
    send: Send
    delay_s: float
    due: float


class Delays:
    """All delayed events of the room."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._count = itertools.count()
        self._waiting: dict[str, _Delayed] = {}

    def request(self, process: Process, ask: AskEnd) -> None:
        """One request on its way; it is answered within its time in any case."""
        world, rng, faults = self._world, self._world.rng, self._world.faults
        account, timeout_s = process.machine.account, ask.timeout_s
        if world.down():
            world.after(ANSWER_S, lambda: process.emit(EndAnswer(ask, EndReply.UNSENT)))
            return
        late = faults.late and rng.random() < faults.late
        way = rng.uniform(0, 2 * world.plan.lease_max_s) if late else rng.uniform(0.002, 0.02)
        lost = faults.request_lost and rng.random() < faults.request_lost
        unanswered = faults.answer_lost and rng.random() < faults.answer_lost
        if lost or unanswered or way > timeout_s:
            world.after(timeout_s, lambda: process.emit(EndAnswer(ask, EndReply.UNKNOWN)))
        if lost:
            return

        def arrive() -> None:
            answer = self._do(account, ask)
            if not unanswered and way <= timeout_s:
                world.after(rng.uniform(0.001, 0.02), lambda: process.emit(answer))

        world.after(way, arrive)

    def _do(self, account: str, ask: AskEnd) -> EndAnswer:
        now = self._world.now
        if isinstance(ask, ArmEnd):
            name = f"delay-{next(self._count)}"
            self._waiting[name] = _Delayed(account, ask.send, ask.delay_s, now + ask.delay_s)
            self._look(name)
            return EndAnswer(ask, EndReply.DONE, name)
        known = self._waiting.get(ask.delay_id)
        if known is None:
            return EndAnswer(ask, EndReply.GONE)
        match ask:
            case RestartEnd():
                known.due = now + known.delay_s
            case CancelEnd():
                del self._waiting[ask.delay_id]
        return EndAnswer(ask, EndReply.DONE)

    def _look(self, name: str) -> None:
        world = self._world
        known = self._waiting.get(name)
        if known is None:
            return
        if known.due > world.now or world.down():
            world.after(max(known.due - world.now, 0.2 if world.down() else 0.0), lambda: self._look(name))
            return
        del self._waiting[name]
        fate = world.rng.random() if world.faults.late else 1.0
        if fate < DROPPED:
            world.log("the delayed end of {} is dropped", known.account)
            return
        wait = world.rng.uniform(0, 2 * world.plan.lease_max_s) if fate < LATE else 0.0
        for _ in range(2 if LATE <= fate < DOUBLED else 1):
            world.after(wait, lambda: self._fire(known))

    def _fire(self, known: _Delayed) -> None:
        self._world.log("the homeserver sends the delayed end of {}", known.account)
        send = Send(f"delayed {next(self._count)}", known.send.type, known.send.content, known.send.priority)
        self._world.persist(known.account, send, self._world.now)
