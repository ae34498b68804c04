"""The outbox: everything that this node says goes through one queue, one request at a time.

The homeserver counts all sends of an account together (`rc_message`), so after a 429 the queue waits as
long as it was told and then looks anew which send is the most urgent: a renewal overtakes all chatter, and
chatter leaves something for the next renewal (`budget.py`). What goes to another room than the cluster's
may have to join it first, which can take long: it is sent beside the queue, one at a time.

Timeline events carry a transaction id, so one whose answer was lost is sent again under the same id,
for ever if it is durable, else for a minute. A state event has none: after a failure in which it may
have taken effect it is reported as `UNKNOWN`, and the room's own stream tells the rest. Only where it
certainly did nothing (429, no connection) is it sent again.

What is reported beside the homeserver's own error codes:

- `UNKNOWN`: it may have taken effect. `UNREACHABLE`: it certainly did not.
- `SUPERSEDED`: a newer send with the same `coalesce` took its place before it was sent.
- `ENCRYPTED`: the room is encrypted, and nothing may go out in clear.
- `WITHDRAWN`: the node took it back before it was sent.
- `QUEUE_FULL`: more than `QUEUE_MAX` sends wait, and this one is mere chat.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cisbot.core.effects import Priority, Send
from cisbot.core.ids import EventId, RoomId
from cisbot.core.inputs import EndAnswer, EndReply, Input, SendDone, SendFailed
from cisbot.core.room.events import Json
from cisbot.matrix.budget import Budget
from cisbot.matrix.http import Api, Method, Path, RateLimited, Refused, TokenDead, Unreachable
from cisbot.matrix.waiting import Backoff, pause

EVENT_BYTES_MAX: Final = 60 * 1024
INT_MAX: Final = 2**53 - 1
DEPTH_MAX: Final = 50
GIVE_UP_S: Final = 60.0
QUEUE_MAX: Final = 5000
_ENVELOPE_BYTES: Final = 512  # ids, signatures and hashes that the homeserver adds


class Encrypted(Exception):
    """The target room is encrypted."""


@dataclass(slots=True)
class _Item:
    """A send that waits."""

    send: Send
    seq: int
    backoff: Backoff
    ready_at: float = 0.0
    failing_since: float | None = None
    maybe_sent: bool = False

    def rank(self) -> tuple[int, int]:
        return (self.send.priority, self.seq)


@dataclass(slots=True)
class _Queue:
    """What waits, and what is in flight."""

    waiting: list[_Item] = field(default_factory=list)
    in_flight: list[_Item] = field(default_factory=list)  # at most one home, and one abroad

    def known(self, txn: str) -> bool:
        return any(item.send.txn == txn for item in (*self.waiting, *self.in_flight))

    @property
    def empty(self) -> bool:
        return not self.waiting and not self.in_flight

    def older(self, mark: str) -> _Item | None:
        return next((item for item in self.waiting if item.send.coalesce == mark), None)


class Outbox:
    """The one paced queue of a node. `send` from anywhere in the loop; `run` as a task."""

    def __init__(self, api: Api, room_id: RoomId, emit: Callable[[Input], None]) -> None:
        self._api = api
        self._room_id = room_id
        self._emit = emit
        self._queue = _Queue()
        self._seq = 0
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._budget = Budget()
        self._abroad: asyncio.Task[None] | None = None
        self._quiet_until = 0.0  # nobody answers
        self._away = Backoff(api.user_id or room_id, first_s=0.5, most_s=10.0)
        self._clear = False  # the cluster's room was seen to be unencrypted
        self._encrypted = False

    def send(self, send: Send) -> None:
        """Queue one send. Exactly one report follows, unless its `txn` is queued already."""
        if self._queue.known(send.txn):
            return
        if fault := content_fault(send.type, send.state_key, send.content):
            self._emit(SendFailed(send.txn, *fault))
            return
        older = self._queue.older(send.coalesce) if send.coalesce is not None else None
        full = len(self._queue.waiting) >= QUEUE_MAX
        if older is None and full and send.priority >= Priority.CHAT:
            self._emit(SendFailed(send.txn, "QUEUE_FULL", "too many sends wait already"))
            return
        self._seq += 1
        item = _Item(send, self._seq, Backoff(send.txn))
        if older is not None:
            self._queue.waiting.remove(older)
            item.seq = older.seq  # it keeps the place, so that edits can't starve themselves
            self._emit(SendFailed(older.send.txn, "SUPERSEDED", "a newer one took its place"))
        self._queue.waiting.append(item)
        self._idle.clear()
        self._wake.set()

    def withdraw(self, txn: str) -> None:
        """Take back a send that waits; one in flight, or unknown, is left alone."""
        for item in self._queue.waiting:
            if item.send.txn == txn:
                self._queue.waiting.remove(item)
                self._fail(item, "WITHDRAWN", "it is not to be said any more")
                break
        if self._queue.empty:
            self._idle.set()

    def charge(self, answer: EndAnswer) -> None:
        """Arming a delayed end costs the account as much as a send; it asks nobody, so it is paid after."""
        now = asyncio.get_running_loop().time()
        if answer.reply is EndReply.LIMITED:
            self._budget.limited(answer.wait_s, now)
        elif answer.reply is not EndReply.UNSENT:
            self._budget.spent(now)

    def forbid(self) -> None:
        """The cluster's room turned encrypted: nothing goes there any more."""
        self._encrypted = True

    async def drain(self, timeout_s: float) -> bool:
        """Last words: wait until nothing waits; say whether that came in time. `run` must be running."""
        self._budget.leave()
        self._wake.set()
        return await pause(timeout_s, self._idle)

    async def run(self) -> None:
        """Send what is queued, until cancelled.

        Raises TokenDead when the token is no longer good; what waits then stays queued.
        """
        now = asyncio.get_running_loop().time
        try:
            while True:
                self._wake.clear()
                self._land()
                item = self._pick(now())
                if item is None:
                    await self._rest(now())
                    continue
                self._queue.waiting.remove(item)
                self._queue.in_flight.append(item)
                if self._is_home(item.send):
                    await self._fly(item, now)
                else:
                    self._abroad = asyncio.ensure_future(self._fly(item, now))
                    self._abroad.add_done_callback(lambda _: self._wake.set())
        finally:
            if self._abroad is not None:
                self._abroad.cancel()

    def _is_home(self, send: Send) -> bool:
        return send.room is None or send.room == self._room_id

    async def _fly(self, item: _Item, now: Callable[[], float]) -> None:
        try:
            await self._attempt(item, now)
        except TokenDead:
            self._queue.waiting.append(item)
            raise
        finally:
            self._queue.in_flight.remove(item)
        if self._queue.empty:
            self._idle.set()

    def _land(self) -> None:
        if self._abroad is not None and self._abroad.done():
            landed, self._abroad = self._abroad, None
            landed.result()

    def _ready(self) -> list[_Item]:
        return [i for i in self._queue.waiting if self._abroad is None or self._is_home(i.send)]

    def _pick(self, now: float) -> _Item | None:
        """The most urgent that is ready, if the budget has room for it: else it has none for any other."""
        ready = [item for item in self._ready() if item.ready_at <= now]
        first = min(ready, key=_Item.rank, default=None)
        if first is None or now < self._quiet_until or self._budget.wait_s(first.send.priority, now) > 0:
            return None
        return first

    async def _rest(self, now: float) -> None:
        """Until something may be sent: a limit is over, a pause is over, or a new send came."""
        if not self._ready():
            await self._wake.wait()
            return
        if now < self._quiet_until:
            await pause(self._quiet_until - now)  # a new send can't shorten it
            return
        waits = (
            max(item.ready_at - now, self._budget.wait_s(item.send.priority, now)) for item in self._ready()
        )
        await pause(min(waits), self._wake)

    async def _attempt(self, item: _Item, now: Callable[[], float]) -> None:
        send = item.send
        try:
            room = await self._target(send)
        except RateLimited as limited:  # of joins or reads: no other send has to wait for that
            item.ready_at = now() + limited.retry_after_s
            self._queue.waiting.append(item)
            return
        except Encrypted:
            self._fail(item, "ENCRYPTED", "the room is encrypted; nothing is sent there in clear")
            return
        except Unreachable as lost:
            self._lost(item, lost, now())
            return
        except TokenDead:
            raise
        except Refused as refused:
            self._refused(item, refused)
            return
        await self._put_and_tell(item, room, now)

    async def _put_and_tell(self, item: _Item, room: RoomId, now: Callable[[], float]) -> None:
        send = item.send
        try:
            event_id = await self._put(send, room)
        except RateLimited as limited:
            self._budget.limited(limited.retry_after_s, now())
            self._queue.waiting.append(item)
        except Unreachable as lost:
            if lost.sent:
                self._budget.spent(now())
            self._lost(item, lost, now())
        except TokenDead:
            raise
        except Refused as refused:
            self._refused(item, refused)
        else:
            self._budget.spent(now())
            self._away.reset()
            for waiting in self._queue.waiting:
                if not waiting.ready_at:
                    waiting.failing_since = None
            self._emit(SendDone(send.txn, event_id))

    async def _target(self, send: Send) -> RoomId:
        """The room, seen to be unencrypted. Nothing was sent yet whatever this raises."""
        try:
            if send.room is None or self._is_home(send):
                if self._encrypted or (not self._clear and await self._is_encrypted(self._room_id)):
                    raise Encrypted
                self._clear = True
                return self._room_id
            room = await foreign_room(self._api, send.room)
            if await self._is_encrypted(room):
                raise Encrypted
            return room
        except Unreachable as lost:
            raise Unreachable(str(lost), sent=False, status=lost.status) from lost

    async def _is_encrypted(self, room: RoomId) -> bool:
        path = Path.v3.rooms[room].state["m.room.encryption"]
        try:
            await self._api.call(Method.GET, path)
        except Refused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    async def _put(self, send: Send, room: RoomId) -> EventId:
        path = Path.v3.rooms[room]
        if send.state_key is None:
            path = path.send[send.type][send.txn]
        elif send.state_key == "":
            path = path.state[send.type]
        else:
            path = path.state[send.type][send.state_key]
        answer = await self._api.call(Method.PUT, path, send.content)
        event_id = answer.get("event_id")
        if not isinstance(event_id, str):
            raise Unreachable("the answer to a send names no event", sent=True)
        return EventId(event_id)

    def _lost(self, item: _Item, lost: Unreachable, now: float) -> None:
        item.maybe_sent = item.maybe_sent or lost.sent
        if item.send.state_key is not None and lost.sent:
            self._fail(item, "UNKNOWN", f"it may have been sent: {lost}")
            return
        self._queue.waiting.append(item)
        if lost.status or not self._is_home(item.send):  # this one fails: let the others try
            item.ready_at = now + item.backoff.next_s()
            self._expire([item], lost, now)
        else:  # nobody answers: the time of all that waits runs
            self._quiet_until = now + self._away.next_s()
            self._expire(list(self._queue.waiting), lost, now)

    def _expire(self, items: list[_Item], lost: Unreachable, now: float) -> None:
        for item in items:
            if item.failing_since is None:
                item.failing_since = now
            if not item.send.durable and now - item.failing_since >= GIVE_UP_S:
                self._queue.waiting.remove(item)
                self._fail(item, "UNKNOWN" if item.maybe_sent else "UNREACHABLE", str(lost))

    def _refused(self, item: _Item, refused: Refused) -> None:
        if refused.errcode == "M_DUPLICATE_ANNOTATION":
            self._emit(SendDone(item.send.txn, EventId("")))  # it is there, its id isn't told
            return
        errcode = "M_TOO_LARGE" if refused.status == 413 else refused.errcode
        self._fail(item, errcode, refused.why or str(refused))

    def _fail(self, item: _Item, errcode: str, why: str) -> None:
        self._emit(SendFailed(item.send.txn, errcode, why))


async def foreign_room(api: Api, room: str) -> RoomId:
    """Another room than the cluster's, joined if it lets us.

    Raises Refused (with a mend in its text), RateLimited or Unreachable.
    """
    room_id = room
    if room.startswith("#"):
        found = await api.call(Method.GET, Path.v3.directory.room[room])
        room_id = str(found.get("room_id", ""))
    path = Path.v3.rooms[room_id].state["m.room.member"][api.user_id]
    try:
        member = await api.call(Method.GET, path)
    except TokenDead:
        raise
    except Refused:
        member = {}
    if member.get("membership") != "join":
        try:
            await api.call(Method.POST, Path.v3.join[room])
        except Refused as refused:
            if isinstance(refused, TokenDead):
                raise
            why = f"{api.user_id} is not in {room} and can't join it; invite it there ({refused})"
            raise Refused(refused.status, refused.errcode, why) from refused
    return RoomId(room_id)


def content_fault(
    event_type: str, state_key: str | None, content: Mapping[str, Json]
) -> tuple[str, str] | None:
    """What the homeserver would not take in an event, as (errcode, why), or None."""
    if bad := _bad_value(content, "content", 0):
        return ("M_BAD_JSON", bad)
    try:
        size = len(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        return ("M_BAD_JSON", "content: holds half a surrogate pair, which is no text")
    size += len(event_type.encode()) + len((state_key or "").encode()) + _ENVELOPE_BYTES
    if size > EVENT_BYTES_MAX:
        return ("M_TOO_LARGE", f"the event has {size} bytes, more than {EVENT_BYTES_MAX}")
    return None


def _bad_value(value: Json | Mapping[str, Json], where: str, depth: int) -> str | None:
    if depth > DEPTH_MAX:
        return f"{where[:200]}: nested more than {DEPTH_MAX} deep"
    if isinstance(value, float):
        return f"{where[:200]}: an event can't hold a float"
    if isinstance(value, int):
        return None if abs(value) <= INT_MAX else f"{where[:200]}: beyond 2^53"
    parts: Sequence[tuple[str, Json]] = ()
    if isinstance(value, Mapping):
        parts = [(f"{where}.{key}", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{where}[{n}]", item) for n, item in enumerate(value)]
    found = (_bad_value(item, name, depth + 1) for name, item in parts)
    return next((bad for bad in found if bad), None)
