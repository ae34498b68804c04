"""The machines of a storm: nodes behind a proxy, their DAGs, who writes down the room, what was promised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from typing_extensions import override

from homeserver.accounts import Account
from homeserver.synapse import Synapse
from tests.chaos import follow, processes
from tests.chaos.proxy import Proxy
from tests.conftest import MakeAccount
from tests.integration.nodes import Nodes, wait_file

REPOSITORY = Path(__file__).parents[2]
TASKS = {"again": ("a",), "goes-on": ("a", "b"), "asks": ("a",)}
ON_LOST = {"again": "rerun", "goes-on": "resume", "asks": "ask"}


class Cluster(Nodes):
    """`Nodes` that reach the homeserver through a proxy and write a trace; a member writes down the room."""

    def __init__(
        self, synapse: Synapse, make_account: MakeAccount, root: Path, proxy: Proxy, lease_s: int
    ) -> None:
        super().__init__(synapse, make_account, root, lease_s=lease_s, traced=True)
        self.proxy = proxy
        self.evidence = root / "evidence"
        (self.evidence / "sink").mkdir(parents=True)
        self.follower: subprocess.Popen[bytes]
        self._ending = False  # in good order
        self.member: Account

    @override
    def address(self, name: str) -> str:
        return self.proxy.address(name)

    def begin(self, names: list[str]) -> None:
        """Make accounts, room and DAGs; follow the room; start the nodes and wait for them."""
        for name in TASKS:
            self.write_dag(name, self._dag(name))
        self.accounts = {name: self.make_account(name) for name in names}
        self.member = self.make_account("member")
        self.make_room([self.member])
        self._promise()
        self._follow()
        for name in names:
            self.write_settings(name)
            self.start(name)
        for name in names:
            self.joined(name)
        self.person.stop()  # from now on one account follows the room: each costs the homeserver time

    def data(self, name: str) -> Path:
        """A node's data directory."""
        return self.root / name / "data"

    def family(self, name: str) -> processes.Family:
        """The processes below a node."""
        return processes.family(self.processes[name].pid, self.data(name))

    def end(self) -> None:
        """Stop the nodes, and when the room is quiet the follower."""
        self._ending = True
        self.close()
        self.follower.terminate()
        try:
            assert self.follower.wait(60) == 0
        finally:
            self.follower.kill()

    @override
    def close(self) -> None:
        super().close()
        if hasattr(self, "follower") and not self._ending:
            self.follower.kill()  # an early end: there is nothing to judge
            self.follower.wait()

    def _dag(self, name: str) -> str:
        command = f"exec {sys.executable} -S -m tests.chaos.task {self.evidence}"
        command += " $CIS_PARAM_SECONDS $CIS_PARAM_MANNER"
        text = f"on_lost: {ON_LOST[name]}\nenv: {{PYTHONPATH: {json.dumps(str(REPOSITORY))}}}\n"
        text += "params:\n  seconds: {required: true}\n  manner: {required: true}\ntasks:\n"
        needs: tuple[str, ...] = ()
        for task in TASKS[name]:
            text += f"  {task}:\n    needs: [{', '.join(needs)}]\n    shell: {command}\n"
            needs = (task,)
        return text

    def _promise(self) -> None:
        promise = {
            "lease_s": self.lease_s, "lease_s_max": self.lease_s * 3 // 2, "epoch_step_max": 1_000_000,
            "people": [self.operator.user_id],
            "dags": {name: {"on_lost": ON_LOST[name], "tasks": TASKS[name]} for name in TASKS},
        }  # fmt: skip
        (self.evidence / "promise.json").write_text(json.dumps(promise))

    def _follow(self) -> None:
        how = {"homeserver": self.synapse.base_url, "token": self.member.access_token, "room": self.room}
        (self.evidence / "follow.json").write_text(json.dumps(how))
        with (self.root / "follow.log").open("ab") as log:
            self.follower = subprocess.Popen(
                [sys.executable, follow.__file__, str(self.evidence)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        wait_file(self.evidence / "following", lines=0)
