"""The .mbp in a stock maubot, on a real Synapse: publish, run, reload in the middle of a run, stop."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

import cisbot
from homeserver.accounts import Account
from homeserver.api import call
from homeserver.demo.person import Event, Person
from homeserver.install import install_maubot
from homeserver.mbp import ROOT, build
from homeserver.synapse import Synapse
from tests.conftest import MakeAccount
from tests.integration.maubot_server import MaubotServer, until

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(300)]

GREET = """
id: greet
tasks:
  hello: {skill: hello, with: {name: Ada}}
  tell:
    needs: [hello]
    shell: echo "$CIS_OUTPUT_HELLO_GREETING" > "@DIR@/greeting"
"""
LONG = """
id: long
on_lost: resume
tasks:
  first:
    shell: echo "first $CIS_FENCE" >> "@DIR@/evidence"
  wait:
    needs: [first]
    shell: |
      echo "wait $CIS_FENCE" >> "@DIR@/evidence"
      while [ ! -e "@DIR@/gate" ]; do sleep 0.1; done
  last:
    needs: [wait]
    shell: echo "last $CIS_FENCE" >> "@DIR@/evidence"
"""


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built `.mbp`."""
    return build(tmp_path_factory.mktemp("mbp"))


@pytest.fixture(scope="module")
def maubot(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MaubotServer]:
    """A stock maubot with the plugin, and the example skill installed beside it."""
    python = install_maubot()
    skill = tmp_path_factory.mktemp("skill") / "skill_hello"
    shutil.copytree(ROOT / "plugins" / "skill_hello", skill)
    pip = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", str(skill)]
    subprocess.run(pip, check=True, stdin=subprocess.DEVNULL)
    server = MaubotServer(python, tmp_path_factory.mktemp("maubot"))
    try:
        server.upload(plugin)
        yield server
    finally:
        code = server.stop()
    assert code == 0, server.log()[-4000:]


@dataclass
class Home:
    """A room, an operator in it, and an instance of the plugin that is not made yet."""

    maubot: MaubotServer
    person: Person
    account: Account
    room: str
    folder: Path

    @property
    def data(self) -> Path:
        """The node's data directory."""
        return self.folder / "data"

    def config(self, **node: object) -> dict[str, object]:
        """The instance's config."""
        own = {"id": "node-m", "data_dir": str(self.data), "dags": [str(self.folder / "dags")], **node}
        return {"room": self.room, "node": own, "coordinator": {"kill_grace": 1}}

    def start(self) -> str:
        """Make the instance and wait for its node; the node's incarnation."""
        self.maubot.put_instance(self.instance, self.account, self.config())
        return self.follows()

    @property
    def instance(self) -> str:
        """A name for the instance."""
        return self.folder.name.replace("_", "-").lower()

    def follows(self, *earlier: str) -> str:
        """Wait for a node with none of these incarnations; its incarnation."""

        def fresh(event: Event) -> bool:
            content = content_of(event, "io.cisbot.node")
            return bool(content) and not content["gone"] and content["incarnation"] not in earlier

        return str(content_of(self.person.wait("the node", fresh), "io.cisbot.node")["incarnation"])

    def outcome(self, run: str) -> str:
        """Wait for the run's outcome and its final reply."""

        def final(event: Event) -> bool:
            block = content_of(event, "m.room.message").get("io.cisbot")
            return isinstance(block, dict) and block.get("kind") == "final" and relates(event) == run

        release = self.person.wait(f"the outcome of {run}", lambda e: released(e, run) is not None)
        self.person.wait(f"the final reply of {run}", final)
        return str(released(release, run))

    def living(self) -> list[int]:
        """Processes of this node's workers and tasks."""
        mark = f"CIS_DATA={self.data}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue  # gone, or not ours
        return found


def content_of(event: Event, kind: str) -> Mapping[str, object]:
    """The content of an event of that type, else nothing."""
    content = event.get("content")
    return content if event.get("type") == kind and isinstance(content, dict) else {}


def relates(event: Event) -> object:
    """The event that a message is about."""
    relation = content_of(event, "m.room.message").get("m.relates_to")
    return relation.get("event_id") if isinstance(relation, dict) else None


def released(event: Event, run: str) -> object:
    """The outcome that the event gives the run, if it does."""
    content = content_of(event, "io.cisbot.lock")
    mine = content.get("action") == "release" and content.get("run") == run
    return content.get("outcome") if mine else None


class MakeHome(Protocol):
    """Make a fresh room and account, on this maubot."""

    def __call__(self, maubot: MaubotServer) -> Home: ...


@pytest.fixture
def make_home(synapse: Synapse, make_account: MakeAccount, tmp_path: Path) -> Iterator[MakeHome]:
    """Makes homes; in the end none of their processes lives."""
    homes: list[Home] = []

    def make(maubot: MaubotServer) -> Home:
        operator, account = make_account("operator"), make_account("bot")
        room = room_of(synapse, operator, account, tmp_path)
        (tmp_path / "dags").mkdir()
        for name, text in (("greet", GREET), ("long", LONG)):
            (tmp_path / "dags" / f"{name}.yaml").write_text(text.replace("@DIR@", str(tmp_path)))
        person = Person(synapse.base_url, operator, room, lambda event: None)
        maubot.add_client(synapse.base_url, account)
        homes.append(Home(maubot, person, account, room, tmp_path))
        return homes[-1]

    yield make
    for home in homes:
        home.person.stop()
        assert home.living() == []


@pytest.fixture
def home(make_home: MakeHome, maubot: MaubotServer) -> Iterator[Home]:
    """A fresh room and account; the instance is deleted in the end."""
    home = make_home(maubot)
    yield home
    maubot.api("DELETE", f"/instance/{home.instance}")


def room_of(synapse: Synapse, operator: Account, node: Account, folder: Path) -> str:
    """Make the cluster's room as an operator does."""
    (folder / "token").write_text(operator.access_token)
    command = [sys.executable, "-m", "cisbot", "room", "init", "--homeserver", synapse.base_url]
    command += ["--user", operator.user_id, "--token-file", str(folder / "token"), "--name", "tasks"]
    command += ["--alias", f"tasks-{secrets.token_hex(4)}", "--node", node.user_id]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines()[0].rpartition(": ")[2]


def test_the_plugin_holds_what_it_needs(plugin: Path) -> None:
    with zipfile.ZipFile(plugin) as archive:
        names = archive.namelist()
    assert {"cisbot/store/schema/0001_first.sql", "plugins/coordinator.py", "base-config.yaml"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    assert plugin.name == f"io.cisbot.coordinator-v{cisbot.__version__}.mbp"


def test_a_published_dag_runs(home: Home) -> None:
    home.start()
    run = home.person.say("!dag publish greet")
    assert home.outcome(run) == "succeeded"
    assert (home.folder / "greeting").read_text() == "Hello, Ada!\n"


def publish_long(home: Home) -> str:
    """Publish the long run and wait until it is in the middle; the run."""
    run = home.person.say("!dag publish long")
    halfway = {"first": "succeeded", "wait": "running", "last": "pending"}

    def waits(event: Event) -> bool:
        block = content_of(event, "m.room.message").get("io.cisbot")
        return isinstance(block, dict) and block.get("tasks") == halfway

    home.person.wait("the run to be in its second task", waits)
    assert home.living()
    return run


def test_a_run_survives_reloads_of_the_plugin(home: Home, plugin: Path) -> None:
    first = home.start()
    run = publish_long(home)
    before = home.living()
    home.maubot.upload(plugin)
    second = home.follows(first)
    home.maubot.reload()
    home.follows(first, second)
    (home.folder / "gate").touch()
    assert home.outcome(run) == "succeeded"
    tasks = [line.split() for line in (home.folder / "evidence").read_text().splitlines()]
    names, fences = [name for name, _ in tasks], [int(fence) for _, fence in tasks]
    assert (names[0], names.count("first"), names[-1], names.count("last")) == ("first", 1, "last", 1)
    assert fences == sorted(fences)
    assert fences[-1] > fences[0]
    assert not set(before) & set(home.living())


def test_maubot_ends_in_the_middle_of_a_run(make_home: MakeHome, plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "maubot").mkdir()
    server = MaubotServer(install_maubot(), tmp_path / "maubot")
    try:
        server.upload(plugin)
        home = make_home(server)
        incarnation = home.start()
        run = publish_long(home)
    finally:
        code = server.stop()
    assert code == 0, server.log()[-4000:]
    assert home.living() == []

    ended = home.person.wait("the end of its claims", lambda e: bool(content_of(e, "io.cisbot.end")))
    assert content_of(ended, "io.cisbot.end")["incarnation"] == incarnation
    assert not any(released(event, run) for event in home.person.events)
    home.person.wait("the farewell", lambda e: bool(content_of(e, "io.cisbot.node").get("gone")))


def test_an_instance_whose_delayed_end_was_sent_goes_on_by_itself(home: Home, synapse: Synapse) -> None:
    first = home.start()
    run = publish_long(home)
    url = f"{synapse.base_url}/_matrix/client/unstable/org.matrix.msc4140/delayed_events"
    _, answer = call("GET", url, token=home.account.access_token)
    (armed,) = answer["delayed_events"]
    assert call("POST", f"{url}/{armed['delay_id']}/send", {}, token=home.account.access_token)[0] == 200
    home.follows(first)
    (home.folder / "gate").touch()
    assert home.outcome(run) == "succeeded"
    assert home.maubot.started(home.instance)
    assert "going on as a new one" in home.maubot.log()


def test_bad_settings_are_told_and_can_be_mended(home: Home) -> None:
    first = home.start()
    home.maubot.put_instance(home.instance, home.account, home.config(idd="typo"))
    until("the instance is stopped", lambda: not home.maubot.started(home.instance), 30)
    assert "node.idd: unknown key 'idd'" in home.maubot.log()
    assert home.living() == []
    home.maubot.put_instance(home.instance, home.account, home.config())
    home.maubot.api("PUT", f"/instance/{home.instance}", {"started": True})
    home.follows(first)
