"""Approving, rejecting, cancelling: reactions, words and commands, by who may."""

from __future__ import annotations

import pytest

from tests.conftest import MakeAccount
from tests.integration.nodes import LOCK, Nodes, timer

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]


def taken(nodes: Nodes) -> set[object]:
    """The runs that some node asked for."""
    contents = [e.get("content") for e in list(nodes.person.events) if e.get("type") == LOCK]
    return {c["run"] for c in contents if isinstance(c, dict) and c.get("action") == "take"}


def short(nodes: Nodes, run: str) -> str:
    """What people type for the run: the third word of its prompt."""
    return nodes.replies(run)[0].split()[2]


def test_two_must_agree_and_the_publisher_is_not_one_of_them(nodes: Nodes, make_account: MakeAccount) -> None:
    first, second, guest = (make_account(name) for name in ("first", "second", "guest"))
    rule = "scope: proj-a\napproval: {count: 2, four_eyes: true}"
    nodes.open(
        ["node-1", "node-2"], {"job": nodes.job(head=rule), "timer": timer(4.5)},
        members=[guest], powers=[first, second],
    )  # fmt: skip
    one, two, none = (nodes.person_of(account) for account in (first, second, guest))
    run = nodes.person.say("!dag publish job")
    nodes.reply(run, "2 needed")
    nodes.person.react(run, "✅")
    nodes.reply(run, f"{nodes.operator.user_id} may not approve")
    none.react(run, "✅")
    nodes.reply(run, f"{guest.user_id} may not approve")
    none.say(f"!dag approve {short(nodes, run)}")
    one.react(run, "✔️")
    one.say(f"!dag approve {short(nodes, run)}")
    nodes.pass_time()
    assert run not in taken(nodes)
    shown = nodes.person.say(f"!dag status {short(nodes, run)}")
    nodes.reply(shown, "1 of 2")
    prompt = next(e for e in list(nodes.person.events) if "2 needed" in str(e.get("content")))
    two.react(str(prompt["event_id"]), "✅")
    assert nodes.outcome(run) == "succeeded"
    said = nodes.replies(run)
    assert len([r for r in said if "needed" in r]) == 1
    assert len([r for r in said if "may not" in r]) == 2
    assert len(nodes.marks()) == 1


def test_words_commands_and_reactions_say_no(nodes: Nodes, make_account: MakeAccount) -> None:
    guest = make_account("guest")
    rule = "scope: proj-a\napproval: {count: 1}"
    long = nodes.gated("ask", "scope: proj-b")
    dags = {"job": nodes.job(head=rule), "long": long, "timer": timer(4.5)}
    nodes.open(["node-1", "node-2"], dags, members=[guest])
    person = nodes.person
    rejected, by_command, by_word, approved = (person.say("!dag publish job") for _ in range(4))
    for run in (rejected, by_command, by_word, approved):
        nodes.reply(run, "waits for approval")
    person.react(rejected, "❌")
    person.say(f"!dag reject {short(nodes, by_command)} not on a Friday")
    in_thread = {"rel_type": "m.thread", "event_id": by_word}
    person._send("m.room.message", {"msgtype": "m.text", "body": "cancel", "m.relates_to": in_thread})
    in_thread = {"rel_type": "m.thread", "event_id": approved}
    person._send("m.room.message", {"msgtype": "m.text", "body": "Ok!", "m.relates_to": in_thread})
    nodes.reply(rejected, "rejected by")
    nodes.reply(by_command, "not on a Friday")
    nodes.reply(by_word, "cancelled by")
    assert nodes.outcome(approved) == "succeeded"
    running = person.say("!dag publish long")
    nodes.marks(lines=3)
    waiting = person.say("!dag publish long")
    nodes.reply(waiting, "is held by")
    person.react(waiting, "❌")
    nodes.reply(waiting, "before it started")
    person.say(f"!dag cancel {short(nodes, running)}")
    assert nodes.outcome(running) == "cancelled"
    nodes.reply(running, "cancelled by")
    nodes.pass_time()
    assert taken(nodes) & {rejected, by_command, by_word, waiting} == set()
    assert [m[3] for m in nodes.marks()] == [approved, running, running]
    for run in (rejected, by_command, by_word):
        assert len(nodes.replies(run)) == 2, nodes.replies(run)


def test_nobody_approves_in_time(nodes: Nodes) -> None:
    rule = "scope: proj-a\napproval: {count: 1, deadline: 2s}"
    nodes.open(["node-1", "node-2"], {"job": nodes.job(head=rule), "timer": timer(4.5)})
    run = nodes.person.say("!dag publish job")
    nodes.reply(run, "expired")
    nodes.person.react(run, "✅")
    nodes.pass_time()
    assert not nodes.marks()
    assert len(nodes.replies(run)) == 2
