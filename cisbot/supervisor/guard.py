"""The guard of one worker: outlives the node, and kills what the worker would have had to.

A worker kills its tasks when the node dies, but it may be killed with the node, or be stopped. So beside
each worker a shell blocks on a pipe that only the node can write to. The node tells it through this pipe
how long the worker may take. At its end the node is gone: the shell becomes Python, which waits for the
worker as long as that, and kills all that bears the worker's mark. The guard itself bears no mark.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from cisbot.supervisor.leftovers import groups_at, kill_marked

SLACK_S = 2.0  # beyond the grace, for a worker to end by itself when the node is gone
MARGIN_S = 0.25  # before the first deadline, when nothing of a dead node's may be left to wait for
_GROUPS_MAX = 300  # so that a line is written whole or not at all: PIPE_BUF is 4096
_LOOK_S = 1.0  # a time-out of poll stands still while the machine is suspended, CLOCK_BOOTTIME does not
# A service manager's TERM reaches every process of the service, but the guard must outlive the node.
_WAIT = "trap '' TERM INT HUP; last=; while read -r line; do last=$line; done; exec \"$@\" $last"


class Guard:
    """A guard process, until `end`. Raises `OSError` when it can't be started.

    `worker` is the worker's pidfd; `env` is where the code is found, without the worker's marks.
    """

    def __init__(self, mark: str, worker: int, env: Mapping[str, str], folder: Path) -> None:
        source, sink = os.pipe()
        os.set_blocking(sink, False)
        self._sink: int | None = sink
        run = [sys.executable, "-P", "-m", "cisbot.supervisor.guard", mark, str(worker)]
        try:
            self._popen = subprocess.Popen(
                ["/bin/sh", "-c", _WAIT, "guard", *run],
                stdin=source,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=env,
                pass_fds=(worker,),
                start_new_session=True,
            )
        except OSError:
            os.close(sink)
            raise
        finally:
            os.close(source)
        self.pid = self._popen.pid

    def tell(self, grace_s: float, deadline: float, groups: Collection[int]) -> None:
        """What the worker has now: its longest grace, its first deadline, its tasks' first processes."""
        if self._sink is None:
            return
        words = [repr(grace_s), repr(deadline), *map(str, list(groups)[:_GROUPS_MAX])]
        # A guard that was stopped has not read the last lines, one that was killed reads nothing.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._sink, f"{' '.join(words)}\n".encode())

    def end(self) -> None:
        """Kill and reap it, which takes no time: it only reads; its work is done."""
        assert self._sink is not None
        self._popen.kill()
        self._popen.wait()
        os.close(self._sink)
        self._sink = None


def _boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _wait(worker: int, until: float) -> None:
    """Return when the worker is dead, or at the boot time `until`."""
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    while (rest := until - _boot()) > 0 and not poll.poll(min(rest, _LOOK_S) * 1_000):
        pass


def main(mark: str, worker: str, grace_s: str = "0", deadline: str = "inf", *groups: str) -> None:
    """The node is gone: let the worker end, and kill all that is left then."""
    now = _boot()
    _wait(int(worker), min(now + float(grace_s) + SLACK_S, float(deadline) - MARGIN_S))
    kill_marked(mark, groups_at(now, [int(group) for group in groups]))


if __name__ == "__main__":
    main(*sys.argv[1:])
