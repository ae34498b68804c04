"""The delayed end: an `end` of this incarnation that the homeserver sends unless it hears from us in time.

Pure. It is armed once, before anything is held, and restarted as long as the process lives; once it was
sent, the incarnation is over. `until` bounds every deadline from the moment before an arming is sent, for
the request may have worked whatever became of its answer; only a confirmed restart moves it. An arming
whose answer is lost can never be taken back, so that incarnation is given up (docs/protocol.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum

from cisbot.core.claims.messages import Me, delayed_end
from cisbot.core.effects import ArmEnd, Ask, CancelEnd, RestartEnd
from cisbot.core.inputs import EndAnswer, EndReply

RESTARTS_PER_DELAY = 3
RETRIES_PER_DELAY = 12  # where a restart got no answer
RETRY_S_MIN = 0.25
ANSWERS_PER_DELAY = 6  # a request that hangs leaves time for another one
ANSWER_S_MIN = 1.0
ANSWER_S_MAX = 15.0  # nothing is claimed before an arming is answered
END_SENT = "its delayed end was sent: the homeserver did not hear from it in time"


class Phase(Enum):
    """Where the delayed end stands."""

    NONE = "there is none"
    ARMING = "asked for"
    ARMED = "the homeserver has it"
    OVER = "it was sent, or may be at any time"


class Armed:
    """The delayed end of one incarnation. `delay_s` 0: it does without.

    `span` makes of a duration in seconds the part of it that may be used, less drift and margin.
    """

    def __init__(self, me: Me, delay_s: float, span: Callable[[float], float]) -> None:
        self._me = me
        self._delay_s = delay_s
        self._answer_s = min(max(delay_s / ANSWERS_PER_DELAY, ANSWER_S_MIN), ANSWER_S_MAX)
        self._span = span
        self.until = math.inf  # boot time; no task may live on without a confirmed restart
        self.over: str | None = None  # why this incarnation is over
        self._phase = Phase.NONE
        self._allowed = delay_s > 0
        self._delay_id = ""
        self._sent = 0.0
        self._waiting = False  # for an answer to a restart or a cancel
        self._failed: EndAnswer | None = None  # the last one, where it did not work
        self._at: float | None = None  # when the next request is due; to take it back, None: at once

    def allow(self, *, allowed: bool) -> None:
        """The charter allows or forbids them; one that is armed is then cancelled."""
        allowed = allowed and self._delay_s > 0
        if self._phase is Phase.ARMED and self._allowed and not allowed:
            self._at = None
        self._allowed = allowed

    @property
    def bound(self) -> bool:
        """Whether the homeserver has, or may have, an end of this incarnation."""
        return self.until < math.inf

    @property
    def settled(self) -> bool:
        """Whether this incarnation will live: it is known whether its end was armed."""
        return self._phase is not Phase.ARMING

    def fit(self, now: float) -> bool:
        """Whether a claim that is taken now has time: armed or not is known, and the last word is fresh."""
        if self.over is not None or not self.settled:
            return False
        return self.until - now > self._delay_s / RESTARTS_PER_DELAY

    def due(self, now: float, *, idle: bool) -> list[Ask]:
        """The request that is due. Armed only while `idle`: if its answer is lost, nothing else is.

        What can't be kept from being sent ends an incarnation that is idle: it could never claim again.
        """
        if self._phase is Phase.NONE and self._allowed and idle and (self._at is None or now >= self._at):
            self._phase, self._sent, self._at = Phase.ARMING, now, None
            self.until = now + self._span(self._delay_s)
            return [ArmEnd(delayed_end(self._me), self._delay_s, min(self._delay_s / 2, ANSWER_S_MAX))]
        if self._phase is Phase.NONE and self._at is not None and now >= self._at:
            self._at = None  # not now; the next step in which nothing is held tries
        if self._phase is not Phase.ARMED or self._waiting:
            return []
        if idle and self._failed is not None and self._hopeless(self._failed, now):
            self.ended(f"its delayed end can't be restarted ({self._failed.why or self._failed.reply.value})")
            return []
        if not self._allowed and (self._at is None or now >= self._at):
            self._waiting, self._at = True, None
            return [self.cancel()]
        if self._at is not None and now >= self._at:
            self._waiting, self._sent, self._at = True, now, None
            return [RestartEnd(self._delay_id, self._answer_s)]
        return []

    def _hopeless(self, failed: EndAnswer, now: float) -> bool:
        return failed.reply is EndReply.REFUSED or now >= self.until

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        return self._at

    def cancel(self) -> CancelEnd:
        """The request that takes it back."""
        return CancelEnd(self._delay_id, self._answer_s)

    def farewell(self) -> list[Ask]:
        """The end itself is in the room: the delayed one is not needed any more."""
        return [self.cancel()] if self._phase is Phase.ARMED else []

    def answered(self, item: EndAnswer, now: float) -> None:
        """What became of a request."""
        match item.asked:
            case ArmEnd() if self._phase is Phase.ARMING:
                self._armed(item, now)
            case RestartEnd() if self._phase is Phase.ARMED:
                self._restarted(item, now)
            case CancelEnd() if self._phase is Phase.ARMED:
                self._cancelled(item, now)
            case _:
                pass

    def ended(self, why: str) -> None:
        """The end was seen in the room, or there is nothing to restart."""
        self._phase, self._at, self.over = Phase.OVER, None, self.over or why

    def _armed(self, item: EndAnswer, now: float) -> None:
        match item.reply:
            case EndReply.DONE:
                self._phase, self._delay_id = Phase.ARMED, item.delay_id
                self._restart_later()
            case EndReply.LIMITED | EndReply.UNSENT:  # it certainly did nothing
                self._phase, self.until = Phase.NONE, math.inf
                self._at = now + max(item.wait_s, self._delay_s / RESTARTS_PER_DELAY)
            case EndReply.REFUSED | EndReply.GONE:
                self._phase, self.until, self._allowed = Phase.NONE, math.inf, False
            case EndReply.UNKNOWN:
                self.ended(f"nobody knows whether the homeserver has its delayed end ({item.why})")

    def _restarted(self, item: EndAnswer, now: float) -> None:
        self._waiting = False
        match item.reply:
            case EndReply.DONE:
                self.until = max(self.until, self._sent + self._span(self._delay_s))
                self._failed = None
                self._restart_later()
            case EndReply.GONE:
                self.ended(END_SENT)
            case _:
                self._retry(item, now)

    def _restart_later(self) -> None:
        self._at = self._sent + self._delay_s / RESTARTS_PER_DELAY if self._allowed else None

    def _cancelled(self, item: EndAnswer, now: float) -> None:
        self._waiting = False
        match item.reply:
            case EndReply.DONE:
                self._phase, self._at, self._failed, self.until = Phase.NONE, None, None, math.inf
            case EndReply.GONE:
                self.ended("its delayed end was sent before it could be taken back")
            case _:
                self._retry(item, now)

    def _retry(self, item: EndAnswer, now: float) -> None:
        self._failed = item
        self._at = now + max(item.wait_s, self._delay_s / RETRIES_PER_DELAY, RETRY_S_MIN)
