"""A DAG that comes with the message, where the policy allows it; and a run pinned to its definition."""

from __future__ import annotations

import json
import urllib.request

import pytest

from tests.integration.nodes import Nodes, timer

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]


def upload(nodes: Nodes, text: str) -> str:
    """Put a file on the homeserver; its address."""
    request = urllib.request.Request(
        f"{nodes.synapse.base_url}/_matrix/media/v3/upload?filename=sent.yaml",
        data=text.encode(), method="POST",
        headers={"Authorization": f"Bearer {nodes.operator.access_token}", "Content-Type": "text/yaml"},
    )  # fmt: skip
    with urllib.request.urlopen(request) as answer:
        return str(json.loads(answer.read())["content_uri"])


def attach(nodes: Nodes, text: str, caption: str) -> str:
    """Send a file with a caption; the event id."""
    info = {"size": len(text), "mimetype": "text/yaml"}
    content: dict[str, object] = {"msgtype": "m.file", "body": caption, "filename": "sent.yaml", "info": info}
    content["url"] = upload(nodes, text)
    return nodes.person._send("m.room.message", content)


def test_allowed(nodes: Nodes) -> None:
    nodes.open(["node-1", "node-2"], {}, more="[policy]\ndags_from_room = true\n")
    sent = f"id: sent\n{nodes.job()}"
    fenced = nodes.person.say(f"!dag publish sent target=node-2\n```yaml\n{sent}```")
    unnamed = nodes.person.say(f"!dag publish scope=proj-b\n```\n{sent}```")
    everywhere = nodes.person.say(f"!dag publish target=all scope=proj-c\n```\n{sent}```")
    filed = attach(nodes, sent, "!dag publish scope=proj-d")
    wrong = nodes.person.say("!dag publish\n```\nid: sent\ntasks: {a: {shel: x}}\n```")
    wrong_file = attach(nodes, "id: [", "!dag publish")
    huge = attach(nodes, sent + "# x\n" * 300_000, "!dag publish")
    for run in (fenced, unnamed, filed, f"{everywhere}|node-1", f"{everywhere}|node-2"):
        assert nodes.outcome(run) == "succeeded"
    nodes.reply(wrong, "line 2")
    nodes.reply(wrong_file, "line ")
    nodes.reply(huge, "1 MB")
    marks = nodes.marks()
    assert [node for _, node, _, run in marks if run == fenced] == ["node-2"]
    assert len(marks) == 5


def test_refused(nodes: Nodes) -> None:
    nodes.open(["node-1", "node-2"], {"timer": timer(4.5)})
    sent = f"id: sent\n{nodes.job()}"
    events = [nodes.person.say(f"!dag publish\n```\n{sent}```"), attach(nodes, sent, "!dag publish")]
    for event in events:
        nodes.reply(event, "not allowed")
    nodes.pass_time()
    assert [len(nodes.replies(event)) for event in events] == [1, 1]
    assert not nodes.marks()


def test_an_edited_file_changes_the_next_run_only(nodes: Nodes) -> None:
    rule = "scope: proj-a\napproval: {count: 1}"
    nodes.open(["node-1", "node-2"], {"job": nodes.job('echo old >> "$OUT_FILE"', rule + env(nodes))})
    first = nodes.person.say("!dag publish job")
    nodes.reply(first, "waits for approval")
    nodes.write_dag("job", nodes.job('echo new >> "$OUT_FILE"', rule + env(nodes)))
    second = nodes.person.say("!dag publish job")
    nodes.reply(second, "waits for approval")
    nodes.person.react(first, "✅")
    assert nodes.outcome(first) == "succeeded"
    nodes.person.react(second, "✅")
    assert nodes.outcome(second) == "succeeded"
    assert (nodes.root / "out").read_text().split() == ["old", "new"]


def env(nodes: Nodes) -> str:
    """Where the job writes to."""
    return f'\nenv: {{OUT_FILE: "{nodes.root}/out"}}'
