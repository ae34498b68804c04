"""Histories of the simulator: many seeds, always the same ones; `python -m tests.sim --seeds N` runs more."""

from __future__ import annotations

import pytest

from tests.sim.histories import transcript
from tests.sim.plan import Size

PIECES, SEEDS = 8, 50


@pytest.mark.parametrize("piece", range(PIECES))
def test_no_rule_is_broken(piece: int) -> None:
    for seed in range(piece * SEEDS, (piece + 1) * SEEDS):
        assert transcript(seed, Size.SMALL) is None
