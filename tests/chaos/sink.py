"""A storage that refuses old fences: it keeps each key's highest, under a lock, and notes what it took."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from urllib.parse import quote


class Sink:
    """A folder with a file for each key, which holds the highest fence, and the journal of what was taken."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.journal = folder / "journal.jsonl"

    def write(self, key: str, fence: int, what: dict[str, object]) -> bool:
        """Take `what`, or refuse it because somebody wrote with a higher fence: False."""
        fd = os.open(self._folder / f"{quote(key, safe='')}.fence", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if fence < int(os.pread(fd, 32, 0) or b"0"):
                return False
            os.pwrite(fd, b"%020d" % fence, 0)
            append(self.journal, {"key": key, "fence": fence, **what})
            return True
        finally:
            os.close(fd)


def append(path: Path, line: dict[str, object]) -> None:
    """One line of JSON, whole, after all that is there: a single write to a file that only grows."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, (json.dumps(line) + "\n").encode())
    finally:
        os.close(fd)
