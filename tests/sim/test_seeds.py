"""20,000 histories, always the same ones, of which 200 have 50 nodes; `make soak` runs others.

100 of them belong to the quick tests.
"""

from __future__ import annotations

import pytest

from tests.sim.histories import transcript
from tests.sim.plan import Size

PIECES = {Size.SMALL: (19_600, 100), Size.MIDDLE: (200, 20), Size.LARGE: (200, 10)}


def pieces() -> list[object]:
    """(size, first seed, seeds); the first is a quick one."""
    found: list[object] = []
    for size, (seeds, piece) in PIECES.items():
        for first in range(0, seeds, piece):
            marks = () if first == 0 and size is Size.SMALL else (pytest.mark.long,)
            found.append(pytest.param(size, first, piece, marks=marks, id=f"{size}-{first}"))
    return found


@pytest.mark.parametrize(("size", "first", "seeds"), pieces())
def test_no_rule_is_broken(size: Size, first: int, seeds: int) -> None:
    for seed in range(first, first + seeds):
        assert transcript(seed, size) is None
