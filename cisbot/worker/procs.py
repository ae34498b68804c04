"""The process table: which processes belong to which attempt, and how they are killed safely.

A process belongs to an attempt when it is in the session or group of the attempt's first process, has the
attempt's `CIS_ATTEMPT` in its environment, or descends from such a one. The worker is a subreaper, so even
a process that forked twice, left its session and cleared its environment is still a descendant of the
worker: it belongs to nobody we know, and the next attempt that ends takes it along.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Proc:
    """One line of the table; `start` (clock ticks since boot) with `pid` is its identity."""

    pid: int
    ppid: int
    group: int
    session: int
    state: str
    start: int
    name: str

    @property
    def lives(self) -> bool:
        """It can still do something: neither a zombie nor about to vanish."""
        return self.state not in "ZXx"


Table = Mapping[int, Proc]


def parse_stat(text: str) -> Proc:
    """A process of the text of /proc/PID/stat; its name may hold spaces and parentheses."""
    left, _, right = text.rpartition(")")
    number, _, name = left.partition(" (")
    part = right.split()
    return Proc(int(number), int(part[1]), int(part[2]), int(part[3]), part[0], int(part[19]), name)


def read_proc(pid: int) -> Proc | None:
    """The process, or None if it is gone."""
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def read_table() -> Table:
    """All processes that we can see."""
    found = (read_proc(int(entry.name)) for entry in os.scandir(_PROC) if entry.name.isdigit())
    return {proc.pid: proc for proc in found if proc is not None}


def read_environ(pid: int) -> frozenset[bytes]:
    """The entries `NAME=value` that the process started with; none if it is gone or another user's."""
    try:
        return frozenset((_PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return frozenset()


_FOREIGN, _STRAY, _AS_PARENT = -1, -2, -3


def _owner_by_itself(proc: Proc, live: Mapping[int, str], marks: Mapping[bytes, int]) -> int:
    """The attempt that the process's own session, group or environment names."""
    if proc.session in live:
        return proc.session
    if proc.group in live:
        return proc.group
    return next((marks[entry] for entry in read_environ(proc.pid) if entry in marks), _AS_PARENT)


def owned(table: Table, worker: int, mine: int, live: Mapping[int, str]) -> list[Proc]:
    """The living processes of the attempt whose first process is `mine`, strays of the worker included.

    `live` maps the first process of every running attempt, `mine` too, to its `CIS_ATTEMPT` value.
    """
    marks = {f"CIS_ATTEMPT={mark}".encode(): first for first, mark in live.items()}
    owner = {worker: _STRAY, 0: _FOREIGN, 1: _FOREIGN}
    for proc in table.values():
        path: list[int] = []
        found = _AS_PARENT
        step: Proc | None = proc
        while found == _AS_PARENT:
            # A parent that is missing, or a loop, comes of a table read while it changed.
            if step is None or step.pid in path:
                found = _FOREIGN
            elif step.pid in owner:
                found = owner[step.pid]
            else:
                path.append(step.pid)
                found = _owner_by_itself(step, live, marks)
                step = table.get(step.ppid)
        owner.update(dict.fromkeys(path, found))
    return [
        proc
        for proc in table.values()
        if proc.lives and proc.pid != worker and owner[proc.pid] in (_STRAY, mine)
    ]


def send_signal(proc: Proc, *numbers: int) -> bool:
    """Signal exactly this process, not one that has its number now; False if we may not.

    A process that is gone counts as signalled.
    """
    try:
        fd = os.pidfd_open(proc.pid)
    except ProcessLookupError:
        return True
    try:
        now = read_proc(proc.pid)
        if now is not None and now.start == proc.start:
            for number in numbers:
                signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    finally:
        os.close(fd)
    return True


def death_fds(procs: Iterable[Proc], limit: int) -> list[int]:
    """Descriptors that get readable as the processes die, at most `limit`; the caller closes them."""
    fds: list[int] = []
    for proc in procs:
        if len(fds) == limit:
            break
        try:
            fds.append(os.pidfd_open(proc.pid))
        except ProcessLookupError:
            continue
    return fds


def reap_orphans(table: Table, firsts: Iterable[int]) -> None:
    """Take the adopted children that are dead out of the table; `firsts` are reaped by their attempts."""
    spared = set(firsts)
    for proc in table.values():
        if proc.ppid == os.getpid() and not proc.lives and proc.pid not in spared:
            try:
                os.waitpid(proc.pid, os.WNOHANG)
            except ChildProcessError:
                continue
