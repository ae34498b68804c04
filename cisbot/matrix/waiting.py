"""Waits that end early when told to, and the growing pauses between attempts."""

from __future__ import annotations

import asyncio

from cisbot.core.ids import order_hash


async def pause(seconds: float, wake: asyncio.Event | None = None) -> bool:
    """Wait `seconds`, or less when `wake` is set; say whether it was."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await (wake or asyncio.Event()).wait()
    except TimeoutError:
        return False
    return True


class Backoff:
    """Doubling pauses, each spread by up to a half so that a room of nodes doesn't return at once.

    The spread is a hash of `seed` and the count, alike in every run and different for every node.
    """

    def __init__(self, seed: str, *, first_s: float = 1.0, most_s: float = 60.0) -> None:
        self._seed = seed
        self._first_s = first_s
        self._most_s = most_s
        self.count = 0

    def next_s(self) -> float:
        """The next pause."""
        whole = min(self._most_s, self._first_s * 2.0 ** min(self.count, 30))
        self.count += 1
        spread = order_hash(self._seed, str(self.count)) / 2.0**64
        return whole * (0.5 + 0.5 * spread)

    def reset(self) -> None:
        """Begin anew: it worked."""
        self.count = 0
