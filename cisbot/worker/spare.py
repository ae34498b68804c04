"""The next task's first process, forked ahead of time: when the task comes, it only has to exec.

Forking a Python process takes milliseconds, more on a busy machine; and what is spawned without a fork can't
do what a first process must do before it execs: see to it that it is killed with the worker. So a child is
forked while nothing waits for it. It blocks until it is told what to become, or until the worker is gone.

States of a spare: *waiting* (a copy of the worker, with its marks), then *started* (the task) or dead.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import struct
from collections.abc import Mapping, MutableMapping, Sequence

from cisbot.worker.parent import die_with_worker

_CONTROL = 3
_HEAD = struct.Struct("<QQ")  # bytes of the job; how many of its words are the command
_ANSWER_BYTES = 8_192  # an error's number and the path that it is about
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)


class Spare:
    """One such child. Made in the worker's only thread, so what runs between fork and exec is safe."""

    def __init__(self) -> None:
        worker = os.getpid()
        self._ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _wait_and_become(theirs.fileno(), worker)
            finally:
                os._exit(1)
        theirs.close()

    @property
    def waits(self) -> bool:
        """Whether it lives; a dead one is to be `drop`ped."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def start(
        self, command: Sequence[str], env: Mapping[str, str], workdir: str, stdin: int, output: int
    ) -> None:
        """Become the command, found by the PATH of `env`; when this returns, it has.

        Raises `OSError` or `ValueError`; it is gone then.
        """
        try:
            job = _packed(command, env, workdir)
            socket.send_fds(self._ours, [_HEAD.pack(len(job), len(command))], [stdin, output])
            self._ours.sendall(job)
            if failed := self._ours.recv(_ANSWER_BYTES):  # else the end, which the exec brings
                number, _, name = failed.decode(errors="replace").partition(" ")
                raise OSError(int(number), os.strerror(int(number)), name)
        except (OSError, ValueError):
            self.drop()
            raise
        self._ours.close()

    def drop(self) -> None:
        """End it, and reap it."""
        self._ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
        os.waitpid(self.pid, 0)


class Spares:
    """At most one spare, ready before it is needed. `live` names it among the worker's first processes."""

    def __init__(self, live: MutableMapping[int, str]) -> None:
        self._live = live
        self._next: Spare | None = None

    def prepare(self) -> None:
        """Have one ready. A machine that can't fork now says so when a task is to start."""
        with contextlib.suppress(OSError):
            self._next = self._next or self._fork()

    def start(
        self, command: Sequence[str], env: Mapping[str, str], workdir: str, stdin: int, output: int
    ) -> int:
        """Have the one that is ready, or a new one, become the command; its pid, which stays in `live`.

        Raises `OSError` or `ValueError`; nothing of it is left then.
        """
        try:
            return self._become(self._take(), command, env, workdir, stdin, output)
        except ConnectionError:  # it was dying, and has not read its job
            return self._become(self._fork(), command, env, workdir, stdin, output)

    def _become(
        self,
        spare: Spare,
        command: Sequence[str],
        env: Mapping[str, str],
        workdir: str,
        stdin: int,
        output: int,
    ) -> int:
        try:
            spare.start(command, env, workdir, stdin, output)
        except (OSError, ValueError):
            del self._live[spare.pid]  # it is reaped: the number may be anybody's
            raise
        return spare.pid

    def close(self) -> None:
        """End the one that waits."""
        if self._next is not None:
            self._drop(self._next)
            self._next = None

    def _take(self) -> Spare:
        spare, self._next = self._next, None
        if spare is not None and not spare.waits:
            self._drop(spare)
            spare = None
        return spare or self._fork()

    def _fork(self) -> Spare:
        spare = Spare()
        # Whoever looks for an attempt's own leaves it alone; no task may know the mark, and escape by it.
        self._live[spare.pid] = secrets.token_hex(8)
        return spare

    def _drop(self, spare: Spare) -> None:
        spare.drop()
        del self._live[spare.pid]


def _packed(command: Sequence[str], env: Mapping[str, str], workdir: str) -> bytes:
    """The job in a form that costs the child next to nothing: it has a cold copy of our memory."""
    words = [workdir, *command, *(f"{name}={value}" for name, value in env.items())]
    if any("\0" in word for word in words):
        raise ValueError("embedded null byte")
    if any("=" in name for name in env):
        raise ValueError("illegal environment variable name")
    return "\0".join(words).encode(errors="surrogateescape")


def _wait_and_become(control: int, worker: int) -> None:
    """The child's whole life; it returns only where it has failed, or where the worker is gone."""
    signal.set_wakeup_fd(-1)  # the worker's loop must not hear of our signals
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    die_with_worker(worker)
    os.setsid()
    os.dup2(control, _CONTROL, inheritable=False)
    os.closerange(_CONTROL + 1, os.sysconf("SC_OPEN_MAX"))  # the worker's lock and pipes among them
    with socket.socket(fileno=_CONTROL) as ours:
        head, fds, _, _ = socket.recv_fds(ours, _HEAD.size, 2)
        if len(head) < _HEAD.size:
            return
        size, count = _HEAD.unpack(head)
        job = ours.recv(size, socket.MSG_WAITALL)
        stdin, output = fds
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.closerange(_CONTROL + 1, max(fds) + 1)
        workdir, *words = job.split(b"\0")
        command, env = words[:count], dict(word.split(b"=", 1) for word in words[count:])
        name = workdir
        try:
            os.chdir(workdir)
            name = command[0]
            os.execvpe(name, command, env)
        except OSError as error:
            ours.sendall(b"%d %s" % (error.errno or 0, name))
