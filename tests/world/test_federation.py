"""Nodes on several servers: only the home server's stream decides, and who is cut off waits and says why."""

from __future__ import annotations

import pytest

from cisbot.core.effects import Answer, Work
from cisbot.core.ids import ClaimKey
from cisbot.core.inputs import Instant, MemoryAsk, RoomBatch
from cisbot.core.room.events import Json, JsonMap
from cisbot.core.room.wire import T_CHARTER
from tests.world.machine import Machine, dag
from tests.world.room import HOME, OPERATOR
from tests.world.servers import Consistent, Federation

ANY = dag("id: any\nscope: proj-a\non_lost: rerun\ntasks:\n  a: {shell: 'true'}\n")
AWAY = dag("id: away\nscope: proj-b\ntarget: hs2-1\non_lost: rerun\ntasks:\n  a: {shell: 'true'}\n")
KEEP = dag("id: keep\nscope: proj-c\ntarget: hs2-1\ntasks:\n  a: {shell: x, remember: {k: v}}\n")
BUSY = dag("id: busy\nscope: proj-d\ntarget: hs-test-1\ntasks:\n  b: {shell: 'true'}\n")
LEASE_S = 30.0


def slow(world: Federation) -> None:
    """Tasks end when the test says so."""
    world.slow()


def sent(world: Federation, kind: str, **content: Json) -> list[JsonMap]:
    """What is in the home stream of that type and with these contents."""
    found = [raw["content"] for raw in world.room.stream if raw["type"] == kind]
    return [
        c
        for c in found
        if isinstance(c, dict) and all(c.get(name) == value for name, value in content.items())
    ]


def test_a_node_on_another_server_runs_by_a_grant() -> None:
    world = Consistent([AWAY])
    run = world.say("!dag publish away", wait_s=10)
    assert world.began() == ["hs2-1:a@1"]
    assert [m.status(run) for m in world.machines] == ["succeeded", "succeeded"]
    (take,) = sent(world, "io.cisbot.lock", action="take")
    asker = take["asker"]
    assert isinstance(asker, dict)
    assert (take["node"], asker["node"]) == ("hs-test-1", "hs2-1")
    assert len(sent(world, "io.cisbot.intent")) == len(sent(world, "io.cisbot.heartbeat")) == 1


def test_an_entry_node_at_home_is_enough() -> None:
    world = Consistent([AWAY], execute_at_home=False)
    run = world.say("!dag publish away", wait_s=10)
    assert [m.status(run) for m in world.machines] == ["succeeded", "succeeded"]


@pytest.mark.parametrize("homes", [1, 3])
def test_its_lease_is_renewed_while_home_nodes_tell_of_its_signs(homes: int) -> None:
    world = Consistent([AWAY], (homes, 1))
    slow(world)
    run = world.say("!dag publish away", wait_s=5 * LEASE_S)
    assert world.holders() == ["hs2-1"]
    away = world.machines[-1]
    away.end_task("a", world.now)
    world.wait(5)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    beats = sent(world, "io.cisbot.heartbeat")
    own = [beat for beat in beats if beat["node"] == "hs2-1"]
    assert len(beats) - len(own) <= len(own) + 2  # one answer each, and the grant's


def test_when_the_link_is_cut_it_stops_in_time_and_the_home_side_goes_on() -> None:
    world = Consistent([ANY, BUSY])
    slow(world)
    home, away = world.machines
    world.say("!dag publish busy")
    run = world.say("!dag publish any", wait_s=5)
    assert away.status(run) == home.status(run) == "running"
    assert away.running
    world.cut()
    world.wait(LEASE_S)
    assert not away.running
    world.wait(LEASE_S)
    home.end_task("a", world.now)
    world.wait(5)
    assert home.status(run) == "succeeded"
    world.heal()
    world.wait(10)
    assert away.status(run) == "succeeded"
    assert world.began() == ["hs-test-1:b@1", "hs-test-1:a@2", "hs2-1:a@1"]


@pytest.mark.parametrize(("source", "target"), [(HOME, "hs2"), ("hs2", HOME)])
def test_its_own_servers_echo_proves_nothing(source: str, target: str) -> None:
    world = Consistent([AWAY])
    slow(world)
    world.say("!dag publish away", wait_s=5)
    world.links.cut(source, target)
    world.wait(LEASE_S)
    assert world.holders() == []


def test_it_waits_for_a_grant_says_why_once_and_goes_on_when_the_link_is_back() -> None:
    world = Consistent([AWAY])
    away, there = world.machines[1], world.servers[1]
    world.cut()
    run = there.say(OPERATOR, "!dag publish away")
    world.wait(300)
    assert world.began() == []
    said = [body for body in there.bodies() if "waits for a grant from hs.test" in body]
    assert len(said) == 1
    intents = [raw for raw in there.stream if raw["type"] == "io.cisbot.intent"]
    assert 2 <= len(intents) <= 6
    there.say(OPERATOR, f"!dag status {away.short(run)}")
    world.wait(20)
    assert len([b for b in there.bodies() if "waits for a grant from hs.test" in b]) == 2
    world.heal()
    world.wait(20)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert world.began() == [f"hs2-1:a@{away.coordinator.board.runs[run].epoch}"]  # type: ignore[index]


def test_both_sides_contend_during_a_cut_and_the_home_side_runs_it() -> None:
    world = Consistent([ANY], (1, 2))
    run = world.room.say(OPERATOR, "!dag publish any")
    world.wait(0.3)  # both have it
    world.cut()
    world.wait(60)
    assert world.machines[0].status(run) == "succeeded"
    world.heal()
    world.wait(10)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert len(world.began()) == 1


def test_another_home_node_grants_where_the_first_is_dead() -> None:
    for dead in (0, 1):
        world = Consistent([AWAY], (2, 1))
        world.machines[dead].crash()
        run = world.say("!dag publish away", wait_s=20)
        assert world.machines[-1].status(run) == "succeeded"


def test_without_a_home_node_it_waits_and_a_new_process_of_one_grants() -> None:
    world = Consistent([AWAY])
    home, away = world.machines
    home.crash()
    run = world.say("!dag publish away", wait_s=60)
    assert away.status(run) == "pending"
    assert any("waits for a grant" in body for body in world.room.bodies())
    home.start(world.now)
    world.wait(60)
    assert away.status(run) == "succeeded"


def test_home_nodes_that_are_all_unsure_grant_after_a_quiet_lease() -> None:
    world = Consistent([AWAY])
    world.say("!dag publish away")
    home, away = world.machines
    home.lose()
    home.start(world.now)
    run = world.say("!dag publish away", wait_s=180)
    assert away.status(run) == "succeeded"
    assert away.began == ["a@1", "a@2"]


@pytest.mark.parametrize("whole", [True, False])
def test_a_gap_in_which_no_claim_event_was_missed_makes_nobody_unsure(*, whole: bool) -> None:
    world = Consistent([AWAY], (2, 1))
    world.say("!dag publish away")
    for machine in world.machines[:2]:  # as when a cut link is back, and its backlog is too long
        machine.feed(RoomBatch("x", (), gap=True, whole=whole), world.now)
    world.say("!dag publish away", wait_s=10)
    assert len(world.began()) == (2 if whole else 1)
    world.wait(80)
    assert len(world.began()) == 2


def test_its_new_process_takes_its_run_up_again() -> None:
    world = Consistent([AWAY])
    slow(world)
    run = world.say("!dag publish away", wait_s=5)
    away = world.machines[1]
    away.crash()
    away.start(world.now)
    world.wait(10)
    away.end_task("a", world.now)
    world.wait(5)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert away.began == ["a@1", "a@2"]


def test_a_grant_that_comes_too_late_is_given_back() -> None:
    world = Consistent([AWAY], delay_s=0.25)
    away, there = world.machines[1], world.servers[1]
    world.say("hello")
    world.links.cut(HOME, "hs2")
    run = there.say(OPERATOR, "!dag publish away")
    world.wait(2 * LEASE_S)
    assert not away.running
    world.links.heal(HOME, "hs2")
    world.wait(10)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert len(world.began()) == 1


def test_a_take_from_off_the_home_server_is_void() -> None:
    world = Consistent([ANY])
    content: JsonMap = {
        "action": "take", "node": "hs2-1", "incarnation": "x", "nonce": "y", "epoch": 1, "after": None,
        "run": "$x", "dag": "any", "scope": "proj-a", "lease_s": 30, "definition": "d",
    }  # fmt: skip
    world.servers[1].put("@hs2-1:hs2", "io.cisbot.lock", content, state_key="any/project-proj-a")
    world.wait(3)
    for machine in world.machines:
        head = machine.coordinator.ledger.sure(ClaimKey("any/project-proj-a"))
        assert head is not None
        assert not head.holders


@pytest.mark.audit_finds("charter-changed")
def test_no_later_charter_moves_the_home() -> None:
    world = Consistent([AWAY])
    moved: JsonMap = {"version": 1, "home": "hs2", "lease_s_max": 60}
    world.room.put(OPERATOR, T_CHARTER, moved, state_key="")
    world.wait(3)
    for machine in world.machines:
        machine.crash()
        machine.start(world.now)
    world.say("!dag publish away", wait_s=10)
    (take,) = sent(world, "io.cisbot.lock", action="take")
    assert take["node"] == "hs-test-1"
    assert {m.coordinator.ledger.bounds.home for m in world.machines} == {HOME}


class Asking:
    """A machine whose local answers are kept."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self._do = machine, machine._do
        self.answers: list[JsonMap] = []
        machine._do = self.do  # type: ignore[method-assign]

    def do(self, work: Work, now: Instant) -> None:
        """As before."""
        if isinstance(work, Answer):
            self.answers.append(dict(work.body))
        self._do(work, now)

    def ask(self, world: Federation, op: str, value: str | None = None) -> JsonMap:
        """One request, and its answer."""
        self.machine.feed(MemoryAsk("t", op, ClaimKey("memory:m"), value), world.now)
        world.wait(15)
        return dict(self.answers[-1])


def test_memory_is_read_everywhere_and_written_at_home() -> None:
    world = Consistent([KEEP])
    home, away = (Asking(machine) for machine in world.machines)
    for value in ("one", "two"):
        assert home.ask(world, "set", value)["ok"]
        assert away.ask(world, "get")["value"] == value
    assert "hs.test" in str(away.ask(world, "set", "three")["error"])
    run = world.say("!dag publish keep", wait_s=10)
    assert world.machines[1].status(run) == "failed"


def available() -> Federation:
    """A room that prefers to run twice over not to run."""
    return Federation([ANY, AWAY], (1, 2), mode="available")


def test_where_the_charter_allows_it_who_gets_no_grant_claims_after_a_lease_and_says_so() -> None:
    world = available()
    there = world.servers[1]
    world.cut()
    run = there.say(OPERATOR, "!dag publish away")
    world.wait(LEASE_S)
    assert world.began() == []
    world.wait(10)
    away = world.machines[1]
    assert away.status(run) == "succeeded"
    assert any("available: may run twice" in body for body in there.bodies() if "succeeded" in body)
    world.heal()
    world.wait(20)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert world.began() == ["hs2-1:a@1"]


def test_after_healing_the_home_side_goes_on_and_the_other_has_stopped_and_said_so() -> None:
    world = available()
    slow(world)
    there = world.servers[1]
    run = world.room.say(OPERATOR, "!dag publish any")
    there.say(OPERATOR, "hello")
    world.cut()
    world.wait(0.5)
    there.receive(next(raw for raw in world.room.stream if raw["event_id"] == run))  # it came just in time
    world.wait(LEASE_S + 10)
    assert len(world.holders()) == 2
    assert world.overlaps()
    world.heal()
    world.wait(20)
    assert world.holders() == ["hs-test-1"]
    for server in world.servers:
        assert [body for body in server.bodies() if "has stopped its tasks" in body]
    world.machines[0].end_task("a", world.now)
    world.wait(5)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    heads = {m.name: m.coordinator.ledger.sure(ClaimKey("any/project-proj-a")) for m in world.machines}
    assert all(head is not None and not head.holders for head in heads.values()), heads
    named = {server.state["io.cisbot.lock", "any/project-proj-a"]["event_id"] for server in world.servers}
    assert len(named) == 1


def test_a_claim_of_its_own_becomes_a_home_claim_where_nobody_else_claimed() -> None:
    world = available()
    slow(world)
    world.cut()
    run = world.servers[1].say(OPERATOR, "!dag publish away")
    world.wait(LEASE_S + 10)
    away = world.machines[1]
    assert world.holders() == ["hs2-1"]
    world.heal()
    world.wait(4 * LEASE_S)
    assert world.holders() == ["hs2-1"]
    assert away.began == ["a@1"]
    assert not away.coordinator.keeper.alone
    assert world.machines[0].status(run) == "running"
    world.cut()
    world.wait(LEASE_S)
    assert not away.running  # now it is a claim as any other
