"""Nodes as processes on a real Synapse: racing, dying, coming back, and a homeserver that is away."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeserver.synapse import Synapse
from tests.conftest import MakeAccount
from tests.integration.nodes import Nodes, wait_file

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(180)]

MARK = 'echo "$CIS_TASK $CIS_NODE $CIS_FENCE $CIS_RUN_ID" >> "{root}/marks"'


@pytest.fixture
def nodes(synapse: Synapse, make_account: MakeAccount, tmp_path: Path) -> Iterator[Nodes]:
    """A room's nodes, not yet started."""
    made = Nodes(synapse, make_account, tmp_path)
    yield made
    made.close()


def one_task(root: Path, more: str = "", head: str = "scope: proj-a") -> str:
    """A DAG of one task that leaves a mark."""
    mark = MARK.format(root=root)
    return f"{head}\ntasks:\n  a:\n    shell: |\n      {mark}\n      {more or 'true'}\n"


def gated(root: Path, on_lost: str) -> str:
    """Two tasks; the second waits for the file `gate`."""
    mark = MARK.format(root=root)
    return (
        f"scope: proj-a\non_lost: {on_lost}\ntasks:\n  a:\n    shell: |\n      {mark}\n"
        f"  b:\n    needs: [a]\n    shell: |\n      {mark}\n"
        f"      n=0; while [ ! -e {root}/gate ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n+1)); done\n"
    )


def holder(nodes: Nodes, marks: list[str]) -> str:
    """The node of the last mark."""
    return marks[-1].split()[1]


def test_many_runs_many_nodes_each_once(nodes: Nodes) -> None:
    names = [f"node-{n}" for n in range(1, 5)]
    nodes.open(names, {"job": one_task(nodes.root, head="description: races")})
    runs = [nodes.person.say(f"!dag publish job scope=proj-{n}") for n in range(10)]
    assert [nodes.outcome(run) for run in runs] == ["succeeded"] * 10
    marks = (nodes.root / "marks").read_text().splitlines()
    assert sorted(m.split()[3] for m in marks) == sorted(runs)
    assert len({m.split()[1] for m in marks}) > 1


@pytest.mark.parametrize("on_lost", ["resume", "rerun"])
def test_a_killed_holder_is_replaced(nodes: Nodes, on_lost: str) -> None:
    nodes.open(["node-1", "node-2"], {"job": gated(nodes.root, on_lost)})
    run = nodes.person.say("!dag publish job")
    marks = wait_file(nodes.root / "marks", lines=2)
    nodes.reply(run, "a: succeeded")
    dead = holder(nodes, marks)
    nodes.kill(dead)
    (nodes.root / "gate").touch()
    assert nodes.outcome(run) == "succeeded"
    tasks = [m.split()[0] for m in (nodes.root / "marks").read_text().splitlines()]
    assert tasks == (["a", "b", "b"] if on_lost == "resume" else ["a", "b", "a", "b"])
    takes = nodes.locks(run, "take")
    assert [t["node"] for t in takes][0] == dead != takes[-1]["node"]


def test_a_lost_run_asks_and_goes_on_when_told(nodes: Nodes) -> None:
    nodes.open(["node-1", "node-2"], {"job": gated(nodes.root, "ask")})
    run = nodes.person.say("!dag publish job")
    marks = wait_file(nodes.root / "marks", lines=2)
    nodes.kill(holder(nodes, marks))
    nodes.reply(run, "Not known to be done")
    assert len((nodes.root / "marks").read_text().splitlines()) == 2
    (nodes.root / "gate").touch()
    nodes.person.react(run, "✅")
    assert nodes.outcome(run) == "succeeded"


def test_the_same_node_comes_back_and_resumes(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": gated(nodes.root, "resume")})
    run = nodes.person.say("!dag publish job")
    wait_file(nodes.root / "marks", lines=2)
    nodes.kill("node-1")
    (nodes.root / "gate").touch()
    nodes.start("node-1")
    assert nodes.outcome(run) == "succeeded"
    tasks = [m.split()[0] for m in (nodes.root / "marks").read_text().splitlines()]
    assert tasks == ["a", "b", "b"]


def test_without_its_database_a_node_runs_nothing_again_and_works_on(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": one_task(nodes.root)})
    first = nodes.person.say("!dag publish job")
    assert nodes.outcome(first) == "succeeded"
    nodes.kill("node-1")
    shutil.rmtree(nodes.root / "node-1" / "data")
    nodes.start("node-1")
    nodes.joined("node-1", times=2)
    second = nodes.person.say("!dag publish job")
    assert nodes.outcome(second) == "succeeded"
    runs = [m.split()[3] for m in (nodes.root / "marks").read_text().splitlines()]
    assert runs == [first, second]


def test_the_homeserver_goes_away_during_a_run(make_account: MakeAccount, tmp_path: Path) -> None:
    own = Synapse.start(tmp_path / "synapse", limits="lifted")
    count = iter(range(100))

    def account(prefix: str, *, admin: bool = False) -> object:
        return own.accounts.create(f"{prefix}{next(count)}", "secret", admin=admin)

    nodes = Nodes(own, account, tmp_path, lease_s=5)  # type: ignore[arg-type]
    try:
        beat = f"while :; do date +%s.%N > {tmp_path}/beat; sleep 0.05; done"
        nodes.open(["node-1"], {"long": one_task(tmp_path, beat, "scope: proj-a\non_lost: ask"),
                                "short": one_task(tmp_path, "sleep 3", "scope: proj-b")})  # fmt: skip
        short = nodes.person.say("!dag publish short")
        wait_file(tmp_path / "marks")
        own.kill()
        own.restart()
        assert nodes.outcome(short) == "succeeded"
        long = nodes.person.say("!dag publish long")
        wait_file(tmp_path / "marks", lines=2)
        wait_file(tmp_path / "beat")
        own.kill()
        _dies_out(tmp_path / "beat", seconds=15)
        own.restart()
        nodes.reply(long, "Not known to be done", 40)
    finally:
        nodes.close()
        own.stop()


def _dies_out(path: Path, seconds: float) -> None:
    """Wait until the file stops to change: whatever wrote it is dead."""
    tick, last, still = threading.Event(), "", 0
    for _ in range(int(seconds * 10)):
        now = path.read_text()
        still = still + 1 if now == last and now else 0
        if still >= 10:
            return
        last = now
        tick.wait(0.1)
    raise AssertionError("the task of a node that lost its lease still runs")


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("!dag publish jbo", "Did you mean 'job'?"),
        ("!dag publish job target=node-9", "no node is called 'node-9'"),
        ("!dag publish job scope=a/b", "scope"),
        ("!dag publish job day=1", "day"),
        ("!dag publsh job", "!dag publish"),
    ],
)
def test_wrong_input(nodes: Nodes, said: str, answer: str) -> None:
    nodes.open(["node-1"], {"job": one_task(nodes.root)})
    event = nodes.person.say(said)
    assert answer in nodes.reply(event, answer)
    after = nodes.person.say("!dag publish job")
    assert nodes.outcome(after) == "succeeded"
    assert len(nodes.replies(event)) == 1
    assert len((nodes.root / "marks").read_text().splitlines()) == 1


def test_the_command_line(nodes: Nodes) -> None:
    script = "cisbot memory set answer 42 && cisbot memory get answer && cisbot memory cas answer 42 43"
    nodes.open(
        ["node-1", "node-2"],
        {"good": one_task(nodes.root, script, "scope: proj-a"), "bad": one_task(nodes.root, "exit 3")},
    )
    config = str(nodes.config("node-1"))
    good = nodes.cisbot("publish", "good", "target=node-1", "--config", config, "--wait")
    assert good.returncode == 0, good.stdout + good.stderr
    bad = nodes.cisbot("publish", "bad", "--config", config, "--wait")
    assert bad.returncode == 1
    assert "exit 3" in bad.stdout
    assert nodes.cisbot("publish", "bad", "nonsense", "--config", config).returncode == 2
    read = nodes.cisbot("memory", "get", "answer", "--config", str(nodes.config("node-2")))
    assert read.stdout.strip() == "43"
    lost = nodes.cisbot("memory", "cas", "answer", "1", "2", "--config", config)
    assert lost.returncode == 1
    shown = nodes.cisbot("status", "--config", config)
    assert "good" in shown.stdout
    assert "bad" in shown.stdout
    checked = nodes.cisbot("check", "--config", config)
    assert checked.returncode == 0, checked.stdout


def test_a_stranger_can_neither_free_nor_end_a_claim(nodes: Nodes, make_account: MakeAccount) -> None:
    stranger = make_account("stranger")
    nodes.open(["node-1"], {"job": gated(nodes.root, "ask")}, members=[stranger])
    run = nodes.person.say("!dag publish job")
    wait_file(nodes.root / "marks", lines=2)
    take = nodes.locks(run, "take")[0]
    hostile = nodes.person
    fields = {k: take[k] for k in ("node", "incarnation", "epoch", "run")}
    contents: list[dict[str, object]] = [
        {**fields, "action": "release", "nonce": "x", "outcome": "succeeded"},
        {"action": "take"},
        {"action": ["nonsense"], "epoch": 10**15},
        {**fields, "action": "restate", "head": {"key": "job/project-proj-a", "epoch": 99, "after": "$x"}},
    ]
    for content in contents:
        path = f"/_matrix/client/v3/rooms/{nodes.room}/state/io.cisbot.lock/job%2Fproject-proj-a"
        status, _ = hostile._call("PUT", path, content)
        assert status == 200
    hostile._send("io.cisbot.end", {"node": "node-1", "incarnation": take["incarnation"]})
    hostile._send("io.cisbot.heartbeat", {"node": 7})
    (nodes.root / "gate").touch()
    nodes.reply(run, "succeeded on node-1")
    releases = [c for c in nodes.locks(run, "release") if c.get("nonce") != "x"]
    assert [c["outcome"] for c in releases] == ["succeeded"]
    assert len((nodes.root / "marks").read_text().splitlines()) == 2


def test_two_nodes_with_one_id(nodes: Nodes) -> None:
    nodes.open(["node-1"], {"job": one_task(nodes.root)})
    other = nodes.make_account("other")
    invited = nodes.person._call(
        "POST", f"/_matrix/client/v3/rooms/{nodes.room}/invite", {"user_id": other.user_id}
    )
    assert invited[0] == 200
    nodes.accounts["twin"] = other
    nodes.write_settings("twin")
    text = nodes.config("twin").read_text().replace('id = "twin"', 'id = "node-1"')
    nodes.config("twin").write_text(text)
    done = nodes.cisbot("run", "--config", str(nodes.config("twin")))
    assert done.returncode == 1
    assert "belongs to" in done.stderr
