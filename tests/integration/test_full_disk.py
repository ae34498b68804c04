"""The disk of the node's database is full: it stops, says why, and goes on once there is room."""

from __future__ import annotations

import sys

import pytest

from tests.integration.nodes import Nodes, wait_exit

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 4


def test_it_stops_with_clear_words_and_goes_on_later(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": nodes.job()})
    assert nodes.stop("node-1") == 0
    pages = (nodes.root / "node-1" / "data" / "node.db").stat().st_size // 4096
    nodes.start("node-1", sys.executable, "-m", "tests.crash.runner", "full", str(pages + 2))
    nodes.joined("node-1", times=2)
    runs = [nodes.person.say(f"!dag publish job scope=proj-{'x' * 50}{n}") for n in range(12)]
    assert wait_exit(nodes.processes["node-1"]) == 1
    log = nodes.log("node-1")
    assert "is full; make room, then start the node again" in log
    assert "Traceback" not in log
    nodes.start("node-1")
    done = {run: nodes.person.wait(f"the end of {run}", _ends(run), 60) for run in runs}
    assert len(done) == len(runs)
    ran = [run for _, _, _, run in nodes.marks()]
    assert len(ran) == len(set(ran))


def _ends(run: str):  # type: ignore[no-untyped-def]
    def match(event):  # type: ignore[no-untyped-def]
        content = event.get("content")
        block = content.get("io.cisbot") if isinstance(content, dict) else None
        return isinstance(block, dict) and block.get("run") == run and block.get("kind") in ("final", "ask")

    return match
