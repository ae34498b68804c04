"""SIGKILL right after the node's Nth effect, at points all over a run; `tests/world` has every point."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from tests.integration.nodes import Nodes, wait_exit

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(180)]
LEASE_S = 4
POINTS = (4, 6, 9, 12, 15, 18)


def test_killed_after_any_effect_every_run_ends(nodes: Nodes) -> None:
    dags = {
        "resumes": nodes.gated("resume"),
        "asks": nodes.gated("ask", "scope: proj-b"),
    }
    nodes.open(["node-1"], dags)
    nodes.open_gate()
    for number, point in enumerate(POINTS):
        assert nodes.stop("node-1") in (0, -15)  # -15: it had not even begun to import
        name = ("resumes", "asks")[number % 2]
        run = nodes.person.say(f"!dag publish {name}")
        nodes.start("node-1", sys.executable, "-m", "tests.crash.runner", "kill", str(point))
        assert wait_exit(nodes.processes["node-1"]) == -9
        nodes.start("node-1")
        end = nodes.person.wait(f"the end of {run}, killed at {point}", _said(run, "final", "ask"), 60)
        if _kind(end) == "ask":
            nodes.person.react(run, "✅")
            nodes.person.wait(f"the end of {run}, killed at {point}", _said(run, "final"), 60)
        assert nodes.outcome(run) == "succeeded"
    ended = {run for task, _, _, run in nodes.marks() if task == "b"}
    assert len(ended) == len(POINTS)


def _kind(event: Mapping[str, object]) -> object:
    content = event.get("content")
    block = content.get("io.cisbot") if isinstance(content, dict) else None
    return block.get("kind") if isinstance(block, dict) else None


def _said(run: str, *kinds: str):  # type: ignore[no-untyped-def]
    def match(event: Mapping[str, object]) -> bool:
        content = event.get("content")
        block = content.get("io.cisbot") if isinstance(content, dict) else None
        return isinstance(block, dict) and block.get("run") == run and block.get("kind") in kinds

    return match
