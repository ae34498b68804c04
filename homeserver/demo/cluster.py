"""The demo's machines: a Synapse, the room, and one process a node, all below one folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

from homeserver.accounts import Account
from homeserver.synapse import Synapse

ENTRY = "5cloud"
EXECUTORS = ("node-1", "node-2", "node-3")
LEASE_S = 24
DAGS = Path(__file__).parent / "dags"


class Cluster:
    """Everything that runs. `close` stops all of it; if this process dies, the parts die with it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._writer = Writer(root / "source")
        self._guard_read, self._guard_write = os.pipe()

    def start(self) -> None:
        """Start the homeserver; make accounts, the room and what is backed up."""
        if self.root.exists():
            shutil.rmtree(self.root)
        self.root.mkdir(parents=True)
        self.synapse = Synapse.start(self.root / "synapse", limits="default")
        self.passwords = {name: secrets.token_urlsafe(12) for name in ("operator", ENTRY, *EXECUTORS)}
        self.accounts = {
            name: self.synapse.accounts.create(name, word, admin=name == "operator")
            for name, word in self.passwords.items()
        }
        self.room = self._make_room()
        self._write_dags()
        self._writer.start()

    def start_nodes(self) -> None:
        """Start every node's process."""
        for name in (ENTRY, *EXECUTORS):
            self._write_settings(name)
            self.start_node(name)

    @property
    def operator(self) -> Account:
        """The person."""
        return self.accounts["operator"]

    def config(self, name: str) -> Path:
        """A node's settings."""
        return self.root / name / "node.toml"

    def cisbot(self, *args: str) -> subprocess.CompletedProcess[str]:
        """One `cisbot` command, as a user would type it."""
        return subprocess.run(
            [sys.executable, "-m", "cisbot", *args], capture_output=True, text=True, check=False
        )

    def start_node(self, name: str) -> None:
        """Start one node's process."""
        log = (self.root / name / "node.log").open("ab")
        command = [sys.executable, "-m", "homeserver.demo.child", str(self._guard_read)]
        command += [sys.executable, "-m", "cisbot", "run", "--config", str(self.config(name))]
        command += ["--trace", str(self.root / name / "trace.jsonl")]
        self.nodes[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            pass_fds=[self._guard_read],
        )  # fmt: skip

    def node_pid(self, name: str) -> int:
        """The pid of the node itself, from its lock."""
        return int((self.root / name / "data" / "node.lock").read_text())

    def kill_node(self, name: str) -> None:
        """SIGKILL, without a word."""
        os.kill(self.node_pid(name), signal.SIGKILL)
        self.nodes[name].wait(30)

    def close(self) -> None:
        """Stop everything; nothing is left."""
        self._writer.stop()
        for process in self.nodes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.nodes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if hasattr(self, "synapse"):
            self.synapse.stop()

    def _make_room(self) -> str:
        word = self.root / "operator.password"
        word.write_text(self.passwords["operator"])
        word.chmod(0o600)
        args = ["room", "init", "--homeserver", self.synapse.base_url, "--user", self.operator.user_id]
        args += ["--password-file", str(word), "--name", "tasks", "--alias", "tasks"]
        args += ["--lease-max", "60"]
        for name in (ENTRY, *EXECUTORS):
            args += ["--node", self.accounts[name].user_id]
        made = self.cisbot(*args)
        if made.returncode != 0:
            raise RuntimeError(f"cisbot room init: {made.stderr or made.stdout}")
        return made.stdout.splitlines()[0].rpartition(": ")[2]

    def _write_dags(self) -> None:
        folder = self.root / "dags"
        folder.mkdir()
        for source in sorted(DAGS.glob("*.yaml")):
            (folder / source.name).write_text(source.read_text().replace("@ROOT@", str(self.root)))

    def _write_settings(self, name: str) -> None:
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        word = folder / "password"
        word.write_text(self.passwords[name])
        word.chmod(0o600)
        execute = name in EXECUTORS
        dags = json.dumps([str(self.root / "dags")]) if execute else "[]"
        self.config(name).write_text(
            f"""[node]
id = "{name}"
data_dir = "data"
dags = {dags}
execute = {str(execute).lower()}

[coordinator]
claim_lease_duration = {LEASE_S}
kill_grace = 2

[matrix]
homeserver = "{self.synapse.base_url}"
user_id = "{self.accounts[name].user_id}"
password_file = "password"
room = "{self.room}"
"""
        )


class Writer:
    """Keeps writing to the live database and to the folder, as an application would."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)

    def start(self) -> None:
        """Make the source and start to write."""
        files = self.source / "files"
        files.mkdir(parents=True)
        for number in range(20):
            (files / f"document-{number}.txt").write_text(f"document {number}\n" * (number + 1))
        with sqlite3.connect(self.source / "app.db") as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
            db.executemany("INSERT INTO entries (text) VALUES (?)", [(f"row {n}",) for n in range(2000)])
        db.close()
        self._thread.start()

    def stop(self) -> None:
        """Stop to write."""
        self._stopped.set()

    def _write(self) -> None:
        db = sqlite3.connect(self.source / "app.db", timeout=30)
        while not self._stopped.wait(0.02):
            with db:
                db.execute("INSERT INTO entries (text) VALUES ('live')")
        db.close()
