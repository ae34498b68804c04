"""File locks that die with their process: one node a data directory.

The kernel frees a lock when its holder ends, so a lock is never stale; only the pid in the file can be, and
it counts for nothing unless the lock is held. The files stay: to remove one would let two hold "it".
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from cisbot.errors import CisbotError


class LockHeld(CisbotError):
    """A live process holds the lock; `pid` is what it wrote into the file, 0 if that is illegible."""

    def __init__(self, path: Path, pid: int) -> None:
        self.path = path
        self.pid = pid
        super().__init__(f"{path} is locked by process {pid or 'unknown'}")


def _read_pid(fd: int) -> int:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else 0


class FileLock:
    """An exclusive lock, held from the constructor to `release` or the end of this process.

    Raises `LockHeld`, or `OSError` when the file can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _read_pid(self._fd)
            self.release()
            raise LockHeld(path, pid) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Give the lock up; twice is once."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> FileLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class NodeLock(FileLock):
    """The one node of a data directory, which is made if need be.

    Raises `CisbotError` naming the process that holds it, or why there can be no lock.
    """

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        try:
            super().__init__(data_dir / "node.lock")
        except LockHeld as held:
            who = f"process {held.pid}" if held.pid else "another process"
            raise CisbotError(f"{data_dir} is in use by a node that runs already: {who}") from held
        except OSError as error:
            why = f"{data_dir / 'node.lock'} can't be locked: {error.strerror or error}"
            raise CisbotError(
                f"{why}; remove what lies there, or choose another node.data_dir, a folder of this user's own"
            ) from error


def holder(path: Path) -> int | None:
    """The pid that holds the lock (0 if it wrote none), or None when nobody does."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(fd)
    finally:
        os.close(fd)
    return None
