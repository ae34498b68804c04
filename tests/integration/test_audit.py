"""`cisbot audit` by an ordinary member: a race and a killed holder are consistent; a planted lie is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from homeserver.accounts import Account
from tests.conftest import MakeAccount
from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(180)]
LEASE_S = 6
KEY = "job/project-proj-a"


def account_of(nodes: Nodes, account: Account) -> list[str]:
    """The options that name an account and the room."""
    token = nodes.root / f"{account.device_id}.token"
    token.write_text(account.access_token)
    return [
        "--homeserver", nodes.synapse.base_url, "--user", account.user_id, "--token-file", str(token),
        "--room", nodes.room,
    ]  # fmt: skip


def audit(nodes: Nodes, *args: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the report."""
    done = nodes.cisbot("audit", "--json", *args)
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def test_a_member_without_power_audits_a_race_and_a_killed_holder(
    nodes: Nodes, make_account: MakeAccount, tmp_path: Path
) -> None:
    auditor, stranger = make_account("auditor"), make_account("stranger")
    names = [f"node-{n}" for n in range(1, 5)]
    again = "description: races\non_lost: rerun"  # a busy machine may lose a lease
    dags = {"job": nodes.gated("resume"), "quick": nodes.job("sleep 0.2", head=again)}
    nodes.open(names, dags, members=[auditor])
    nodes.person_of(auditor).stop()
    who = account_of(nodes, auditor)
    races = [nodes.person.say(f"!dag publish quick scope=proj-{n % 3} target=any") for n in range(9)]
    assert [nodes.outcome(one) for one in races] == ["succeeded"] * 9
    run = nodes.person.say("!dag publish job scope=proj-a")
    nodes.reply(run, "a: succeeded")
    dead = [node for _, node, _, marked in nodes.marks() if marked == run][-1]
    nodes.kill(dead)
    nodes.open_gate()
    assert nodes.outcome(run) == "succeeded"

    saved = tmp_path / "room.jsonl"
    code, report = audit(nodes, *who, "--save", str(saved))
    assert (code, report["consistent"], report["breaches"]) == (0, True, [])
    assert report["whole"]
    fences = {(run, fence, node) for _, node, fence, run in nodes.marks()}
    holds = {(hold["run"], hold["epoch"], hold["node"]): hold for hold in report["holds"]}
    assert fences <= set(holds), "what ran was held"
    story = [hold for hold in report["holds"] if hold["run"] == run]
    assert [hold["end"] for hold in story][-2:] == ["taken over", "released"]
    assert story[-2]["node"] == dead
    assert story[-1]["outcome"] == "succeeded"
    assert all(
        before["until_ms"] <= after["since_ms"] for before, after in zip(story, story[1:], strict=False)
    )
    assert "lapsed" in [remark["kind"] for remark in report["remarks"]]

    text = nodes.cisbot("audit", *who, "--key", KEY)
    assert text.returncode == 0, text.stderr
    assert dead in text.stdout and "taken over" in text.stdout and "no inconsistency" in text.stdout
    assert "quick/" not in text.stdout
    code, offline = audit(nodes, "--from", str(saved))
    assert (code, offline["holds"]) == (0, report["holds"])
    assert not [e for e in nodes.person.events if e.get("sender") == auditor.user_id and "membership" not in
                str(e.get("content"))], "an audit writes nothing"  # fmt: skip

    outside = nodes.cisbot("audit", *account_of(nodes, stranger))
    assert outside.returncode == 2
    assert "must invite it" in outside.stderr
    plant(nodes, run, story[-1])
    code, report = audit(nodes, *who)
    assert (code, report["consistent"]) == (1, False)
    found = {(finding["kind"], finding["sender"]) for finding in report["breaches"]}
    liar = nodes.operator.user_id
    assert found == {
        (kind, liar) for kind in ("not-held", "speaks-for-another", "head-differs", "lease-too-long")
    }
    assert [hold["event"] for hold in report["holds"]][: len(holds)] == [h["event"] for h in holds.values()]


def plant(nodes: Nodes, run: str, hold: dict[str, Any]) -> None:
    """The operator, who may do anything, speaks as the node that held the run, and lies about the key."""
    who = {"node": hold["node"], "incarnation": "made-up", "nonce": "lie"}
    release = {**who, "action": "release", "epoch": hold["epoch"], "run": run, "outcome": "failed"}
    take = {
        **who, "action": "take", "epoch": 99, "after": "$nowhere", "run": run, "dag": "job",
        "scope": "project-proj-a", "lease_s": 900, "definition": "0",
    }  # fmt: skip
    for content in (release, take):
        assert nodes.put_state(nodes.person, "io.cisbot.lock", KEY, content)[0] == 200
    head = {"key": KEY, "epoch": 50, "after": hold["event"], "holders": []}
    nodes.person._send("io.cisbot.heartbeat", {**who, "renews": [], "heads": [head]})
