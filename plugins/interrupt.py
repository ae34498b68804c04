"""A signal ends maubot between two steps of its tasks, never within one.

mautrix lets SIGINT and SIGTERM raise KeyboardInterrupt wherever Python happens to be. Within a step of the
node's tasks that would kill the task that gives its claims back, and whatever it was just doing is half done.
"""

from __future__ import annotations

import asyncio
import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def interrupt_between_steps(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop itself raise KeyboardInterrupt, where that is what the signal would do anyway."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.default_int_handler:
            loop.add_signal_handler(number, _interrupt)


def _interrupt() -> None:
    raise KeyboardInterrupt
