"""Time and randomness: the only place of the node that knows a clock or draws a random name."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from cisbot.core.ids import Incarnation
from cisbot.core.inputs import Instant


def boot_time() -> float:
    """Seconds since boot, suspend included: CLOCK_MONOTONIC would stop in suspend and outlive a lease."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def new_incarnation() -> Incarnation:
    """A random name for this process, never read from disk."""
    return Incarnation(secrets.token_hex(8))


class SystemClock:
    """The machine's clocks and the event loop's timers."""

    TIMER_MAX_S = 1.0  # the loop's timers stop in suspend: look again at least this often

    def now(self) -> Instant:
        """The present moment."""
        return Instant(boot_time(), time.time_ns() // 1_000_000)

    def call_at(self, boot: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back at that boot time; the result cancels."""
        loop = asyncio.get_running_loop()
        handle: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal handle
            left = boot - boot_time()
            if left <= 0:
                callback()
            else:
                handle = loop.call_later(min(left, self.TIMER_MAX_S), look)

        handle = loop.call_later(min(max(0.0, boot - boot_time()), self.TIMER_MAX_S), look)

        def cancel() -> None:
            if handle is not None:
                handle.cancel()

        return cancel
