"""One worker process: spawned in a clean environment, watched, and killed with its whole tree."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import site
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import cisbot
from cisbot.supervisor.guard import Guard
from cisbot.supervisor.leftovers import birth, kill_marked
from cisbot.supervisor.pipe import Pipe

# All that a worker gets of the node's environment, which may hold tokens.
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "LD_LIBRARY_PATH")
_EXIT_S = 10.0  # from the end of a worker's output to its own end
_DRAIN_S = 1.0  # from a worker's end to the end of its output
_WHY_BYTES = 400  # of what a worker wrote to stderr, in the reason of its death


def code_root() -> Path:
    """Where this code is imported from: a folder, or a zip such as a .mbp."""
    return Path(next(iter(cisbot.__path__))).parent


def copy_code(data_dir: Path) -> Path | None:
    """A private copy of the zip that this code runs from, for an upgrade replaces it; None for a folder."""
    root = code_root()
    if root.is_dir():
        return None
    state = root.stat()
    copy = data_dir / "code" / f"{state.st_mtime_ns:x}-{state.st_size:x}.zip"
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        draft = copy.with_suffix(".draft")
        shutil.copyfile(root, draft)
        draft.replace(copy)
    return copy


def clean_env(code_path: Path | None) -> dict[str, str]:
    """What our processes need of the node's environment, and where their code is."""
    env = {name: os.environ[name] for name in _PASSED if name in os.environ}
    root = code_path or code_root()
    installed = {Path(folder) for folder in [*site.getsitepackages(), site.getusersitepackages()]}
    if root not in installed:
        env["PYTHONPATH"] = str(root)
    return env


def worker_env(data_dir: Path, token: str, code_path: Path | None) -> dict[str, str]:
    """A worker's environment: what it needs, and the marks by which its processes are found."""
    return clean_env(code_path) | {"CIS_DATA": str(data_dir), "CIS_WORKER": token}


class WorkerProcess:
    """A worker from its spawn to the death of the last of its processes. Raises `OSError`."""

    def __init__(self, name: str, data_dir: Path, code_path: Path | None) -> None:
        assert "/" not in name
        folder = data_dir / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(16)
        self._mark = f"CIS_WORKER={token}"
        self._err = folder / f"{name}.err"
        lock = str(folder / f"{name}.lock")
        with self._err.open("wb") as err:
            self._popen = subprocess.Popen(
                # -P: the folder that the node was started in must not lend modules
                [
                    *(sys.executable, "-P", "-m", "cisbot.worker"),
                    *("--lock", lock, "--data", str(data_dir)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                cwd=data_dir,
                env=worker_env(data_dir, token, code_path),
                start_new_session=True,  # a Ctrl-C at the node's terminal is the node's affair
            )
        self.pid = self._popen.pid
        self.born = birth(self.pid)
        self.pipe = Pipe()
        self._pidfd = os.pidfd_open(self.pid)
        try:
            self.guard = Guard(self._mark, self._pidfd, clean_env(code_path), data_dir)
        except OSError:
            self._popen.kill()
            self._popen.communicate()
            os.close(self._pidfd)
            raise
        self._dead = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._pidfd, self._died)

    async def connect(self) -> None:
        """Attach the pipe."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        await self.pipe.connect(self._popen.stdin, self._popen.stdout)

    def _died(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._popen.wait()  # returns at once
        self._dead.set()
        loop.call_later(_DRAIN_S, self.pipe.close)  # in case somebody else holds its output

    def kill(self) -> None:
        """SIGKILL; `end` does the rest."""
        if not self._dead.is_set():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self, groups: Collection[int]) -> str:
        """Wait for the worker's end, hasten it after 10 s, kill all it left; returns how it ended.

        `groups` are the first processes of its unfinished tasks.
        """
        try:
            async with asyncio.timeout(_EXIT_S):
                await self._dead.wait()
        except TimeoutError:
            self.kill()
            await self._dead.wait()
        self.pipe.close()
        await asyncio.to_thread(kill_marked, self._mark, groups)
        self.guard.end()
        code = self._popen.returncode
        how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        said = self._last_words()
        return f"{how}; {said}" if said else how

    def _last_words(self) -> str:
        try:
            data = self._err.read_bytes()[-_WHY_BYTES:]
        except OSError:
            return ""
        lines = data.decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""
