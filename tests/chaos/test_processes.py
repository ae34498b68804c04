"""A process that is left is found: by its folder, by its environment, by its number."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import processes


@pytest.fixture
def left(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is known by one thing alone."""
    environment = {"CIS_DATA": str(tmp_path / "data"), "CIS_ATTEMPT": "x"}
    words = [str(tmp_path)] if request.param == "command" else []
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); import sys; sys.stdin.read()", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path if request.param == "folder" else None,
        env=environment if request.param == "environment" else None,
    )
    assert child.stdout is not None
    child.stdout.readline()
    yield child
    child.communicate()


@pytest.mark.parametrize("left", ["folder", "environment", "command"], indirect=True)
def test_it_is_found_until_it_is_gone(left: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (found,) = processes.below(tmp_path)
    assert found.startswith(f"{left.pid} ")
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert processes.lives(left.pid, now)
    assert not processes.lives(left.pid, now - 3600 * 10**9)  # who had this number then is another
    left.communicate()
    assert processes.below(tmp_path) == []
    assert not processes.lives(left.pid, now)


@pytest.mark.parametrize("left", ["environment"], indirect=True)
def test_a_task_is_known_by_its_marks(left: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert processes.family(1, tmp_path / "data").tasks == (left.pid,)
    assert processes.family(1, tmp_path / "other").all == ()


@pytest.mark.parametrize("left", ["environment"], indirect=True)
def test_a_zombie_is_dead(left: subprocess.Popen[bytes], tmp_path: Path) -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert left.stdin is not None
    left.stdin.close()
    os.waitid(os.P_PID, left.pid, os.WEXITED | os.WNOWAIT)
    assert not processes.lives(left.pid, now)
    assert processes.below(tmp_path) == []
    left.stdin = None
