"""A real Synapse: its start, its accounts, its restarts and its end."""

import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homeserver.__main__ import main
from homeserver.accounts import Account, Accounts
from homeserver.api import call
from homeserver.config import HomeserverConfig, Secrets, Sqlite, render_homeserver
from homeserver.errors import AccountError, StartError
from homeserver.install import VENV
from homeserver.synapse import Synapse

if TYPE_CHECKING:
    from tests.conftest import MakeAccount

pytestmark = pytest.mark.synapse

PARENT = """
import sys
from homeserver.synapse import Synapse
synapse = Synapse.start(sys.argv[1])
if sys.argv[2] == "forked" and not __import__("os").fork():
    sys.stdin.read()  # a relative that inherits everything, and lives on
    sys.exit()
print(synapse.pid, flush=True)
sys.stdin.read()
"""


def whoami(base_url: str, account: Account) -> str:
    status, answer = call("GET", f"{base_url}/_matrix/client/v3/account/whoami", token=account.access_token)
    assert status == 200, answer
    return str(answer["user_id"])


def send_messages(synapse: Synapse, account: Account, count: int) -> list[int]:
    """Make a room, send to it, return the statuses."""
    client = f"{synapse.base_url}/_matrix/client/v3"
    status, room = call("POST", f"{client}/createRoom", {}, token=account.access_token)
    assert status == 200, room
    url = f"{client}/rooms/{room['room_id']}/send/m.room.message"
    body = {"msgtype": "m.text", "body": "hello"}
    return [call("PUT", f"{url}/{number}", body, token=account.access_token)[0] for number in range(count)]


def has_ended(pidfd: int, seconds: float) -> bool:
    """Wait until the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def test_existing_user_is_logged_in(synapse: Synapse, make_account: "MakeAccount") -> None:
    account = make_account("alice")
    name = account.user_id[1:].partition(":")[0]
    assert account.user_id.endswith(f":{synapse.server_name}")
    again = synapse.accounts.create(name, account.password, device_id="D2")
    assert (again.user_id, again.device_id) == (account.user_id, "D2")
    assert whoami(synapse.base_url, account) == whoami(synapse.base_url, again) == again.user_id
    with pytest.raises(AccountError, match="M_FORBIDDEN"):
        synapse.accounts.create(name, "wrong")
    with pytest.raises(AccountError, match="no administrator"):
        synapse.accounts.create(name, account.password, admin=True)


def test_admin_flag(accounts: Accounts, make_account: "MakeAccount") -> None:
    assert accounts.is_admin(make_account("boss", admin=True))
    assert not accounts.is_admin(make_account("clerk"))


def test_limits_can_be_lifted_for_one_user(synapse_default_limits: Synapse) -> None:
    accounts = synapse_default_limits.accounts
    admin = accounts.create("lifter", "pw", admin=True)
    slow, fast = accounts.create("slow", "pw"), accounts.create("fast", "pw")
    accounts.lift_limits(fast.user_id, admin=admin)
    assert 429 in send_messages(synapse_default_limits, slow, 15)
    assert send_messages(synapse_default_limits, fast, 15) == [200] * 15
    with pytest.raises(AccountError, match="M_FORBIDDEN"):
        accounts.lift_limits(slow.user_id, admin=slow)


def test_lifted_limits_stand_no_ones_way(synapse: Synapse, make_account: "MakeAccount") -> None:
    assert send_messages(synapse, make_account("carol"), 30) == [200] * 30


def test_every_limit_synapse_knows_is_lifted() -> None:
    [source] = VENV.glob("lib/*/site-packages/synapse/config/ratelimiting.py")
    known = re.findall(r'parse\(\s*config,\s*"(rc_[a-z0-9_.]+)"', source.read_text())
    config = HomeserverConfig("x", 1, "/x", Secrets("s", "m", "f"), Sqlite("/x/db"), limits="lifted")
    rendered = render_homeserver(config)
    assert len(known) > 15
    for name in known:
        group, _, part = name.partition(".")
        [line] = [line for line in rendered.splitlines() if line.startswith(f"{group}: ")]
        assert part in line


def test_restart_keeps_port_and_data(tmp_path: Path) -> None:
    with Synapse.start(tmp_path, server_name="kept.test") as synapse:
        account = synapse.accounts.create("dora", "pw")
        first, url = synapse.pid, synapse.base_url
        synapse.kill()
        with pytest.raises(StartError, match="stopped"):
            _ = synapse.pid
        synapse.restart(limits="lifted")
        assert synapse.pid != first
        assert synapse.base_url == url
        assert whoami(url, account) == "@dora:kept.test"
        with pytest.raises(StartError, match="another Synapse runs"):
            Synapse.start(tmp_path)
    with Synapse.start(tmp_path) as synapse:
        assert synapse.base_url == url
        assert whoami(url, account) == "@dora:kept.test"


def test_port_in_use_is_named(synapse: Synapse, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=f"port {synapse.port} on 127.0.0.1 is in use"):
        Synapse.start(tmp_path, port=synapse.port)


def test_failed_start_shows_the_log(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="(?s)ended with code.*Unknown default_room_version: nonsense"):
        Synapse.start(tmp_path, room_version="nonsense")


@pytest.mark.parametrize("kind", ["alone", "forked"])
def test_killed_parent_leaves_no_synapse(tmp_path: Path, kind: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=VENV.parent.parent,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        try:
            assert os.getsid(pid) == pid
            assert not has_ended(pidfd, 0)
            parent.send_signal(signal.SIGKILL)
            assert has_ended(pidfd, 10)
        finally:
            os.close(pidfd)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = ["user", "erin", "--password", "pw", "--data", str(tmp_path)]
    assert main(user) == 1
    assert "no homeserver's data directory" in capsys.readouterr().err
    command = [sys.executable, "-m", "homeserver", "run", "--data", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=VENV.parent.parent) as running:
        try:
            assert running.stdout is not None
            url = running.stdout.readline().split()[0]
            assert main(user) == 0
            printed = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
            assert (printed["homeserver"], printed["user_id"]) == (url, "@erin:localhost")
        finally:
            running.terminate()
        assert running.wait(20) == 130
    assert main(user) == 1
    assert "no homeserver answers" in capsys.readouterr().err
