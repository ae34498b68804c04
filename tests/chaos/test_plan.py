"""A seed draws the same plan always, with every kind of fault, and never too many at once."""

from __future__ import annotations

import pytest

from tests.chaos import plan
from tests.chaos.plan import PROCESS, SUFFERING_MAX, Kind

NODES = [f"node-{n}" for n in range(1, 11)]


def test_the_same_seed_draws_the_same() -> None:
    assert plan.faults(7, NODES, 60, 12) == plan.faults(7, NODES, 60, 12)
    assert plan.faults(7, NODES, 60, 12) != plan.faults(8, NODES, 60, 12)
    assert plan.publications(7, 40, NODES, 60, 4) == plan.publications(7, 40, NODES, 60, 4)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_comes_and_enough_nodes_are_left(seed: int) -> None:
    lease_s = 12.0
    drawn = plan.faults(seed, NODES, 48, lease_s)
    assert {fault.kind for fault in drawn} == set(Kind)
    own = [fault for fault in drawn if fault.kind in PROCESS]
    for fault in own:
        at_once = [o for o in own if o.at_s <= fault.at_s < o.at_s + o.for_s]
        assert len({o.node for o in at_once}) == len(at_once) <= SUFFERING_MAX * len(NODES)
    stops = [f for f in drawn if f.kind in (Kind.STOP_NODE, Kind.STOP_WORKER, Kind.STOP_ALL)]
    assert all(fault.for_s > lease_s for fault in stops)
    for old in (fault for fault in drawn if fault.kind is Kind.OLD):
        assert any(f.kind is Kind.COPY and f.node == old.node and f.at_s < old.at_s for f in drawn)
