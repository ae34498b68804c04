"""How a node on a real homeserver ends when its terminal closes, or when its data directory is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeserver.synapse import Synapse
from tests.conftest import MakeAccount
from tests.integration.nodes import Nodes, wait_exit

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]


@pytest.fixture
def nodes(synapse: Synapse, make_account: MakeAccount, tmp_path: Path) -> Iterator[Nodes]:
    """A room and its nodes."""
    with Nodes(synapse, make_account, tmp_path) as made:
        yield made


@pytest.fixture
def hangups() -> Iterator[None]:
    """Whoever runs the tests by nohup has children that ignore a hangup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangups")
def test_a_hangup_is_a_goodbye(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": nodes.job()})
    nodes.processes["node-1"].send_signal(signal.SIGHUP)
    assert wait_exit(nodes.processes["node-1"]) == 0
    gone = nodes.person.wait("the goodbye", lambda event: _says_goodbye(event), 20)
    assert gone


def _says_goodbye(event: object) -> bool:
    content = event.get("content") if isinstance(event, dict) else None
    return isinstance(content, dict) and content.get("id") == "node-1" and bool(content.get("gone"))


def test_a_task_that_removes_the_data_dir_stops_the_node(nodes: Nodes) -> None:
    dag = 'tasks:\n  bad:\n    shell: rm -rf "$CIS_DATA"; sleep 1000\n'
    nodes.open(["node-1"], {"bad": dag})
    nodes.person.say("!dag publish bad")
    assert wait_exit(nodes.processes["node-1"]) == 1
    assert "node.data_dir was removed or replaced while the node ran: " in nodes.log("node-1")
    assert "Traceback" not in nodes.log("node-1")
