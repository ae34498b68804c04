"""Finding and killing what a dead worker, or a dead node, left behind.

Marks in the environment tell whose a process is: `CIS_DATA` names the node's data directory, `CIS_WORKER` one
worker process. What cleared its environment is found as a descendant of a marked process, or by the
session or group of a task's first process. These functions block for as long as processes take to die.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE_S = 10.0
_AT_ONCE_MAX = 200  # processes killed and waited for at once, each costs a descriptor


@dataclass(frozen=True, slots=True)
class Proc:
    """A process as the table shows it; `start` is in clock ticks since boot, with `pid` it is unique."""

    pid: int
    ppid: int
    group: int
    session: int
    lives: bool
    start: int


def become_subreaper() -> None:
    """Inherit what a dead worker leaves behind, so that it can be found. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def kill_leftovers(data_dir: Path) -> list[int]:
    """Kill all workers and tasks that an earlier node left in `data_dir`; returns their pids.

    Only for the holder of the directory's `NodeLock`, before it starts a pool.
    """
    return kill_marked(f"CIS_DATA={data_dir.resolve()}")


def kill_marked(mark: str, groups: Collection[int] = ()) -> list[int]:
    """Kill every process that has `mark` in its environment, is in one of `groups`, or descends from one.

    Returns the pids. Ourselves and our ancestors are spared, whatever their environment. What has not died
    after 10 s (uninterruptible, another user's) is left.
    """
    killed: set[int] = set()
    until = time.monotonic() + _PATIENCE_S
    quiet = 0
    while quiet < 2 and time.monotonic() < until:
        table = _read_table()
        members = _find(table, mark.encode(), groups)[:_AT_ONCE_MAX]
        quiet = 0 if members else quiet + 1
        fds = [fd for proc in members if (fd := _kill(proc)) is not None]
        killed |= {proc.pid for proc in members}
        _wait_for_deaths(fds, until)
    _reap(killed, groups)
    return sorted(killed)


def adopted(since: int) -> list[Proc]:
    """Our children in another session than ours, born at the tick `since` or later; dead ones too.

    We are a subreaper: what a dead worker's tasks left comes to us, without any mark if they cleared that.
    """
    me, session = os.getpid(), os.getsid(0)
    found = _read_table().values()
    return [proc for proc in found if proc.ppid == me and proc.session != session and proc.start >= since]


def kill_children(procs: Collection[Proc]) -> None:
    """Kill exactly these children of ours and reap them; waits at most 10 s for their deaths."""
    fds = [fd for proc in list(procs)[:_AT_ONCE_MAX] if (fd := _kill(proc)) is not None]
    _wait_for_deaths(fds, time.monotonic() + _PATIENCE_S)
    _reap({proc.pid for proc in procs}, ())


def birth(pid: int) -> int:
    """The tick since boot at which a process was born that has not been reaped yet."""
    proc = _read_proc(pid)
    assert proc is not None
    return proc.start


def groups_at(moment: float, groups: Collection[int]) -> list[int]:
    """Those of `groups` whose number has not gone to a process born after the boot time `moment`."""
    ticks = moment * os.sysconf("SC_CLK_TCK")
    leaders = {group: _read_proc(group) for group in groups}
    return [group for group, proc in leaders.items() if proc is None or proc.start <= ticks]


def _read_proc(pid: int) -> Proc | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    part = text.rpartition(")")[2].split()
    return Proc(pid, int(part[1]), int(part[2]), int(part[3]), part[0] not in "ZXx", int(part[19]))


def _read_table() -> dict[int, Proc]:
    found = (_read_proc(int(entry.name)) for entry in os.scandir(_PROC) if entry.name.isdigit())
    return {proc.pid: proc for proc in found if proc is not None}


def _has(pid: int, mark: bytes) -> bool:
    try:
        return mark in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False


def _find(table: Mapping[int, Proc], mark: bytes, groups: Collection[int]) -> list[Proc]:
    spared = {0, 1}
    step = os.getpid()
    while step not in spared:
        spared.add(step)
        step = table[step].ppid if step in table else 0
    members = {
        pid
        for pid, proc in table.items()
        if pid not in spared and (proc.session in groups or proc.group in groups or _has(pid, mark))
    }
    size = -1
    while size != len(members):
        size = len(members)
        members |= {pid for pid, proc in table.items() if proc.ppid in members and pid not in spared}
    return [table[pid] for pid in members if table[pid].lives]


def _kill(proc: Proc) -> int | None:
    """SIGKILL to exactly this process; a descriptor that tells its death, None if it is gone or not ours."""
    try:
        fd = os.pidfd_open(proc.pid)
    except ProcessLookupError:
        return None
    now = _read_proc(proc.pid)
    try:
        if now is not None and now.start == proc.start:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
            return fd
    except (ProcessLookupError, PermissionError):
        pass
    os.close(fd)
    return None


def _wait_for_deaths(fds: list[int], until: float) -> None:
    """Wait until all `fds` are readable or the time (monotonic, seconds) is over; closes them."""
    poll = select.poll()
    left = set(fds)
    for fd in fds:
        poll.register(fd, select.POLLIN)
    while left and (rest := until - time.monotonic()) > 0:
        for fd, _ in poll.poll(rest * 1_000):
            poll.unregister(fd)
            left.discard(fd)
    for fd in fds:
        os.close(fd)


def _reap(killed: Collection[int], groups: Collection[int]) -> None:
    """Take the dead that we have inherited out of the process table."""
    for proc in _read_table().values():
        ours = proc.pid in killed or proc.session in groups or proc.group in groups
        if proc.ppid == os.getpid() and not proc.lives and ours:
            try:
                os.waitpid(proc.pid, os.WNOHANG)
            except ChildProcessError:
                continue
