"""Locks: one holder, named; freed by death; stale contents count for nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cisbot.errors import CisbotError
from cisbot.supervisor.lock import FileLock, LockHeld, NodeLock, holder
from tests.worker.real_processes import CODE, readable

HOLD = (
    "import sys; from pathlib import Path; from cisbot.supervisor.lock import NodeLock;"
    "lock = NodeLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
)


def test_the_second_node_is_told_who_is_the_first(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data)],
        env={"PYTHONPATH": str(CODE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert first.stdout is not None
    assert readable(first.stdout.fileno())
    assert holder(data / "node.lock") == first.pid
    with pytest.raises(CisbotError, match=f"in use by a node that runs already: process {first.pid}"):
        NodeLock(data)
    first.kill()
    first.communicate()
    assert holder(data / "node.lock") is None
    with NodeLock(data):
        assert (data / "node.lock").read_text() == f"{os.getpid()}\n"
        assert holder(data / "node.lock") == os.getpid()


def test_release_and_stale_contents(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert holder(path) is None
    path.write_text("not a pid, and longer than one is")
    lock = FileLock(path)
    with pytest.raises(LockHeld) as held:
        FileLock(path)
    assert held.value.pid == os.getpid()
    lock.release()
    lock.release()
    path.write_text("1\n")
    assert holder(path) is None


def test_a_holder_that_left_no_name(tmp_path: Path) -> None:
    with NodeLock(tmp_path):
        (tmp_path / "node.lock").write_text("")
        with pytest.raises(CisbotError, match="another process"):
            NodeLock(tmp_path)
        assert holder(tmp_path / "node.lock") == 0


def test_children_do_not_hold_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"up\n")
    child.stdin.flush()
    assert child.stdout.readline() == b"up\n"  # until its exec is done it holds all that we hold
    lock.release()
    FileLock(tmp_path / "lock").release()
    child.communicate()
