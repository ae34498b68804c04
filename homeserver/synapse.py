"""A Synapse process on loopback, that lives no longer than the process that started it."""

import fcntl
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from homeserver import instance
from homeserver.accounts import Accounts
from homeserver.api import call
from homeserver.config import (
    DEFAULT_ROOM_VERSION,
    Federation,
    HomeserverConfig,
    Limits,
    Sqlite,
    render_homeserver,
    render_log,
)
from homeserver.errors import StartError
from homeserver.install import install

_CHILD: Final = Path(__file__).resolve().with_name("child.py")
_POLL_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 10.0
_TAIL_LINES: Final = 30


class Synapse:
    """One running (or stopped) Synapse; make it with `Synapse.start`.

    Leaving it as a context manager stops it. When this process dies, however hard, Synapse
    dies too. It keeps all it knows in its data directory, which serves one Synapse at a time.
    """

    def __init__(self, config: HomeserverConfig, python: Path, start_seconds: float) -> None:
        self._config = config
        self._python = python
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    @classmethod
    def start(
        cls,
        data_dir: Path | str,
        *,
        port: int | None = None,
        server_name: str | None = None,
        limits: Limits = "default",
        delayed_events: bool = True,
        room_version: str = DEFAULT_ROOM_VERSION,
        federation: Federation | None = None,
        timeout: float = 60,
    ) -> Self:
        """Start Synapse on `data_dir` and return when it answers; install it before if needed.

        Without `port` the directory's earlier port is used, or a free one is picked and kept.
        The same goes for the server name, whose default is `localhost`. Without `federation` it is an island.

        Raises InstallError; HomeserverError when the directory is of another server name;
        StartError when the port or the directory is in use, Synapse exits, or `timeout` seconds
        pass before it answers.
        """
        python = install()
        home = Path(data_dir).resolve()
        kept = instance.prepare(home, server_name=server_name, port=port)
        config = HomeserverConfig(
            server_name=kept.server_name,
            port=kept.port,
            data_dir=str(home),
            secrets=kept.secrets,
            database=Sqlite(str(home / "homeserver.db")),
            default_room_version=room_version,
            limits=limits,
            delayed_events=delayed_events,
            log_file=str(home / "synapse.log"),
            federation=federation,
        )
        synapse = cls(config, python, timeout)
        synapse._launch()
        return synapse

    @property
    def base_url(self) -> str:
        """The address for clients, without a slash at the end."""
        return self._config.base_url

    @property
    def server_name(self) -> str:
        """What stands after the colon of this server's user ids."""
        return self._config.server_name

    @property
    def port(self) -> int:
        """The loopback port."""
        return self._config.port

    @property
    def data_dir(self) -> Path:
        """Where database, media, logs and secrets are."""
        return Path(self._config.data_dir)

    @property
    def accounts(self) -> Accounts:
        """Makes and changes this server's accounts."""
        return Accounts(self.base_url, self._config.secrets.shared)

    @property
    def pid(self) -> int:
        """Synapse's process id. Raises StartError when it is stopped."""
        return self._running().pid

    def wait(self) -> int:
        """Wait until Synapse ends by itself; return its exit code. Raises StartError if stopped."""
        return self._running().wait()

    def stop(self) -> None:
        """End Synapse in good order, by force after ten seconds; harmless when it is stopped."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End Synapse as a crash would; harmless when it is stopped."""
        self._end(signal.SIGKILL)

    def restart(self, *, limits: Limits | None = None) -> None:
        """Stop if running and start on the same data and port, with other limits if given.

        Raises StartError as `start` does.
        """
        self.stop()
        if limits is not None:
            self._config = replace(self._config, limits=limits)
        self._launch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise StartError(f"the Synapse of {self.data_dir} is stopped; call restart()")
        return self._process

    def _launch(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        lock = _lock(self.data_dir / "lock", min(deadline, time.monotonic() + 5))
        try:
            if not instance.port_is_free(self.port):
                raise StartError(
                    f"port {self.port} on 127.0.0.1 is in use: stop what listens there, "
                    "or give another with port=N (--port N)"
                )
            instance.write_private(self.data_dir / "homeserver.yaml", render_homeserver(self._config))
            instance.write_private(self.data_dir / "log.yaml", render_log(self._config))
            self._spawn(lock)
        finally:
            os.close(lock)  # Synapse holds its own copy, and with it the lock, while it lives
        try:
            self._await_answer(deadline)
        except BaseException:
            self.kill()
            raise

    def _spawn(self, lock: int) -> None:
        lifeline, self._lifeline = os.pipe()
        arguments = [str(lifeline), str(os.getpid()), str(self.data_dir / "homeserver.yaml")]
        try:
            with (self.data_dir / "output.log").open("wb") as output:
                self._process = subprocess.Popen(
                    # -I: this folder's synapse.py must not hide the package of that name.
                    [str(self._python), "-I", str(_CHILD), *arguments],
                    cwd=self.data_dir,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=(lifeline, lock),
                    start_new_session=True,
                )
        except BaseException:
            self._cut_lifeline()
            raise
        finally:
            os.close(lifeline)

    def _await_answer(self, deadline: float) -> None:
        process = self._running()
        while time.monotonic() < deadline:
            try:
                if call("GET", f"{self.base_url}/_matrix/client/versions", timeout=5)[0] == 200:
                    return
            except OSError:
                pass  # not listening yet
            try:
                code = process.wait(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise StartError(f"Synapse ended with code {code} at its start\n{self._log_tail()}")
        raise StartError(
            f"Synapse did not answer at {self.base_url} within {self._start_seconds:.0f} s "
            f"(give it longer with timeout=S)\n{self._log_tail()}"
        )

    def _log_tail(self) -> str:
        tails = []
        for name in ("output.log", "synapse.log"):
            path = self.data_dir / name
            if path.exists() and path.stat().st_size:
                lines = path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
                tails.append("\n".join([f"--- end of {path}", *lines]))
        return "\n".join(tails) or f"--- it wrote nothing to {self.data_dir}/output.log"

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._process = None
        self._cut_lifeline()

    def _cut_lifeline(self) -> None:
        os.close(self._lifeline)
        self._lifeline = -1


def _lock(path: Path, deadline: float) -> int:
    """Take the data directory's lock, waiting a little for a Synapse that is just dying.

    Raises StartError when it is still held at `deadline`.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise StartError(
                    f"another Synapse runs on {path.parent}: stop it, or give another data directory"
                ) from None
            time.sleep(_POLL_SECONDS)
