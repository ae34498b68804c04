"""The room's public memory: from tasks, from the command line, and two at once."""

from __future__ import annotations

import threading

import pytest

from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 4


def test_remember_and_compare_and_set(nodes: Nodes) -> None:
    script = (
        "set -e; cisbot memory set answer 42; [ $(cisbot memory get answer) = 42 ]\n"
        "      cisbot memory cas answer 42 43; if cisbot memory cas answer 42 44; then exit 9; fi\n"
        "    remember: {last.run: verified}"
    )
    failing = f"scope: proj-b\ntasks:\n  a:\n    shell: {'exit 1'}\n    remember: {{last.run: broken}}\n"
    nodes.open(["node-1", "node-2"], {"job": nodes.job(script), "failing": failing})
    run = nodes.person.say("!dag publish job")
    assert nodes.outcome(run) == "succeeded", nodes.replies(run)
    assert nodes.outcome(nodes.person.say("!dag publish failing")) == "failed"
    configs = [["--config", str(nodes.config(name))] for name in ("node-1", "node-2")]

    def memory(number: int, *words: str) -> tuple[int, str]:
        done = nodes.cisbot("memory", *words, *configs[number])
        return done.returncode, (done.stdout + done.stderr).strip()

    assert memory(0, "get", "answer") == memory(1, "get", "answer") == (0, "43")
    assert memory(1, "get", "last.run") == (0, "verified")
    results: list[int] = []
    tries = [
        threading.Thread(
            target=lambda n=n: results.append(memory(n % 2, "cas", "answer", "43", f"by-{n}")[0])
        )
        for n in range(6)
    ]
    for one in tries:
        one.start()
    for one in tries:
        one.join(60)
    assert sorted(results) == [0, 1, 1, 1, 1, 1]
    winner = memory(0, "get", "answer")
    assert winner == memory(1, "get", "answer")
    assert winner[1].startswith("by-")
    state = nodes.person._call("GET", f"/_matrix/client/v3/rooms/{nodes.room}/state/io.cisbot.memory/answer")
    assert state[1]["value"] == winner[1]
    assert memory(0, "get", "nothing") == (1, "nothing is not set")
    assert memory(0, "set", "nothing", "") == memory(0, "get", "nothing") == (0, "")
    assert memory(0, "cas", "fresh", "", "first")[0] == 0
    assert memory(0, "set", "no/slash", "x")[0] == 2
    assert memory(0, "set", "answer")[0] == 2
    assert memory(0, "set", "answer", "x" * 5000)[0] == 2
