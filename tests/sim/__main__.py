"""python -m tests.sim [--seeds N] [--first SEED] [--size SIZE]: run many histories; tell the first that breaks a rule."""

from __future__ import annotations

import argparse
import sys

from tests.sim.histories import transcript
from tests.sim.plan import Size


def main() -> int:
    """Run the seeds; 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim")
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=Size, choices=list(Size), default=Size.MIDDLE)
    args = parser.parse_args()
    for seed in range(args.first, args.first + args.seeds):
        if told := transcript(seed, args.size):
            print(told)
            return 1
    print(f"{args.seeds} {args.size} histories from seed {args.first}: no rule broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
