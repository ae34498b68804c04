"""Real workers, real signals, no sleeping: frames, FIFOs and pidfds tell when something has happened."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import cisbot
from cisbot.core.frames import (
    PROTOCOL,
    Frame,
    Hello,
    Ready,
    StartTask,
    TaskEnded,
    TaskStarted,
    decode,
    encode,
)

CODE = Path(cisbot.__path__[0]).parent
LIMIT_S = 20.0  # for anything to happen; reaching it is a failure
FAR_S = 1e6
F = TypeVar("F", bound=Frame)


def boot() -> float:
    """CLOCK_BOOTTIME, seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def readable(fd: int, limit_s: float = LIMIT_S) -> bool:
    """Whether `fd` gets readable within the limit."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(limit_s * 1000))


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def dies(pid: int, limit_s: float = LIMIT_S) -> bool:
    """Whether the process dies within the limit."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with contextlib.closing(os.fdopen(fd, closefd=True)):
        return readable(fd, limit_s)


class Box:
    """A FIFO that tasks write lines into: `echo up > $BOX`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._text = b""

    def line(self) -> str:
        """The next line."""
        while b"\n" not in self._text:
            assert readable(self._fd), "nothing came into the box"
            self._text += os.read(self._fd, 4096)
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def close(self) -> None:
        """Free it."""
        os.close(self._fd)


def start(folder: Path, script: str, **change: Any) -> StartTask:
    """A shell task in `folder`, with a deadline far away."""
    task = change.pop("task", "t")
    values: dict[str, Any] = {
        "run": "$run:example.org",
        "task": task,
        "attempt": 1,
        "kind": "shell",
        "script": script,
        "args": {},
        "env": {"BOX": str(folder / "box")},
        "workdir": str(folder),
        "log_path": str(folder / "logs" / f"{task}.log"),
        "priority": 0,
        "order": 0,
        "grace_s": 5.0,
        "fence_s": change.get("grace_s", 5.0),
        "timeout_s": None,
        "deadline": boot() + FAR_S,
    }
    return StartTask(**(values | change))


class Worker:
    """A worker process and its frames."""

    def __init__(self, folder: Path, env: dict[str, str] | None = None) -> None:
        clean = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CODE)}
        self.lock = folder / "worker.lock"
        self.err = folder / "worker.err"
        with self.err.open("ab") as err:
            self.process = subprocess.Popen(
                self.command(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=err,
                env=clean | (env or {}),
                start_new_session=True,
            )
        self._text = b""

    def command(self, folder: Path) -> list[str]:
        """The command line."""
        data = ["--lock", str(self.lock), "--data", str(folder)]
        return [sys.executable, "-P", "-m", "cisbot.worker", *data]

    def send(self, *frames: Frame) -> None:
        """Write frames."""
        assert self.process.stdin is not None
        for frame in frames:
            self.process.stdin.write(encode(frame))
        self.process.stdin.flush()

    def hello(self, max_concurrent: int = 4) -> int:
        """Make it ready; returns its pid."""
        self.send(Hello(PROTOCOL, "project-a", max_concurrent))
        return self.expect(Ready).pid

    def frame(self) -> Frame | None:
        """The next frame, None at the end of output."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while b"\n" not in self._text:
            assert readable(fd), f"no frame came; {self.err.read_text()}"
            data = os.read(fd, 65536)
            if not data:
                return None
            self._text += data
        line, _, self._text = self._text.partition(b"\n")
        return decode(line)

    def expect(self, kind: type[F]) -> F:
        """The next frame, which must be of that kind."""
        frame = self.frame()
        assert isinstance(frame, kind), f"{frame}; {self.err.read_text()}"
        return frame

    def started(self) -> TaskStarted:
        """The next frame, a `TaskStarted`."""
        return self.expect(TaskStarted)

    def ended(self) -> TaskEnded:
        """The next frame, a `TaskEnded`."""
        return self.expect(TaskEnded)

    def run(self, task: StartTask) -> TaskEnded:
        """Start a task and return its end."""
        self.send(task)
        self.started()
        return self.ended()

    def close_stdin(self) -> None:
        """End its input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self) -> int:
        """Wait for its exit."""
        return self.process.wait(LIMIT_S)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.close_stdin()
        try:
            self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process stands still (SIGSTOP) inside the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
