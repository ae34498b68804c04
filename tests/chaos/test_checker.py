"""The checker bites: every rule, broken on purpose in a small storm that was good, is found by its name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import checker
from tests.chaos.checker import Evidence, Finding, judge

LEASE_S = 6
KEY = "again/project-a"
PROMISE = {
    "lease_s": LEASE_S,
    "lease_s_max": 9,
    "epoch_step_max": 100,
    "people": ["@anna:x"],
    "dags": {
        "again": {"on_lost": "rerun", "tasks": ["a"]},
        "goes-on": {"on_lost": "resume", "tasks": ["a", "b"]},
        "asks": {"on_lost": "ask", "tasks": ["a"]},
    },
}


class Scene:
    """Builds evidence: one event, or one line, after the other."""

    def __init__(self) -> None:
        self.evidence = Evidence(PROMISE)
        self._heads: dict[str, str | None] = {}
        self._count = 0

    def event(self, kind: str, sender: str, content: dict[str, Any], state_key: str | None = None) -> str:
        self._count += 1
        event = {"event_id": f"${self._count}", "type": kind, "sender": f"@{sender}:x", "content": content}
        self.evidence.room.append(event if state_key is None else {**event, "state_key": state_key})
        return f"${self._count}"

    def publish(self, dag: str = "again") -> str:
        return self.event("m.room.message", "anna", {"body": f"!dag publish {dag} scope=a"})

    def take(
        self, run: str, epoch: int, node: str = "n1", *, key: str = KEY, after: str | None = "", **more: Any
    ) -> None:
        after = self._heads.get(key) if after == "" else after
        content = {
            "action": "take",
            "epoch": epoch,
            "after": after,
            "run": run,
            "node": node,
            "lease_s": LEASE_S,
        }
        self._heads[key] = self.event(
            "io.cisbot.lock", node, {**content, "incarnation": f"{node}.1", **more}, key
        )

    def release(
        self, run: str, epoch: int, node: str = "n1", outcome: str | None = "succeeded", *, key: str = KEY
    ) -> None:
        content = {"action": "release", "epoch": epoch, "run": run, "node": node, "outcome": outcome}
        self._heads[key] = self.event("io.cisbot.lock", node, {**content, "incarnation": f"{node}.1"}, key)

    def ran(
        self, run: str, epoch: int, since_ms: int, until_ms: int, node: str = "n1", *, task: str = "a",
        key: str = KEY, ends: bool = True,
    ) -> None:  # fmt: skip
        pid = int(node[1:]) * 100
        whose = {
            "key": key,
            "run": run,
            "epoch": epoch,
            "node": node,
            "task": task,
            "pid": pid,
            "worker": pid + 1,
        }
        moments = [
            ("start", since_ms),
            ("beat", (since_ms + until_ms) // 2),
            ("end" if ends else "beat", until_ms),
        ]
        for what, at_ms in moments:
            self.evidence.record.append({"what": what, **whose, "at_ns": at_ms * 10**6})
        self.evidence.taken.append({"key": key, "fence": epoch, "run": run, "node": node})

    def stop(self, since_ms: int, until_ms: int, *pids: int, node: str = "n1") -> None:
        times = {"from_ns": since_ms * 10**6, "until_ns": until_ms * 10**6}
        line = {"node": node, **times, "pids": list(pids)}
        self.evidence.stops.append(line)

    def good(self, dag: str = "again") -> str:
        """One run, as it should be."""
        run = self.publish(dag)
        self.take(run, 1)
        for number, task in enumerate(PROMISE["dags"][dag]["tasks"]):  # type: ignore[index]
            self.ran(run, 1, 100 * number, 100 * number + 90, task=task)
        self.release(run, 1)
        return run

    def taken_over(self, *, first_until_ms: int = 900, ends: bool = False) -> str:
        """One run whose first node is lost; the second begins at 1,000 ms."""
        run = self.publish()
        self.take(run, 1)
        self.ran(run, 1, 0, first_until_ms, ends=ends)
        self.take(run, 2, "n2")
        self.ran(run, 2, 1_000, 2_000, "n2")
        self.release(run, 2, "n2")
        return run

    def broken(self) -> set[str]:
        return {finding.rule for finding in judge(self.evidence) if finding.broken}


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_good_is_good(scene: Scene) -> None:
    for dag in ("again", "goes-on", "asks"):
        scene = Scene()
        scene.good(dag)
        assert judge(scene.evidence) == []


def test_a_run_that_was_taken_over_is_good(scene: Scene) -> None:
    scene.taken_over()
    assert judge(scene.evidence) == []


def test_overlap(scene: Scene) -> None:
    run = scene.taken_over(first_until_ms=1_200)
    (found,) = judge(scene.evidence)
    assert (found.rule, found.broken) == ("overlap", True)
    assert found.text.startswith("200.0 ms") and run in found.text


def test_overlap_of_two_runs_of_one_key(scene: Scene) -> None:
    scene.good()
    other = scene.publish()
    scene.take(other, 2, "n2")
    scene.ran(other, 2, 50, 150, "n2")
    scene.release(other, 2, "n2")
    assert scene.broken() == {"overlap"}


def test_overlap_of_tasks_that_were_stopped_past_their_lease_is_named_with_its_length(scene: Scene) -> None:
    scene.taken_over(first_until_ms=1_505)
    scene.stop(500, 1_500, 100, 101)
    (found,) = judge(scene.evidence)
    assert found == Finding("overlap", found.text, broken=False)
    assert "unfenced, 5.0 ms" in found.text


@pytest.mark.parametrize(
    ("since_ms", "until_ms", "pids"),
    [
        (500, 1_500, (100,)),  # the worker ran: it had to kill its task
        (500, 1_500, (101,)),  # the task ran on
        (200, 300, (100, 101)),  # continued long before
        (1_100, 1_300, (100, 101)),  # stopped when it was too late already
    ],
)
def test_overlap_is_not_forgiven_otherwise(
    scene: Scene, since_ms: int, until_ms: int, pids: tuple[int, ...]
) -> None:
    scene.taken_over(first_until_ms=1_505)
    scene.stop(since_ms, until_ms, *pids)
    assert scene.broken() == {"overlap"}


def test_one_epoch_on_two_nodes(scene: Scene) -> None:
    run = scene.good()
    scene.ran(run, 1, 5_000, 6_000, "n2")
    assert scene.broken() == {"twice", "void", "stale"}


def test_a_task_that_began_twice_at_one_epoch(scene: Scene) -> None:
    run = scene.good()
    scene.ran(run, 1, 100, 200)
    assert scene.broken() == {"twice"}


def test_a_void_claim_that_ran(scene: Scene) -> None:
    """Two takes stand on the same head: the stream's first is accepted, and the second runs all the same."""
    run = scene.publish()
    scene.take(run, 2, "n2", after=None)
    scene.take(run, 1, "n1", after=None)
    scene.ran(run, 1, 0, 100)
    scene.release(run, 1)
    scene.release(run, 2, "n2", None)
    assert scene.broken() == {"void"}


@pytest.mark.parametrize(("epoch", "lease_s"), [(101, LEASE_S), (1, 10)])
def test_a_claim_beyond_the_charter_is_void(scene: Scene, epoch: int, lease_s: int) -> None:
    run = scene.publish()
    scene.take(run, epoch, lease_s=lease_s)
    scene.ran(run, epoch, 0, 100)
    scene.release(run, epoch)
    assert scene.broken() == {"void"}


def test_probes_heartbeats_and_ends_move_the_head(scene: Scene) -> None:
    run = scene.publish()
    scene.take(run, 1)
    beat = scene.event(
        "io.cisbot.heartbeat", "n1", {"incarnation": "n1.1", "renews": [{"key": KEY, "epoch": 1}]}
    )
    scene.take(run, 2, "n2", after=beat)
    over = scene.event("io.cisbot.end", "n2", {"incarnation": "n2.1"})
    scene.take(run, 3, "n3", after=over)
    asked = scene.event("io.cisbot.probe", "n4", {"incarnation": "n4.1", "keys": [KEY]})
    scene.take(run, 90, "n4", after=asked, fresh=True)
    scene.ran(run, 90, 0, 100, "n4")
    scene.release(run, 90, "n4")
    assert judge(scene.evidence) == []
    assert sorted(epoch for _, epoch in checker.read_room(scene.evidence).takes) == [1, 2, 3, 90]


def test_a_run_without_an_outcome(scene: Scene) -> None:
    scene.publish()
    assert scene.broken() == {"loss"}


def test_a_run_that_succeeded_without_one_of_its_tasks(scene: Scene) -> None:
    run = scene.publish("goes-on")
    scene.take(run, 1)
    scene.ran(run, 1, 0, 100)
    scene.release(run, 1)
    assert scene.broken() == {"loss"}


def test_a_run_that_began_anew_needs_all_tasks_of_its_last_epoch(scene: Scene) -> None:
    run = scene.publish()
    scene.take(run, 1)
    scene.ran(run, 1, 0, 900)
    scene.take(run, 2, "n2")
    scene.release(run, 2, "n2")
    assert scene.broken() == {"loss"}


def test_a_run_that_failed(scene: Scene) -> None:
    run = scene.publish()
    scene.take(run, 1)
    scene.ran(run, 1, 0, 100, ends=False)
    scene.release(run, 1, outcome="failed")
    assert scene.broken() == {"loss"}
    scene.stop(50, 15_050, 101)
    assert [finding.broken for finding in judge(scene.evidence)] == [False]


def test_a_run_that_failed_before_its_task_began(scene: Scene) -> None:
    run = scene.publish()
    scene.take(run, 1)
    scene.release(run, 1, outcome="failed")
    scene.stop(50, 15_050, 201, node="n2")
    scene.stop(50, 15_050)
    scene.stop(50, 1_050, 101)
    assert scene.broken() == {"loss"}
    scene.stop(50, 15_050, 101)
    assert [finding.broken for finding in judge(scene.evidence)] == [False]


def test_a_run_that_is_over_and_runs_again(scene: Scene) -> None:
    run = scene.good()
    scene.take(run, 2, "n2")
    scene.ran(run, 2, 1_000, 1_100, "n2")
    assert scene.broken() == {"duplicate"}


def test_an_outcome_that_came_too_late_does_not_count_against_who_took_over(scene: Scene) -> None:
    run = scene.publish()
    scene.take(run, 1)
    scene.ran(run, 1, 0, 900)
    scene.take(run, 2, "n2")
    late = scene._heads[KEY]
    scene.release(run, 1)
    scene._heads[KEY] = late
    scene.ran(run, 2, 1_000, 2_000, "n2")
    scene.release(run, 2, "n2")
    assert judge(scene.evidence) == []


def test_two_outcomes_that_count(scene: Scene) -> None:
    run = scene.good()
    scene.take(run, 2, "n2")
    scene.release(run, 2, "n2")
    assert scene.broken() >= {"duplicate"}


def test_a_run_that_goes_on_unasked(scene: Scene) -> None:
    def lost(*, answered: bool) -> Scene:
        scene = Scene()
        run = scene.publish("asks")
        scene.take(run, 1)
        scene.ran(run, 1, 0, 900, ends=False)
        ask = scene.event("m.room.message", "n2", {"io.cisbot": {"kind": "ask", "run": run}})
        if answered:
            scene.event("m.reaction", "anna", {"m.relates_to": {"event_id": ask, "key": "✅"}})
        scene.take(run, 2, "n2")
        scene.ran(run, 2, 1_000, 2_000, "n2")
        scene.release(run, 2, "n2")
        return scene

    assert lost(answered=True).broken() == set()
    assert lost(answered=False).broken() == {"duplicate"}


def test_what_nobody_published(scene: Scene) -> None:
    scene.take("$other", 1)
    scene.ran("$other", 1, 0, 100)
    scene.release("$other", 1)
    assert scene.broken() == {"duplicate"}


def test_a_sink_that_took_something_stale(scene: Scene) -> None:
    run = scene.taken_over()
    scene.evidence.taken.append({"key": KEY, "fence": 1, "run": run, "node": "n1"})
    assert scene.broken() == {"stale"}


def test_a_room_that_was_not_followed_whole(scene: Scene) -> None:
    scene.good()
    scene.evidence.missing.append("$lost")
    assert scene.broken() == {"blind"}


@pytest.mark.parametrize("bad", [False, True])
def test_it_stands_alone(scene: Scene, tmp_path: Path, bad: bool) -> None:
    """As a script, with nothing but the standard library."""
    scene.taken_over(first_until_ms=1_200 if bad else 900)
    (tmp_path / "sink").mkdir()
    (tmp_path / "promise.json").write_text(json.dumps(PROMISE))
    (tmp_path / "followed.json").write_text('{"missing": []}')
    found = scene.evidence
    for name, lines in (
        ("record.jsonl", found.record),
        ("sink/journal.jsonl", found.taken),
        ("room.jsonl", found.room),
    ):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = subprocess.run(
        [sys.executable, "-IS", checker.__file__, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == (1 if bad else 0), done.stderr
    assert ("BROKEN overlap: 200.0 ms" in done.stdout) is bad
    assert done.stdout.splitlines()[-1] == ("1 broken rules" if bad else "no rule was broken")
