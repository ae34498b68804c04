"""Real node processes on a real Synapse: one room a test, settings and data below a temporary folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from homeserver.accounts import Account
from homeserver.demo.person import Event, Person
from homeserver.synapse import Synapse
from tests.conftest import MakeAccount

LOCK = "io.cisbot.lock"


class Nodes:
    """A room with an operator, and nodes that can be started, killed and asked."""

    def __init__(self, synapse: Synapse, make_account: MakeAccount, root: Path, *, lease_s: int = 4) -> None:
        self.synapse, self.make_account, self.root, self.lease_s = synapse, make_account, root, lease_s
        self.operator: Account = make_account("operator")
        self.accounts: dict[str, Account] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.dags = root / "dags"
        self.dags.mkdir()
        self.person: Person
        self.room = ""

    def open(self, names: list[str], dags: dict[str, str], *, members: list[Account] | None = None) -> None:
        """Make the room, write the DAGs, start the nodes and wait until each said that it is there."""
        for name, text in dags.items():
            (self.dags / f"{name}.yaml").write_text(f"id: {name}\n{text}")
        self.accounts = {name: self.make_account(name) for name in names}
        self._make_room(members or [])
        self.person = Person(self.synapse.base_url, self.operator, self.room, lambda event: None)
        for name in names:
            self.write_settings(name)
            self.start(name)
        for name in names:
            self.joined(name)

    def _make_room(self, members: list[Account]) -> None:
        token = self.root / "operator.token"
        token.write_text(self.operator.access_token)
        alias = self.operator.user_id.partition(":")[0].removeprefix("@")
        args = ["room", "init", "--homeserver", self.synapse.base_url, "--user", self.operator.user_id]
        args += ["--token-file", str(token), "--name", "tasks", "--alias", alias, "--lease-max", "10"]
        for account in self.accounts.values():
            args += ["--node", account.user_id]
        for account in members:
            args += ["--member", account.user_id]
        made = self.cisbot(*args)
        assert made.returncode == 0, made.stderr
        self.room = made.stdout.splitlines()[0].rpartition(": ")[2]

    def write_settings(self, name: str, more: str = "") -> None:
        """A node's TOML file."""
        (self.root / name).mkdir(exist_ok=True)
        account = self.accounts[name]
        self.config(name).write_text(
            f"""[node]
id = "{name}"
data_dir = "data"
dags = [{json.dumps(str(self.dags))}]
labels = {{ name = "{name}" }}

[coordinator]
claim_lease_duration = {self.lease_s}
kill_grace = 1

[matrix]
homeserver = "{self.synapse.base_url}"
user_id = "{account.user_id}"
access_token = "{account.access_token}"
room = "{self.room}"
{more}"""
        )
        self.config(name).chmod(0o600)

    def config(self, name: str) -> Path:
        """The path of a node's settings."""
        return self.root / name / "node.toml"

    def log(self, name: str) -> str:
        """What a node said to its operator."""
        return (self.root / name / "node.log").read_text()

    def start(self, name: str) -> None:
        """Start the node's process."""
        with (self.root / name / "node.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "cisbot", "run", "--config", str(self.config(name))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def joined(self, name: str, times: int = 1) -> None:
        """Wait for the node's record, the `times`-th."""

        def match(event: Event) -> bool:
            content = event.get("content")
            return (
                event.get("type") == "io.cisbot.node"
                and isinstance(content, dict)
                and content.get("id") == name
                and self.count(lambda e: e.get("type") == "io.cisbot.node" and _id(e) == name) >= times
            )

        self.person.wait(f"{name} to join", match, 30)

    def count(self, match: Callable[[Event], bool]) -> int:
        """How many events match so far."""
        return sum(1 for event in list(self.person.events) if match(event))

    def kill(self, name: str) -> None:
        """SIGKILL to the node alone."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait(10)

    def close(self) -> None:
        """Stop all."""
        if hasattr(self, "person"):
            self.person.stop()
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
                and content.get("outcome") is not None
            )

        event = self.person.wait(f"the outcome of {run}", match, seconds)
        content = event["content"]
        assert isinstance(content, dict)
        return str(content["outcome"])

    def replies(self, event: str) -> list[str]:
        """What nodes said in the thread of that event, edits left out."""
        found = []
        for raw in list(self.person.events):
            content = raw.get("content")
            if raw.get("type") != "m.room.message" or not isinstance(content, dict):
                continue
            relates = content.get("m.relates_to")
            if isinstance(relates, dict) and (relates.get("rel_type"), relates.get("event_id")) == (
                "m.thread",
                event,
            ):
                found.append(str(content.get("body")))
        return found

    def reply(self, event: str, part: str, seconds: float = 30) -> str:
        """Wait for a reply in the event's thread that holds `part`."""

        def match(raw: Event) -> bool:
            content = raw.get("content")
            relates = content.get("m.relates_to") if isinstance(content, dict) else None
            return (
                isinstance(content, dict)
                and isinstance(relates, dict)
                and relates.get("event_id") == event
                and part in str(content.get("body"))
            )

        content = self.person.wait(f"{part!r} in reply to {event}", match, seconds)["content"]
        assert isinstance(content, dict)
        return str(content["body"])


def _id(event: Event) -> object:
    content = event.get("content")
    return content.get("id") if isinstance(content, dict) else None


def wait_file(path: Path, seconds: float = 30, *, lines: int = 1) -> list[str]:
    """Wait until the file has so many lines; return them."""
    tick = threading.Event()
    for _ in range(int(seconds * 20)):
        if path.exists() and len(found := path.read_text().splitlines()) >= lines:
            return found
        tick.wait(0.05)
    raise AssertionError(f"{path} has not {lines} lines: {path.read_text() if path.exists() else 'no file'}")
