"""The cluster's room: finding and joining it, and the adapter through which the node speaks and asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, assert_never

from cisbot.core.effects import (
    ArmEnd,
    Ask,
    AskEnd,
    ReadBack,
    Reading,
    ReadLog,
    ReadMedia,
    ReadRuns,
    ReadState,
    ReadStory,
    Send,
)
from cisbot.core.ids import RoomId
from cisbot.core.inputs import BackRead, Input, RunsRead, StateRead, StoryRead, TextRead
from cisbot.errors import CisbotError
from cisbot.matrix.delayed import ask_end
from cisbot.matrix.http import Api, Method, Path, Refused, TokenDead
from cisbot.matrix.media import read_media
from cisbot.matrix.outbox import Outbox
from cisbot.matrix.reads import read_back, read_log, read_state, read_story
from cisbot.matrix.recover import read_runs

ASKS_AT_ONCE_MAX: Final = 4
JOIN_PATIENCE_S: Final = 120.0


async def resolve(api: Api, room: str) -> RoomId:
    """The id of a room given by id or alias.

    Raises CisbotError when nothing has that alias; RateLimited or Unreachable after a minute.
    """
    if not room.startswith("#"):
        return RoomId(room)
    try:
        answer = await api.read(Method.GET, Path.v3.directory.room[room])
    except TokenDead:
        raise
    except Refused as refused:
        raise CisbotError(
            f"no room has the name {room} ({refused.errcode}); "
            "make it with `cisbot room init`, or correct matrix.room"
        ) from refused
    room_id = answer.get("room_id")
    if not isinstance(room_id, str):
        raise CisbotError(f"the homeserver names no room for {room}")
    return RoomId(room_id)


async def join(api: Api, room: str) -> RoomId:
    """Be in the room, given by id or alias: accepts an invitation, and is content when in already.

    Raises CisbotError with the mend when it may not; RateLimited or Unreachable after two minutes.
    """
    room_id = await resolve(api, room)
    try:
        answer = await api.read(Method.POST, Path.v3.join[room], patience_s=JOIN_PATIENCE_S)
    except TokenDead:
        raise
    except Refused as refused:
        raise CisbotError(
            f"{api.user_id} can't join {room} ({refused}); "
            f"somebody in the room must invite it: /invite {api.user_id}"
        ) from refused
    joined = answer.get("room_id")
    return RoomId(joined) if isinstance(joined, str) else room_id


class MatrixRoom:
    """`node.ports.Room` on a real homeserver: sends go to the outbox, each question is a task."""

    def __init__(self, api: Api, room_id: RoomId, outbox: Outbox, emit: Callable[[Input], None]) -> None:
        self._api = api
        self._room_id = room_id
        self._outbox = outbox
        self._emit = emit
        self._tasks: set[asyncio.Task[None]] = set()
        self._about_end: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(ASKS_AT_ONCE_MAX)

    def send(self, send: Send) -> None:
        """Queue one send; `SendDone` or `SendFailed` follows."""
        self._outbox.send(send)

    def withdraw(self, txn: str) -> None:
        """Take back a send that waits; `SendFailed` follows."""
        self._outbox.withdraw(txn)

    def ask(self, ask: Ask) -> None:
        """Start one read; its answer follows as an input."""
        task = asyncio.get_running_loop().create_task(self._answer(ask))
        for group in (self._tasks, self._about_end) if isinstance(ask, AskEnd) else (self._tasks,):
            group.add(task)
            task.add_done_callback(group.discard)

    async def close(self) -> None:
        """Give up the open questions; they are not answered."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self, timeout_s: float) -> None:
        """Wait until requests about the delayed end are answered, but not longer."""
        if self._about_end:
            await asyncio.wait(tuple(self._about_end), timeout=timeout_s)

    async def _answer(self, ask: Ask) -> None:
        if isinstance(ask, AskEnd):  # claims hang on it: it waits for no reading
            answer = await ask_end(self._api, self._room_id, ask)
            if isinstance(ask, ArmEnd):
                self._outbox.charge(answer)
            self._emit(answer)
            return
        async with self._slots:
            self._emit(await self._read(ask))

    async def _read(self, ask: Reading) -> StateRead | BackRead | StoryRead | RunsRead | TextRead:
        match ask:
            case ReadState():
                return await read_state(self._api, self._room_id, ask)
            case ReadBack():
                return await read_back(self._api, self._room_id, ask)
            case ReadStory():
                return await read_story(self._api, self._room_id, ask)
            case ReadRuns():
                return await read_runs(self._api, self._room_id, ask)
            case ReadMedia():
                return await read_media(self._api, ask)
            case ReadLog():
                return await asyncio.to_thread(read_log, ask)
            case _:
                assert_never(ask)
