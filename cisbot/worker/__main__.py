"""`python -m cisbot.worker --lock PATH [--data DIR]`: frames in on stdin, frames out on stdout.

Exit codes: 0 done, 64 wrong arguments, 65 a malformed frame, 75 the lock is held, 76 another protocol.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cisbot.core.frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    CancelRun,
    Frame,
    FromWorker,
    Hello,
    Ping,
    Pong,
    Ready,
    SetDeadline,
    Shutdown,
    StartTask,
    decode,
    encode,
)
from cisbot.worker.agent import Agent
from cisbot.worker.parent import LockHeld, become_subreaper, die_with_parent, take_lock

if TYPE_CHECKING:
    from typing_extensions import override
else:  # typing has it from Python 3.12 on, and a worker imports the standard library only

    def override(method: object) -> object:
        """Say that the method replaces one of the base class."""
        return method


EX_OK, EX_USAGE, EX_DATA, EX_HELD, EX_PROTOCOL = 0, 64, 65, 75, 76
_FLUSH_S = 5.0  # for the last frames to be read by a slow node


def _say(text: str) -> None:
    print(f"worker {os.getpid()}: {text}", file=sys.stderr, flush=True)  # noqa: T201


class _Out(asyncio.Protocol):
    """The frames' way out; when the pipe breaks, the input ends too.

    A slow node is no concern: frames wait in memory, two for each task.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._on_lost = on_lost
        self.closed = asyncio.get_running_loop().create_future()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._on_lost()
        self.closed.set_result(None)


class _Worker:
    """One life, from `Hello` to the exit code."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.WriteTransport, data: str) -> None:
        self._reader = reader
        self._writer = writer
        self._data = data
        self._agent: Agent | None = None
        self.grace_s: float | None = None

    def send(self, frame: FromWorker) -> None:
        """Write a frame; into a broken pipe it goes nowhere."""
        if not self._writer.is_closing():
            self._writer.write(encode(frame))

    async def read(self) -> int:
        """Obey frames until `Shutdown`, the end of input or a bad frame; the exit code so far."""
        while True:
            try:
                line = await self._reader.readline()
                if not line.endswith(b"\n"):
                    return EX_OK
                frame = decode(line)
            except ValueError as error:  # a FrameError, or a line longer than the reader's limit
                _say(f"bad frame: {error}")
                return EX_DATA
            if isinstance(frame, Shutdown):
                self.grace_s = frame.grace_s
                return EX_OK
            if isinstance(frame, Hello) and frame.protocol != PROTOCOL:
                self.send(Ready(PROTOCOL, os.getpid()))
                _say(f"the node speaks protocol {frame.protocol}, this is {PROTOCOL}")
                return EX_PROTOCOL
            if not self._obey(frame):
                _say(f"unexpected frame {type(frame).__name__}")
                return EX_DATA

    def _obey(self, frame: Frame) -> bool:
        """Do what the frame says; False if it may not come now, or not from a node."""
        match frame, self._agent:
            case Hello(), None:
                self._agent = Agent(max_concurrent=frame.max_concurrent, data=self._data, send=self.send)
                asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._agent.child_died)
                self.send(Ready(PROTOCOL, os.getpid()))
            case Ping(), Agent():
                self.send(Pong())
            case StartTask(), Agent() as agent:
                agent.start(frame)
            case CancelRun(), Agent() as agent:
                agent.cancel(frame)
            case SetDeadline(), Agent() as agent:
                agent.move_deadline(frame)
            case _:
                return False
        return True

    async def drain(self) -> None:
        """Stop all tasks."""
        if self._agent is not None:
            await self._agent.drain(self.grace_s)


async def serve(stdin: BinaryIO, stdout: BinaryIO, data: str) -> int:
    """Run until the node is done with us; returns the exit code."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=FRAME_BYTES_MAX)
    source, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdin)
    writer, out = await loop.connect_write_pipe(lambda: _Out(source.close), stdout)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, source.close)  # the reader sees the end of input
    worker = _Worker(reader, writer, data)
    code = await worker.read()
    await worker.drain()
    writer.close()
    try:
        async with asyncio.timeout(_FLUSH_S):
            await out.closed
    except TimeoutError:
        writer.abort()
    return code


def main(argv: list[str]) -> int:
    """Read the arguments, take the lock, serve."""
    options = dict(zip(argv[::2], argv[1::2], strict=False))
    if len(argv) % 2 or "--lock" not in options or options.keys() - {"--lock", "--data"}:
        _say("usage: python -m cisbot.worker --lock PATH [--data DIR]")
        return EX_USAGE
    die_with_parent(signal.SIGTERM)
    try:
        lock = take_lock(Path(options["--lock"]))
    except LockHeld as held:
        _say(f"the lock is {held}")
        return EX_HELD
    become_subreaper()
    stdin, stdout = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # a stray print must not spoil the frames
    os.close(null)
    code = asyncio.run(serve(stdin, stdout, options.get("--data", "")))
    os.close(lock)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
