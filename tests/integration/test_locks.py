"""Named locks across DAGs and nodes, and a DAG that allows two runs at once: judged by what tasks wrote."""

from __future__ import annotations

import pytest

from tests.integration.nodes import Nodes, wait_file

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]


def span(nodes: Nodes, head: str, work: str) -> str:
    """A DAG whose one task writes down when it begins and ends."""
    file = f'"{nodes.root}/spans"'
    task = f'echo "start $CIS_RUN $CIS_LOCKS" >> {file}; {work}; echo "end $CIS_RUN" >> {file}'
    return f"{head}\ntasks:\n  work:\n    shell: |\n      {task}\n"


def most_at_once(nodes: Nodes, runs: int) -> int:
    """How many of them ran at the same time, at most; each of them ran once."""
    lines = [line.split() for line in wait_file(nodes.root / "spans", lines=2 * runs)]
    assert len(lines) == 2 * runs
    living, most = 0, 0
    for line in lines:
        living += 1 if line[0] == "start" else -1
        most = max(most, living)
    return most


def test_two_dags_that_share_a_lock_never_run_at_once_on_two_nodes(nodes: Nodes) -> None:
    left = span(nodes, "scope: proj-a\nlocks: [tape, db]", "sleep 0.4")
    right = span(nodes, "scope: proj-b\nlocks: [db]", "sleep 0.4")
    nodes.open(["node-1", "node-2"], {"left": left, "right": right})
    runs = [
        nodes.person.say(f"!dag publish {dag} target={node}")
        for dag, node in [("left", "node-1"), ("right", "node-2")] * 3
    ]
    assert [nodes.outcome(run) for run in runs] == ["succeeded"] * 6
    assert most_at_once(nodes, 6) == 1
    starts = [line.split() for line in wait_file(nodes.root / "spans") if line.startswith("start")]
    fences = [int(word.partition("=")[2]) for line in starts for word in line[2:] if word.startswith("db=")]
    assert fences == sorted(set(fences)), "the lock's epoch is a fence, whichever DAG has it"
    for run in runs:
        keys = [event.get("dag") for event in nodes.locks(run, "take")]
        assert len(keys) >= 2, "its locks and its own key"


def test_who_waits_for_a_lock_is_told_who_has_it(nodes: Nodes) -> None:
    gate = f'while [ ! -e "{nodes.root}/gate" ]; do sleep 0.1; done'
    long = span(nodes, "scope: proj-a\nlocks: [db]", gate)
    short = span(nodes, "scope: proj-b\nlocks: [db]", "true")
    nodes.open(["node-1", "node-2"], {"long": long, "short": short})
    first = nodes.person.say("!dag publish long target=node-1")
    wait_file(nodes.root / "spans")
    second = nodes.person.say("!dag publish short target=node-2")
    said = nodes.reply(second, "lock db is held by long")
    assert "on node-1" in said
    nodes.reply(nodes.person.say("!dag show long"), "needs 1 lock: db")
    nodes.open_gate()
    assert [nodes.outcome(run) for run in (first, second)] == ["succeeded"] * 2
    assert most_at_once(nodes, 2) == 1
    assert nodes.cisbot("audit", "--config", str(nodes.config("node-1"))).returncode == 0


@pytest.mark.parametrize("names", [["node-1"], ["node-1", "node-2"]], ids=["one node", "two nodes"])
def test_a_dag_that_allows_two_runs_at_once_has_two_and_never_three(nodes: Nodes, names: list[str]) -> None:
    nodes.open(names, {"pair": span(nodes, "scope: proj-a\noverlap: {allow: 2}", "sleep 1.5")})
    runs = [nodes.person.say("!dag publish pair") for _ in range(5)]
    assert [nodes.outcome(run) for run in runs] == ["succeeded"] * 5
    assert most_at_once(nodes, 5) == 2
    assert nodes.cisbot("audit", "--config", str(nodes.config("node-1"))).returncode == 0
