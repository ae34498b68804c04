"""An ordinary account under Synapse's default limit: many tasks, talk on top, and no lease is lost."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from homeserver.accounts import Account
from homeserver.demo.person import Event
from homeserver.synapse import Synapse
from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(180)]
LEASE_S = 30
FINAL_S = 15.0  # from a release to its final reply: a few tokens at one in five seconds
ASKED = 16  # answers that the node owes while it runs: more than the limit lets out in that time


def long_job(tasks: int) -> str:
    """So many tasks, one after the other, a second each."""
    lines = ["scope: proj-a", "tasks:"]
    for number in range(tasks):
        needs = f"needs: [t{number - 1}], " if number else ""
        lines.append(f"  t{number}: {{{needs}shell: sleep 1}}")
    return "\n".join(lines) + "\n"


def ts(event: Event) -> int:
    """The homeserver's time of an event, in milliseconds."""
    found = event["origin_server_ts"]
    assert isinstance(found, int)
    return found


def test_a_limit_costs_no_lease(synapse_default_limits: Synapse, tmp_path: Path) -> None:
    def account(prefix: str, *, admin: bool = False) -> Account:
        name = f"{prefix}-{secrets.token_hex(4)}"
        return synapse_default_limits.accounts.create(name, "secret word", admin=admin)

    with Nodes(synapse_default_limits, account, tmp_path, lease_s=LEASE_S) as nodes:
        curious = [account("curious") for _ in range(2)]
        nodes.open(["node-1"], {"long": long_job(36), "short": long_job(2)}, members=curious)
        persons = [nodes.person_of(one) for one in curious]
        first = nodes.person.say("!dag publish long")
        nodes.reply(first, "running")
        for number in range(ASKED):
            persons[number % 2].say("!dag status")
        runs = [first]
        assert nodes.outcome(first, 90) == "succeeded"
        runs.append(nodes.person.say("!dag publish short"))
        assert nodes.outcome(runs[-1], 40) == "succeeded"
        for run in runs:
            nodes.reply(run, "succeeded on node-1", FINAL_S + 10)
        assert [take["epoch"] for run in runs for take in nodes.locks(run, "take")] == [
            1,
            1,
        ]  # each its DAG's first claim
        assert late_renewals(nodes) == []
        delays = final_delays(nodes, runs)
        print(f"final replies after {delays} s")
        assert max(delays) < FINAL_S
        assert "could not send" not in nodes.log("node-1")


def late_renewals(nodes: Nodes) -> list[float]:
    """Pauses between a claim's signs of life that are longer than half a lease, in seconds."""
    kinds = ("io.cisbot.heartbeat", "io.cisbot.lock")
    signs = [ts(event) for event in list(nodes.person.events) if event.get("type") in kinds]
    pauses = [(after - before) / 1000 for before, after in zip(signs, signs[1:], strict=False)]
    return [pause for pause in pauses if pause > LEASE_S / 2]


def final_delays(nodes: Nodes, runs: list[str]) -> list[float]:
    """Seconds from each run's release to its final reply."""
    released: dict[object, int] = {}
    delays: list[float] = []
    for event in list(nodes.person.events):
        content = event.get("content")
        if not isinstance(content, dict):
            continue
        block = content.get("io.cisbot")
        if content.get("action") == "release":
            released[content.get("run")] = ts(event)
        elif isinstance(block, dict) and block.get("kind") == "final" and block.get("run") in runs:
            delays.append((ts(event) - released[block.get("run")]) / 1000)
    assert len(delays) == len(runs)
    return delays
