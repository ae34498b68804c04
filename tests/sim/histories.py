"""Running histories: one seed, and again with its transcript when it breaks a rule."""

from __future__ import annotations

import gc

from tests.sim.plan import Focus, Size
from tests.sim.violation import Violation
from tests.sim.world import World


def violated(seed: int, size: Size, focus: Focus | None = None) -> str | None:
    """Which rule the history breaks, if any."""
    gc.disable()
    try:
        World(seed, size, focus).run()
    except Violation as violation:
        return str(violation)
    finally:
        gc.enable()
    return None


def transcript(seed: int, size: Size, focus: Focus | None = None) -> str | None:
    """None, or what happened in the history that breaks a rule, to be read."""
    if violated(seed, size, focus) is None:
        return None
    world = World(seed, size, focus, told=True)
    try:
        world.run()
    except Violation as violation:
        return "\n".join([*world.lines, "", str(violation)])
    raise AssertionError(f"seed {seed} is no history that can be replayed")
