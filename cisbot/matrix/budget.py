"""How much this account may say: a model of the homeserver's bucket, so that the urgent never finds it empty.

A homeserver counts all events of an account together (Synapse's `rc_message`: ten at once, then one in
five seconds) and tells nobody what the limit is. So there is none until the first 429. From then on what
is less urgent leaves room for what is more: chatter leaves enough for a release, its final reply and a
renewal. A limit that did not show for an hour may be gone, and is forgotten.

Pure: times are arguments, of any clock that doesn't jump.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cisbot.core.effects import Priority

BURST: Final = 10.0  # sends at once, until the homeserver says that it takes fewer
BURST_MIN: Final = 4.0
INTERVAL_S: Final = 5.0  # Synapse's: the first wait that is told is a part of it
BRISK_S: Final = 0.25  # a first wait that is shorter tells of a faster pace, most probably
INTERVAL_S_MAX: Final = 60.0  # a longer wait is obeyed, and is no pace
LEAVES: Final[Mapping[Priority, float]] = {
    Priority.RENEWAL: 0.0,
    Priority.LOCK: 1.0,
    Priority.FINAL: 1.0,
    Priority.CHAT: 3.0,
    Priority.EDIT: 4.0,
}
FORGET_S: Final = 3600.0
TICK_S: Final = 0.001  # rather later than too early


@dataclass(slots=True)
class _Bucket:
    """`tokens` sends are left at time `at`; each takes `interval_s` to come back, up to `burst` of them."""

    interval_s: float
    burst: float
    tokens: float
    at: float
    seen: float  # when the limit last showed
    gained: float = 0.0  # tokens that came back since then
    overflowed: bool = False  # whether it was full since then

    def fill(self, now: float) -> None:
        gain = max(0.0, now - self.at) / self.interval_s
        self.at = now
        if self.tokens + gain > self.burst:
            gain, self.overflowed = self.burst - self.tokens, True
        self.tokens += gain
        self.gained += gain

    def learn(self, wait_s: float, now: float) -> None:
        """A send was refused: so the homeserver has less than one token, and the next one in `wait_s`."""
        self.fill(now)
        pace_s = min(wait_s, INTERVAL_S_MAX)
        excess = self.tokens - max(0.0, 1.0 - pace_s / self.interval_s)
        if excess > 0 and self.overflowed:  # it holds less than was thought
            self.burst = max(BURST_MIN, self.burst - excess)
        elif excess > 0:  # they come back more slowly
            self.interval_s *= min(2.0, self.gained / max(self.gained - excess, 0.01))
        self.interval_s = min(INTERVAL_S_MAX, max(self.interval_s, pace_s))
        self.tokens = max(0.0, 1.0 - pace_s / self.interval_s)  # so that one is there when the wait is over
        self.seen, self.gained, self.overflowed = now, 0.0, False


class Budget:
    """What the outbox asks before it sends."""

    def __init__(self) -> None:
        self._bucket: _Bucket | None = None
        self._quiet_until = 0.0
        self._leaving = False

    def spent(self, now: float) -> None:
        """An event of this account was taken, or may have been."""
        if self._bucket is not None:
            self._bucket.fill(now)
            self._bucket.tokens = max(0.0, self._bucket.tokens - 1.0)

    def limited(self, wait_s: float, now: float) -> None:
        """The homeserver asks us to wait so long."""
        self._quiet_until = now + wait_s
        if self._bucket is None:
            self._bucket = _Bucket(BRISK_S if wait_s < BRISK_S else INTERVAL_S, BURST, 0.0, now, now)
        self._bucket.learn(wait_s, now)

    def leave(self) -> None:
        """Last words: there is nothing left to renew, and nothing to spare for."""
        self._leaving = True

    def wait_s(self, priority: Priority, now: float) -> float:
        """How long a send of this priority has to wait. More urgent ones never wait longer."""
        quiet_s = max(0.0, self._quiet_until - now)
        bucket = self._bucket
        if bucket is None or now - bucket.seen > FORGET_S:
            self._bucket = None
            return quiet_s
        bucket.fill(now)
        spare = 0.0 if self._leaving else min(LEAVES[priority], bucket.burst - 1.0)
        short_s = (1.0 + spare - bucket.tokens) * bucket.interval_s
        return max(quiet_s, short_s + TICK_S if short_s > 0 else 0.0)
