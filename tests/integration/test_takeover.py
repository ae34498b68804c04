"""A holder that is killed: what its DAG's `on_lost` says happens, and nothing else."""

from __future__ import annotations

import pytest

from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 4


def kill_holder(nodes: Nodes, run: str) -> str:
    """SIGKILL the run's node once the room knows that its first task is done."""
    nodes.reply(run, "a: succeeded")
    dead = nodes.marks(lines=2)[-1][1]
    nodes.kill(dead)
    return dead


@pytest.mark.parametrize("on_lost", ["resume", "rerun"])
def test_another_node_goes_on(nodes: Nodes, on_lost: str) -> None:
    nodes.open(["node-1", "node-2"], {"job": nodes.gated(on_lost)})
    run = nodes.person.say("!dag publish job")
    dead = kill_holder(nodes, run)
    nodes.open_gate()
    assert nodes.outcome(run) == "succeeded"
    marks = nodes.marks()
    tasks = [task for task, _, _, _ in marks]
    assert tasks == (["a", "b", "b"] if on_lost == "resume" else ["a", "b", "a", "b"])
    assert marks[-1][1] != dead
    assert marks[-1][2] > marks[0][2]
    nodes.reply(run, "succeeded on")


@pytest.mark.parametrize("answer", ["✅", "❌"])
def test_a_dag_that_asks_waits_for_a_person(nodes: Nodes, answer: str) -> None:
    nodes.open(["node-1", "node-2"], {"job": nodes.gated("ask")})
    run = nodes.person.say("!dag publish job")
    kill_holder(nodes, run)
    question = nodes.reply(run, "Not known to be done")
    assert "b" in question.partition("Not known to be done")[2]
    assert len(nodes.marks()) == 2
    nodes.open_gate()
    nodes.person.react(run, answer)
    if answer == "✅":
        assert nodes.outcome(run) == "succeeded"
        assert [task for task, _, _, _ in nodes.marks()] == ["a", "b", "b"]
    else:
        nodes.reply(run, f"closed by {nodes.operator.user_id}")
        after = nodes.person.say("!dag publish job")
        assert nodes.outcome(after) == "succeeded"
        assert len([m for m in nodes.marks() if m[3] == run]) == 2
    assert len([r for r in nodes.replies(run) if "Not known to be done" in r]) == 1
