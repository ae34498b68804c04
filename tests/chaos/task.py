"""What every task of a storm does: `python -m tests.chaos.task FOLDER SECONDS [stubborn]`.

It writes a line when it starts, one each 50 ms while it lives, and one at its end, and into the sink as
often. What is killed leaves its last line as the proof of how long it lived at least. A stubborn one
heeds no TERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

from tests.chaos.sink import Sink, append

BEAT_S = 0.05


def main(folder: Path, seconds: float, *, stubborn: bool) -> None:
    """Live for so long. Times are of CLOCK_BOOTTIME, read before the line is written."""
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    env, sink, record = os.environ, Sink(folder / "sink"), folder / "record.jsonl"
    dag, scope, fence = env["CIS_DAG"], env["CIS_SCOPE"], int(env["CIS_FENCE"])
    key = scope if scope == "global" else f"{dag}/{scope}"
    whose: dict[str, object] = {"run": env["CIS_RUN_ID"], "node": env["CIS_NODE"], "task": env["CIS_TASK"]}

    def say(what: str) -> None:
        line = {"what": what, "key": key, "epoch": fence, **whose, "at_ns": _now()}
        append(record, {**line, "pid": os.getpid(), "worker": worker})

    worker, never = os.getppid(), threading.Event()
    end = time.monotonic() + seconds
    say("start")
    while time.monotonic() < end:
        say("beat" if sink.write(key, fence, whose) else "refused")
        never.wait(BEAT_S)
    say("end")


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), stubborn="stubborn" in sys.argv[3:])
