"""python -m tests.sim run|soak|mutants: histories of the claims, many of them.

run      a number of seeds; prints the transcript of the first history that breaks a rule
soak     as many seeds as there is time for, on all cores; prints histories per second
mutants  each rule switched off; writes the shortest transcript found over those in tests/sim/transcripts

One history again, with its transcript if it breaks a rule: run --first SEED --seeds 1 --size SIZE
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.sim.histories import transcript
from tests.sim.mutants import MUTANTS
from tests.sim.plan import Size

TRANSCRIPTS = Path(__file__).parent / "transcripts"
PIECE = 50


def broken(first: int, size: Size, until: float = float("inf")) -> tuple[int, str | None]:
    """How many histories of a piece ran, and the transcript of the one that breaks a rule."""
    for done, seed in enumerate(range(first, first + PIECE)):
        if time.monotonic() > until:
            return done, None
        if told := transcript(seed, size):
            return done + 1, told
    return PIECE, None


def run(first: int, seeds: int, size: Size) -> int:
    """Some seeds on all cores."""
    with ProcessPoolExecutor() as pool:
        pieces = [pool.submit(broken, at, size) for at in range(first, first + seeds, PIECE)]
        for piece in as_completed(pieces):
            if told := piece.result()[1]:
                print(told)
                pool.shutdown(cancel_futures=True)
                return 1
    print(f"{len(pieces) * PIECE} {size} histories from seed {first}: no rule broken")
    return 0


def mixed(first: int) -> Iterator[tuple[int, Size]]:
    """Pieces of all sizes, without end: of 20, 17 are small and one is large."""
    at = first
    while True:
        for number in range(20):
            size = Size.LARGE if number == 19 else Size.MIDDLE if number > 16 else Size.SMALL
            yield at, size
            at += PIECE


def soak(first: int, seconds: float) -> int:
    """As many histories as there is time for."""
    began, done, cores = time.monotonic(), 0, os.cpu_count() or 1
    end, pieces = began + seconds, mixed(first)
    with ProcessPoolExecutor(cores) as pool:
        open_ones = {pool.submit(broken, *next(pieces), end) for _ in range(2 * cores)}
        while open_ones:
            piece = next(as_completed(open_ones))
            open_ones.discard(piece)
            count, told = piece.result()
            done += count
            if told:
                print(told)
                pool.shutdown(cancel_futures=True)
                return 1
            if time.monotonic() < end:
                open_ones.add(pool.submit(broken, *next(pieces), end))
    spent = time.monotonic() - began
    print(f"{done} histories in {spent:.0f} s on {cores} cores, {done / spent:.1f} a second: no rule broken")
    return 0


def mutants(first: int, seeds: int) -> int:
    """Write what each rule prevents."""
    TRANSCRIPTS.mkdir(exist_ok=True)
    missed = 0
    for mutant in MUTANTS.values():
        told = mutant.shortest(range(first, first + seeds))
        if told is None:
            print(f"{mutant.name}: nothing found in {seeds} seeds")
            missed += 1
            continue
        head = f"Without the rule {mutant.name}: {mutant.prevents}.\n\n"
        (TRANSCRIPTS / f"{mutant.name}.txt").write_text(head + told + "\n")
        print(f"{mutant.name}: {told.splitlines()[-1]}")
    return 1 if missed else 0


def main() -> int:
    """The command line; 1 where a rule is broken, or a mutant lives."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "soak", "mutants"))
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--size", type=Size, choices=list(Size), default=Size.MIDDLE)
    parser.add_argument("--seconds", type=float, default=60.0)
    args = parser.parse_args()
    if args.what == "run":
        return run(args.first, args.seeds, args.size)
    if args.what == "soak":
        return soak(args.first, args.seconds)
    return mutants(args.first, args.seeds)


if __name__ == "__main__":
    sys.exit(main())
