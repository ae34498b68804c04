"""The node's local door: a Unix socket for tasks and for the command line of the same user.

One JSON object a line in, one out. Only the owner of the data folder can open it (mode 0600).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from cisbot.core.effects import Answer
from cisbot.core.ids import ClaimKey
from cisbot.core.inputs import Input, MemoryAsk, StatusAsk
from cisbot.core.room.wire import MEMORY_PREFIX, VALUE_BYTES_MAX
from cisbot.errors import CisbotError
from cisbot.node.ports import Emit

LINE_BYTES_MAX = 65_536
ANSWER_S = 700.0


@contextmanager
def reachable(path: Path) -> Iterator[str]:
    """The path as the kernel takes it: a socket's name has at most 107 bytes, a folder's may be longer."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class MemoryRequest(_Request):
    """`cisbot memory get|set|cas`."""

    op: Literal["get", "set", "cas"]
    key: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    value: Annotated[str, StringConstraints(max_length=VALUE_BYTES_MAX)] | None = None
    expected: Annotated[str, StringConstraints(max_length=VALUE_BYTES_MAX)] | None = None


class StatusRequest(_Request):
    """`cisbot status`."""

    op: Literal["status"]
    run: Annotated[str, StringConstraints(max_length=400)] | None = None


_REQUEST: TypeAdapter[MemoryRequest | StatusRequest] = TypeAdapter(MemoryRequest | StatusRequest)


class LocalDoor:
    """Serves the socket; answers come back from the coordinator as `Answer` effects."""

    def __init__(self, path: Path, emit: Emit) -> None:
        self._path = path
        self._emit = emit
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._count = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._made = 0

    async def open(self) -> None:
        """Start to serve. A socket left by a dead node is replaced: its singleton lock is ours.

        Raises `CisbotError` where no socket can be made.
        """
        try:
            self._path.unlink(missing_ok=True)
            with reachable(self._path) as path:
                self._server = await asyncio.start_unix_server(self._serve, path=path, limit=LINE_BYTES_MAX)
            self._path.chmod(0o600)
            self._made = self._path.stat().st_ino
        except OSError as error:
            why = f"{self._path} can't be made a socket: {error.strerror or error}"
            raise CisbotError(
                f"{why}; remove what lies there, or choose another node.data_dir, where sockets can be"
            ) from error

    async def close(self) -> None:
        """Stop to serve."""
        if self._server is not None:
            self._server.close()
        with suppress(OSError):  # gone with its folder, or no longer ours: nothing is owed
            if self._path.stat().st_ino == self._made:
                self._path.unlink()

    def answer(self, answer: Answer) -> None:
        """The coordinator answers."""
        future = self._waiting.pop(answer.tag, None)
        if future is not None and not future.done():
            future.set_result(json.dumps(dict(answer.body)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            reply = await self._reply(line)
            writer.write(reply.encode() + b"\n")
            await writer.drain()
        except (ConnectionError, ValueError):
            pass  # the caller went away, or sent an endless line: nothing is owed
        finally:
            writer.close()

    async def _reply(self, line: bytes) -> str:
        try:
            request = _REQUEST.validate_json(line)
        except ValidationError as error:
            return json.dumps({"ok": False, "error": error.errors()[0]["msg"]})
        tag = f"local {next(self._count)}"
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[tag] = future
        self._emit(_input(request, tag))
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError:
            self._waiting.pop(tag, None)
            return json.dumps({"ok": False, "error": "no answer in time"})


def _input(request: MemoryRequest | StatusRequest, tag: str) -> Input:
    if isinstance(request, StatusRequest):
        return StatusAsk(tag, request.run)
    key = ClaimKey(MEMORY_PREFIX + request.key)
    return MemoryAsk(tag, request.op, key, request.value, request.expected)


async def call(path: Path, request: BaseModel) -> dict[str, object]:
    """Ask the node that serves `path`. Raises `OSError` where none does."""
    with reachable(path) as short:
        reader, writer = await asyncio.open_unix_connection(short, limit=LINE_BYTES_MAX * 4)
    try:
        writer.write(request.model_dump_json().encode() + b"\n")
        await writer.drain()
        reply: dict[str, object] = json.loads(await reader.readline())
        return reply
    finally:
        writer.close()
