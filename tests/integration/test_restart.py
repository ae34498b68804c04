"""The same node killed and started again, with its database and without."""

from __future__ import annotations

import shutil

import pytest

from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 4


def test_it_takes_up_its_own_run_where_it_was(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": nodes.gated("resume")})
    run = nodes.person.say("!dag publish job")
    nodes.marks(lines=2)
    nodes.kill("node-1")
    nodes.open_gate()
    nodes.start("node-1")
    assert nodes.outcome(run) == "succeeded"
    marks = nodes.marks()
    assert [task for task, _, _, _ in marks] == ["a", "b", "b"]
    assert marks[2][2] > marks[1][2]
    after = nodes.person.say("!dag publish job")
    assert nodes.outcome(after) == "succeeded"


def test_without_its_database_it_runs_nothing_again_and_works_on(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": nodes.job(), "asks": nodes.gated("ask", "scope: proj-b")})
    first = nodes.person.say("!dag publish job")
    assert nodes.outcome(first) == "succeeded"
    held = nodes.person.say("!dag publish asks")
    nodes.marks(lines=3)
    nodes.kill("node-1")
    nodes.open_gate()
    shutil.rmtree(nodes.root / "node-1" / "data")
    missed = nodes.person.say("!dag publish job")
    nodes.start("node-1")
    nodes.joined("node-1", times=2)
    second = nodes.person.say("!dag publish job")
    assert nodes.outcome(missed) == "succeeded"
    assert nodes.outcome(second) == "succeeded"
    runs = [run for _, _, _, run in nodes.marks()]
    assert runs[:3] == [first, held, held]
    assert sorted(runs[3:]) == sorted([missed, second])
    probed = [e for e in list(nodes.person.events) if e.get("type") == "io.cisbot.probe"]
    assert probed
    nodes.reply(held, "Not known to be done")
    assert [r["outcome"] for r in nodes.locks(held, "release")] == ["lost"]
    nodes.person.react(held, "✅")
    assert nodes.outcome(held) == "succeeded"
