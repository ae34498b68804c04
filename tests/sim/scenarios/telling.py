"""How a story becomes a test: told as it is, and once for each rule that protects it, without that rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.scenarios.switches import off
from tests.sim.script import Story
from tests.sim.violation import Violation

SEEDS = 3  # the milliseconds differ, and with them who goes first


def story(
    *,
    nodes: int = 2,
    lease_s: int = 6,
    longest_s: int | None = None,
    abroad: int = 0,
    without: dict[str, str] | None = None,
) -> Callable[[Callable[[Story], None]], Callable[[str | None, int], None]]:
    """`without`: rules, and what the violation says when that rule is off."""
    missed = without or {}

    def told(tell: Callable[[Story], None]) -> Callable[[str | None, int], None]:
        @pytest.mark.parametrize("seed", range(SEEDS))
        @pytest.mark.parametrize("rule", [None, *missed])
        def test(rule: str | None, seed: int) -> None:
            if rule is None:
                tell(Story(seed, nodes, lease_s, longest_s=longest_s, abroad=abroad))
                return
            with off(rule), pytest.raises(Violation, match=missed[rule]):
                tell(Story(seed, nodes, lease_s, longest_s=longest_s, abroad=abroad))

        test.__doc__ = tell.__doc__
        return test

    return told
