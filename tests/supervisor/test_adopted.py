"""Daemons that no mark tells: what a killed worker leaves to the node."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from cisbot.supervisor.events import WorkerGone, WorkerStarted
from tests.supervisor.pool_harness import pool
from tests.worker.real_processes import Box, alive, dies, start

DAEMON = """#!/bin/sh
(setsid sh -c 'echo $$ > box; exec sleep 1000' &)
trap '' TERM
echo $$ > box
while :; do sleep 1000; done
"""


def sleeper() -> subprocess.Popen[bytes]:
    """A child of ours that is no worker's."""
    return subprocess.Popen(["sleep", "1000"], start_new_session=True)


async def test_a_daemon_without_marks_dies_with_its_worker(tmp_path: Path, box: Box) -> None:
    earlier = sleeper()  # not a worker's
    async with pool(tmp_path, alone=True) as (it, events):
        it.start_task("worker-b", start(tmp_path, "sleep 1000", task="other"))
        other = (await events.started("other")).pid
        bystander = (await events.until(WorkerStarted)).pid
        (tmp_path / "daemon").write_text(DAEMON)
        script = "(env -i setsid -f sh ./daemon > /dev/null 2>&1 &)\nsleep 1000"
        it.start_task("worker-a", start(tmp_path, script))
        worker = (await events.until(WorkerStarted)).pid
        daemons = [int(box.line()), int(box.line())]
        assert all(alive(pid) for pid in daemons)
        os.kill(worker, signal.SIGKILL)
        await events.until(WorkerGone)
        assert not any(alive(pid) for pid in daemons)
        assert all(alive(pid) for pid in (other, bystander, earlier.pid))
    earlier.kill()
    earlier.wait()


async def test_children_of_others_are_spared(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000"))
        worker = (await events.until(WorkerStarted)).pid
        await events.started("t")
        plugins = sleeper()
        os.kill(worker, signal.SIGKILL)
        await events.until(WorkerGone)
        assert not dies(plugins.pid, 0.1)
        plugins.kill()
        plugins.wait()


@pytest.mark.long
async def test_workers_that_start_meanwhile_are_spared(tmp_path: Path) -> None:
    async with pool(tmp_path, alone=True) as (it, events):
        for attempt in range(1, 6):
            it.start_task("worker-a", start(tmp_path, "sleep 1000", attempt=attempt))
            worker = (await events.until(WorkerStarted, worker="worker-a")).pid
            await events.started("t")
            os.kill(worker, signal.SIGKILL)
            it.start_task(f"worker-{attempt}", start(tmp_path, "sleep 0.3", task=f"other-{attempt}"))
            assert (await events.ended(f"other-{attempt}")).exit_code == 0
            await events.until(WorkerGone)
