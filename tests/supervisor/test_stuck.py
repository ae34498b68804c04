"""Workers that are stuck (stopped): the pool keeps deadlines and cancels in their stead."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cisbot.supervisor.events import WorkerGone, WorkerIdle, WorkerStarted
from tests.supervisor.pool_harness import pool
from tests.worker.real_processes import alive, boot, dies, start, stopped

RUN = "$run:example.org"


async def test_a_stuck_worker_cannot_outlive_a_deadline(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000", grace_s=0.0))
        worker = (await events.until(WorkerStarted)).pid
        task = (await events.started("t")).pid
        with stopped(worker):
            it.set_deadline(RUN, boot() + 0.2)
            ended = await events.ended("t")
        assert ended.reason == "fenced"  # lost with its lease: it has not failed
        assert not alive(task)


async def test_what_shares_a_stuck_worker_is_lost_with_it(tmp_path: Path) -> None:
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000", grace_s=0.0))
        it.start_task("worker-a", start(tmp_path, "sleep 1000", run="other", task="other"))
        worker = (await events.until(WorkerStarted)).pid
        for task in ("t", "other"):
            await events.started(task)
        with stopped(worker):
            it.set_deadline(RUN, boot() + 0.2)
            gone = await events.until(WorkerGone)
        assert gone.runs == (("other", "other", 1),)
        assert (await events.ended("t")).reason == "fenced"


async def test_a_cancel_reaches_a_stuck_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cisbot.supervisor.pool.CANCEL_S", 0.3)
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000 & wait"))
        it.start_task("worker-a", start(tmp_path, "sleep 1000", run="other", task="other"))
        worker = (await events.until(WorkerStarted)).pid
        tasks = [(await events.started(task)).pid for task in ("t", "other")]
        begun = boot()
        with stopped(worker):
            it.cancel_run(RUN, 0.2)
            it.set_deadline(RUN, boot() + 900.0)
            it.cancel_run(RUN, 900.0)  # a second cancel does not put the first off
            gone = await events.until(WorkerGone)
        assert boot() >= begun + 0.5
        assert gone.runs == ((RUN, "t", 1), ("other", "other", 1))
        assert not any(alive(pid) for pid in (worker, *tasks))
        it.start_task("worker-a", start(tmp_path, "true", attempt=2))
        assert (await events.ended("t")).exit_code == 0


async def test_a_cancel_leaves_a_worker_its_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cisbot.supervisor.pool.CANCEL_S", 0.5)
    deaf = "trap '' TERM; echo up; while :; do sleep 0.05; done"
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, deaf))
        it.start_task("worker-a", start(tmp_path, "sleep 1000", run="other", task="other"))
        await events.started("t")
        other = (await events.started("other")).pid
        it.cancel_run(RUN, 0.5)
        assert (await events.ended("t")).reason == "cancelled"
        it.start_task("worker-a", start(tmp_path, "sleep 1", task="after"))
        assert (await events.ended("after")).exit_code == 0  # longer than the cancelled might have taken
        assert alive(other)


async def test_after_a_pause_of_ours_reports_are_read_before_a_worker_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisbot.supervisor.pool.CANCEL_S", 0.1)
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000"))
        worker = (await events.until(WorkerStarted)).pid
        await events.started("t")
        it.cancel_run(RUN, 0.0)
        assert not dies(worker, 0.8)  # without a turn of the loop
        assert (await events.ended("t")).reason == "cancelled"
        it.start_task("worker-a", start(tmp_path, "echo $PPID", task="after"))
        assert int((await events.ended("after")).tail) == worker


async def test_a_stuck_worker_does_not_delay_the_nodes_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisbot.supervisor.pool.CANCEL_S", 0.2)
    begun = boot()
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000"))
        worker = (await events.until(WorkerStarted)).pid
        task = (await events.started("t")).pid
        os.kill(worker, signal.SIGSTOP)
        it.cancel_run(RUN, 0.2)  # what the node does first: it cancels, and waits for every end
        await events.until(WorkerGone)
        await it.close(600.0)  # nothing is left that could use this grace
        assert not alive(worker)
        assert not alive(task)
    assert boot() < begun + 20


@pytest.mark.parametrize("way", ["idle", "evicted"])
async def test_an_idle_worker_that_is_stuck_gives_its_place_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("cisbot.supervisor.pool.CLOSE_S", 0.2)
    idle_s = 0.3 if way == "idle" else 1_000.0
    async with pool(tmp_path, max_workers=1, idle_timeout_s=idle_s) as (it, events):
        it.start_task("worker-a", start(tmp_path, "true"))
        worker = (await events.until(WorkerStarted)).pid
        await events.ended("t")
        os.kill(worker, signal.SIGSTOP)
        if way == "idle":
            await events.until(WorkerIdle)
        it.start_task("worker-b", start(tmp_path, "true", task="next"))
        assert (await events.ended("next")).exit_code == 0
        assert not alive(worker)


async def test_a_stuck_worker_does_not_stop_the_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisbot.supervisor.pool.CLOSE_S", 0.2)
    async with pool(tmp_path) as (it, events):
        it.start_task("worker-a", start(tmp_path, "sleep 1000"))
        worker = (await events.until(WorkerStarted)).pid
        task = (await events.started("t")).pid
        os.kill(worker, signal.SIGSTOP)
        await it.close(0.0)
        assert not alive(worker)
        assert not alive(task)
        await events.until(WorkerGone)
