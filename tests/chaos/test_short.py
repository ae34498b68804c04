"""The short storm: ten nodes, every kind of fault, the homeserver dies twice; the long one: `make chaos`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.plan import NETWORK, PROCESS, Kind
from tests.chaos.storm import Wanted, run

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(300)]


def test_no_rule_is_broken_under_all_faults(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "1"))
    outcome = run(Wanted(runs=40, seed=seed, pace_s=1.2), tmp_path, print)
    assert outcome.good, (seed, outcome)
    assert outcome.figures["runs"] == 40
    faults = outcome.figures["faults"]
    assert isinstance(faults, dict)
    assert {kind.value for kind in (*NETWORK, Kind.SYNAPSE)} <= set(faults)
    assert len({kind.value for kind in PROCESS} & set(faults)) >= len(PROCESS) - 2  # two may be spared
    assert outcome.figures["taken over"]
