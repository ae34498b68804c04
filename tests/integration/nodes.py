"""Real node processes on a real Synapse: one room a test, settings and data below a temporary folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from homeserver.accounts import Account
from homeserver.api import call
from homeserver.demo.person import Event, Person
from homeserver.synapse import Synapse
from tests.conftest import MakeAccount

LOCK = "io.cisbot.lock"
V3 = "/_matrix/client/v3"


class Nodes:
    """A room with an operator, and nodes that can be started, killed and asked."""

    def __init__(
        self,
        synapse: Synapse,
        make_account: MakeAccount,
        root: Path,
        *,
        lease_s: int = 4,
        traced: bool = False,
    ) -> None:
        self.synapse, self.make_account, self.root, self.lease_s = synapse, make_account, root, lease_s
        self.end_delay_s = 30.0
        self.traced = traced
        self.operator: Account = make_account("operator")
        self.accounts: dict[str, Account] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.dags = root / "dags"
        self.dags.mkdir()
        self.marks_file = root / "marks"
        self.person: Person
        self.persons: list[Person] = []
        self.room = self.alias = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(
        self,
        names: Sequence[str],
        dags: Mapping[str, str],
        *,
        members: Sequence[Account] = (),
        powers: Sequence[Account] = (),
        more: str = "",
    ) -> None:
        """Make the room, write the DAGs, start the nodes and wait until each said that it is there.

        `members` may talk, `powers` have the nodes' power; `more` is added to every node's settings.
        """
        for name, text in dags.items():
            self.write_dag(name, text)
        self.accounts = {name: self.make_account(name) for name in names}
        self.make_room(members, powers)
        for name in names:
            self.write_settings(name, more)
            self.start(name)
        for name in names:
            self.joined(name)

    def write_dag(self, name: str, text: str) -> None:
        """A DAG's file, there for all nodes."""
        (self.dags / f"{name}.yaml").write_text(f"id: {name}\n{text}")

    def make_room(
        self, members: Sequence[Account] = (), powers: Sequence[Account] = (), mode: str = "consistent"
    ) -> None:
        """`cisbot room init`, and the operator follows the room."""
        token = self.root / "operator.token"
        token.write_text(self.operator.access_token)
        self.alias = alias = self.operator.user_id.partition(":")[0].removeprefix("@")
        args = ["room", "init", "--homeserver", self.synapse.base_url, "--user", self.operator.user_id]
        args += [
            "--token-file",
            str(token),
            "--name",
            "tasks",
            "--alias",
            alias,
            "--lease-max",
            str(self.lease_s * 3 // 2),
            "--mode",
            mode,
        ]
        for account in (*self.accounts.values(), *powers):
            args += ["--node", account.user_id]
        for account in members:
            args += ["--member", account.user_id]
        made = self.cisbot(*args)
        assert made.returncode == 0, made.stderr
        self.room = made.stdout.splitlines()[0].rpartition(": ")[2]
        self.person = self.person_of(self.operator)

    def make_node(self, account: Account) -> int:
        """Give an account that comes later a node's power; the exit code of `cisbot room init`."""
        args = ["--homeserver", self.synapse.base_url, "--user", self.operator.user_id, "--alias", self.alias]
        args += ["--token-file", str(self.root / "operator.token"), "--node", account.user_id]
        return self.cisbot("room", "init", *args, "--name", "tasks").returncode

    def person_of(self, account: Account, server: Synapse | None = None) -> Person:
        """Somebody in the room; of another homeserver, if that is given."""
        base_url = (server or self.synapse).base_url
        assert call("POST", f"{base_url}{V3}/join/{self.room}", {}, token=account.access_token)[0] == 200
        person = Person(base_url, account, self.room, lambda event: None)
        self.persons.append(person)
        return person

    def write_settings(self, name: str, more: str = "", *, node_id: str = "", room: str = "") -> None:
        """A node's TOML file."""
        (self.root / name).mkdir(exist_ok=True)
        account = self.accounts[name]
        self.config(name).write_text(
            f"""{more}
[node]
id = "{node_id or name}"
data_dir = "data"
dags = [{json.dumps(str(self.dags))}]
labels = {{ name = "{name}" }}

[coordinator]
claim_lease_duration = {self.lease_s}
end_delay = {self.end_delay_s}
kill_grace = 1
worker_idle_timeout = 2

[matrix]
homeserver = "{self.address(name)}"
user_id = "{account.user_id}"
access_token = "{account.access_token}"
room = "{room or self.room}"
"""
        )
        self.config(name).chmod(0o600)

    def config(self, name: str) -> Path:
        """The path of a node's settings."""
        return self.root / name / "node.toml"

    def trace(self, name: str) -> Path:
        """Where a traced node writes its steps."""
        return self.root / name / "trace"

    def address(self, name: str) -> str:
        """Where a node finds the homeserver."""
        return self.synapse.base_url

    def log(self, name: str) -> str:
        """What a node said to its operator."""
        return (self.root / name / "node.log").read_text()

    def start(self, name: str, *command: str) -> None:
        """Start the node's process, or another `command` in place of `python -m cisbot`."""
        more = ["--trace", str(self.trace(name))] if self.traced else []
        run = [*(command or (sys.executable, "-m", "cisbot")), "run", "--config", str(self.config(name))]
        with (self.root / name / "node.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*run, *more],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def joined(self, name: str, times: int = 1) -> None:
        """Wait for the node's record, the `times`-th."""
        seen: list[object] = []

        def match(event: Event) -> bool:
            content = event.get("content")
            record = content if event.get("type") == "io.cisbot.node" and isinstance(content, dict) else {}
            if record.get("id") == name and not record.get("gone"):
                seen.append(event)
            return len(seen) >= times

        self.person.wait(f"{name} to join", match, 30)

    def kill(self, name: str) -> None:
        """SIGKILL to the node alone; its workers die with it."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(10)

    def stop(self, name: str) -> int:
        """SIGTERM; the exit code."""
        self.processes[name].terminate()
        return self.processes[name].wait(20)

    def close(self) -> None:
        """Stop all."""
        for person in self.persons:
            person.stop()
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cisbot(self, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """One `cisbot` command."""
        return subprocess.run(
            [sys.executable, "-m", "cisbot", *args],
            capture_output=True, text=True, check=False, timeout=timeout, env=dict(os.environ),
        )  # fmt: skip

    def put_state(self, person: Person, kind: str, key: str, content: object) -> tuple[int, object]:
        """Write state as that person; the status and the answer."""
        key = key.replace("/", "%2F")
        url = f"{self.synapse.base_url}{V3}/rooms/{self.room}/state/{kind}/{key}"
        return call("PUT", url, content, token=person.account.access_token)  # type: ignore[arg-type]

    # -- what the disk says ----------------------------------------------------------------------

    def mark(self, more: str = "true") -> str:
        """A shell script that leaves a mark: task, node, fence, run."""
        return f'echo "$CIS_TASK $CIS_NODE $CIS_FENCE $CIS_RUN_ID" >> "{self.marks_file}"\n      {more}'

    def job(self, more: str = "true", head: str = "scope: proj-a") -> str:
        """A DAG of one task that leaves a mark."""
        return f"{head}\ntasks:\n  a:\n    shell: |\n      {self.mark(more)}\n"

    def gated(self, on_lost: str, head: str = "scope: proj-a") -> str:
        """Two tasks; the second waits for the file `gate`."""
        wait = f"n=0; while [ ! -e {self.root}/gate ] && [ $n -lt 600 ]; do sleep 0.05; n=$((n+1)); done"
        return (
            f"{head}\non_lost: {on_lost}\ntasks:\n  a:\n    shell: |\n      {self.mark()}\n"
            f"  b:\n    needs: [a]\n    shell: |\n      {self.mark(wait)}\n"
        )

    def open_gate(self) -> None:
        """Let the waiting task end."""
        (self.root / "gate").touch()

    def marks(self, lines: int = 0) -> list[tuple[str, str, int, str]]:
        """The marks so far, at least `lines` of them: (task, node, fence, run)."""
        found = wait_file(self.marks_file, lines=lines) if lines else []
        if not lines and self.marks_file.exists():
            found = self.marks_file.read_text().splitlines()
        return [(w[0], w[1], int(w[2]), w[3]) for w in (line.split() for line in found)]

    # -- what the room says ----------------------------------------------------------------------

    def locks(self, run: str, action: str) -> list[dict[str, object]]:
        """The contents of the run's lock events of that action, in the room's order."""
        contents = [e.get("content") for e in list(self.person.events) if e.get("type") == LOCK]
        return [
            c for c in contents if isinstance(c, dict) and (c.get("run"), c.get("action")) == (run, action)
        ]

    def outcome(self, run: str, seconds: float = 60) -> str:
        """Wait for the run's outcome."""

        def match(event: Event) -> bool:
            content = event.get("content")
            return (
                event.get("type") == LOCK
                and isinstance(content, dict)
                and (content.get("run"), content.get("action")) == (run, "release")
                and content.get("outcome") not in (None, "lost")
            )

        content = self.person.wait(f"the outcome of {run}", match, seconds)["content"]
        assert isinstance(content, dict)
        return str(content["outcome"])

    def replies(self, event: str) -> list[str]:
        """What nodes said in the thread of that event, edits left out."""
        return [str(content["body"]) for content in self.thread(event)]

    def thread(self, event: str) -> list[dict[str, object]]:
        """The contents of the nodes' messages in the thread of that event, edits left out."""
        found: list[dict[str, object]] = []
        speakers = {account.user_id for account in self.accounts.values()}
        for raw in list(self.person.events):
            content = raw.get("content")
            if raw.get("type") != "m.room.message" or raw.get("sender") not in speakers:
                continue
            if not isinstance(content, dict):
                continue
            relates = content.get("m.relates_to")
            if isinstance(relates, dict) and (relates.get("rel_type"), relates.get("event_id")) == (
                "m.thread",
                event,
            ):
                found.append(content)
        return found

    def reply(self, event: str, part: str, seconds: float = 30) -> str:
        """Wait for a message in the event's thread, or an edit of one, that holds `part`."""
        originals: set[object] = set()

        def match(raw: Event) -> bool:
            content = raw.get("content")
            relates = content.get("m.relates_to") if isinstance(content, dict) else None
            if not isinstance(content, dict) or not isinstance(relates, dict):
                return False
            if relates.get("event_id") == event:
                originals.add(raw.get("event_id"))
            elif relates.get("event_id") not in originals:
                return False
            return part in str(content.get("body"))

        content = self.person.wait(f"{part!r} in reply to {event}", match, seconds)["content"]
        assert isinstance(content, dict)
        return str(content["body"])

    def pass_time(self) -> None:
        """Publish the DAG `timer` and wait for its end: whatever was due within its time has come."""
        assert self.outcome(self.person.say("!dag publish timer")) == "succeeded"


def timer(seconds: float) -> str:
    """A DAG that takes its time."""
    return f"scope: clock\ntasks:\n  a:\n    shell: sleep {seconds}\n"


def wait_file(path: Path, seconds: float = 30, *, lines: int = 1) -> list[str]:
    """Wait until the file has so many lines; return them."""
    tick = threading.Event()
    for _ in range(int(seconds * 20)):
        if path.exists() and len(found := path.read_text().splitlines()) >= lines:
            return found
        tick.wait(0.05)
    raise AssertionError(f"{path} has not {lines} lines: {path.read_text() if path.exists() else 'no file'}")


def wait_exit(process: subprocess.Popen[bytes], seconds: float = 30) -> int:
    """The exit code of a process that ends by itself."""
    return process.wait(seconds)


def wait_text(path: Path, part: str, seconds: float = 30) -> str:
    """Wait until the file holds `part`; return its text."""
    tick = threading.Event()
    for _ in range(int(seconds * 20)):
        if path.exists() and part in (text := path.read_text()):
            return text
        tick.wait(0.05)
    raise AssertionError(f"{part!r} is not in {path}: {path.read_text() if path.exists() else 'no file'}")
