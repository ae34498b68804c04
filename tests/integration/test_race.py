"""Several nodes, many runs at once: each runs exactly once."""

from __future__ import annotations

import pytest

from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]


def test_ten_runs_at_once_on_four_nodes_each_once(nodes: Nodes) -> None:
    names = [f"node-{n}" for n in range(1, 5)]
    nodes.open(names, {"job": nodes.job("sleep 0.3", head="description: races")})
    runs = [nodes.person.say(f"!dag publish job scope=proj-{n % 5} target=any") for n in range(10)]
    assert [nodes.outcome(run) for run in runs] == ["succeeded"] * 10
    marks = nodes.marks()
    assert sorted(run for _, _, _, run in marks) == sorted(runs)
    assert len({node for _, node, _, _ in marks}) >= 3
    fences: dict[str, list[int]] = {}
    for run in runs:
        taken = nodes.locks(run, "take")
        (mark,) = [m for m in marks if m[3] == run]
        assert mark[2] in [t["epoch"] for t in taken]
        fences.setdefault(str(taken[0]["scope"]), []).append(mark[2])
    assert all(sorted(fence) == [1, 2] for fence in fences.values()), fences
