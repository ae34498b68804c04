"""The coordinator in a pure world: publishing, claiming, approving, cancelling, losing and taking over."""

from __future__ import annotations

import pytest

from tests.world.machine import dag
from tests.world.world import World

HELLO = dag("id: hello\nscope: proj-a\ntasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n")
GATED = dag("id: gated\nscope: proj-a\napproval: {count: 1, deadline: 1m}\ntasks: {a: {shell: 'true'}}\n")
RESUME = dag(
    "id: resume\nscope: proj-a\non_lost: resume\n"
    "tasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n"
)
STRANGER = "@stranger:hs.test"


def holder(world: World) -> int:
    """The index of the only machine that runs something."""
    busy = [n for n, machine in enumerate(world.machines) if machine.running]
    assert len(busy) == 1, busy
    return busy[0]


def test_one_of_many_runs_it_once_and_all_know() -> None:
    world = World([HELLO], nodes=4)
    run = world.say("!dag publish hello")
    assert len(world.began()) == 2
    assert len({what.partition(":")[0] for what in world.began()}) == 1
    assert {machine.status(run) for machine in world.machines} == {"succeeded"}
    finals = [body for body in world.room.bodies() if "succeeded" in body]
    assert len(finals) == 1


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("!dag publish helo", "Did you mean 'hello'?"),
        ("!dag publish hello target=node-9", "no node is called 'node-9'"),
        ("!dag publish hello scope=a/b", "scope"),
        ("!dag publish hello day=1", "day"),
        ("!dag publsh hello", "publish"),
        ("!dag publish", "dag: is missing"),
        ("!dag status zzzzzz", "no run is called 'zzzzzz'"),
    ],
)
def test_wrong_input_gets_one_short_answer_and_makes_no_run(command: str, expected: str) -> None:
    world = World([HELLO], nodes=3)
    world.say(command, wait_s=30)
    assert len(world.room.bodies()) == 1, world.room.bodies()
    assert expected in world.room.bodies()[0]
    assert world.began() == []
    assert not world.machines[0].coordinator.board.runs


def test_the_answer_comes_though_the_first_in_turn_is_dead() -> None:
    for dead in range(3):
        world = World([HELLO], nodes=3)
        world.machines[dead].crash()
        world.say("!dag list", wait_s=30)
        assert len(world.room.bodies()) == 1


def test_a_stranger_may_not_publish() -> None:
    world = World([HELLO])
    world.say("!dag publish hello", STRANGER, wait_s=20)
    assert world.began() == []
    assert [b for b in world.room.bodies() if "may not" in b]


def test_approval_comes_before_the_claim_and_only_from_those_who_may() -> None:
    world = World([GATED])
    run = world.say("!dag publish gated", wait_s=10)
    assert world.began() == []
    world.react(run, "✅", STRANGER, wait_s=10)
    world.react(run, "✅", STRANGER, wait_s=10)
    assert world.began() == []
    assert len([b for b in world.room.bodies() if "may not" in b]) == 1
    world.react(run, "✅")
    assert len(world.began()) == 1
    assert world.machines[0].status(run) == "succeeded"


def test_approval_expires() -> None:
    world = World([GATED])
    run = world.say("!dag publish gated", wait_s=70)
    world.react(run, "✅")
    assert world.machines[1].status(run) == "expired"
    assert world.began() == []


def test_reject() -> None:
    world = World([GATED])
    run = world.say("!dag publish gated")
    world.react(run, "❌")
    assert {m.status(run) for m in world.machines} == {"rejected"}


def test_cancel_while_it_runs() -> None:
    world = World([HELLO])
    for machine in world.machines:
        machine.auto = False
    run = world.say("!dag publish hello")
    assert world.machines[holder(world)].running
    world.react(run, "❌", STRANGER)
    assert world.machines[holder(world)].running
    world.react(run, "❌")
    assert {m.status(run) for m in world.machines} == {"cancelled"}
    assert [w.partition(":")[2] for w in world.began()] == ["a@1"]


def test_two_runs_of_a_key_go_one_after_the_other() -> None:
    world = World([HELLO], nodes=3)
    for machine in world.machines:
        machine.auto = False
    first = world.say("!dag publish hello", wait_s=1)
    second = world.say("!dag publish hello", wait_s=10)
    at = holder(world)
    world.machines[at].end_task("a", world.now)
    world.settle()
    world.machines[at].end_task("b", world.now)
    world.wait(5)
    assert world.machines[0].status(first) == "succeeded"
    assert world.machines[0].status(second) == "running"
    assert holder(world) in (0, 1, 2)


def test_a_dead_holder_is_replaced_after_its_lease_and_done_tasks_stay_done() -> None:
    world = World([RESUME], nodes=3)
    for machine in world.machines:
        machine.auto = False
    run = world.say("!dag publish resume", wait_s=1)
    dead = holder(world)
    world.machines[dead].end_task("a", world.now)
    world.wait(8)  # until the status message told that `a` is done
    world.machines[dead].crash()
    world.wait(20)
    assert not any(m.running for m in world.machines)
    world.wait(20)
    taker = holder(world)
    assert taker != dead
    assert [k[1] for k in world.machines[taker].running] == ["b"]
    world.machines[taker].end_task("b", world.now)
    world.wait(3)
    assert world.machines[taker].status(run) == "succeeded"


def test_a_lost_run_asks_unless_its_policy_says_otherwise() -> None:
    world = World([HELLO], nodes=2)
    for machine in world.machines:
        machine.auto = False
    run = world.say("!dag publish hello", wait_s=1)
    dead = holder(world)
    world.machines[dead].crash()
    other = world.machines[1 - dead]
    world.wait(50)
    assert other.status(run) == "lost"
    assert not other.running
    assert len([b for b in world.room.bodies() if "Not known to be done" in b]) == 1
    other.auto = True
    world.react(run, "✅")
    assert other.status(run) == "succeeded"


def test_a_restarted_node_takes_its_run_up_again() -> None:
    world = World([RESUME], nodes=1)
    node = world.machines[0]
    node.auto = False
    run = world.say("!dag publish resume", wait_s=1)
    node.end_task("a", world.now)
    world.settle()
    node.crash()
    node.auto = True
    node.start(world.now)
    world.wait(5)
    assert node.status(run) == "succeeded"
    assert node.began == ["a@1", "b@1", "b@2"]


def test_a_node_without_its_database_executes_nothing_again() -> None:
    world = World([HELLO], nodes=1, lease_s_max=60)
    node = world.machines[0]
    world.say("!dag publish hello")
    node.lose()
    node.start(world.now)
    world.wait(5)
    assert node.began == ["a@1", "b@1"]
    run = world.say("!dag publish hello", wait_s=90)  # nobody answers its probe: it waits a lease
    assert node.status(run) == "succeeded"
    assert node.began[2:] == ["a@2", "b@2"]


def test_a_clean_stop_frees_the_claim_only_when_the_tasks_are_dead() -> None:
    from cisbot.core.inputs import Stop

    world = World([RESUME], nodes=2)
    for machine in world.machines:
        machine.auto = False
    world.say("!dag publish resume", wait_s=1)
    at = holder(world)
    stopped = world.machines[at]
    stopped.feed(Stop(), world.now)
    assert stopped.done
    assert not stopped.running
    stopped.alive = False
    world.wait(5)
    assert holder(world) == 1 - at


def test_two_nodes_with_one_id() -> None:
    from tests.world.machine import Machine

    world = World([HELLO], nodes=1)
    twin = Machine(world.room, "node-1", [HELLO])
    twin.account = "@other:hs.test"
    world.machines.append(twin)
    twin.start(world.now)
    assert twin.halted is not None
    assert "node-1" in twin.halted
    world.say("!dag publish hello")
    assert world.machines[0].began == ["a@1", "b@1"]


HOSTILE: list[tuple[str, dict[str, object]]] = [
    ("io.cisbot.lock", {"action": "take"}),
    ("io.cisbot.lock", {"action": ["x"], "node": {}, "epoch": -1}),
    ("io.cisbot.intent", {"node": "node-1"}),
    ("io.cisbot.memory", {"version": 10**30, "value": 7}),
    ("io.cisbot.charter", {"version": 9}),
    ("io.cisbot.node", {"id": "../../etc"}),
    ("io.cisbot.heartbeat", {"renews": [{"key": "a" * 5000, "epoch": 0}]}),
    ("io.cisbot.probe", {"keys": "all"}),
    ("io.cisbot.end", {}),
    ("m.room.message", {"msgtype": "m.text", "body": "!dag publish hello", "io.cisbot": {"kind": ["x"]}}),
    ("m.room.message", {"msgtype": "m.text", "body": 7, "m.relates_to": "x"}),
    ("m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": {}, "key": 1}}),
    ("m.room.power_levels", {"users": [1, 2]}),
]


@pytest.mark.parametrize(("kind", "content"), HOSTILE)
@pytest.mark.parametrize("by_node", [True, False])
def test_no_event_breaks_a_node(kind: str, content: dict[str, object], by_node: bool) -> None:
    world = World([HELLO], nodes=2)
    sender = world.machines[1].account if by_node else STRANGER
    state_key = (
        None if kind.startswith("m.") or kind.rpartition(".")[2] in ("heartbeat", "probe", "end") else "x"
    )
    world.room.put(sender, kind, content, state_key=state_key)  # type: ignore[arg-type]
    world.wait(5)
    run = world.say("!dag publish hello", wait_s=10)
    assert all(machine.alive for machine in world.machines)
    assert world.machines[0].status(run) == "succeeded"


@pytest.mark.parametrize(
    "said",
    ["!dag publish hello target='a b' x", "!dag publish hello target=a,,b", "!dag publish hello scope=type:"],
)
def test_what_was_said_while_a_node_was_away_breaks_nothing(said: str) -> None:
    from cisbot.core.inputs import RoomBatch

    world = World([HELLO], nodes=1)
    event = world.room.say("@operator:hs.test", said)
    found = tuple(e for e in world.room.events(0) if e.event_id == event)
    world.machines[0].feed(RoomBatch("1", (), gap=True, history=found), world.now)
    world.wait(2)
    assert world.machines[0].alive


def test_a_fenced_task_means_a_lost_run_not_a_failed_one() -> None:
    world = World([HELLO], nodes=1)
    node = world.machines[0]
    node.auto = False
    run = world.say("!dag publish hello", wait_s=1)
    node.end_task("a", world.now, code=-9, reason="fenced")
    world.wait(3)
    assert node.status(run) == "lost"
    assert not [b for b in world.room.bodies() if "failed" in b]


def test_a_restart_is_not_frightened_by_its_own_past() -> None:
    world = World([HELLO], nodes=1)
    node = world.machines[0]
    for _ in range(3):
        node.crash()
        node.start(world.now)
        world.wait(1)
    assert node.halted is None
    run = world.say("!dag publish hello", wait_s=5)
    assert node.status(run) == "succeeded"


def test_finished_runs_stay_finished_when_all_databases_are_lost() -> None:
    from cisbot.core.inputs import RoomBatch

    world = World([RESUME], nodes=2, lease_s_max=30)
    world.say("!dag publish resume")
    assert len(world.began()) == 2
    history = world.room.events(0)
    for machine in world.machines:
        machine.lose()
    for machine in world.machines:
        machine.start(world.now)
        machine.feed(RoomBatch("x", (), gap=True, history=history, state=world.room.whole_state()), world.now)
    world.wait(120)
    assert len(world.began()) == 2


def test_a_cancelled_run_is_not_resumed_when_its_holder_is_lost() -> None:
    world = World([RESUME], nodes=2)
    for machine in world.machines:
        machine.auto = False
    run = world.say("!dag publish resume", wait_s=1)
    dead = holder(world)
    world.machines[dead].crash()
    world.react(run, "❌", wait_s=60)
    assert world.machines[1 - dead].status(run) == "cancelled"
    assert not world.machines[1 - dead].running


def test_what_nobody_approved_does_not_run_though_a_node_took_and_gave_back() -> None:
    world = World([GATED], nodes=2)
    run = world.say("!dag publish gated", wait_s=1)
    evil = world.machines[1]
    evil.alive = False
    fields = {"node": "node-2", "incarnation": "evil", "nonce": "1", "epoch": 1, "run": run}
    take = {**fields, "action": "take", "after": None, "dag": "gated", "scope": "nonsense", "lease_s": 9}
    key = "gated/project-proj-a"
    world.room.put(evil.account, "io.cisbot.lock", {**take, "definition": "x"}, state_key=key)  # type: ignore[dict-item]
    release = {**fields, "action": "release", "outcome": None}
    world.room.put(evil.account, "io.cisbot.lock", release, state_key=key)  # type: ignore[arg-type]
    world.wait(10)
    assert world.machines[0].alive
    assert world.machines[0].began == []
    world.react(run, "✅")
    assert world.machines[0].began == ["a@2"]
