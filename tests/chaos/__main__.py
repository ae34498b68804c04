"""`make chaos RUNS=200 LIMITS=lifted SEED=…`: one storm, what was found, and its figures as the last line."""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.storm import Outcome, Wanted, run

PACES = {"lifted": 1.0, "default": 4.0}
LEASES = {"lifted": 12, "default": 24}
PATIENCE = {"lifted": 120.0, "default": 600.0}


def main() -> int:
    """0: no rule was broken, no node ended by itself, no process is left."""
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--runs", type=int, default=200)
    args.add_argument("--limits", choices=["lifted", "default"], default="lifted")
    args.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    args.add_argument("--nodes", type=int, default=10)
    args.add_argument("--lease", type=int, help="seconds")
    args.add_argument("--pace", type=float, help="seconds from one publication to the next")
    args.add_argument("--root", type=Path, help="where everything is kept; else a new temporary folder")
    given = args.parse_args()
    root = (given.root or Path(tempfile.mkdtemp(prefix="cisbot-chaos-"))).absolute()
    root.mkdir(parents=True, exist_ok=True)
    wanted = Wanted(
        runs=given.runs, seed=given.seed, nodes=given.nodes, limits=given.limits,
        lease_s=given.lease or LEASES[given.limits], pace_s=given.pace or PACES[given.limits],
        patience_s=PATIENCE[given.limits],
    )  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whatever ends it, nothing is left running
    began = time.monotonic()
    say(f"SEED={wanted.seed}: {wanted.runs} runs, leases of {wanted.lease_s} s, everything in {root}")
    outcome = run(wanted, root, lambda text: say(f"{time.monotonic() - began:6.1f} s  {text}"))
    report(outcome)
    say(f"{'good' if outcome.good else 'NOT good'}: SEED={wanted.seed}, {root}")
    print(json.dumps(outcome.figures), flush=True)
    return 0 if outcome.good else 1


def report(outcome: Outcome) -> None:
    """All that was found."""
    for finding in outcome.findings:
        say(f"{'BROKEN' if finding.broken else 'named'}  {finding.rule}: {finding.text}")
    for text in (*outcome.alone, *(f"left: {text}" for text in outcome.left)):
        say(f"BROKEN  {text}")


def say(text: str) -> None:
    """One line."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
