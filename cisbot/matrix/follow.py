"""What keeps a node up to date: `SyncLoop` standalone, `SyncTap` on the sync that maubot runs anyway.

Both keep a cursor of their own, hand on batches in stream order and let no event through twice.

States of a tap: *unaligned* (an answer that is fed only says that something happened; its content is
dropped, and we ask for ourselves what came after our cursor) and *aligned* (fed answers are the stream).

Why two questions of our own, asked inside fed answers, make a tap aligned: maubot waits for `feed` before
it asks on (register the handler with `wait_sync=True`), so its next answer begins no earlier than
where our question before the last one ended. All it can repeat is then in our last answer, and is dropped
by its id, as long as that answer left nothing out. With one question, or with a limited answer, an old
event that we never saw could come after newer ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from cisbot.core.ids import RoomId, UserId
from cisbot.core.inputs import Input, RoomBatch
from cisbot.core.room.events import Encryption
from cisbot.errors import CisbotError
from cisbot.matrix.http import Api, RateLimited, Refused, TokenDead, Unreachable
from cisbot.matrix.sync import POLL_S, Follower, Raw
from cisbot.matrix.waiting import Backoff, pause

ALIGNED: Final = 2
_BREATH_S: Final = 0.2
_BAD_CURSOR: Final = 400

Say = Callable[[str], None]


async def _at_once() -> None:
    pass


class SyncLoop:
    """Long polls the room and emits its batches; the first one always, an empty one later never.

    It asks on once a batch is `handled`: what that has us send leaves before the question does.
    """

    def __init__(
        self,
        api: Api,
        room_id: RoomId,
        user_id: UserId,
        *,
        cursor: str | None,
        emit: Callable[[Input], None],
        say: Say,
        handled: Callable[[], Awaitable[None]] = _at_once,
        on_encrypted: Callable[[], None] = lambda: None,
    ) -> None:
        self._follower = Follower(api, room_id, user_id, cursor)
        self._emit = emit
        self._say = say
        self._handled = handled
        self._on_encrypted = on_encrypted
        self._backoff = Backoff(user_id)

    async def run(self) -> None:
        """Follow the room until cancelled.

        Raises TokenDead or LeftRoom, or CisbotError when the homeserver refuses to let us sync.
        """
        first, poll_s = True, 0.0
        clock = asyncio.get_running_loop().time
        while True:
            asked_at = clock()
            try:
                batch = await self._follower.digest(await self._follower.fetch(poll_s))
            except RateLimited as limited:
                await pause(limited.retry_after_s)
                continue
            except Unreachable as lost:
                await self._away(str(lost))
                poll_s = 0.0
                continue
            except Refused as refused:
                self._reconsider(refused)
                await pause(self._backoff.next_s())
                continue
            if self._backoff.count:
                self._say("the homeserver answers again")
                self._backoff.reset()
            if first or not is_empty(batch):
                hand_on(batch, self._emit, self._on_encrypted)
                await self._handled()
            elif poll_s and clock() - asked_at < _BREATH_S:
                await pause(_BREATH_S)  # an answer at once that tells nothing: don't spin
            first, poll_s = False, POLL_S

    async def _away(self, why: str) -> None:
        if self._backoff.count == 0:
            self._say(f"the homeserver can't be reached, trying on: {why}")
        await pause(self._backoff.next_s())

    def _reconsider(self, refused: Refused) -> None:
        """A cursor that the homeserver doesn't know costs a gap; another refusal is the end."""
        if isinstance(refused, TokenDead):
            raise TokenDead(
                refused.status, refused.errcode, "the access token is no longer valid; log in again"
            ) from refused
        if refused.status != _BAD_CURSOR or self._follower.cursor is None:
            raise CisbotError(f"the homeserver refuses to sync: {refused}") from refused
        self._say(f"the homeserver doesn't know where we stopped; starting anew ({refused})")
        self._follower.forget_cursor()


class SyncTap:
    """The same batches from the raw answers of a sync that somebody else runs.

    Register `feed` as a handler that is waited for (`wait_sync=True`), then await `start`.
    """

    def __init__(
        self,
        api: Api,
        room_id: RoomId,
        user_id: UserId,
        *,
        cursor: str | None,
        emit: Callable[[Input], None],
        say: Say,
        fail: Callable[[CisbotError], None],
        on_encrypted: Callable[[], None] = lambda: None,
    ) -> None:
        self._follower = Follower(api, room_id, user_id, cursor)
        self._emit = emit
        self._say = say
        self._fail = fail
        self._on_encrypted = on_encrypted
        self._lock = asyncio.Lock()
        self._questions = 0  # of our own, in fed answers, one after the other
        self._first = True
        self._away = False

    @property
    def aligned(self) -> bool:
        """Whether fed answers are the stream."""
        return self._questions >= ALIGNED

    async def start(self) -> None:
        """Catch up from the cursor. A homeserver that is away is not an error: `feed` catches up."""
        async with self._lock:
            await self._guarded(None)

    async def feed(self, data: Mapping[str, object]) -> None:
        """Take one raw answer of the other's sync (`data` of `SYNC_SUCCESSFUL`). Never raises."""
        async with self._lock:
            mark = data.get("net.maunium.mautrix")
            if isinstance(mark, Mapping) and (mark.get("is_first") or mark.get("is_initial")):
                self._questions = 0  # that sync began anew, it may have left something out
            await self._guarded(data)

    async def _guarded(self, data: Raw | None) -> None:
        try:
            await self._take(data)
        except (Unreachable, RateLimited) as lost:
            self._questions = 0
            if not self._away:
                self._say(f"the homeserver can't be reached, trying on: {lost}")
            self._away = True
        except CisbotError as error:
            self._questions = 0
            self._fail(error)
        else:
            if self._away:
                self._say("the homeserver answers again")
            self._away = False

    async def _take(self, data: Raw | None) -> None:
        if data is not None and self.aligned and not _limited(data, self._follower.room_id):
            self._hand_on(await self._follower.digest(data))
            return
        batch = await self._ask()
        if data is not None:
            following = min(self._questions + 1, ALIGNED)
            self._questions = 1 if batch.gap else following
        self._hand_on(batch)

    async def _ask(self) -> RoomBatch:
        try:
            return await self._follower.digest(await self._follower.fetch(0))
        except Refused as refused:
            bad_cursor = refused.status == _BAD_CURSOR and self._follower.cursor is not None
            if isinstance(refused, TokenDead) or not bad_cursor:
                raise
            self._say(f"the homeserver doesn't know where we stopped; starting anew ({refused})")
            self._follower.forget_cursor()
            return await self._follower.digest(await self._follower.fetch(0))

    def _hand_on(self, batch: RoomBatch) -> None:
        if self._first or not is_empty(batch):
            hand_on(batch, self._emit, self._on_encrypted)
        self._first = False


def is_empty(batch: RoomBatch) -> bool:
    """Whether the batch moves the cursor only."""
    return not (batch.events or batch.state or batch.history or batch.gap or batch.initial)


def hand_on(batch: RoomBatch, emit: Callable[[Input], None], on_encrypted: Callable[[], None]) -> None:
    """Emit the batch; the outbox hears first that the room is encrypted."""
    if any(isinstance(event, Encryption) for event in (*batch.state, *batch.events)):
        on_encrypted()
    emit(batch)


def _limited(data: Raw, room_id: RoomId) -> bool:
    """Whether the fed answer left something out of our room (its filter is coarser than ours)."""
    rooms = data.get("rooms")
    joined = rooms.get("join") if isinstance(rooms, Mapping) else None
    room = joined.get(room_id) if isinstance(joined, Mapping) else None
    timeline = room.get("timeline") if isinstance(room, Mapping) else None
    return isinstance(timeline, Mapping) and timeline.get("limited") is True
