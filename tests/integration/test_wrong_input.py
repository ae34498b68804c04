"""Wrong input in the room: one short reply that names the mistake, and nothing runs."""

from __future__ import annotations

import pytest

from tests.conftest import MakeAccount
from tests.integration.nodes import LOCK, Nodes, timer

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]

WRONG = {
    "!dag publish jbo": "Did you mean 'job'?",
    "!dag publish nothinglikeit": "See: !dag list",
    "!dag publish": "dag: is missing",
    "!dag publish job color=red target=node-9": "no node is called 'node-9'",
    "!dag publish job color=red target=node-3": "Did you mean",
    "!dag publish job color=red target=a,,b": "target",
    "!dag publish job color=red scope=a/b": "scope",
    "!dag publish job color=red scope=planet:mars": "unknown kind of scope",
    "!dag publish job color=red priority=high": "priority",
    "!dag publish job": "color",
    "!dag publish job color=green": "red",
    "!dag publish job color=red colour=red": "Did you mean 'color'?",
    "!dag publish job color=red count=many": "count",
    "!dag publish job color=red color=blue": "given twice",
    "!dag publish job red": "no key=value",
    '!dag publish job color="red': "not closed",
    "!dag publsh job": "!dag publish",
    "!dag frobnicate": "See: !dag help",
    "!dag status zzzzzz": "no run is called",
    "!dag cancel": "run",
    "!dag approve zzzzzz": "no run is called",
    "!dag logs zzzzzz": "no run is called",
    "!dag show jbo": "Did you mean 'job'?",
    "!dag list everything": "one word too many",
}
PARAMS = """
params:
  color: {required: true, choices: [red, blue]}
  count: {type: integer, default: 1}
"""


def test_every_mistake_gets_one_reply_and_no_run(nodes: Nodes) -> None:
    nodes.open(["node-1", "node-2"], {"job": nodes.job(head=f"scope: proj-a{PARAMS}"), "timer": timer(5)})
    said = {nodes.person.say(text): text for text in WRONG}
    unheard = [nodes.person.say(text) for text in ("dag publish job", "say !dag publish job", "!dagger")]
    for event, text in said.items():
        nodes.reply(event, WRONG[text])
    nodes.pass_time()  # whoever would answer second has had the time
    found = {text: nodes.replies(event) for event, text in said.items()}
    assert {text: len(replies) for text, replies in found.items()} == dict.fromkeys(WRONG, 1)
    assert all(len(replies[0]) < 400 for replies in found.values())
    assert not any(nodes.replies(event) for event in unheard)
    assert not nodes.marks()
    locked = {c["dag"] for e in list(nodes.person.events) if e.get("type") == LOCK
              and isinstance(c := e.get("content"), dict) and "dag" in c}  # fmt: skip
    assert locked == {"timer"}
    assert "Traceback" not in nodes.log("node-1") + nodes.log("node-2")


def test_a_member_without_power_is_told_once(nodes: Nodes, make_account: MakeAccount) -> None:
    guest = make_account("guest")
    nodes.open(
        ["node-1", "node-2"], {"job": nodes.gated("ask"), "timer": timer(4.5)}, members=[guest]
    )  # fmt: skip
    person = nodes.person_of(guest)
    refused = person.say("!dag publish job")
    nodes.reply(refused, f"{guest.user_id} may not publish job")
    run = nodes.person.say("!dag publish job")
    nodes.marks(lines=2)
    person.react(run, "❌")
    nodes.reply(run, f"{guest.user_id} may not cancel")
    person.say("!dag cancel")
    person.react(run, "👎")
    nodes.pass_time()
    nodes.open_gate()
    assert nodes.outcome(run) == "succeeded"
    assert len([r for r in nodes.replies(run) if "may not" in r]) == 1
    assert len(nodes.replies(refused)) == 1
    assert {m[3] for m in nodes.marks()} == {run}


def test_edits_notices_and_replays_are_no_commands(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": nodes.job()})
    person = nodes.person
    run = person.say("!dag publish job")
    assert nodes.outcome(run) == "succeeded"
    text = {"msgtype": "m.text", "body": "!dag publish job"}
    person._send("m.room.message", {**text, "msgtype": "m.notice"})
    edit = {"m.new_content": text, "m.relates_to": {"rel_type": "m.replace", "event_id": run}}
    person._send("m.room.message", {"msgtype": "m.text", "body": "* !dag publish job", **edit})
    person._send("m.room.message", {**text, **edit})
    person._send("m.room.message", {"msgtype": "org.example.odd", "body": "!dag publish job"})
    person._send("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": run, "key": "❌"}})
    last = person.say("!dag publish job")
    assert nodes.outcome(last) == "succeeded"
    assert [m[3] for m in nodes.marks()] == [run, last]
    assert len(nodes.replies(run)) == 1
