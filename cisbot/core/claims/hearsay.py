"""What a node off the home server thinks of a key: enough to decide when to ask, never to hold anything.

Its own server's order is not the home stream's, so a strict fold would void what the home stream accepted,
for ever. It takes over each head that a home node carries, and until the next one guesses by the same fold,
but without compare-and-set.
"""

from __future__ import annotations

from dataclasses import replace

from cisbot.core.claims.fold import fold
from cisbot.core.claims.state import Bounds, Head, Verdict
from cisbot.core.ids import ClaimKey
from cisbot.core.room.events import CarriedHead, ClaimEvent, MemoryWrite, Take


class Hearsay:
    """Which carried heads count. Pure."""

    def __init__(self) -> None:
        self._told: dict[ClaimKey, int] = {}

    def told(self, key: ClaimKey) -> int:
        """The epoch of the newest head of this key that a home node carried; 0 before."""
        return self._told.get(key, 0)

    def takes_over(self, head: CarriedHead) -> bool:
        """Whether this head is as new as any that was carried before; then it is the newest."""
        if head.epoch < self.told(head.key):
            return False
        self._told[head.key] = head.epoch
        return True


def guess(key: ClaimKey, head: Head, event: ClaimEvent, bounds: Bounds) -> tuple[Head, Verdict]:
    """What the home stream probably makes of the event: what names a higher epoch is taken for accepted."""
    if isinstance(event, Take | MemoryWrite):
        head = replace(head, after=event.after)
    return fold(key, head, event, bounds)
