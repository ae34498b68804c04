"""What must not be lost, said twice or judged differently: files, memories, outputs, messages, approvals."""

from __future__ import annotations

from cisbot.core.inputs import RoomBatch, SendFailed
from cisbot.core.settings import Policy
from tests.world.machine import Machine, dag
from tests.world.room import OPERATOR
from tests.world.world import World

HELLO = dag("id: hello\nscope: proj-a\ntasks:\n  a: {shell: 'true'}\n")
CHAIN = dag(
    "id: chain\nscope: proj-a\non_lost: resume\n"
    "tasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n"
)
EDITED = dag("id: chain\nscope: proj-a\non_lost: resume\ntasks:\n  a: {shell: echo other}\n")
GATED = dag("id: gated\nscope: proj-a\napproval: {count: 1, deadline: 1m}\ntasks: {a: {shell: 'true'}}\n")
KEEPS = dag("id: keeps\nscope: proj-a\ntasks:\n  a: {shell: 'true', remember: {last: good}}\n")
TELLS = dag("id: tells\nscope: proj-a\non_lost: resume\ntasks:\n  a: {matrix: {message: hello there}}\n")
FILE = "id: sent\nscope: proj-a\ntasks:\n  a: {shell: 'true'}\n"
STRANGER = "@stranger:hs.test"


def send_file(world: World) -> str:
    """A person publishes with a DAG attached."""
    for machine in world.machines:
        machine.files["mxc://hs.test/f"] = FILE
    return world.room.put(
        OPERATOR,
        "m.room.message",
        {
            "msgtype": "m.file", "body": "!dag publish sent", "filename": "sent.yaml",
            "url": "mxc://hs.test/f", "info": {"size": len(FILE)},
        },
    )  # fmt: skip


def holder(world: World) -> Machine:
    """The only machine that runs something."""
    (busy,) = [machine for machine in world.machines if machine.running]
    return busy


def test_an_attached_dag_survives_a_crash_before_it_was_read() -> None:
    world = World([], nodes=1, policy=Policy(dags_from_room=True))
    node = world.machines[0]
    run = send_file(world)
    node.crash_after = 1  # the batch is kept, the file not yet asked for
    world.settle()
    assert not node.alive
    assert len(node.rows["unread"]) == 1
    node.start(world.now)
    world.wait(5)
    assert node.status(run) == "succeeded"
    assert node.began == ["a@1"]
    assert node.rows["unread"] == {}


def test_a_task_ends_when_the_room_has_what_it_remembers() -> None:
    world = World([KEEPS], nodes=1)
    node = world.machines[0]
    node.auto = False
    run = world.say("!dag publish keeps", wait_s=1)
    node.mute = True
    node.end_task("a", world.now)
    world.wait(2)
    assert node.status(run) == "running"
    node.mute = False
    world.wait(60)  # its heartbeats went nowhere too, but the write is tried again within the lease or fails
    assert node.status(run) in ("succeeded", "lost")
    written = [raw for raw in world.room.stream if raw["type"] == "io.cisbot.memory"]
    assert (node.status(run) == "succeeded") == bool(written)


def test_what_a_node_must_not_remember_is_a_failed_task_that_says_why() -> None:
    world = World([KEEPS], nodes=1, policy=Policy(memory=False))
    run = world.say("!dag publish keeps", wait_s=5)
    assert world.machines[0].status(run) == "failed"
    assert [body for body in world.room.bodies() if "[policy] memory" in body]
    assert not [raw for raw in world.room.stream if raw["type"] == "io.cisbot.memory"]


def test_outputs_travel_to_the_node_that_resumes() -> None:
    for size, tasks in ((10, ["b"]), (20_000, ["a"])):  # too much for the room: the task runs again
        world = World([CHAIN], nodes=2)
        value = "x" * size
        for machine in world.slow().machines:
            machine.outputs = {"a": {"file": value}}
        world.say("!dag publish chain", wait_s=1)
        dead = holder(world)
        dead.end_task("a", world.now)
        world.wait(8)  # until the status message told it
        dead.crash()
        world.wait(45)
        taker = holder(world)
        assert [key[1] for key in taker.running] == tasks
        if tasks == ["a"]:
            taker.end_task("a", world.now)
        (frame,) = taker.running.values()
        assert frame.env["CIS_OUTPUT_A_FILE"] == value


def test_a_message_of_a_run_that_is_gone_is_not_said() -> None:
    world = World([TELLS], nodes=2)
    world.say("!dag publish tells", wait_s=0)
    first = [raw for raw in world.room.stream if "hello there" in str(raw["content"])]
    assert len(first) == 1
    world = World([TELLS], nodes=1)
    node = world.machines[0]
    run = world.room.say(OPERATOR, "!dag publish tells")
    node.sync(world.now)
    node.mute = True  # its take is in the room, its message is not
    node.sync(world.now)
    assert [send.txn for send in node.deaf if "hello there" in str(send.content)]
    world.wait(40)  # no renewal comes back: it lets the run go
    assert not [send for send in node.deaf if "hello there" in str(send.content)]
    node.mute = False
    world.wait(60)
    assert node.status(run) == "succeeded"


def test_approvals_are_judged_by_the_rooms_time() -> None:
    world = World([GATED], nodes=2)
    run = world.say("!dag publish gated", wait_s=1)
    fast = world.machines[0]
    for machine in world.machines:
        machine.alive = machine is fast
    late = world.now.__class__(world.boot + 120, world.room.wall_ms + 120_000)  # its clock is wrong
    fast.tick(late)
    fast.coordinator.handle(RoomBatch("x", ()), late)
    assert fast.status(run) == "expired"
    for machine in world.machines:
        machine.alive = True
    world.react(run, "✅")
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert len(world.began()) == 1


def test_an_approval_that_came_late_is_none_though_a_clock_is_slow() -> None:
    world = World([GATED], nodes=1)
    run = world.say("!dag publish gated", wait_s=1)
    node = world.machines[0]
    world.room.wall_ms += 61_000
    event = world.room.react(OPERATOR, run, "✅")
    node.feed(
        RoomBatch("x", tuple(e for e in world.room.events(0) if getattr(e, "event_id", "") == event)),
        world.now.__class__(world.boot, world.room.wall_ms - 61_000),
    )
    assert node.status(run) == "expired"
    assert node.began == []


def test_a_stranger_is_told_once_however_often_they_try() -> None:
    world = World([HELLO], nodes=3)
    for number in range(20):
        world.say(f"!dag publish hello x={number}", STRANGER, wait_s=1)
        world.say(f"!dag publish nothing-{number}", STRANGER, wait_s=1)
    world.wait(30)
    assert len([body for body in world.room.bodies() if "may not" in body]) == 2
    assert world.began() == []


def test_a_run_whose_definition_is_gone_says_how_to_go_on() -> None:
    world = World([CHAIN], nodes=2)
    first, second = world.machines
    second.crash()
    second.dags = [EDITED]
    second.start(world.now)
    world.slow()
    run = world.say("!dag publish chain", wait_s=1)
    if second.running:
        first, second = second, first
    first.crash()
    world.wait(60)
    assert not [key for key in second.running if key[0] == run]
    world.say(f"!dag status {second.short(run)}", wait_s=10)
    assert f"which only {first.name} has" in world.room.bodies()[-1]
    record = {**first.record(), "gone": True}
    world.room.put(first.account, "io.cisbot.node", record, state_key=first.account)
    world.say(f"!dag status {second.short(run)}", wait_s=10)
    assert "no living node has any more" in world.room.bodies()[-1]


def test_silence_counts_though_a_node_is_not_sure_of_the_key() -> None:
    world = World([CHAIN], nodes=2, lease_s_max=60).slow()
    run = world.say("!dag publish chain", wait_s=1)
    dead = holder(world)
    other = next(m for m in world.machines if m is not dead)
    dead.crash()
    other.feed(RoomBatch("x", (), gap=True), world.now)
    assert other.status(run) == "running"
    world.wait(200)
    assert other.running


def test_a_run_that_ended_in_a_gap_is_learned_of() -> None:
    world = World([CHAIN, HELLO], nodes=2).slow()
    run = world.say("!dag publish chain", wait_s=1)
    runs = holder(world)
    deaf = next(m for m in world.machines if m is not runs)
    deaf.alive = False
    runs.auto = True
    runs.end_task("a", world.now)
    world.wait(3)
    assert runs.status(run) == "succeeded"
    world.say("!dag publish chain")  # its key's state names another run by now
    deaf.alive = True
    deaf._place = len(world.room.stream)
    deaf.feed(RoomBatch("x", (), gap=True), world.now)
    assert deaf.status(run) == "running"
    deaf.auto = True
    world.say("!dag publish chain", wait_s=40)
    assert deaf.status(run) == "succeeded"


def test_a_node_that_comes_later_takes_what_waits() -> None:
    world = World([HELLO, CHAIN], nodes=1)
    for _ in range(3):
        world.say("!dag publish hello")
    run = world.say("!dag publish chain target=gpu=yes")
    world.say("!dag publish hello")  # its lock events tell that `chain` is still open
    assert world.machines[0].status(run) == "pending"
    late = Machine(world.room, "node-2", [CHAIN], labels={"gpu": "yes"})
    world.machines.append(late)
    late.start(world.now)
    world.wait(20)
    assert late.status(run) == "succeeded"
    assert late.began == ["a@1", "b@1"]


def test_open_runs_survive_the_loss_of_all_databases() -> None:
    world = World([HELLO, GATED], nodes=2, lease_s_max=30)
    run = world.say("!dag publish gated")
    world.say("!dag publish hello")
    for machine in world.machines:
        machine.lose()
    for machine in world.machines:
        machine.start(world.now)
    world.wait(5)
    assert {m.status(run) for m in world.machines} == {"waiting for approval"}
    world.react(run, "✅", wait_s=60)
    assert {m.status(run) for m in world.machines} == {"succeeded"}
    assert len([began for began in world.began() if began.endswith("a@1")]) == 2


def test_a_release_that_may_be_lost_is_said_again_and_until_then_the_node_is_at_rest() -> None:
    world = World([HELLO], nodes=1)
    node = world.machines[0]
    node.auto = False
    world.say("!dag publish hello", wait_s=1)
    node.mute = True
    node.end_task("a", world.now)
    (release,) = [send for send in node.deaf if send.content.get("action") == "release"]
    node.deaf.clear()
    node.feed(SendFailed(release.txn, "UNKNOWN", "no answer"), world.now)
    again = node.coordinator.deadline()
    assert again is not None
    assert again > world.boot
    world.wait(1.5)
    assert [send.txn for send in node.deaf if send.content.get("action") == "release"] == [release.txn]
    after = node.coordinator.deadline()
    assert after is None or after > world.boot
