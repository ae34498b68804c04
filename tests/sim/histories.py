"""Running histories: one seed, and again with its transcript when it breaks a rule."""

from __future__ import annotations

from tests.sim.checkers import Violation
from tests.sim.plan import Size
from tests.sim.world import World


def violated(seed: int, size: Size) -> str | None:
    """Which rule the history breaks, if any."""
    try:
        World(seed, size).run()
    except Violation as violation:
        return str(violation)
    return None


def transcript(seed: int, size: Size) -> str | None:
    """None, or what happened in the history that breaks a rule, to be read."""
    if violated(seed, size) is None:
        return None
    world = World(seed, size, told=True)
    try:
        world.run()
    except Violation as violation:
        return "\n".join([*world.lines, "", str(violation)])
    raise AssertionError(f"seed {seed} is no history that can be replayed")
