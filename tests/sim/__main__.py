"""python -m tests.sim [--seeds N] [--first SEED]: run many histories; print the first that breaks a rule."""

from __future__ import annotations

import argparse
import sys

from tests.sim.checkers import Violation
from tests.sim.world import World


def main() -> int:
    """Run the seeds; 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    args = parser.parse_args()
    for seed in range(args.first, args.first + args.seeds):
        try:
            World(seed).run()
        except Violation as violation:
            print(f"seed {seed}: {violation}")
            return 1
    print(f"{args.seeds} histories from seed {args.first}: no rule broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
