"""Runs inside Synapse's virtualenv: Synapse, in a process that never outlives its parent.

usage: python -I child.py LIFELINE PARENT CONFIG

LIFELINE is the read end of a pipe whose write end only the parent holds; PARENT is its pid.
When the pipe ends, or the parent has changed (something forked may still hold the write end),
the parent is gone and this process kills itself. Unlike PR_SET_PDEATHSIG this does not
depend on which of the parent's threads started it.
"""

import os
import runpy
import select
import signal
import sys
import threading

_CHECK_PARENT_MS = 500


def _die_with(lifeline: int, parent: int) -> None:
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    while os.getppid() == parent:
        if poll.poll(_CHECK_PARENT_MS):
            break
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Watch over the parent and become Synapse."""
    lifeline, parent, config = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    threading.Thread(target=_die_with, args=(lifeline, parent), daemon=True).start()
    sys.argv = ["synapse", "--config-path", config]
    runpy.run_module("synapse.app.homeserver", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
