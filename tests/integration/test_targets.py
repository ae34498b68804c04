"""Where a run goes and what it waits for: all, labels, one global worker, inferred scopes."""

from __future__ import annotations

import pytest

from tests.integration.nodes import LOCK, Nodes, wait_file

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]


def takes(nodes: Nodes, run: str) -> list[dict[str, object]]:
    """The lock requests of a publication, one run a node with target=all."""
    contents = [e.get("content") for e in list(nodes.person.events) if e.get("type") == LOCK]
    return [
        c
        for c in contents
        if isinstance(c, dict) and str(c.get("run")).partition("|")[0] == run and c.get("action") == "take"
    ]


def test_all_labels_and_scopes(nodes: Nodes) -> None:
    names = ["node-1", "node-2", "node-3"]
    env = "\nenv: {PROJECT_ID: proj-env}"
    heads = {
        "job": "plain",
        "backup_home": "by type",
        "proj-b-sync": "by id",
        "user-7-report": "by user",
        "withenv": f"by environment{env}",
    }
    nodes.open(names, {dag: nodes.job(head=f"description: {head}") for dag, head in heads.items()})
    everywhere = nodes.person.say("!dag publish job target=all scope=proj-a")
    labelled = nodes.person.say("!dag publish job target=name=node-2 scope=proj-l")
    negated = nodes.person.say("!dag publish job target=name!=node-1,name!=node-2 scope=proj-n")
    inferred = {dag: nodes.person.say(f"!dag publish {dag}") for dag in heads}
    for name in names:
        assert nodes.outcome(f"{everywhere}|{name}") == "succeeded"
    for run in (labelled, negated, *inferred.values()):
        assert nodes.outcome(run) == "succeeded"
    marks = nodes.marks()
    assert sorted((node, run) for _, node, _, run in marks if run.startswith(everywhere)) == [
        (name, f"{everywhere}|{name}") for name in names
    ]
    assert [node for _, node, _, run in marks if run == labelled] == ["node-2"]
    assert [node for _, node, _, run in marks if run == negated] == ["node-3"]
    assert len(marks) == 10
    local = nodes.operator.user_id.partition(":")[0].removeprefix("@")
    assert {dag: takes(nodes, run)[0]["scope"] for dag, run in inferred.items()} == {
        "job": f"user-{local}", "backup_home": "type-backup", "proj-b-sync": "project-proj-b",
        "user-7-report": "user-7", "withenv": "project-proj-env",
    }  # fmt: skip
    nobody = nodes.person.say("!dag publish job target=name=node-9")
    nodes.reply(nobody, "no node matches target name=node-9")


def test_one_global_run_at_a_time_whatever_its_dag(nodes: Nodes) -> None:
    span = (
        f'echo "start $CIS_DAG" >> "{nodes.root}/spans"; sleep 1; echo "end $CIS_DAG" >> "{nodes.root}/spans"'
    )
    one, two = nodes.job(span, "scope: global"), nodes.job(span, "description: free")
    nodes.open(["node-1", "node-2"], {"one": one, "two": two})
    first = nodes.person.say("!dag publish one target=node-1")
    wait_file(nodes.root / "spans")
    second = nodes.person.say("!dag publish two target=node-2 scope=global")
    third = nodes.person.say("!dag publish two target=node-2 scope=proj-a")
    for run in (first, second, third):
        assert nodes.outcome(run) == "succeeded"
    lines = wait_file(nodes.root / "spans", lines=6)
    assert lines.index("end one") > lines.index("start two")  # the project's run did not wait
    by_run = {run: fence for _, _, fence, run in nodes.marks()}
    assert by_run[second] == by_run[first] + 1  # one key, one comparable fence
    ended = [e for e in list(nodes.person.events) if e.get("type") == LOCK and e.get("state_key") == "global"]
    actions = [(c["action"], c["run"]) for e in ended if isinstance(c := e.get("content"), dict)]
    assert actions.index(("release", first)) < actions.index(("take", second))
