"""What tasks print: much, odd, and of a failing one the end; messages that are too long."""

from __future__ import annotations

import pytest

from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]

EMPTY = "scope: proj-{0}\ntasks:\n  a:\n    shell: |\n      {1}\n"


def test_much_odd_and_failing_output(nodes: Nodes) -> None:
    large = EMPTY.format("a", "head -c 104857600 /dev/zero | tr '\\0' x; echo; echo the end; exit 4")
    odd = EMPTY.format("b", "printf 'bad \\377\\376 bytes \\033[31mred ```\\n'; exit 5")
    params = "scope: proj-c\nparams:\n  text: {default: x}\ntasks:\n  say:\n    matrix: "
    long = params + '"' + "$TEXT" * 40 + '"\n  after:\n    needs: [say]\n    shell: exit 1\n'
    dags = {"large": large, "odd": odd, "long": long, "short": params + '"said $TEXT"\n'}
    nodes.open(["node-1", "node-2"], dags)
    runs = {dag: nodes.person.say(f"!dag publish {dag}") for dag in ("large", "odd", "short")}
    runs["long"] = nodes.person.say("!dag publish long text=" + "ä" * 2_000)
    outcomes = {dag: nodes.outcome(run) for dag, run in runs.items()}
    assert outcomes == {"large": "failed", "odd": "failed", "long": "failed", "short": "succeeded"}
    assert "the end" in nodes.reply(runs["large"], "exit 4")
    assert "bad" in (said := nodes.reply(runs["odd"], "exit 5"))
    assert "\x1b" not in said
    assert "bytes" in nodes.reply(runs["long"], "❌")
    nodes.reply(runs["short"], "said x")
    nodes.reply(runs["short"], "succeeded on")
    for run in runs.values():
        mentions = [content.get("m.mentions") for content in nodes.thread(run)]
        assert {"user_ids": [nodes.operator.user_id]} in mentions
        assert all(len(str(content)) < 8_000 for content in nodes.thread(run))
    logs = [path.stat().st_size for path in nodes.root.glob("node-*/data/logs/*/a.*.log")]
    assert max(logs) <= 110_000_000
    after = nodes.person.say("!dag publish short")
    assert nodes.outcome(after) == "succeeded"
