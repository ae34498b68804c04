"""What a sure node owes the others: heads to those who ask, and the truth in the state key.

A void write still replaces the state, so whoever reads only the state reads a wrong name or value until
somebody restates. For both there is an order of turns, and who comes later keeps silent if it is done:
the holder goes first; of a free key or public memory the sender of the void write; then all in hash order.

Forked writes are settled by the homeserver's state resolution, which nobody sees in the stream. So who had
a write accepted, or restated, reads the state once a little later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from cisbot.core.claims.ledger import Judged, Ledger
from cisbot.core.claims.messages import BEAT_BYTES_MAX, Me
from cisbot.core.claims.state import Accepted, Head, from_carried
from cisbot.core.effects import ReadState
from cisbot.core.ids import ClaimKey, EventId, UserId
from cisbot.core.room.events import (
    CarriedHead,
    ClaimEvent,
    End,
    Heartbeat,
    MemoryWrite,
    Probe,
    Rejected,
    Release,
    Restate,
    RoomEvent,
    Take,
)
from cisbot.core.room.wire import KEYS_MAX, head_bytes, place_of

ANSWERS_MAX = 3  # heartbeats that answer probes, in any ANSWERS_S: whoever asks on and on gets no storm
ANSWERS_S = 30.0
AGAIN_S = 30.0
FAR_CHECKS = 3  # who read the state after a write from another server; a read is no event
TOGETHER_S = 0.2  # so long signs of life from other servers are gathered for one answer
ANSWER_BYTES_MAX = BEAT_BYTES_MAX // 2  # the rest is for renewals
CHECK = "state "  # the tag of such a question, before the key


class Answers:
    """Heads owed to probes and restates owed to the state, each with the time of this node's turn. Pure."""

    def __init__(self, me: Me, ledger: Ledger) -> None:
        self._me = me
        self._ledger = ledger
        self._heads: dict[ClaimKey, float] = {}
        self._abroad: dict[ClaimKey, float] = {}
        self._answered: deque[float] = deque(maxlen=ANSWERS_MAX)
        self._states: dict[ClaimKey, float] = {}
        self._checks: dict[ClaimKey, float] = {}
        self._last: dict[ClaimKey, EventId | None] = {}
        self._begun = False

    def gap(self) -> None:
        """Events were missed: what was owed may be done, and this node can't tell the truth any more."""
        self._heads.clear()
        self._abroad.clear()
        self._states.clear()
        self._checks.clear()
        self._last.clear()

    def arriving(self, event: ClaimEvent | Restate) -> None:
        """Before the fold of an event: a head that is as new as this node's serves all who asked."""
        if isinstance(event, Heartbeat) and self._ledger.bounds.at_home(event.sender):
            for head in event.heads:
                if self._current(head):
                    self._heads.pop(head.key, None)
                    self._abroad.pop(head.key, None)

    def told_abroad(self, key: ClaimKey, event: EventId, echo_s: float, now: float, *, first: bool) -> None:
        """A holder on another server waits for this head: who granted tells it at once, else in turn."""
        turn = 0.0 if first else TOGETHER_S + self._me.place(event) * max(3 * echo_s, 0.5)
        self._abroad[key] = now + turn

    def probed(self, event: Probe, holds: Container[ClaimKey], echo_s: float, now: float) -> None:
        """Somebody asks for heads: the holder answers at once, the others in turn."""
        if event.sender == self._me.account:
            return
        for key in event.keys:
            head = self._ledger.sure(key)
            if head is not None and head.after is not None:
                turn = now if key in holds else now + self._turn(echo_s, event.event_id)
                self._heads[key] = min(turn, self._heads.get(key, turn))

    def judged(self, found: Judged, holds: Container[ClaimKey], echo_s: float, now: float) -> None:
        """A verdict: a void lock event, or an end, leaves the state key naming what is not so."""
        event, accepted = found.event, isinstance(found.verdict, Accepted)
        match event:
            case Take() | Release() | MemoryWrite() if accepted:
                self._states.pop(found.key, None)
                self._last[found.key] = event.event_id
                self._check(found.key, event.sender, echo_s, now)
                self._check_far(found.key, event, echo_s, now)
            case Take() | Release() | MemoryWrite():
                self.wrong(found.key, event.sender, event.event_id, holds, echo_s, now)
            case End() if accepted:
                self._last[found.key] = None
                self.wrong(found.key, event.sender, event.event_id, holds, echo_s, now)
            case _:
                pass

    def restated(self, event: Restate, holds: Container[ClaimKey], echo_s: float, now: float) -> None:
        """Somebody restates: either that is the truth, or it came too late and has to be said again."""
        head = self._ledger.sure(event.key)
        if head is None:
            return
        if from_carried(event.head).says() == head.says():
            self._states.pop(event.key, None)
            self._check(event.key, event.sender, echo_s, now)
        else:
            self.wrong(event.key, event.sender, event.event_id, holds, echo_s, now)

    def wrong(
        self,
        key: ClaimKey,
        sender: UserId,
        event: EventId,
        holds: Container[ClaimKey],
        echo_s: float,
        now: float,
    ) -> None:
        """The state key names what is not so."""
        head = self._ledger.sure(key)
        if head is None:
            return
        first = key in holds if head.holders else sender == self._me.account
        turn = now if first else now + self._turn(echo_s, key, event)
        self._states[key] = min(turn, self._states.get(key, turn))

    def doubtful(self, key: ClaimKey, echo_s: float, now: float) -> None:
        """The key is sure since now: a void take came last, and whoever owed the truth may be gone."""
        head = self._ledger.sure(key)
        if head is not None and head.later:
            self._checks[key] = now + self._turn(echo_s, key)

    def checks(self, now: float) -> list[ReadState]:
        """The states to read now."""
        if not self._checks:
            return []
        keys = [key for key, at in self._checks.items() if at <= now]
        for key in keys:
            del self._checks[key]
        return [_read(key) for key in keys]

    def next_check(self) -> float | None:
        """When `checks` has something to ask."""
        return min(self._checks.values()) if self._checks else None

    def stated(self, key: ClaimKey, found: RoomEvent | Rejected | None, now: float) -> None:
        """What the state names: if that is not so, state the truth again."""
        head = self._ledger.sure(key)
        if head is None or found is None:
            return
        known = key in self._last and not isinstance(found, Restate)
        if not (found.event_id == self._last[key] if known else tells_truth(found, head)):
            self._states[key] = now

    def due(self, now: float) -> tuple[list[CarriedHead], list[CarriedHead]]:
        """The heads to send in a heartbeat now, and those to restate."""
        if self._ledger.abroad:  # what it thinks of a key is for itself
            self.gap()
            return [], []
        if not self._begun:
            self._begun = True
            for key in self._ledger.known():
                self.doubtful(key, 1.0, now)
        heads = self._answer(now) if self._heads and now >= self._may_answer() else []
        if self._abroad:
            known = {head.key for head in heads}
            heads += [head for head in self._for_abroad(now) if head.key not in known]
        return heads, self._restate(now)

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        if not (self._states or self._abroad or self._heads):
            return None
        times = [*self._states.values(), *self._abroad.values()]
        if self._heads:
            times.append(max(min(self._heads.values()), self._may_answer()))
        return min(times)

    def _may_answer(self) -> float:
        return self._answered[0] + ANSWERS_S if len(self._answered) == ANSWERS_MAX else 0.0

    def _answer(self, now: float) -> list[CarriedHead]:
        """What fits into one heartbeat; the rest waits, and somebody else may tell it meanwhile."""
        heads: list[CarriedHead] = []
        room = ANSWER_BYTES_MAX
        for key in [key for key, at in self._heads.items() if at <= now]:
            head = self._ledger.carried(key)
            room -= head_bytes(head) if head is not None else 0
            if heads and (room < 0 or len(heads) >= KEYS_MAX):
                break
            del self._heads[key]
            if head is not None:
                heads.append(head)
        if heads:
            self._answered.append(now)
        return heads

    def _for_abroad(self, now: float) -> list[CarriedHead]:
        """One heartbeat for all that wait, as soon as one is due."""
        if not any(at <= now for at in self._abroad.values()):
            return []
        heads = [self._ledger.carried(key) for key in self._abroad]
        self._abroad.clear()
        return [head for head in heads if head is not None]

    def _check(self, key: ClaimKey, sender: UserId, echo_s: float, now: float) -> None:
        if sender == self._me.account:
            self._checks[key] = now + max(4 * echo_s, 1.0)

    def _check_far(
        self, key: ClaimKey, event: Take | Release | MemoryWrite, echo_s: float, now: float
    ) -> None:
        """Off the home server nobody restates: the first few at home look whether the state took it up."""
        if not self._ledger.bounds.at_home(event.sender) and self._me.place(event.event_id) < FAR_CHECKS:
            self._checks[key] = now + self._turn(echo_s, event.event_id)

    def _restate(self, now: float) -> list[CarriedHead]:
        """Owed until somebody's was seen: what is sent may be lost."""
        heads: list[CarriedHead] = []
        if not self._states:
            return heads
        for key in [key for key, at in self._states.items() if at <= now]:
            if (head := self._ledger.carried(key)) is not None:
                heads.append(head)
                self._states[key] = now + AGAIN_S
            else:
                del self._states[key]
        return heads

    def _current(self, head: CarriedHead) -> bool:
        mine: Head | None = self._ledger.sure(head.key)
        return mine is not None and mine.after == head.after

    def _turn(self, echo_s: float, *about: str) -> float:
        return (1 + self._me.rank(*about)) * max(3 * echo_s, 0.5)


def tells_truth(found: RoomEvent | Rejected, head: Head) -> bool:
    """Whether an event that the state names says what is so."""
    match found:
        case Restate():
            return from_carried(found.head).says() == head.says()
        case Take():
            mine = head.held_by(found.who.account, found.who.incarnation, found.epoch)
            return mine is not None and (mine,) == head.holders
        case Release():
            return found.epoch == head.epoch and not head.holders
        case MemoryWrite():
            return (found.version, found.value) == (head.epoch, head.value)
        case _:
            return False


def _read(key: ClaimKey) -> ReadState:
    return ReadState(CHECK + key, *place_of(key))
