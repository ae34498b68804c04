"""Nodes on two and three real homeservers, and links that are cut: one holder, and who waits says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from homeserver.api import call
from homeserver.demo.person import Event
from tests.integration.nodes import LOCK, V3, wait_file, wait_text
from tests.integration.servers import Servers, Spread

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 6
PROBE = "io.cisbot.probe"
KEY = "any/project-proj-any"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three homeservers for all tests of this file."""
    with Servers(tmp_path_factory.mktemp("servers"), 3) as made:
        yield made


def ticking(root: Path, head: str, ticks: int) -> str:
    """A DAG whose task writes a line every tenth of a second: scope, node, fence, time."""
    line = f'echo "$CIS_SCOPE $CIS_NODE $CIS_FENCE $(date +%s.%N)" >> "{root}/ticks"'
    loop = f"n=0; while [ $n -lt {ticks} ]; do {line}; sleep 0.1; n=$((n+1)); done"
    return f"{head}\non_lost: rerun\ntasks:\n  a:\n    shell: |\n      {loop}\n"


def spans(root: Path) -> dict[str, list[tuple[int, str, float, float]]]:
    """What the disk says: for each scope (fence, node, first sign, last sign), by fence."""
    signs: dict[tuple[str, int, str], list[float]] = {}
    for line in (root / "ticks").read_text().splitlines():
        scope, node, fence, at = line.split()
        signs.setdefault((scope, int(fence), node), []).append(float(at))
    held: dict[str, list[tuple[int, str, float, float]]] = {}
    for (scope, epoch, node), times in sorted(signs.items()):
        held.setdefault(scope, []).append((epoch, node, min(times), max(times)))
    return held


def overlaps(root: Path) -> list[str]:
    """Where a later fence began before an earlier one was silent, or two nodes had the same."""
    return [
        f"{scope}: {one} {other}"
        for scope, held in spans(root).items()
        for one, other in zip(held, held[1:], strict=False)
        if other[2] <= one[3] or other[0] == one[0]
    ]


def said(nodes: Spread, server: int, thread: str, part: str) -> None:
    """Wait until somebody said so in that thread, as a person on that server reads it."""

    def match(event: Event) -> bool:
        content = event.get("content")
        relates = content.get("m.relates_to") if isinstance(content, dict) else None
        there = isinstance(relates, dict) and relates.get("event_id") == thread
        return there and isinstance(content, dict) and part in str(content.get("body"))

    nodes.people[server].wait(f"{part!r} on server {server}", match, 40)


def released(nodes: Spread, server: int, run: str) -> object:
    """Wait until the run's end has come to that server; the event."""

    def match(event: Event) -> bool:
        content = event.get("content")
        mine = isinstance(content, dict) and (content.get("run"), content.get("outcome")) == (
            run,
            "succeeded",
        )
        return event.get("type") == LOCK and mine

    return nodes.people[server].wait(f"the end on server {server}", match, 30)["event_id"]


def named(nodes: Spread, server: int, key: str) -> object:
    """Which event that server's state names under a claim key."""
    person = nodes.people[server]
    place = f"{V3}/rooms/{nodes.room}/state/{LOCK}/{key.replace('/', '%2F')}?format=event"
    return call("GET", person.base_url + place, token=person.account.access_token)[1].get("event_id")


def test_one_holder_while_the_link_is_cut_and_grants_when_it_is_back(
    servers: Servers, tmp_path: Path
) -> None:
    with Spread(servers, tmp_path, lease_s=LEASE_S) as nodes:
        nodes.write_dag("away", ticking(tmp_path, "scope: proj-away\ntarget: n1-a", 3))
        nodes.write_dag("any", ticking(tmp_path, "scope: proj-any", 135))
        nodes.begin(["1-a"], entries=["0-entry"], later=["0-b"], mode="consistent")
        # a grant
        assert nodes.outcome(nodes.person.say("!dag publish away")) == "succeeded"
        # renewed for more than a lease; then the link is cut: its tasks end in time, a node at home goes on
        run = nodes.person.say("!dag publish any")
        wait_file(tmp_path / "ticks", lines=5)
        nodes.start("0-b")
        nodes.joined("n0-b")
        wait_file(tmp_path / "ticks", lines=3 + 10 * LEASE_S)
        servers.cut(1)
        waiting = nodes.people[1].say("!dag publish away")
        wait_text(tmp_path / "ticks", "n0-b")
        said(nodes, 1, waiting, f"waits for a grant from {servers.all[0].server_name}")
        # the link is back: what waited gets its grant
        servers.heal(1)
        assert nodes.outcome(waiting) == "succeeded"
        assert nodes.outcome(run) == "succeeded"
        held = spans(tmp_path)
        assert [node for _, node, _, _ in held["project-proj-any"]] == ["n1-a", "n0-b"]
        assert (tmp_path / "ticks").read_text().count("proj-any n1-a") < 135  # stopped, not done
        assert overlaps(tmp_path) == []
        unsure = {event.get("sender") for event in nodes.person.events if event.get("type") == PROBE}
        assert unsure <= {nodes.accounts["0-b"].user_id}  # which came late


def test_three_servers_contend_while_one_is_cut_off(servers: Servers, tmp_path: Path) -> None:
    with Spread(servers, tmp_path, lease_s=LEASE_S) as nodes:
        nodes.write_dag("race", ticking(tmp_path, "description: races", 8))
        nodes.begin(["0-a", "1-a", "2-a"], mode="consistent")
        runs = [nodes.person.say(f"!dag publish race scope=proj-{n % 3}") for n in range(6)]
        wait_file(tmp_path / "ticks", lines=3)
        servers.cut(1)
        runs += [nodes.people[n % 3].say(f"!dag publish race scope=proj-{n}") for n in range(3, 6)]
        at_home = [run for n, run in enumerate(runs) if n not in (7,)]
        wait_file(tmp_path / "ticks", lines=8 * (len(at_home) - 2))
        servers.heal(1)
        assert [nodes.outcome(run) for run in runs] == ["succeeded"] * 9
        assert overlaps(tmp_path) == []
        assert len({node for held in spans(tmp_path).values() for _, node, _, _ in held}) >= 2


def test_available_mode_both_sides_run_and_one_stays(servers: Servers, tmp_path: Path) -> None:
    with Spread(servers, tmp_path, lease_s=LEASE_S) as nodes:
        nodes.write_dag("any", ticking(tmp_path, "scope: proj-any", 120))
        nodes.begin(["1-a"], entries=["0-entry"], later=["0-b"], mode="available")
        run = nodes.person.say("!dag publish any")
        wait_file(tmp_path / "ticks", lines=5)
        said(nodes, 1, run, "available: may run twice")
        nodes.start("0-b")
        nodes.joined("n0-b")
        servers.cut(1)
        wait_text(tmp_path / "ticks", "n0-b")
        wait_text(tmp_path / "ticks", "n1-a 2 ")
        servers.heal(1)
        for server in (0, 1):
            said(nodes, server, run, "n1-a has stopped its tasks")
        _, _, _, stopped = next(s for s in spans(tmp_path)["project-proj-any"] if s[:2] == (2, "n1-a"))
        assert nodes.outcome(run) == "succeeded"
        home = next(s for s in spans(tmp_path)["project-proj-any"] if s[1] == "n0-b")
        assert home[3] > stopped + 1
        assert released(nodes, 1, run) == named(nodes, 0, KEY) == named(nodes, 1, KEY)
