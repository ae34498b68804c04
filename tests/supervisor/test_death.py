"""The node is killed or stopped: its workers see to it that nothing survives, or outlives a deadline."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cisbot.supervisor.events import Evicted, WorkerGone, WorkerIdle, WorkerStarted
from cisbot.supervisor.leftovers import groups_at, kill_leftovers
from cisbot.supervisor.lock import holder
from cisbot.supervisor.process import WorkerProcess, worker_env
from tests.supervisor.pool_harness import pool
from tests.worker.real_processes import CODE, Box, alive, boot, dies, readable, start, stopped

HERE = Path(__file__).resolve().parent


@contextmanager
def owner(
    folder: Path, script: str, life_s: float = 1e6, grace_s: float = 0.2, later_s: float = 0.0
) -> Iterator[tuple[int, int, int, float]]:
    """A process that owns a pool: its pid, its worker's, its task's, and the task's deadline."""
    command = [sys.executable, str(HERE / "pool_owner.py"), str(folder), script]
    process = subprocess.Popen(
        [*command, str(life_s), str(grace_s), str(later_s)],
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


@pytest.mark.long
def test_the_node_is_stopped_and_the_deadline_comes(tmp_path: Path, box: Box) -> None:
    with owner(tmp_path, daemon_script(box), life_s=2.5, grace_s=0.5) as (node, worker, task, end):
        daemon = int(box.line())
        with stopped(node):
            assert dies(task)
            assert dies(daemon)
            assert boot() < end
            assert alive(worker)
        assert alive(node)


def kill_both(node: int, worker: int) -> None:
    """SIGKILL to node and worker at once."""
    os.kill(node, signal.SIGSTOP)  # so that it can't do anything about the worker's death
    os.kill(worker, signal.SIGKILL)
    os.kill(node, signal.SIGKILL)


def guards(folder: Path) -> list[int]:
    """The guards of a node's workers."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            guards = b"cisbot.supervisor.guard" in (entry / "cmdline").read_bytes()
            if guards and (entry / "cwd").readlink() == folder:
                found.append(int(entry.name))
    return found


def test_node_and_worker_are_killed_at_once(tmp_path: Path, box: Box) -> None:
    bare = f"(env -i sh -c 'echo $$ > {box.path}; while :; do sleep 1000; done' &)\n"
    with owner(tmp_path, bare + daemon_script(box)) as (node, worker, task, _):
        left = {int(box.line()), int(box.line())}
        [guard] = guards(tmp_path)
        begun = boot()
        kill_both(node, worker)
        assert all(dies(pid) for pid in (task, *left))
        assert boot() - begun < 5  # a second, on a machine with nothing else to do
        assert dies(guard)


def test_without_its_guard_the_next_node_cleans_up(tmp_path: Path, box: Box) -> None:
    with owner(tmp_path, daemon_script(box)) as (node, worker, task, _):
        daemon = int(box.line())
        [guard] = guards(tmp_path)
        os.kill(guard, signal.SIGKILL)
        kill_both(node, worker)
        assert dies(task)
        assert alive(daemon)
        elsewhere = tmp_path / "elsewhere"
        assert kill_leftovers(elsewhere) == []
        assert alive(daemon)
        assert daemon in kill_leftovers(tmp_path)
        assert not alive(daemon)


@pytest.mark.long
@pytest.mark.parametrize(("later_s", "grace_s"), [(0.0, 0.5), (4.0, 600.0)], ids=["grace", "deadline"])
def test_the_worker_is_stopped_and_the_node_killed(
    tmp_path: Path, box: Box, later_s: float, grace_s: float
) -> None:
    script = daemon_script(box)
    with owner(tmp_path, script, grace_s=grace_s, later_s=later_s) as (node, worker, task, end):
        daemon = int(box.line())
        [guard] = guards(tmp_path)
        begun = boot()
        os.kill(worker, signal.SIGSTOP)
        os.kill(node, signal.SIGKILL)
        assert all(dies(pid) for pid in (worker, task, daemon))
        assert boot() < min(end, begun + grace_s + 8)
        assert dies(guard)


@pytest.mark.long
def test_a_worker_may_use_its_grace_when_the_node_is_killed(tmp_path: Path, box: Box) -> None:
    script = f"trap 'read x < {box.path}.go; echo done > {box.path}; exit' TERM; echo up > {box.path}\n"
    os.mkfifo(f"{box.path}.go")
    with owner(tmp_path, f"{script} while :; do sleep 0.1; done", grace_s=600.0) as (node, worker, _, _):
        assert box.line() == "up"
        [guard] = guards(tmp_path)
        os.kill(node, signal.SIGKILL)
        assert not dies(worker, 3.0)
        assert alive(guard)
        Path(f"{box.path}.go").write_text("go\n")
        assert box.line() == "done"
        assert dies(worker)
        assert dies(guard)


def test_a_guard_holds_nothing_and_is_not_marked(tmp_path: Path) -> None:
    with owner(tmp_path, "sleep 1000") as (node, _, _, _):
        [guard] = guards(tmp_path)
        fds = sorted(str(fd.readlink()) for fd in Path(f"/proc/{guard}/fd").iterdir())
        kinds = [re.sub(r":.*", "", name) for name in fds]
        assert kinds == ["/dev/null", "/dev/null", "anon_inode", "pipe"]
        assert b"CIS_" not in Path(f"/proc/{guard}/environ").read_bytes()
        assert os.getsid(guard) == guard != os.getsid(node)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(guard, number)
        assert alive(guard)
        status = Path(f"/proc/{guard}/status").read_text()
        assert int(re.findall(r"RssAnon:\s+(\d+)", status)[0]) < 1_000  # KiB
        assert b"/bin/sh" in Path(f"/proc/{guard}/cmdline").read_bytes()


async def test_a_guard_ends_with_its_worker(tmp_path: Path) -> None:
    for way in ("close", "crash", "idle", "evicted"):
        idle_s = 0.5 if way == "idle" else 1e3
        async with pool(tmp_path, max_workers=1, idle_timeout_s=idle_s) as (it, events):
            script = "true" if way in ("idle", "evicted") else "sleep 1000"
            it.start_task("worker-a", start(tmp_path, script))
            worker = (await events.until(WorkerStarted)).pid
            await events.started("t")
            [guard] = guards(tmp_path)
            match way:
                case "crash":
                    os.kill(worker, signal.SIGKILL)
                    await events.until(WorkerGone)
                case "idle":
                    await events.until(WorkerIdle)
                case "evicted":
                    it.start_task("worker-b", start(tmp_path, "sleep 1000", task="other"))
                    await events.until(Evicted)
                case _:
                    await it.close(0.2)
            with pytest.raises(ProcessLookupError):  # reaped, too
                os.kill(guard, 0)
        assert guards(tmp_path) == []


async def test_without_a_guard_there_is_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr("cisbot.supervisor.process.Guard", fails)
    with pytest.raises(OSError, match="no more processes"):
        WorkerProcess("worker-a", tmp_path, None)
    assert holder(tmp_path / "workers" / "worker-a.lock") is None


async def test_a_deaf_guard_does_not_block_the_node(tmp_path: Path) -> None:
    process = WorkerProcess("worker-a", tmp_path, None)
    with stopped(process.guard.pid):
        for _ in range(100):
            process.guard.tell(1.0, 2.0, range(10**6, 10**6 + 1_000))
    os.kill(process.guard.pid, signal.SIGKILL)
    assert dies(process.guard.pid)
    process.guard.tell(1.0, 2.0, ())
    process.kill()
    await process.end([])
    process.guard.tell(1.0, 2.0, ())


def test_a_number_that_was_given_away_is_no_group_of_ours() -> None:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, start_new_session=True) as other:
        assert groups_at(boot() + 1.0, [other.pid, 2**22 + 1]) == [other.pid, 2**22 + 1]
        assert groups_at(boot() - 60.0, [other.pid, 2**22 + 1]) == [2**22 + 1]


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
