"""The homeserver is away: at start, for less than a lease, for more than one."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from homeserver.synapse import Synapse
from tests.integration.nodes import Nodes, wait_file, wait_text

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(150)]
LEASE_S = 4


def gone(pid: int, seconds: float) -> bool:
    """Wait until the process is no more."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def test_a_node_waits_for_it_goes_on_without_it_and_stops_before_its_lease_ends(
    own: Synapse, lone: Nodes
) -> None:
    nodes, root = lone, lone.root
    forever = f'echo $$ > "{root}/pid"; exec sleep 600'
    nodes.lease_s = 6
    long_job, short_job = nodes.job(forever), nodes.job("sleep 2", "scope: proj-b")
    nodes.open(["node-1"], {"long": long_job, "short": short_job})
    # at start
    assert nodes.stop("node-1") == 0
    own.kill()
    nodes.start("node-1")
    wait_text(root / "node-1" / "node.log", "trying again")
    own.restart()
    nodes.joined("node-1", times=2)
    # shorter than the lease: the run goes on, its end is told afterwards
    short = nodes.person.say("!dag publish short")
    nodes.marks(lines=1)
    own.kill()
    own.restart()
    assert nodes.outcome(short) == "succeeded"
    nodes.reply(short, "succeeded on node-1")
    assert len(nodes.marks()) == 1
    # longer than the lease: the task is dead before it ends
    long = nodes.person.say("!dag publish long")
    pid = int(wait_file(root / "pid")[0])
    own.kill()
    assert gone(pid, nodes.lease_s + 1)
    own.restart()
    nodes.reply(long, "Not known to be done", 40)
    nodes.person.react(long, "❌")
    nodes.reply(long, "closed by")
    after = nodes.person.say("!dag publish short")
    assert nodes.outcome(after) == "succeeded"
    assert [m[3] for m in nodes.marks()] == [short, long, after]
    assert "Traceback" not in nodes.log("node-1")


def test_a_wrong_address_is_named_at_once(nodes: Nodes, tmp_path: Path) -> None:
    nodes.open([], {})
    nodes.accounts["node-1"] = nodes.make_account("node-1")
    nodes.write_settings("node-1")
    text = nodes.config("node-1").read_text()
    nodes.config("node-1").write_text(text.replace(nodes.accounts["node-1"].access_token, "wrong"))
    done = nodes.cisbot("run", "--config", str(nodes.config("node-1")))
    assert done.returncode == 1
    assert "matrix.access_token" in done.stderr
