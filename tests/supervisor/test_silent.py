"""Workers that are stopped while nobody waits for a deadline: the pool notices that they do not answer."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from cisbot.supervisor.events import WorkerGone, WorkerStarted
from tests.supervisor.pool_harness import pool
from tests.worker.real_processes import alive, boot, dies, start, stopped

RUN = "$run:example.org"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cisbot.supervisor.pool.PING_S", 0.2)


async def test_a_task_that_stops_its_worker_is_lost(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000", task="other"))
        worker = (await events.until(WorkerStarted)).pid
        other = (await events.started("other")).pid
        it.start_task("worker-a", start(tmp_path, "sleep 0.2; kill -STOP $PPID; sleep 1000"))
        task = (await events.started("t")).pid
        gone = await events.until(WorkerGone)
        assert gone.runs == ((RUN, "other", 1), (RUN, "t", 1))
        assert gone.why == "the worker did not answer for 0.6 s; killed by signal 9"
        assert not any(alive(pid) for pid in (worker, task, other))
        it.start_task("worker-a", start(tmp_path, "true", attempt=2))
        assert (await events.ended("t")).exit_code == 0


async def test_a_timeout_of_a_stopped_worker_is_bounded(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000", timeout_s=1.0))
        worker = (await events.until(WorkerStarted)).pid
        task = (await events.started("t")).pid
        begun = boot()
        os.kill(worker, signal.SIGSTOP)
        await events.until(WorkerGone)
        assert not alive(task)
        assert boot() < begun + 10


@pytest.mark.long
async def test_a_worker_that_answers_lives(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 2; echo $PPID"))
        worker = (await events.until(WorkerStarted)).pid
        with stopped(worker):
            assert not dies(worker, 0.3)
        assert int((await events.ended("t")).tail) == worker
        it.start_task("worker-a", start(tmp_path, "sleep 1; echo $PPID", task="after"))
        assert int((await events.ended("after")).tail) == worker


@pytest.mark.long
async def test_a_pause_of_ours_is_not_the_workers_silence(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 6; echo $PPID"))
        worker = (await events.until(WorkerStarted)).pid
        await events.started("t")
        for _ in range(4):
            assert not dies(worker, 1.2)  # without a turn of the loop
            await asyncio.to_thread(boot)  # a few turns
        assert int((await events.ended("t")).tail) == worker
