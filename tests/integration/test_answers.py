"""`!dag logs | status | nodes | list | show | help`: one node answers, whichever is alive."""

from __future__ import annotations

import pytest

from tests.integration.nodes import Nodes, timer

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]


def test_one_answer_also_when_nodes_are_dead(nodes: Nodes) -> None:
    names = ["node-1", "node-2", "node-3"]
    script = 'echo "a line of the log"; [ "$CIS_NODE" != node-3 ] || exit 3'
    nodes.open(
        names, {"job": nodes.job(script), "timer": timer(5) + "target: node-1\n", "broken": "tasks: 7\n"}
    )
    good = nodes.person.say("!dag publish job target=node-1")
    bad = nodes.person.say("!dag publish job target=node-3")
    short = {run: nodes.reply(run, "job ").split()[2] for run in (good, bad) if nodes.outcome(run)}
    wanted = {
        "!dag help": "!dag publish DAG", "!dag help publish": "target=", "!dag": "!dag publish DAG",
        "!dag list": "job", "!dag show job": "• a (shell)", "!dag nodes": "node-2: executes",
        "!dag status": short[bad], f"!dag status {short[bad]}": "failed",
        f"!dag status {short[good][:4]}": "succeeded",
        f"!dag logs {short[good]}": "a line of the log", f"!dag logs {short[bad]} a": "a line of the log",
        f"!dag logs {short[good]} b": "no task 'b'", "!DAG Stat": "failed",
    }  # fmt: skip
    said = {text: nodes.person.say(text) for text in wanted}
    for text, event in said.items():
        nodes.reply(event, wanted[text])
    assert "broken.yaml" in nodes.reply(said["!dag list"], "broken")
    nodes.kill("node-2")
    nodes.kill("node-3")
    late = {text: nodes.person.say(text) for text in ("!dag list", "!dag nodes", "!dag status", "!dag help")}
    logs = nodes.person.say(f"!dag logs {short[bad]}")
    for event in late.values():
        nodes.reply(event, "")
    nodes.reply(logs, "on node-3, which does not answer")
    nodes.pass_time()
    for event in (*said.values(), *late.values(), logs):
        assert len(nodes.replies(event)) == 1, nodes.replies(event)
