"""What ties a worker to its parent, and orphans to the worker: prctl and the lock file."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class LockHeld(Exception):
    """Another process holds the lock; `pid` is what it wrote into the file, 0 if nothing legible."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        super().__init__(f"held by process {pid}")


def die_with_parent(number: int) -> None:
    """Have the kernel send this process signal `number` when its parent ends. Raises `OSError`."""
    _prctl(_PR_SET_PDEATHSIG, number)


def become_subreaper() -> None:
    """Inherit every descendant whose own parent ends. Raises `OSError`."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def die_with_worker(worker: int) -> None:
    """In a task's first process, before exec: be killed with the worker, however it dies."""
    die_with_parent(signal.SIGKILL)
    if os.getppid() != worker:  # it died before the line above took effect
        os._exit(1)


def take_lock(path: Path) -> int:
    """Lock `path`, write our pid into it and return its descriptor; the lock lasts as long as we do.

    Raises `LockHeld`, or `OSError` when the file can't be opened.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(fd, 32).strip()
        os.close(fd)
        raise LockHeld(int(text) if text.isdigit() else 0) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd
