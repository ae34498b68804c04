"""A real maubot server in a process of its own, and its management API."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from homeserver.accounts import Account
from homeserver.api import call
from homeserver.demo import child
from homeserver.instance import free_port

PLUGIN = "io.cisbot.coordinator"
START_S = 60.0
STOP_S = 60.0
TICK_S = 0.1
Seen = TypeVar("Seen")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class MaubotServer:
    """Made means started; `stop` ends it. It dies with this process."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._base = f"http://127.0.0.1:{self.port}/_matrix/maubot/v1"
        self._password = secrets.token_urlsafe(12)
        for name in ("plugins", "trash", "plugindb"):
            (folder / name).mkdir()
        (folder / "config.yaml").write_text(json.dumps(self._config()))
        self._guard_read, self._guard_write = os.pipe()
        command = [sys.executable, "-I", str(child.__file__), str(self._guard_read)]
        command += [str(python), "-m", "maubot", "-c", str(folder / "config.yaml")]
        with (folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=[self._guard_read],
            )
        self._token = str(self._log_in()["token"])

    def _config(self) -> dict[str, object]:
        return {
            "database": "sqlite:maubot.db",
            "plugin_directories": {"upload": "plugins", "load": ["plugins"], "trash": "trash"},
            "plugin_databases": {"sqlite": "plugindb"},
            "server": {
                "hostname": "127.0.0.1",
                "port": self.port,
                "public_url": f"http://127.0.0.1:{self.port}",
                "unshared_secret": secrets.token_urlsafe(32),
            },
            "admins": {"tester": self._password},
        }

    def _log_in(self) -> Mapping[str, object]:
        body: dict[str, object] = {"username": "tester", "password": self._password}

        def answer() -> dict[str, object] | None:
            assert self._process.poll() is None, self.log()
            try:
                status, content = call("POST", f"{self._base}/auth/login", body)
            except OSError:
                return None
            return content if status == 200 else None

        return until("maubot answers", answer, START_S)

    def log(self) -> str:
        """All that maubot has written so far."""
        return (self.folder / "output.log").read_text(errors="replace")

    def api(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """One call of the management API, which must succeed."""
        status, answer = call(method, self._base + path, dict(body or {}), token=self._token, timeout=120)
        assert status < 300, f"{method} {path}: {status} {answer}\n{self.log()[-4000:]}"
        return answer

    def upload(self, plugin: Path) -> None:
        """Upload a `.mbp`, over the one that is there; its instances are started anew."""
        request = urllib.request.Request(
            f"{self._base}/plugins/upload?allow_override=true", data=plugin.read_bytes(), method="POST"
        )
        request.add_header("Authorization", f"Bearer {self._token}")
        request.add_header("Content-Type", "application/zip")
        try:
            with _OPENER.open(request, timeout=120):
                pass
        except urllib.error.HTTPError as error:
            raise AssertionError(f"upload: {error.code} {error.read()!r}\n{self.log()[-4000:]}") from error

    def reload(self) -> None:
        """Reload the plugin: stop its instances, import it anew, start them."""
        self.api("POST", f"/plugin/{PLUGIN}/reload")

    def add_client(self, base_url: str, account: Account) -> None:
        """Lend maubot an account."""
        body = {"homeserver": base_url, "access_token": account.access_token, "enabled": True}
        self.api("PUT", f"/client/{quote(account.user_id, safe='')}", body)

    def put_instance(self, name: str, account: Account, config: Mapping[str, object]) -> None:
        """Make an instance of the plugin, or change its config."""
        body = {"type": PLUGIN, "primary_user": account.user_id, "enabled": True}
        self.api("PUT", f"/instance/{name}", {**body, "config": json.dumps(config)})

    def started(self, name: str) -> bool:
        """Whether maubot shows the instance as started."""
        return bool(self.api("GET", f"/instance/{name}")["started"])

    def stop(self) -> int:
        """End maubot as a service manager would. Returns its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_S)
        finally:
            os.close(self._guard_write)
            os.close(self._guard_read)


def until(what: str, look: Callable[[], Seen | None], seconds: float) -> Seen:
    """What `look` sees once it sees something; for what another process does without telling us."""
    end = time.monotonic() + seconds
    while (seen := look()) is None or seen is False:
        assert time.monotonic() < end, f"waited {seconds:.0f} s until {what}"
        threading.Event().wait(TICK_S)
    return seen
