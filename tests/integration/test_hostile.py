"""Members with the nodes' power who write nonsense and lies: the holder and the others go on."""

from __future__ import annotations

import pytest

from tests.conftest import MakeAccount
from tests.integration.nodes import Nodes, timer

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 4

KEY = "job/project-proj-a"
NONSENSE: tuple[dict[str, object], ...] = (
    {},
    {"action": "take"},
    {"action": ["take"], "epoch": {"a": 1}},
    {"action": "release", "node": 7, "incarnation": None},
    {"action": "take", "node": "../..", "incarnation": "x", "nonce": "n", "epoch": -1, "after": None,
     "run": "$r", "dag": "job", "scope": "s", "lease_s": 0, "definition": ""},
    {"action": "restate", "node": "n", "incarnation": "x", "head": {"key": KEY, "epoch": 2**52, "after": 1}},
    {"version": 2**53 - 1, "value": "x" * 50_000},
    {"id": "x" * 30_000, "labels": {"a": ["b"]}},
    {"renews": [{"key": KEY, "epoch": 1}] * 900, "node": "n", "incarnation": "i", "nonce": "n"},
)  # fmt: skip


def test_nonsense_and_lies_harm_nobody(nodes: Nodes, make_account: MakeAccount) -> None:
    stranger = make_account("stranger")
    nodes.open(
        ["node-1", "node-2"], {"job": nodes.gated("ask"), "timer": timer(5)}, powers=[stranger]
    )  # fmt: skip
    liar = nodes.person_of(stranger)
    run = nodes.person.say("!dag publish job")
    holder = nodes.marks(lines=2)[-1][1]
    take = nodes.locks(run, "take")[-1]
    for content in NONSENSE:
        for kind, key in (("lock", KEY), ("intent", KEY), ("memory", "answer"), ("node", stranger.user_id)):
            assert nodes.put_state(liar, f"io.cisbot.{kind}", key, content)[0] == 200
        for kind in ("heartbeat", "probe", "end"):
            liar._send(f"io.cisbot.{kind}", dict(content))
    # a record of its own makes it a node; then it speaks for the holder
    record = {"id": "evil", "incarnation": "evil", "executes": False, "labels": {}, "dags": {}}
    assert nodes.put_state(liar, "io.cisbot.node", stranger.user_id, record)[0] == 200
    fields = {k: take[k] for k in ("node", "incarnation", "epoch", "run")}
    epoch = int(str(take["epoch"]))
    lies: tuple[dict[str, object], ...] = (
        {**fields, "action": "release", "nonce": "lie", "outcome": "succeeded"},
        {**fields, "action": "release", "nonce": "lie", "outcome": "lost", "epoch": epoch + 1},
        {**fields, "action": "release", "nonce": "lie", "outcome": None},
        {**take, "nonce": "lie", "epoch": 2**52, "head": None},
        {**take, "nonce": "lie", "epoch": epoch + 1, "after": "$nothing", "head": None},
    )  # fmt: skip
    for lie in lies:
        assert nodes.put_state(liar, "io.cisbot.lock", KEY, lie)[0] == 200
    liar._send("io.cisbot.end", {"node": take["node"], "incarnation": take["incarnation"]})
    liar._send("io.cisbot.heartbeat", {"node": holder, "incarnation": take["incarnation"], "nonce": "lie",
                                       "renews": [{"key": KEY, "epoch": take["epoch"]}]})  # fmt: skip
    assert nodes.put_state(liar, "io.cisbot.node", nodes.accounts[holder].user_id, record)[0] == 403
    assert nodes.put_state(liar, "io.cisbot.charter", "", {"version": 1, "home": "evil"})[0] == 403
    block = {
        "kind": "final",
        "run": run,
        "epoch": take["epoch"],
        "status": "succeeded",
        "tasks": {"b": "succeeded"},
    }
    liar._send("m.room.message", {"msgtype": "m.text", "body": "done", "io.cisbot": block})
    nodes.pass_time()  # longer than a lease: the holder renews through all this
    shown = nodes.person.say("!dag status " + nodes.replies(run)[0].split()[2])
    assert "running" in nodes.reply(shown, "running")
    nodes.open_gate()
    nodes.reply(run, f"succeeded on {holder}")
    assert len(nodes.marks()) == 2
    after = nodes.person.say("!dag publish job")
    assert nodes.outcome(after) == "succeeded"
    for name in ("node-1", "node-2"):
        assert nodes.processes[name].poll() is None, nodes.log(name)
        assert "Traceback" not in nodes.log(name)


def test_a_member_without_power_can_write_none_of_it(nodes: Nodes, make_account: MakeAccount) -> None:
    guest = make_account("guest")
    nodes.open(["node-1"], {"job": nodes.job()}, members=[guest])
    person = nodes.person_of(guest)
    for kind, key in (("lock", KEY), ("intent", KEY), ("memory", "answer"), ("node", guest.user_id)):
        assert nodes.put_state(person, f"io.cisbot.{kind}", key, {"action": "take"})[0] == 403
    for kind in ("heartbeat", "probe", "end"):
        with pytest.raises(RuntimeError, match="403"):
            person._send(f"io.cisbot.{kind}", {"node": "node-1"})
    run = nodes.person.say("!dag publish job")
    assert nodes.outcome(run) == "succeeded"
