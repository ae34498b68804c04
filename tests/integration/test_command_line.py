"""`cisbot publish | status | check | run` as a user meets them, and what they refuse."""

from __future__ import annotations

import subprocess
import threading

import pytest

from tests.conftest import MakeAccount
from tests.integration.nodes import Nodes, wait_exit

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(120)]
LEASE_S = 4


def test_publish_and_status(nodes: Nodes) -> None:
    dags = {
        "good": nodes.job(),
        "bad": nodes.job("echo the reason; exit 3"),
        "mixed": nodes.job('[ "$CIS_NODE" = node-1 ] || sleep 1; [ "$CIS_NODE" = node-1 ]', "target: all"),
        "asked": nodes.job(head="approval: {count: 1, deadline: 6s}"),
    }
    nodes.open(["node-1", "node-2"], dags)
    config = ["--config", str(nodes.config("node-1"))]
    done: dict[str, tuple[int, str]] = {}

    def publish(*words: str) -> None:
        ended = nodes.cisbot("publish", *words, *config)
        done[" ".join(words)] = ended.returncode, ended.stdout + ended.stderr

    lines = [
        ("good", "target=node-2", "--wait"), ("good", "target=all", "--wait"), ("bad", "--wait"),
        ("mixed", "--wait"), ("asked", "--wait"), ("good",), ("bda", "--wait"), ("good", "nonsense"),
        ("good", "a=1", "a=2"), ("good", "size=9", "--wait"), ("good", "priority=much"),
        ("bda",), ("good", "target=node-9"), ("good", "size=9"), ("good", "--timeout", "5"),
    ]  # fmt: skip
    threads = [threading.Thread(target=publish, args=line) for line in lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    codes = {said: code for said, (code, _) in done.items()}
    assert codes == {
        "good target=node-2 --wait": 0, "good target=all --wait": 0, "bad --wait": 1, "mixed --wait": 1,
        "asked --wait": 1, "good": 0, "bda --wait": 2, "good nonsense": 2, "good a=1 a=2": 2,
        "good size=9 --wait": 2, "good priority=much": 2, "bda": 2, "good target=node-9": 2,
        "good size=9": 2, "good --timeout 5": 2,
    }, done  # fmt: skip
    assert done["good target=all --wait"][1].count("succeeded on") == 2
    assert done["mixed --wait"][1].count("node-") >= 2
    assert "the reason" in done["bad --wait"][1]
    assert "Did you mean 'bad'?" in done["bda --wait"][1]
    assert "Did you mean 'bad'?" in done["bda"][1]
    assert "published" in done["bda"][1], "no node here has it, but another may"
    assert "no node is called 'node-9'" in done["good target=node-9"][1]
    assert "published" not in done["good size=9"][1], "this machine has the DAG, and knows better"
    assert "expired" in done["asked --wait"][1]
    assert "waits for approval" in done["asked --wait"][1]
    assert "claims" in done["bad --wait"][1]
    shown = nodes.cisbot("status", *config)
    assert shown.returncode == 0
    assert {"good", "bad", "mixed", "asked"} <= set(shown.stdout.split())
    unknown = nodes.cisbot("status", "zzzzzz", *config)
    assert unknown.returncode == 1
    assert "no run is called" in unknown.stderr
    assert nodes.stop("node-1") == 0
    assert nodes.cisbot("status", *config).returncode == 1
    assert nodes.cisbot("status", "--config", str(nodes.root / "none.toml")).returncode == 2


def test_waiting_ends_by_itself(nodes: Nodes) -> None:
    nodes.open(["node-1", "node-2"], {"job": nodes.gated("ask")})
    config = ["--config", str(nodes.config("node-2"))]
    done: list[subprocess.CompletedProcess[str]] = []
    waiting = threading.Thread(
        target=lambda: done.append(nodes.cisbot("publish", "job", "target=node-1", "--wait", *config))
    )
    waiting.start()
    nodes.marks(lines=2)
    late = nodes.cisbot("publish", "job", "target=node-2", "--wait", "--timeout", "4", *config)
    assert late.returncode == 1, late
    assert "is held by job" in late.stderr
    assert "not over after 4 s; the run goes on. See: cisbot status" in late.stderr
    nodes.kill("node-1")
    waiting.join(60)
    assert [d.returncode for d in done] == [1]
    assert "React with ✅ to resume it" in done[0].stdout, done[0]
    nodes.stop("node-2")
    alone = nodes.cisbot("publish", "job", *config)
    assert (alone.returncode, "no node has answered yet" in alone.stderr) == (0, True), alone


def test_check_says_what_is_missing_and_run_refuses(nodes: Nodes, make_account: MakeAccount) -> None:
    weak, twin = make_account("weak"), make_account("twin")
    nodes.open(["node-1"], {"job": nodes.job()}, members=[weak], powers=[twin])
    nodes.accounts |= {"weak": weak, "twin": twin, "out": make_account("out"), "bare": nodes.operator}
    good = nodes.cisbot("check", "--config", str(nodes.config("node-1")))
    assert good.returncode == 0, good.stdout
    assert "MISSING" not in good.stdout
    cipher = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    bodies: list[dict[str, object]] = [{}, {"initial_state": [cipher]}]
    rooms = [nodes.person._call("POST", "/_matrix/client/v3/createRoom", body)[1] for body in bodies]
    nodes.accounts["locked"] = nodes.operator
    nodes.write_settings("weak")
    nodes.write_settings("out")
    nodes.write_settings("twin", node_id="node-1")
    nodes.write_settings("bare", room=str(rooms[0]["room_id"]))
    nodes.write_settings("locked", room=str(rooms[1]["room_id"]))
    wanted = {"weak": "power", "out": "invite", "twin": "node-1", "bare": "charter", "locked": "encrypted"}
    for name in wanted:
        nodes.start(name)
    checked = {name: nodes.cisbot("check", "--config", str(nodes.config(name))) for name in wanted}
    for name, word in wanted.items():
        assert wait_exit(nodes.processes[name]) == 1, (name, nodes.log(name))
        assert word in nodes.log(name), (name, nodes.log(name))
        assert "Traceback" not in nodes.log(name), nodes.log(name)
        if name != "twin":
            assert checked[name].returncode == 1
            assert word in checked[name].stdout, checked[name].stdout
    run = nodes.person.say("!dag publish job")
    assert nodes.outcome(run) == "succeeded"
    assert nodes.processes["node-1"].poll() is None


def test_two_processes_of_one_node(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": nodes.job()})
    second = nodes.cisbot("run", "--config", str(nodes.config("node-1")))
    assert second.returncode == 1
    assert "Traceback" not in second.stderr
    run = nodes.person.say("!dag publish job")
    assert nodes.outcome(run) == "succeeded"


def test_the_room_is_completed_by_the_settings_alone(nodes: Nodes) -> None:
    nodes.accounts = {"boss": nodes.operator, "fresh": nodes.make_account("fresh")}
    (nodes.root / "boss").mkdir()
    alias = f"#{nodes.operator.user_id[1:]}"
    nodes.write_settings("boss", room=alias)
    init = ["room", "init", "--config", str(nodes.config("boss"))]
    unnamed = nodes.cisbot(*init)
    assert unnamed.returncode == 2
    assert unnamed.stderr.startswith(f"--name: is missing, and there is no room {alias} yet"), unnamed.stderr
    made = nodes.cisbot(*init, "--name", "Tasks")
    assert made.stdout.startswith(f"made {alias}: !"), made
    again = nodes.cisbot(*init)
    assert (again.returncode, again.stdout.splitlines()[1:]) == (0, ["  nothing was missing"])
    more = nodes.cisbot(*init, "--node", nodes.accounts["fresh"].user_id)
    assert f"invited {nodes.accounts['fresh'].user_id}" in more.stdout
    nodes.write_settings("boss", room=made.stdout.splitlines()[0].partition(": ")[2])
    by_id = nodes.cisbot(*init)
    assert (by_id.returncode, by_id.stdout.splitlines()[1:]) == (0, ["  nothing was missing"]), by_id
