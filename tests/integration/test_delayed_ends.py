"""Delayed ends (MSC4140) on a real Synapse: a dead node's claims are free in seconds, a living one's stay."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeserver.accounts import Account
from homeserver.api import call
from homeserver.demo.person import Event
from homeserver.synapse import Synapse
from tests.integration.nodes import LOCK, Nodes, wait_file, wait_text

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 30
DELAY_S = 4.0
DELAYED = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"


@pytest.fixture
def quick(nodes: Nodes) -> Nodes:
    """Nodes whose ends are sent after four seconds without a word from them."""
    nodes.end_delay_s = DELAY_S
    return nodes


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[Nodes]:
    """A room's nodes on a homeserver without delayed events."""
    with Synapse.start(tmp_path / "synapse", limits="lifted", delayed_events=False) as synapse:
        count = iter(range(1000))

        def account(prefix: str, *, admin: bool = False) -> Account:
            return synapse.accounts.create(f"{prefix}-{next(count)}", "secret word", admin=admin)

        with Nodes(synapse, account, tmp_path, lease_s=LEASE_S) as made:
            made.end_delay_s = DELAY_S
            yield made


def beating(nodes: Nodes) -> str:
    """A DAG whose task says several times a second that it runs, with its fence, until the gate opens."""
    beat = f'date "+%s.%N $CIS_FENCE $CIS_NODE" >> "{nodes.root}/beats"'
    loop = f"while [ ! -e {nodes.root}/gate ]; do {beat}; sleep 0.05; done"
    return f"scope: proj-a\non_lost: rerun\ntasks:\n  a:\n    shell: |\n      {loop}\n"


def beats(nodes: Nodes) -> list[tuple[float, int, str]]:
    """When, fence, node."""
    lines = (nodes.root / "beats").read_text().splitlines()
    return [(float(at), int(fence), node) for at, fence, node in (line.split() for line in lines)]


def holder(nodes: Nodes) -> str:
    """The node on which the beating task runs."""
    wait_file(nodes.root / "beats")
    return beats(nodes)[-1][2]


def until_fence(nodes: Nodes, fence: int, seconds: float) -> float:
    """Wait for a beat under that fence or a higher one; its time."""
    wait_text(nodes.root / "beats", f" {fence} node", seconds)
    return next(at for at, its, _ in beats(nodes) if its == fence)


def armed(nodes: Nodes, name: str, count: int) -> list[str]:
    """Wait until the node's account has so many delayed events; their ids."""
    token = nodes.accounts[name].access_token
    tick = threading.Event()
    for _ in range(100):
        status, answer = call("GET", nodes.synapse.base_url + DELAYED, token=token)
        assert status == 200, answer
        found = [str(one["delay_id"]) for one in answer["delayed_events"]]
        if len(found) == count:
            return found
        tick.wait(0.1)
    raise AssertionError(f"{name} has {len(found)} delayed events")


def ends(nodes: Nodes, name: str) -> int:
    """How many ends of that node the room has."""
    account = nodes.accounts[name].user_id
    return sum((e.get("type"), e.get("sender")) == ("io.cisbot.end", account) for e in nodes.person.events)


def test_a_killed_node_is_replaced_in_seconds(quick: Nodes) -> None:
    quick.open(["node-1", "node-2"], {"job": beating(quick)})
    run = quick.person.say("!dag publish job")
    dead = holder(quick)
    killed = time.time()
    quick.kill(dead)

    def second(event: Event) -> bool:
        content = event.get("content")
        lock = content if event.get("type") == LOCK and isinstance(content, dict) else {}
        return (lock.get("action"), lock.get("epoch")) == ("take", 2)

    take = quick.person.wait("another node's take", second, 20)
    took = float(str(take["origin_server_ts"])) / 1000 - killed
    began = until_fence(quick, 2, 10) - killed
    print(f"taken over after {took:.2f} s, begun after {began:.2f} s, delay {DELAY_S} s, lease {LEASE_S} s")
    assert took <= 5.0
    quick.open_gate()
    assert quick.outcome(run) == "succeeded"


def test_a_node_that_is_stopped_and_continued_overlaps_with_nobody(quick: Nodes) -> None:
    """Only the node is stopped: its worker keeps the deadline."""
    quick.open(["node-1", "node-2"], {"job": beating(quick)})
    run = quick.person.say("!dag publish job")
    name = holder(quick)
    stopped = quick.processes[name]
    stopped.send_signal(signal.SIGSTOP)
    try:
        until_fence(quick, 2, 10)
    finally:
        stopped.send_signal(signal.SIGCONT)
    wait_text(quick.root / name / "node.log", "going on as a new one")
    quick.joined(name, times=2)
    quick.open_gate()
    assert quick.outcome(run) == "succeeded"
    first, second = ([at for at, fence, _ in beats(quick) if fence == n] for n in (1, 2))
    print(f"{second[0] - first[-1]:.2f} s between the last sign of the one and the first of the other")
    assert first[-1] < second[0]
    assert {fence for _, fence, _ in beats(quick)} == {1, 2}


def test_a_healthy_run_outlives_the_delay_and_a_clean_stop_says_one_end(quick: Nodes) -> None:
    quick.open(
        ["node-1"], {"job": beating(quick), "timer": f"tasks:\n  a:\n    shell: sleep {3 * DELAY_S}\n"}
    )
    run = quick.person.say("!dag publish job")
    holder(quick)
    quick.pass_time()
    assert {fence for _, fence, _ in beats(quick)} == {1}
    assert ends(quick, "node-1") == 0
    quick.open_gate()
    assert quick.outcome(run) == "succeeded"
    checked = quick.cisbot("check", "--config", str(quick.config("node-1")))
    assert checked.returncode == 0, checked.stdout
    assert "a dead node's claims are free in 4 s" in checked.stdout
    armed(quick, "node-1", 1)
    assert quick.stop("node-1") == 0
    armed(quick, "node-1", 0)

    def gone(event: Event) -> bool:
        content = event.get("content")
        return isinstance(content, dict) and content.get("gone") is True

    quick.person.wait("the node's record", gone)
    assert ends(quick, "node-1") == 1


def test_an_early_end_costs_an_incarnation_and_the_node_goes_on(quick: Nodes) -> None:
    quick.open(["node-1"], {"job": beating(quick)})
    run = quick.person.say("!dag publish job")
    holder(quick)
    (delay_id,) = armed(quick, "node-1", 1)
    token = quick.accounts["node-1"].access_token
    status, answer = call("POST", f"{quick.synapse.base_url}{DELAYED}/{delay_id}/send", {}, token=token)
    assert status == 200, answer
    until_fence(quick, 2, 15)
    quick.open_gate()
    assert quick.outcome(run) == "succeeded"
    (fresh,) = armed(quick, "node-1", 1)
    assert fresh != delay_id
    assert quick.processes["node-1"].poll() is None


def test_a_homeserver_without_delayed_events_does(plain: Nodes) -> None:
    plain.open(["node-1"], {"job": plain.job()})
    run = plain.person.say("!dag publish job")
    assert plain.outcome(run) == "succeeded"
    assert plain.stop("node-1") == 0
    assert ends(plain, "node-1") == 1
    checked = plain.cisbot("check", "--config", str(plain.config("node-1")))
    assert checked.returncode == 0, checked.stdout
    assert "the homeserver has no delayed events (MSC4140)" in checked.stdout
    assert "max_event_delay_duration" in checked.stdout
