"""Frames to and from one worker: validated, and limited in length both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import IO

from cisbot.core.frames import (
    FRAME_BYTES_MAX,
    FrameError,
    FromWorker,
    Pong,
    Ready,
    TaskEnded,
    TaskStarted,
    ToWorker,
    decode,
    encode,
)

UNREAD_BYTES_MAX = 16 << 20  # of frames that a worker has not read yet


class Pipe:
    """Both directions; made by `connect`, which must be awaited first."""

    def __init__(self) -> None:
        self._reader = asyncio.StreamReader(limit=FRAME_BYTES_MAX)
        self._source: asyncio.ReadTransport | None = None
        self._sink: asyncio.WriteTransport | None = None

    async def connect(self, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        """Attach the worker's ends; the pipe owns them from now on."""
        loop = asyncio.get_running_loop()
        self._source, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), stdout
        )
        self._sink, _ = await loop.connect_write_pipe(asyncio.Protocol, stdin)

    def send(self, frame: ToWorker) -> None:
        """Write a frame; to a worker that is gone it goes nowhere, and the end of `frames` tells.

        Raises `FrameError` for a frame too long, or when the worker has stopped reading.
        """
        line = encode(frame)
        if self._sink is None or self._sink.is_closing():
            return
        if self._sink.get_write_buffer_size() > UNREAD_BYTES_MAX:
            raise FrameError("the worker does not read")
        self._sink.write(line)

    async def frames(self) -> AsyncIterator[FromWorker]:
        """The worker's frames, to the end of its output. Raises `FrameError` for anything else."""
        while True:
            try:
                line = await self._reader.readline()
            except ValueError as error:
                raise FrameError(f"a line of more than {FRAME_BYTES_MAX} bytes") from error
            if not line.endswith(b"\n"):
                return  # the end; half a line is what a killed worker leaves
            match decode(line):
                case (Ready() | Pong() | TaskStarted() | TaskEnded()) as frame:
                    yield frame
                case other:
                    raise FrameError(f"{type(other).__name__} from a worker")

    def close(self) -> None:
        """Close both ends: the worker sees the end of its input, `frames` ends."""
        if self._source is not None:
            self._source.close()
        if self._sink is not None and not self._sink.is_closing():
            self._sink.abort()
