"""Which processes belong to a node, and whether any is left: read from `/proc`, as an outsider would."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Family:
    """A node's processes below it."""

    workers: tuple[int, ...] = ()
    guards: tuple[int, ...] = ()
    tasks: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """Tasks last, so that nobody can kill them for being stopped."""
        return (*self.guards, *self.workers, *self.tasks)


def family(node: int, data_dir: Path) -> Family:
    """What lives of what the node has started: workers and tasks bear marks, guards have it for a parent."""
    mark = f"CIS_DATA={data_dir}".encode()
    workers: list[int] = []
    guards: list[int] = []
    tasks: list[int] = []
    for pid in _pids():
        environ = _read(pid, "environ").split(b"\0")
        if mark in environ:
            (tasks if any(e.startswith(b"CIS_ATTEMPT=") for e in environ) else workers).append(pid)
        elif b"cisbot.supervisor.guard" in _read(pid, "cmdline") and parent(pid) == node:
            guards.append(pid)
    return Family(tuple(workers), tuple(guards), tuple(tasks))


def below(root: Path) -> list[str]:
    """Every living process that names the folder or works in it, as pid and command; not who started us."""
    name, spared, step = str(root).encode(), set[int](), os.getpid()
    while step:
        spared.add(step)
        step = parent(step)
    found = []
    for pid in _pids():
        if pid in spared or _state(pid) in "ZX":
            continue
        command = _read(pid, "cmdline")
        if name in command or name in _read(pid, "environ") or _works_in(pid, root):
            found.append(f"{pid} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def lives(pid: int, at_ns: int) -> bool:
    """Whether the process that had this number at that boot time still lives.

    A zombie does not: whose node was killed is init's to reap, and a container's may reap nobody.
    """
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if len(fields) <= 19 or fields[0] in (b"Z", b"X"):
        return False
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") <= at_ns / 1e9


def parent(pid: int) -> int:
    """The parent of a process, 0 when it is gone."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def _state(pid: int) -> str:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return fields[0].decode() if fields else "X"


def _works_in(pid: int, root: Path) -> bool:
    try:
        return (_PROC / str(pid) / "cwd").readlink().is_relative_to(root)
    except OSError:
        return False


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in os.scandir(_PROC) if entry.name.isdigit())


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""
