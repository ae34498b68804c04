"""The node is killed or stopped: its workers see to it that nothing survives, or outlives a deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cisbot.supervisor.leftovers import kill_leftovers
from cisbot.supervisor.process import WorkerProcess, worker_env
from tests.worker.real_processes import CODE, Box, alive, boot, dies, readable, start, stopped

HERE = Path(__file__).resolve().parent


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """The tasks' mailbox."""
    box = Box(tmp_path / "box")
    yield box
    box.close()


@contextmanager
def owner(
    folder: Path, script: str, life_s: float = 1e6, grace_s: float = 0.2
) -> Iterator[tuple[int, int, int, float]]:
    """A process that owns a pool: its pid, its worker's, its task's, and the task's deadline."""
    command = [sys.executable, str(HERE / "pool_owner.py"), str(folder), script]
    process = subprocess.Popen(
        [*command, str(life_s), str(grace_s)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CODE)},
    )
    assert process.stdout is not None
    try:
        assert readable(process.stdout.fileno())
        worker, task, deadline = process.stdout.readline().split()
        yield process.pid, int(worker), int(task), float(deadline)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def daemon_script(box: Box) -> str:
    """A deaf daemon outside of session and group, and a deaf task."""
    inner = f"trap '' TERM; echo \\$\\$ > {box.path}; while :; do sleep 1000; done"
    return f"trap '' TERM; (setsid sh -c \"{inner}\" > /dev/null &)\nwhile :; do sleep 1000; done"


def test_the_node_is_killed(tmp_path: Path, box: Box) -> None:
    with owner(tmp_path, daemon_script(box)) as (node, worker, task, _):
        daemon = int(box.line())
        os.kill(node, signal.SIGKILL)
        assert dies(worker)
        assert not alive(task)
        assert not alive(daemon)
    assert kill_leftovers(tmp_path) == []


def test_the_node_is_stopped_and_the_deadline_comes(tmp_path: Path, box: Box) -> None:
    with owner(tmp_path, daemon_script(box), life_s=2.5, grace_s=0.5) as (node, worker, task, end):
        daemon = int(box.line())
        with stopped(node):
            assert dies(task)
            assert dies(daemon)
            assert boot() < end
            assert alive(worker)
        assert alive(node)


def test_node_and_worker_are_killed_and_the_next_node_cleans_up(tmp_path: Path, box: Box) -> None:
    with owner(tmp_path, daemon_script(box)) as (node, worker, task, _):
        daemon = int(box.line())
        os.kill(node, signal.SIGSTOP)  # so that it can't do anything about the worker's death
        os.kill(worker, signal.SIGKILL)
        os.kill(node, signal.SIGKILL)
        assert dies(task)
        assert alive(daemon)
        elsewhere = tmp_path / "elsewhere"
        assert kill_leftovers(elsewhere) == []
        assert alive(daemon)
        assert daemon in kill_leftovers(tmp_path)
        assert not alive(daemon)


def test_leftovers_spare_ourselves(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cisbot.supervisor.leftovers import *;"
        "print(kill_leftovers(Path(sys.argv[1])))"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": str(CODE), "CIS_DATA": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert done.stdout == b"[]\n"


async def test_a_worker_that_hangs_at_its_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisbot.supervisor.process._EXIT_S", 0.1)
    process = WorkerProcess("worker-a", tmp_path, None)
    await process.connect()
    os.kill(process.pid, signal.SIGSTOP)
    assert await process.end([]) == "killed by signal 9"


def test_environment_names_the_code(tmp_path: Path) -> None:
    env = worker_env(tmp_path, "token", None)
    assert env["PYTHONPATH"] == str(CODE)
    assert (env["CIS_DATA"], env["CIS_WORKER"]) == (str(tmp_path), "token")
    assert worker_env(tmp_path, "token", Path("x.mbp"))["PYTHONPATH"] == "x.mbp"
    assert start(tmp_path, ":").shell == "/bin/sh"
