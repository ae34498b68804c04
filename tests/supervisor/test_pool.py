"""Pools with real workers: reuse, idle exit, eviction, crashes, and that nothing survives."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from cisbot.core.frames import TaskEnded, TaskStarted
from cisbot.supervisor import process
from cisbot.supervisor.events import Evicted, WorkerGone, WorkerIdle, WorkerStarted
from cisbot.supervisor.lock import holder
from cisbot.supervisor.member import Member
from tests.supervisor.pool_harness import pool
from tests.worker.real_processes import CODE, Box, alive, boot, dies, start

RUN = "$run:example.org"


async def line(box: Box) -> str:
    """The next line in the box, without blocking the pool."""
    return await asyncio.to_thread(box.line)


async def test_a_worker_is_started_once_and_reused(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "exit 3", task="one"))
        it.start_task("worker-a", start(tmp_path, "exit 4", task="two"))
        assert (await events.ended("one")).exit_code == 3
        assert (await events.ended("two")).exit_code == 4
        it.start_task("worker-a", start(tmp_path, "exit 5", task="three"))
        assert (await events.ended("three")).exit_code == 5
        workers = [event for event in events.all if isinstance(event, WorkerStarted)]
        assert [event.worker for event in workers] == ["worker-a"]
        assert holder(tmp_path / "workers" / "worker-a.lock") == workers[0].pid
        assert alive(workers[0].pid)
    assert not alive(workers[0].pid)


async def test_scopes_have_workers_of_their_own(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        for name in "ab":
            it.start_task(f"worker-{name}", start(tmp_path, "echo $PPID", task=name))
        pids = {(await events.until(WorkerStarted, worker=f"worker-{name}")).pid for name in "ab"}
        assert {int((await events.ended(name)).tail) for name in "ab"} == pids


async def test_the_nodes_environment_stays_with_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CISBOT_ACCESS_TOKEN", "syt_x")
    monkeypatch.setenv("HOME", "/root")
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "env; cat /proc/$PPID/environ", env={}))
        text = (await events.ended("t")).tail
        assert "syt_x" not in text
        assert f"CIS_DATA={tmp_path}" in text
        assert "HOME=/root" in text


async def test_cancel_and_deadline_reach_running_and_waiting_tasks(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000", run="r1", task="soon"))
        it.cancel_run("r1", 1.0)  # the worker is not ready yet
        end = await events.ended("soon")
        assert (end.reason, end.exit_code, end.signal) == ("cancelled", None, None)
        it.start_task("worker-a", start(tmp_path, "sleep 1000", run="r2", task="late"))
        it.set_deadline("r2", boot() + 900)
        await events.started("late")
        it.cancel_run("r2", 5.0)
        assert (await events.ended("late")).reason == "cancelled"
        it.start_task("worker-a", start(tmp_path, "sleep 1000", run="r3", task="fenced"))
        await events.started("fenced")
        it.set_deadline("r3", boot())
        assert (await events.ended("fenced")).reason == "fenced"
        it.cancel_run("nobody", 1.0)
        it.set_deadline("nobody", 1.0)


async def test_a_waiting_tasks_deadline_moves_with_it(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "true"))
        it.set_deadline(RUN, boot() - 1)
        assert (await events.ended("t")).reason == "fenced"


async def test_an_idle_worker_ends_and_comes_back(tmp_path: Path) -> None:
    async with pool(tmp_path, idle_timeout_s=0.1) as (it, events):
        it.start_task("worker-a", start(tmp_path, "true"))
        first = (await events.until(WorkerStarted)).pid
        await events.until(WorkerIdle, worker="worker-a")
        assert not alive(first)
        it.start_task("worker-a", start(tmp_path, "true", task="again"))
        assert (await events.ended("again")).exit_code == 0
        assert not [event for event in events.all if isinstance(event, WorkerGone)]


async def test_a_task_that_comes_while_the_worker_ends_gets_the_next(tmp_path: Path) -> None:
    async with pool(tmp_path, idle_timeout_s=0.0) as (it, events):
        for number in range(5):
            it.start_task("worker-a", start(tmp_path, "true", task=f"t{number}"))
            assert (await events.ended(f"t{number}")).exit_code == 0


async def test_the_longest_idle_is_evicted_and_the_busy_are_not(tmp_path: Path) -> None:
    async with pool(tmp_path, max_workers=3) as (it, events):
        it.start_task("worker-busy", start(tmp_path, "sleep 1000", task="busy"))
        await events.started("busy")
        for name in ("old", "new"):
            it.start_task(f"worker-{name}", start(tmp_path, "true", task=name))
            await events.ended(name)
        it.start_task("worker-more", start(tmp_path, "true", task="more"))
        assert (await events.until(Evicted)).worker == "worker-old"
        assert (await events.ended("more")).exit_code == 0
        assert sum(isinstance(event, Evicted) for event in events.all) == 1


async def test_when_all_are_busy_scopes_wait_their_turn(tmp_path: Path) -> None:
    async with pool(tmp_path, max_workers=1) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000", run="r", task="a"))
        await events.started("a")
        for name in "bcd":
            it.start_task(f"worker-{name}", start(tmp_path, "true", run=name, task=name))
        it.cancel_run("c", 1.0)
        assert (await events.ended("c")).error == "it was not started"
        it.cancel_run("r", 1.0)
        await events.ended("d")
        order = [event.task for event in events.all if isinstance(event, TaskStarted)]
        assert order == ["a", "b", "d"]
        started = [event.worker for event in events.all if isinstance(event, WorkerStarted)]
        assert started == ["worker-a", "worker-b", "worker-d"]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_dead_workers_tasks_are_dead_and_told(tmp_path: Path, box: Box, sign: signal.Signals) -> None:
    inner = f"trap '' TERM; echo \\$\\$ > {box.path}; while :; do sleep 1000; done"
    script = f'(setsid sh -c "{inner}" > /dev/null &)\nsleep 1000 & sleep 1000'
    async with pool(tmp_path, max_concurrent=1) as (it, events):
        it.start_task("worker-a", start(tmp_path, script))
        it.start_task("worker-a", start(tmp_path, "true", task="queued", order=1))
        it.start_task("worker-b", start(tmp_path, "sleep 1000", run="other", task="other"))
        worker = (await events.until(WorkerStarted, worker="worker-a")).pid
        other = await events.started("other")
        first, daemon = (await events.started("t")).pid, int(await line(box))
        os.kill(worker, sign)
        gone = await events.until(WorkerGone)
        assert gone.worker == "worker-a"
        assert gone.runs == ((RUN, "t", 1), (RUN, "queued", 1))
        assert gone.why.startswith(f"killed by signal {sign.value}")
        for pid in (worker, first, daemon):
            with pytest.raises(ProcessLookupError):  # reaped, too
                os.kill(pid, 0)
        assert alive(other.pid)
        it.start_task("worker-a", start(tmp_path, "true", attempt=2))
        assert (await events.ended("t")).exit_code == 0


async def test_members_of_the_group_die_with_the_worker_without_marks(tmp_path: Path, box: Box) -> None:
    script = f"env -i sh -c 'echo $$ > {box.path}; while :; do sleep 1000; done' & wait"
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, script))
        worker = (await events.until(WorkerStarted)).pid
        await events.started("t")
        child = int(await line(box))
        os.kill(worker, signal.SIGKILL)
        await events.until(WorkerGone)
        assert not alive(child)


async def test_garbage_from_a_worker_kills_it(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        # A task of the same user may write into the worker's output: the pool does not trust it.
        find = "ls -l /proc/$PPID/fd | sed -n 's/^l-wx.* \\([0-9]*\\) -> pipe.*/\\1/p'"
        script = f"echo garbage > /proc/$PPID/fd/$({find}); sleep 1000"
        it.start_task("worker-a", start(tmp_path, script))
        gone = await events.until(WorkerGone)
        assert gone.why.startswith("it broke the protocol: not JSON")
        assert gone.runs == ((RUN, "t", 1),)


async def test_a_worker_that_cannot_start_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisbot.supervisor.member.BACKOFF_S", 0.01)
    broken = tmp_path / "code" / "cisbot" / "worker"
    broken.mkdir(parents=True)
    (broken.parent / "__init__.py").write_text("")
    (broken / "__init__.py").write_text("")
    (broken / "__main__.py").write_text("raise SystemExit('out of luck')\n")
    async with pool(tmp_path, code_path=tmp_path / "code") as (it, events):
        it.start_task("worker-a", start(tmp_path, "true"))
        gone = await events.until(WorkerGone)
        assert gone.runs == ((RUN, "t", 1),)
        assert gone.why == "exit code 1; out of luck"


async def test_a_held_lock_is_waited_for(tmp_path: Path) -> None:
    from tests.worker.real_processes import Worker

    (tmp_path / "workers").mkdir()
    with Worker(tmp_path / "workers") as old:
        old.hello()
        old.lock.rename(tmp_path / "workers" / "worker-a.lock")
        async with pool(tmp_path) as (it, events):
            it.start_task("worker-a", start(tmp_path, "true"))
            err = tmp_path / "workers" / "worker-a.err"
            async with asyncio.timeout(20):
                while not err.exists() or "held by process" not in err.read_text():
                    await asyncio.to_thread(os.sched_yield)
            old.close_stdin()
            assert (await events.ended("t")).exit_code == 0


def test_backoff_doubles_up_to_half_a_minute() -> None:
    member = Member("worker-a")
    delays = []
    for _ in range(30):
        member.crashed(100.0)
        delays.append(member.not_before - 100.0)
    assert delays[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert delays[-1] == 30.0


async def test_close_cancels_all_and_refuses_more(tmp_path: Path) -> None:
    async with pool(tmp_path, max_workers=1) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000", task="runs"))
        it.start_task("worker-b", start(tmp_path, "true", task="waits"))
        worker = (await events.until(WorkerStarted)).pid
        task = (await events.started("runs")).pid
        await it.close(5.0)
        assert not alive(worker)
        assert not alive(task)
        it.start_task("worker-c", start(tmp_path, "true", task="late"))
        ends = {event.task: event.reason for event in events.all if isinstance(event, TaskEnded)}
        assert ends == {"runs": "cancelled", "waits": "cancelled", "late": "cancelled"}


async def test_close_at_once_leaves_nothing(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "true"))
    assert [event.reason for event in events.all if isinstance(event, TaskEnded)] == ["cancelled"]
    assert holder(tmp_path / "workers" / "worker-a.lock") is None


def zipped(folder: Path) -> Path:
    """Our code in a zip."""
    bundle = folder / "cisbot.mbp"
    with zipfile.ZipFile(bundle, "w") as archive:
        for path in (CODE / "cisbot").rglob("*.py"):
            archive.write(path, path.relative_to(CODE))
    return bundle


def test_a_guard_runs_from_a_zip(tmp_path: Path) -> None:
    env = process.clean_env(zipped(tmp_path))
    marked = subprocess.Popen(["/bin/sleep", "1000"], env={"CIS_WORKER": "zipped"})
    worker = os.pidfd_open(marked.pid)
    command = [sys.executable, "-P", "-m", "cisbot.supervisor.guard", "CIS_WORKER=zipped", str(worker)]
    subprocess.run([*command, "600.0", "0.0"], env=env, pass_fds=[worker], check=True)
    assert marked.wait() == -signal.SIGKILL
    os.close(worker)


async def test_workers_run_from_a_private_copy_of_a_zip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = zipped(tmp_path)
    monkeypatch.setattr(process, "code_root", lambda: bundle)
    copy = process.copy_code(tmp_path)
    assert copy is not None
    assert process.copy_code(tmp_path) == copy
    async with pool(tmp_path, code_path=copy) as (it, events):
        it.start_task("worker-a", start(tmp_path, "true"))
        await events.ended("t")
        bundle.write_bytes(b"replaced")
        skill = start(tmp_path, "none-such", kind="skill", task="skill")
        it.start_task("worker-a", skill)
        assert "unknown skill 'none-such'" in (await events.ended("skill")).error


def test_code_in_a_folder_needs_no_copy(tmp_path: Path) -> None:
    assert process.code_root() == CODE
    assert process.copy_code(tmp_path) is None


async def test_a_hundred_megabytes_of_output_cost_the_node_nothing(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "head -c 100000000 /dev/zero"))
        assert (await events.ended("t")).tail == ""  # NULs are dropped
        frames = [event for event in events.all if isinstance(event, TaskEnded | TaskStarted)]
        assert len(frames) == 2
        assert dies(frames[0].pid) if isinstance(frames[0], TaskStarted) else False
