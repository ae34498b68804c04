"""Waiting: for processes, for a moment of CLOCK_BOOTTIME, or for a nudge, whichever comes first.

asyncio's own timers run on CLOCK_MONOTONIC, which stands still while the machine is suspended; a deadline
must not, so the timer here is a timerfd on CLOCK_BOOTTIME.
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import time
from collections.abc import Iterable

_TFD_TIMER_ABSTIME = 1
_CLOEXEC_NONBLOCK = os.O_CLOEXEC | os.O_NONBLOCK
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def boot() -> float:
    """CLOCK_BOOTTIME, seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def alarm(moment: float) -> int:
    """A descriptor that is readable from the boot time `moment` on; the caller closes it."""
    fd: int = _libc.timerfd_create(time.CLOCK_BOOTTIME, _CLOEXEC_NONBLOCK)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    whole = math.floor(max(moment, 0.001))  # zero would disarm the timer
    part = int((max(moment, 0.001) - whole) * 1e9)
    spec = _Timer(_Timespec(0, 0), _Timespec(whole, part))
    if _libc.timerfd_settime(fd, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None) != 0:
        os.close(fd)
        raise OSError(ctypes.get_errno(), "timerfd_settime")
    return fd


class Waiter:
    """One coroutine waits here; others nudge it when what it waits for has changed."""

    def __init__(self) -> None:
        self._nudged = False
        self._future: asyncio.Future[None] | None = None

    def nudge(self) -> None:
        """End the present wait, or the next one if there is none."""
        self._nudged = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def wait(self, fds: Iterable[int], until: float = math.inf) -> None:
        """Return when all `fds` are readable, at the boot time `until`, or when nudged.

        Without `fds` only time and nudges count. A nudge is used up by the wait that it ends.
        """
        loop = asyncio.get_running_loop()
        future = self._future = loop.create_future()
        left = set(fds)
        timer = alarm(until) if math.isfinite(until) else None

        def finish() -> None:
            if not future.done():
                future.set_result(None)

        def readable(fd: int) -> None:
            loop.remove_reader(fd)
            left.discard(fd)
            if not left:
                finish()

        if self._nudged:
            finish()
        for fd in tuple(left):
            loop.add_reader(fd, readable, fd)
        if timer is not None:
            loop.add_reader(timer, finish)
        try:
            await future
        finally:
            for fd in left:
                loop.remove_reader(fd)
            if timer is not None:
                loop.remove_reader(timer)
                os.close(timer)
            self._future = None
            self._nudged = False
