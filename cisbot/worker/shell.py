"""Starting an attempt: its log, its environment, its first process."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from cisbot.core.frames import StartTask
from cisbot.worker.results import remove_output
from cisbot.worker.spare import Spares

_DEFAULTS = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/",
    "LANG": "C.UTF-8",
}


class LaunchError(Exception):
    """The attempt can't be started; the text is for people."""


@dataclass(slots=True)
class Child:
    """The first process of a running attempt, and what it writes into. `close` frees all but the output."""

    pid: int
    pidfd: int
    log_fd: int
    log_start: int  # where in the log this attempt begins, bytes
    output: Path

    def exited(self) -> bool:
        """Whether it is over; it stays a zombie until `close`, so its number isn't given away."""
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return status is not None

    def succeeded(self) -> bool:
        """Whether it is over, with exit code 0."""
        status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return status is not None and status.si_code == os.CLD_EXITED and status.si_status == 0

    def close(self) -> int:
        """Reap it and return its status: an exit code, or the signal that killed it, negative."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self.pidfd)
        os.close(self.log_fd)
        return os.waitstatus_to_exitcode(status)


def new_mark(frame: StartTask) -> str:
    """The value of `CIS_ATTEMPT`, which no other attempt has."""
    return f"{frame.run}:{frame.task}:{frame.attempt}:{secrets.token_hex(8)}"


def environment(frame: StartTask, mark: str, data: str, output: Path) -> dict[str, str]:
    """All that the task gets to see: never our own environment, which may hold secrets."""
    env = {name: os.environ.get(name, value) for name, value in _DEFAULTS.items()}
    env |= frame.env
    env |= {"CIS_ATTEMPT": mark, "CIS_OUTPUT": str(output)}
    if data:
        env["CIS_DATA"] = data
    if token := os.environ.get("CIS_WORKER"):  # by which the node finds what a dead worker left
        env["CIS_WORKER"] = token
    if frame.kind == "skill" and (code := os.environ.get("PYTHONPATH")):
        own = frame.env.get("PYTHONPATH")
        env["PYTHONPATH"] = f"{code}{os.pathsep}{own}" if own else code
    return env


def launch(frame: StartTask, mark: str, data: str, spares: Spares) -> Child:
    """Start the first process, in a session and group of its own. Raises `LaunchError`."""
    output = Path(f"{frame.log_path}.out")
    try:
        log_fd = open_log(frame.log_path)
    except (OSError, ValueError) as error:
        raise LaunchError(f"the log can't be opened: {explain(error)}") from error
    log_start = os.fstat(log_fd).st_size
    try:
        _make_empty(output)
        pid = _spawn(frame, environment(frame, mark, data, output), log_fd, spares)
    except (OSError, ValueError) as error:
        os.close(log_fd)
        remove_output(output)
        raise LaunchError(f"the task can't be started: {explain(error)}") from error
    return Child(pid, os.pidfd_open(pid), log_fd, log_start, output)


def _spawn(frame: StartTask, env: dict[str, str], log_fd: int, spares: Spares) -> int:
    if frame.kind == "skill":
        command = [sys.executable, "-u", "-P", "-m", "cisbot.worker.skill", frame.script]
        stdin = os.memfd_create("args")  # a file, not a pipe: nobody need write while it reads
        os.write(stdin, json.dumps(frame.args).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
    else:
        command = [frame.shell, "-e", "-c", frame.script]
        stdin = os.open(os.devnull, os.O_RDONLY)
    try:
        return spares.start(command, env, frame.workdir, stdin, log_fd)
    finally:
        os.close(stdin)


def open_log(path: str) -> int:
    """The log's descriptor, for reading and appending; its folder is made if need be.

    Raises `OSError` (a full disk, no regular file) or `ValueError` (a path with a NUL).
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):  # an earlier task may have put a FIFO there
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def _make_empty(path: Path) -> None:
    remove_output(path)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def explain(error: Exception) -> str:
    """An error in words, with the path that it is about."""
    if isinstance(error, OSError) and error.strerror:
        name = error.filename
        where = name.decode(errors="replace") if isinstance(name, bytes) else name
        return f"{error.strerror}: {where}" if where else error.strerror
    return str(error)
