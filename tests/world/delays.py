"""The model room's delayed events (MSC4140): one list for all, and what may go wrong with each request.

A test queues `Fault`s for an account; each of its requests takes the next one. No more faults: all is well.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from enum import Enum

from cisbot.core.effects import ArmEnd, AskEnd, CancelEnd, RestartEnd
from cisbot.core.inputs import EndAnswer, EndReply
from tests.world.room import ModelRoom


class Fault(Enum):
    """What becomes of one request."""

    NONE = "it is done and answered"
    UNSENT = "no connection"
    LOST = "it never arrives, and nobody knows"
    UNANSWERED = "it is done, but the answer is lost"
    LIMITED = "too many requests"
    REFUSED = "the homeserver will not"


@dataclass(frozen=True, slots=True)
class Delayed:
    """One delayed event."""

    account: str
    ask: ArmEnd
    fires_at: float


class Delays:
    """Delayed events of the room. `away`: no request of that account arrives."""

    def __init__(self, room: ModelRoom) -> None:
        self._room = room
        self._count = itertools.count(1)
        self.waiting: dict[str, Delayed] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.away: set[str] = set()
        self.requests: list[str] = []

    def request(self, account: str, ask: AskEnd, now: float) -> EndAnswer:
        """One request of an account, answered at once."""
        self.requests.append(f"{account} {type(ask).__name__}")
        faults = self.faults[account]
        fault = faults.pop(0) if faults else Fault.NONE
        if account in self.away:
            fault = Fault.UNSENT
        match fault:
            case Fault.UNSENT:
                return EndAnswer(ask, EndReply.UNSENT)
            case Fault.LOST:
                return EndAnswer(ask, EndReply.UNKNOWN)
            case Fault.LIMITED:
                return EndAnswer(ask, EndReply.LIMITED, wait_s=2.0)
            case Fault.REFUSED:
                return EndAnswer(ask, EndReply.REFUSED)
            case Fault.UNANSWERED:
                self._do(account, ask, now)
                return EndAnswer(ask, EndReply.UNKNOWN)
            case Fault.NONE:
                return self._do(account, ask, now)

    def _do(self, account: str, ask: AskEnd, now: float) -> EndAnswer:
        if isinstance(ask, ArmEnd):
            delay_id = f"delay{next(self._count)}"
            self.waiting[delay_id] = Delayed(account, ask, now + ask.delay_s)
            return EndAnswer(ask, EndReply.DONE, delay_id)
        known = self.waiting.get(ask.delay_id)
        if known is None:
            return EndAnswer(ask, EndReply.GONE)
        match ask:
            case RestartEnd():
                self.waiting[ask.delay_id] = replace(known, fires_at=now + known.ask.delay_s)
            case CancelEnd():
                del self.waiting[ask.delay_id]
        return EndAnswer(ask, EndReply.DONE)

    def fire(self, now: float) -> None:
        """Send what is due."""
        for delay_id in [key for key, one in self.waiting.items() if one.fires_at <= now]:
            self._send(self.waiting.pop(delay_id))

    def early(self, account: str, *, times: int = 1) -> None:
        """A clock jumps: what the account has armed is sent now, `times` times."""
        for delay_id in self._of(account):
            one = self.waiting.pop(delay_id)
            for _ in range(times):
                self._send(one)

    def late(self, account: str, by_s: float = math.inf) -> None:
        """What the account has armed comes so much later; without an end: it is dropped without a word."""
        for delay_id in self._of(account):
            one = self.waiting[delay_id]
            self.waiting[delay_id] = replace(one, fires_at=one.fires_at + by_s)

    def _of(self, account: str) -> list[str]:
        return [key for key, one in self.waiting.items() if one.account == account]

    def _send(self, one: Delayed) -> None:
        self._room.put(one.account, one.ask.send.type, one.ask.send.content)
