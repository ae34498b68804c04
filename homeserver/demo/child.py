"""Runs a command that must not outlive the demo: when the demo's end of a pipe closes, it gets SIGTERM.

python -m homeserver.demo.child FD COMMAND …
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

GRACE_S = 20.0


def main() -> int:
    """Run the command; its exit code."""
    guard = int(sys.argv[1])
    child = subprocess.Popen(sys.argv[2:], close_fds=True)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pidfd = os.pidfd_open(child.pid)
    ready, _, _ = select.select([guard, pidfd], [], [])
    if pidfd not in ready:
        child.terminate()
        try:
            child.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main())
