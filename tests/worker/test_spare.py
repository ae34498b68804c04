"""The spare: it becomes what it is told, dies with the worker, is nobody's stray; a dead one is replaced."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

from cisbot.worker.procs import owned, read_table
from cisbot.worker.spare import Spare, Spares
from tests.worker.real_processes import Worker, start

ENV = {"PATH": "/usr/bin:/bin", "GREETING": "hello"}


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[int]:
    """A file to write into, open."""
    fd = os.open(tmp_path / "sink", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def become(spare: Spare, sink: int, *command: str) -> int:
    """Start the command in it; its exit code."""
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        spare.start(command, ENV, "/", null, sink)
    finally:
        os.close(null)
    return os.waitstatus_to_exitcode(os.waitpid(spare.pid, 0)[1])


def test_it_becomes_what_it_is_told(sink: int) -> None:
    spare = Spare()
    assert spare.waits
    assert become(spare, sink, "sh", "-c", 'echo "$GREETING $(pwd)"; ps -o sid= -p $$; exit 3') == 3
    said, session = os.pread(sink, 100, 0).decode().split("\n")[:2]
    assert (said, int(session)) == ("hello /", spare.pid)


def test_a_dead_one_is_replaced_and_every_one_is_reaped(sink: int) -> None:
    live: dict[int, str] = {}
    spares = Spares(live)
    spares.prepare()
    (first,) = live
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    null = os.open(os.devnull, os.O_RDONLY)
    second = spares.start(["true"], ENV, "/", null, sink)
    os.close(null)
    assert list(live) == [second] != [first]
    assert os.waitpid(second, 0) == (second, 0)
    spares.prepare()
    spares.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(first, os.WNOHANG)


def test_one_that_could_not_start_is_forgotten(sink: int) -> None:
    live: dict[int, str] = {}
    spares = Spares(live)
    null = os.open(os.devnull, os.O_RDONLY)
    for command, workdir in ((["true"], "/nowhere"), (["no-such-command"], "/"), (["a\0b"], "/")):
        with pytest.raises((OSError, ValueError)):
            spares.start(command, ENV, workdir, null, sink)
        assert live == {}, "whoever gets its number would be spared"
    os.close(null)


def test_no_process_can_pass_for_one() -> None:
    live: dict[int, str] = {}
    spares = Spares(live)
    spares.prepare()
    assert len(set(live.values()) | marks_of_another()) == 2, "a mark that is known is anybody's"
    env = {"CIS_ATTEMPT": "waiting"}
    with subprocess.Popen(["sleep", "60"], env=ENV | env, start_new_session=True) as stray:
        assert stray.pid in [proc.pid for proc in owned(read_table(), os.getpid(), 0, live)]
        stray.kill()
    spares.close()


def marks_of_another() -> set[str]:
    """The mark of one more spare."""
    live: dict[int, str] = {}
    spares = Spares(live)
    spares.prepare()
    marks = set(live.values())
    spares.close()
    return marks


def test_it_is_no_stray_of_an_attempt_that_ends() -> None:
    live: dict[int, str] = {}
    spares = Spares(live)
    spares.prepare()
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as first:
        live[first.pid] = "mark"
        assert [proc.pid for proc in owned(read_table(), os.getpid(), first.pid, live)] == [first.pid]
        first.kill()
    spares.close()


def test_a_task_whose_spare_was_killed_starts_all_the_same(worker: Worker, tmp_path: Path) -> None:
    for child in children(worker.process.pid):
        os.kill(child, signal.SIGKILL)
    assert worker.run(start(tmp_path, "true")).exit_code == 0


def test_it_dies_with_a_worker_that_is_killed() -> None:
    code = "from cisbot.worker.spare import Spare\nprint(Spare().pid, flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as worker:
        assert worker.stdout is not None
        fd = os.pidfd_open(int(worker.stdout.readline()))
        worker.kill()
        assert_dies(fd)


def assert_dies(pidfd: int) -> None:
    """Wait for the death of a process that is not our child."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000)
    os.close(pidfd)


def children(pid: int) -> list[int]:
    """The process's children."""
    return [proc.pid for proc in read_table().values() if proc.ppid == pid]
