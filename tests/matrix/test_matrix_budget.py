"""The budget: an account under Synapse's default limit, on a clock that jumps; renewals never wait."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import pytest
from typing_extensions import override

from cisbot.core.effects import ArmEnd, Priority, Send
from cisbot.core.ids import RoomId
from cisbot.core.inputs import EndAnswer, EndReply, Input, SendDone
from cisbot.core.room.events import Json, JsonMap
from cisbot.matrix.budget import BURST, FORGET_S, LEAVES, TICK_S, Budget
from cisbot.matrix.http import Api, Method, PathBuilder, RateLimited, Refused
from cisbot.matrix.outbox import Outbox
from cisbot.matrix.rooms import MatrixRoom
from cisbot.matrix.waiting import pause
from tests.matrix.scripted import NODE, ROOM

T = TypeVar("T")
PAUSE_S = 0.5  # how long Synapse holds a 429 back


class Jumping(selectors.DefaultSelector):
    """A selector that never waits: it moves the loop's clock on by what it should have waited."""

    now = 1_000.0

    @override
    def select(self, timeout: float | None = None) -> Any:
        self.now += max(0.0, timeout or 0.0)
        return super().select(0)


def at_once(main: Callable[[], Awaitable[T]]) -> T:
    """Run it on a clock that jumps."""
    selector = Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]

    async def run() -> T:
        return await main()

    try:
        return loop.run_until_complete(run())
    finally:
        loop.close()


class Synapse(Api):
    """An account's bucket as Synapse counts it; what was taken, and when."""

    def __init__(self, rate: float = 0.2, burst: int = 10) -> None:
        self.user_id = NODE
        self.rate, self.burst = rate, burst
        self.taken: list[tuple[float, str]] = []
        self.refused: list[float] = []
        self._level, self._at = 0.0, 0.0

    @override
    async def call(
        self,
        method: Method,
        path: PathBuilder,
        body: Mapping[str, Json] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout_s: float = 20.0,
    ) -> JsonMap:
        if method is Method.GET:
            raise Refused(404, "M_NOT_FOUND", "not encrypted")
        now = asyncio.get_running_loop().time()
        self._level = max(0.0, self._level - (now - self._at) * self.rate)
        self._at = now
        if self._level > self.burst - 1:
            self.refused.append(now)
            wait_s = (self._level - self.burst + 1) / self.rate
            await pause(PAUSE_S)
            raise RateLimited(wait_s)
        self._level += 1
        self.taken.append((now, str(path).rsplit("/", 1)[-1]))
        await pause(0.05)
        return {"event_id": f"${len(self.taken)}"}


def send(txn: str, priority: Priority) -> Send:
    return Send(txn, "m.room.message", {"body": txn}, priority)


async def talk(server: Synapse, seconds: float, *, renew_s: float = 10.0) -> dict[str, float]:
    """A node that has endless chatter and a renewal now and then; how long each send took."""
    clock = asyncio.get_running_loop().time
    asked: dict[str, float] = {}
    took: dict[str, float] = {}

    def emit(item: Input) -> None:
        txn = getattr(item, "txn", "")
        took[txn] = clock() - asked[txn]

    out = Outbox(server, RoomId(ROOM), emit)
    running = asyncio.ensure_future(out.run())
    end, number = clock() + seconds, 0
    while clock() < end:
        number += 1
        for kind, priority in (
            ("renewal", Priority.RENEWAL),
            ("lock", Priority.LOCK),
            ("chat", Priority.CHAT),
        ):
            for part in range(6 if priority is Priority.CHAT else 1):
                if kind != "lock" or number % 6 == 0:
                    txn = f"{kind}.{number}.{part}"
                    asked[txn] = clock()
                    out.send(send(txn, priority))
        await pause(renew_s)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return took


def test_chatter_leaves_room_for_renewals_and_locks() -> None:
    server = Synapse()
    took = at_once(lambda: talk(server, 600))
    renewals = [s for txn, s in took.items() if txn.startswith("renewal")]
    assert len(renewals) == 60
    assert max(renewals[:3]) < 6  # while the limit is learned: one token
    assert max(renewals[3:]) < 0.2
    locks = [s for txn, s in took.items() if txn.startswith("lock")]
    assert len([s for s in locks if s > 0.2]) <= 2  # while it is learned, and once the pace is corrected
    assert max(locks) < 20
    assert len(server.refused) <= 2
    assert len(server.taken) >= 600 * 0.2  # and nothing of the limit is left unused but the reserve


def test_what_is_slower_than_synapses_default_is_learned_too() -> None:
    server = Synapse(rate=0.1, burst=5)
    took = at_once(lambda: talk(server, 3000, renew_s=20))
    renewals = [s for txn, s in took.items() if txn.startswith("renewal")]
    assert max(renewals[:20]) < 11
    assert max(renewals[20:]) < 0.2
    assert len(server.refused) <= 4


def test_nothing_is_held_back_where_there_is_no_limit() -> None:
    server = Synapse(rate=1000, burst=10_000)
    took = at_once(lambda: talk(server, 60))
    assert max(took.values()) < 0.6
    assert server.refused == []


def test_each_priority_leaves_its_share() -> None:
    budget = Budget()
    assert [budget.wait_s(p, 0.0) for p in Priority] == [0.0] * len(Priority)
    budget.limited(5.0, 0.0)
    assert budget.wait_s(Priority.RENEWAL, 0.0) == pytest.approx(5.0, abs=2 * TICK_S)
    waits = [budget.wait_s(p, 5.0) for p in Priority]
    assert waits == pytest.approx([5.0 * LEAVES[p] for p in Priority], abs=2 * TICK_S)
    budget.spent(5.0)
    assert budget.wait_s(Priority.RENEWAL, 6.0) == pytest.approx(4.0, abs=2 * TICK_S)
    full = 5.0 * BURST
    for _ in range(int(BURST - LEAVES[Priority.EDIT])):
        assert budget.wait_s(Priority.EDIT, full + 5.0) == 0.0
        budget.spent(full + 5.0)
    assert budget.wait_s(Priority.EDIT, full + 5.0) == pytest.approx(5.0, abs=2 * TICK_S)


def test_last_words_need_no_reserve_and_an_old_limit_is_forgotten() -> None:
    budget = Budget()
    budget.limited(5.0, 0.0)
    assert budget.wait_s(Priority.EDIT, 5.0) > 20.0
    budget.leave()
    assert budget.wait_s(Priority.EDIT, 5.0) == 0.0
    budget.limited(1000.0, 10.0)  # obeyed, though it is no pace
    assert budget.wait_s(Priority.RENEWAL, 11.0) == pytest.approx(999.0, abs=2 * TICK_S)
    assert budget.wait_s(Priority.EDIT, 1011.0) == 0.0
    assert budget.wait_s(Priority.EDIT, 1011.0 + FORGET_S) == 0.0


async def arm_often(server: Synapse) -> float:
    """The bucket is emptied by arming alone; how long the renewal took that came after."""
    clock = asyncio.get_running_loop().time
    told: asyncio.Queue[Input] = asyncio.Queue()
    out = Outbox(server, RoomId(ROOM), told.put_nowait)
    room = MatrixRoom(server, RoomId(ROOM), out, told.put_nowait)
    running = asyncio.ensure_future(out.run())
    arm = ArmEnd(send("end", Priority.RENEWAL), 30.0, 5.0)
    for _ in range(20):
        room.ask(arm)
        answer = await told.get()
        assert isinstance(answer, EndAnswer)
        if answer.reply is EndReply.LIMITED:
            break
    asked = clock()
    room.send(send("renewal", Priority.RENEWAL))
    assert isinstance(await told.get(), SendDone)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return clock() - asked


def test_arming_a_delayed_end_is_paid_from_the_same_budget() -> None:
    server = Synapse()
    took = at_once(lambda: arm_often(server))
    assert len(server.refused) == 1  # the arming itself; the renewal knew
    assert took < 6
