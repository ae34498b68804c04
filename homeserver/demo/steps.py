"""The demo's steps, each judged from the room's events and the files on disk, never from what cisbot says."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from homeserver.demo.cluster import Cluster
from homeserver.demo.person import Event, Person

LOCK = "io.cisbot.lock"


class Wrong(Exception):
    """A step did not come out as it should."""


def check(truth: bool, what: str) -> None:
    """Raise `Wrong` unless it is so."""
    if not truth:
        raise Wrong(what)


class Steps:
    """All steps of the demo on one cluster."""

    def __init__(self, cluster: Cluster, person: Person, say: Callable[[str], None]) -> None:
        self.cluster = cluster
        self.person = person
        self.say = say
        self.where: list[tuple[str, str, str]] = []

    def all(self) -> list[Callable[[], str]]:
        """The steps in order; each returns the run's event id, or several joined by a space."""
        return [
            self.backup, self.anywhere, self.approval, self.cancelled, self.taken_over, self.two_entries,
            self.one_global,
        ]  # fmt: skip

    # -- what the room and the disk say ----------------------------------------------------------

    def final(self, run: str, seconds: float = 120) -> Event:
        """The release with an outcome that refers to the run."""

        def match(event: Event) -> bool:
            content = event.get("content")
            return (
                event.get("type") == LOCK
                and isinstance(content, dict)
                and content.get("action") == "release"
                and content.get("run") == run
                and content.get("outcome") is not None
            )

        return self.person.wait(f"the outcome of {run}", match, seconds)

    def outcome(self, run: str, expected: str) -> Mapping[str, object]:
        """The run's outcome, checked, with the node that released it."""
        content = self.final(run)["content"]
        assert isinstance(content, dict)
        check(content["outcome"] == expected, f"{run}: {content['outcome']} instead of {expected}")
        self.person.wait(f"the final reply of {run}", lambda e: self._reply_of(e, run))
        return content

    @staticmethod
    def _reply_of(event: Event, run: str) -> bool:
        content = event.get("content")
        if event.get("type") != "m.room.message" or not isinstance(content, dict):
            return False
        relates, block = content.get("m.relates_to"), content.get("io.cisbot")
        in_thread = isinstance(relates, dict) and relates.get("event_id") == run
        return in_thread and isinstance(block, dict) and block.get("kind") == "final"

    def takes(self, run: str) -> list[Mapping[str, object]]:
        """Every lock request for the run, in the room's order."""
        contents = [e.get("content") for e in list(self.person.events) if e.get("type") == LOCK]
        return [
            c for c in contents if isinstance(c, dict) and (c.get("action"), c.get("run")) == ("take", run)
        ]

    def evidence(self, run: str) -> list[tuple[str, str, int]]:
        """What the run's tasks wrote: (task, node, fence), in order."""
        path = self.cluster.root / "evidence.log"
        rows = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(r[2], r[3], int(r[4])) for r in rows if r[0] == run]

    def wait_evidence(self, run: str, task: str, seconds: float = 90) -> None:
        """Until the task has begun."""
        for _ in range(int(seconds * 10)):
            if any(t == task for t, _, _ in self.evidence(run)):
                return
            threading.Event().wait(0.1)
        raise Wrong(f"{task} did not begin within {seconds:.0f} s")

    def publish(self, text: str) -> str:
        """Publish as a person does."""
        self.say(f"operator: {text}")
        return self.person.say(text)

    def note(self, run: str, name: str) -> str:
        """Remember where a run ran, for the end."""
        nodes = ", ".join(dict.fromkeys(node for _, node, _ in self.evidence(run)))
        events = sum(1 for e in list(self.person.events) if run in str(e))
        self.where.append((name, nodes, f"{events} events"))
        return run

    # -- the steps -------------------------------------------------------------------------------

    def backup(self) -> str:
        """backup_daily on node-1: a real backup that can be restored."""
        run = self.publish("!dag publish backup_daily target=node-1 scope=proj-a")
        self.outcome(run, "succeeded")
        check([n for _, n, _ in self.evidence(run)] == ["node-1"], "the backup ran elsewhere or twice")
        backups = self.cluster.root / "backups"
        archive = backups / "backup.tar.gz"
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        check((backups / "backup.tar.gz.sha256").read_text().startswith(digest), "the checksum is wrong")
        with tempfile.TemporaryDirectory() as scratch:
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            for path in sorted((self.cluster.root / "source" / "files").iterdir()):
                same = (Path(scratch) / "files" / path.name).read_bytes() == path.read_bytes()
                check(same, f"{path.name} was not restored as it is")
            db = sqlite3.connect(Path(scratch) / "app.db")
            check(db.execute("PRAGMA integrity_check").fetchone() == ("ok",), "the database is damaged")
            rows = db.execute("SELECT count(*), max(id) FROM entries").fetchone()
            db.close()
        check(rows[0] >= 2000 and rows[0] == rows[1], f"the copy is not consistent: {rows}")
        live = sqlite3.connect(self.cluster.root / "source" / "app.db")
        now = live.execute("SELECT count(*) FROM entries").fetchone()[0]
        live.close()
        check(now > rows[0], "nobody wrote to the live database meanwhile")
        return self.note(run, "backup_daily target=node-1")

    def anywhere(self) -> str:
        """target=any: exactly one node runs it."""
        run = self.publish("!dag publish health target=any")
        self.outcome(run, "succeeded")
        check(len(self.evidence(run)) == 1, f"it ran {len(self.evidence(run))} times")
        return self.note(run, "health target=any")

    def approval(self) -> str:
        """A run that waits for a reaction."""
        run = self.publish("!dag publish deploy version=2.1")
        self.person.wait("the question", lambda e: self._asks(e, run))
        threading.Event().wait(1.0)
        check(not self.evidence(run) and not self.takes(run), "it ran before it was approved")
        self.say("operator reacts ✅")
        self.person.react(run, "✅")
        self.outcome(run, "succeeded")
        check(len(self.evidence(run)) == 1, "it did not run exactly once")
        return self.note(run, "deploy, approved")

    @staticmethod
    def _asks(event: Event, run: str) -> bool:
        content = event.get("content")
        block = content.get("io.cisbot") if isinstance(content, dict) else None
        return isinstance(block, dict) and block.get("kind") == "prompt" and block.get("run") == run

    def cancelled(self) -> str:
        """A run that is cancelled while it runs: its processes are dead."""
        run = self.publish("!dag publish long_job")
        self.wait_evidence(run, "crunch")
        pids = self._pids()
        check(all(_alive(pid) for pid in pids), "its processes do not run")
        self.say("operator reacts ❌")
        self.person.react(run, "❌")
        self.outcome(run, "cancelled")
        check(not any(_alive(pid) for pid in pids), "a process survived the cancel")
        check([t for t, _, _ in self.evidence(run)] == ["crunch"], "a later task ran all the same")
        return self.note(run, "long_job, cancelled")

    def _pids(self) -> list[int]:
        path = self.cluster.root / "long_job.pids"
        for _ in range(100):
            if path.exists() and len(path.read_text().split()) == 2:
                return [int(pid) for pid in path.read_text().split()]
            threading.Event().wait(0.1)
        raise Wrong("long_job did not name its processes")

    def taken_over(self) -> str:
        """The holder is killed; another node finishes, without doing again what was done."""
        run = self.publish("!dag publish import_data")
        self.wait_evidence(run, "load")
        self.person.wait("that the first task is known", lambda e: self._fetched(e, run))
        victim = self.evidence(run)[-1][1]
        self.say(f"kill -9 {victim}")
        self.cluster.kill_node(victim)
        taker = self.person.wait(
            "another node's claim",
            lambda e: e.get("type") == LOCK and self._other(e, run, victim),
            120,
        )
        (self.cluster.root / "gate").touch()
        self.outcome(run, "succeeded")
        rows = self.evidence(run)
        check([t for t, _, _ in rows] == ["fetch", "load", "load", "verify"], f"it ran as {rows}")
        check(rows[0][1] == rows[1][1] == victim and rows[2][1] != victim, f"it ran on {rows}")
        check(rows[3][2] > rows[0][2], "the fencing token did not grow")
        check(isinstance(taker["content"], dict), "no content")
        self.cluster.start_node(victim)
        return self.note(run, "import_data, taken over")

    @staticmethod
    def _other(event: Event, run: str, victim: str) -> bool:
        content = event.get("content")
        return (
            isinstance(content, dict)
            and content.get("action") == "take"
            and content.get("run") == run
            and content.get("node") != victim
            and isinstance(content.get("epoch"), int)
            and content["epoch"] > 1
        )

    @staticmethod
    def _fetched(event: Event, run: str) -> bool:
        content = event.get("content")
        new = content.get("m.new_content", content) if isinstance(content, dict) else {}
        block = new.get("io.cisbot") if isinstance(new, dict) else None
        if not isinstance(block, dict) or block.get("run") != run:
            return False
        tasks = block.get("tasks")
        return isinstance(tasks, dict) and tasks.get("fetch") == "succeeded"

    def two_entries(self) -> str:
        """Two publications of one DAG at the same instant, through two entries: both run, one by one."""
        made: list[str] = []

        def publish(name: str) -> None:
            done = self.cluster.cisbot(
                "publish", "counter", "scope=proj-a", "--config", str(self.cluster.config(name)), "--wait"
            )
            made.append(f"{done.returncode} {done.stdout.strip()} {done.stderr.strip()}")

        entries = [threading.Thread(target=publish, args=(name,)) for name in ("5cloud", "node-3")]
        self.say("5cloud and node-3 publish counter at the same instant")
        for entry in entries:
            entry.start()
        for entry in entries:
            entry.join(180)
        check(len(made) == 2 and all(m.startswith("0 ") for m in made), f"cisbot publish --wait: {made}")
        runs = sorted({str(t["run"]) for t in self._all_takes("counter")})
        check(len(runs) == 2, f"{len(runs)} runs instead of 2")
        for run in runs:
            check(len(self.evidence(run)) == 1, f"{run} ran {len(self.evidence(run))} times")
        counter = (self.cluster.root / "counter").read_text().strip()
        check(counter == "2", f"the counter says {counter}: they overlapped")
        for run in runs:
            self.note(run, "counter, two entries")
        return " ".join(runs)

    def _all_takes(self, dag: str) -> list[Mapping[str, object]]:
        contents = [e.get("content") for e in list(self.person.events) if e.get("type") == LOCK]
        return [c for c in contents if isinstance(c, dict) and c.get("dag") == dag]

    def one_global(self) -> str:
        """scope=global: one worker in the whole cluster, the second run waits for the first."""
        first = self.publish("!dag publish migrate scope=global target=node-1 seconds=6")
        self.wait_evidence(first, "migrate")
        second = self.publish("!dag publish migrate scope=global target=node-2 seconds=1")
        self.outcome(first, "succeeded")
        self.outcome(second, "succeeded")
        spans: dict[str, dict[str, int]] = {}
        for line in (self.cluster.root / "spans.log").read_text().splitlines():
            run, what, at = line.split()
            spans.setdefault(run, {})[what] = int(at)
        check(spans[second]["start"] > spans[first]["end"], "two global runs overlapped")
        check(self.evidence(first)[0][1] != self.evidence(second)[0][1], "both ran on one node")
        self.note(first, "migrate scope=global, first")
        return self.note(second, "migrate scope=global, waited")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not stat.stdout.strip().startswith("Z")
