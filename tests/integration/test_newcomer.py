"""A machine joins a room with a past, and one comes back without its database: nothing of it is repeated."""

from __future__ import annotations

import shutil

import pytest

from homeserver.api import call
from tests.integration.nodes import V3, Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 4


def test_what_is_over_or_refused_is_left_alone(nodes: Nodes) -> None:
    gated = nodes.job(head="scope: proj-g\napproval: {count: 1}")
    nodes.open(["node-1", "node-2"], {"job": nodes.job(), "gated": gated})
    say, react = nodes.person.say, nodes.person.react
    done = say("!dag publish job")
    assert nodes.outcome(done) == "succeeded"
    everywhere = say("!dag publish job target=all")
    nodes.reply(everywhere, "succeeded on node-1")
    nodes.reply(everywhere, "succeeded on node-2")
    refused = say("!dag publish job target=node-3")
    nodes.reply(refused, "no node is called")
    rejected = say("!dag publish gated")
    nodes.reply(rejected, "waits for approval")
    react(rejected, "❌")
    nodes.reply(rejected, "was rejected")
    waits = say("!dag publish gated")
    nodes.reply(waits, "waits for approval")
    before = {run: len(nodes.replies(run)) for run in (done, everywhere, refused, rejected, waits)}

    nodes.accounts["node-3"] = account = nodes.make_account("node-3")
    url = f"{nodes.synapse.base_url}{V3}/rooms/{nodes.room}/invite"
    assert call("POST", url, {"user_id": account.user_id}, token=nodes.operator.access_token)[0] == 200
    assert nodes.make_node(account) == 0
    nodes.write_settings("node-3")
    nodes.start("node-3")
    nodes.joined("node-3")
    assert nodes.stop("node-2") == 0
    shutil.rmtree(nodes.root / "node-2" / "data")
    nodes.start("node-2")
    nodes.joined("node-2", times=2)

    for name in ("node-1", "node-2", "node-3"):
        assert nodes.outcome(say(f"!dag publish job target={name}")) == "succeeded"
    assert {run: len(nodes.replies(run)) for run in before} == before
    react(waits, "✅")
    assert nodes.outcome(waits) == "succeeded"
    ran = [run for _, _, _, run in nodes.marks()]
    assert ran.count(done) == 1
    assert sorted(run for run in ran if run.startswith(everywhere)) == [
        f"{everywhere}|node-1", f"{everywhere}|node-2",
    ]  # fmt: skip
    assert not {refused, rejected} & set(ran)
