"""A process that owns a pool, to be stopped and killed: runs one task, prints its events, goes on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from cisbot.core.frames import TaskStarted
from cisbot.supervisor.events import WorkerStarted
from tests.supervisor.pool_harness import pool
from tests.worker.real_processes import boot, start


async def main(folder: Path, script: str, life_s: float, grace_s: float, later_s: float) -> None:
    """Run `script` with a deadline in `life_s`, and wait to be killed.

    With `later_s` above zero, stop the worker, and only then set the deadline to that.
    """
    async with pool(folder) as (it, events):
        deadline = boot() + life_s
        frame = start(folder, script, deadline=deadline, grace_s=grace_s)
        it.start_task("worker-a", frame)
        worker = (await events.until(WorkerStarted)).pid
        task = (await events.until(TaskStarted)).pid
        if later_s:
            os.kill(worker, signal.SIGSTOP)
            deadline = boot() + later_s
            it.set_deadline(frame.run, deadline)
        print(worker, task, deadline, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:])))
