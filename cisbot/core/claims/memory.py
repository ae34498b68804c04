"""Public memory: compare-and-set without a holder, on the same fold as claims.

`set` tries again when another write came first; `cas` then fails and says what stands there, and never
writes again after a gap that may hide its own success. A read is of the local fold. An unsure key is
probed first, like a claim.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from dataclasses import field

from cisbot.core.claims.contend import BACK_RETRY_S
from cisbot.core.claims.fold import concerns
from cisbot.core.claims.keeper import RHO, Keeper
from cisbot.core.claims.messages import memory_write
from cisbot.core.claims.state import Head
from cisbot.core.effects import Ask, ReadBack, Send
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId, Nonce
from cisbot.core.inputs import MemoryAsk
from cisbot.core.room.events import ClaimEvent, JsonMap, MemoryWrite, Probe
from cisbot.core.room.past import Highest
from cisbot.core.room.wire import VALUE_BYTES_MAX

TRIES_MAX = 10
ECHO_MAX_S = 30.0
QUEUE_MAX = 1_000
UNKNOWN = "events were missed, so it is not known whether it was written; read it again"


@dataclass(frozen=True, slots=True)
class MemoryReply:
    """The answer to one local caller."""

    tag: str
    body: JsonMap


@dataclass(slots=True)
class _Op:
    ask: MemoryAsk
    nonces: list[Nonce] = field(default_factory=list)  # of all its writes: an early one may come late
    until: float = 0.0
    tries: int = 0
    probed: bool = False
    unsure: bool = False
    probe: tuple[EventId, float] | None = None
    gaps: int = 0  # the ledger's, when it was first written
    back: Highest | None = None
    reading: bool = False


@dataclass(slots=True)
class _Key:
    queue: deque[_Op] = field(default_factory=deque)


class Memory:
    """The pending reads and writes of this node, one at a time per key. Pure."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._keys: dict[ClaimKey, _Key] = {}
        self._replies: list[MemoryReply] = []
        self._wakes: list[float] = []

    def ask(self, ask: MemoryAsk, now: float) -> None:
        """Take up a request of a local caller."""
        if ask.value is not None and len(ask.value.encode()) > VALUE_BYTES_MAX:
            self._reply(ask, ok=False, error=f"value: over {VALUE_BYTES_MAX} bytes")
            return
        queue = self._keys.setdefault(ask.key, _Key()).queue
        if len(queue) >= QUEUE_MAX:
            self._reply(ask, ok=False, error=f"memory: {QUEUE_MAX} requests wait already; try again later")
            return
        queue.append(_Op(ask))

    def withdraw(self, tags: Container[str]) -> None:
        """Forget requests; what was sent of them may be written all the same."""
        for state in self._keys.values():
            state.queue = deque(op for op in state.queue if op.ask.tag not in tags)

    def observe(self, event: ClaimEvent, now: float) -> None:
        """A claim event came: it may be an own write's echo, a probe, or what spoils one."""
        for key, state in self._keys.items():
            op = state.queue[0] if state.queue else None
            if op is None:
                continue
            if isinstance(event, Probe) and key in event.keys and not self._keeper.ledger.abroad:
                op.probe, op.until = (event.event_id, now), now
            elif op.probe is not None and concerns(event, key):
                op.probe, op.back, op.reading = None, None, False
            mine = event.sender == self._keeper.me.account
            if mine and isinstance(event, MemoryWrite) and event.key == key and event.nonce in op.nonces:
                self._echo(key, state, op, event, now)

    def _echo(self, key: ClaimKey, state: _Key, op: _Op, event: MemoryWrite, now: float) -> None:
        head = self._keeper.ledger.sure(key)
        if head is not None and head.after == event.event_id:
            state.queue.popleft()
            self._reply(op.ask, ok=True, value=head.value, version=head.epoch)
        elif event.nonce != op.nonces[-1]:
            return  # a later write of this request is still on its way
        elif op.ask.op == "cas" or op.tries >= TRIES_MAX:
            state.queue.popleft()
            missed = head is None or op.gaps != self._keeper.ledger.gaps
            self._reply(op.ask, ok=False, error=UNKNOWN if missed else "another write came first")
        else:
            op.until = now + self._keeper.me.rank(key, event.event_id) * self._keeper.echo_s / 2

    def failed(self, txn: str, now: float) -> None:
        """A send is given up; the next `due` tries again."""
        for state in self._keys.values():
            if state.queue and txn in state.queue[0].nonces[-1:]:
                state.queue[0].until = now + 1.0  # its echo counts all the same, should it come

    def back(self, key: ClaimKey, found: Highest | None, now: float) -> None:
        """The highest version of an unsure key is known."""
        state = self._keys.get(key)
        if state and state.queue and state.queue[0].reading:
            state.queue[0].back, state.queue[0].reading = found, False
            state.queue[0].until = now if found else now + BACK_RETRY_S

    def due(self, now: float) -> tuple[list[Send], list[Ask], list[MemoryReply]]:
        """One step for the first request of every key."""
        sends: list[Send] = []
        asks: list[Ask] = []
        self._wakes = []
        for key, state in self._keys.items():
            while state.queue and self._serve(key, state, now, sends, asks):
                state.queue.popleft()
            if state.queue:
                self._wakes.append(max(state.queue[0].until, now + 0.001))
        if self._keys:
            self._keys = {k: s for k, s in self._keys.items() if s.queue}
        replies, self._replies = self._replies, []
        return sends, asks, replies

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        return min(self._wakes) if self._wakes else None

    def _serve(self, key: ClaimKey, state: _Key, now: float, sends: list[Send], asks: list[Ask]) -> bool:
        op = state.queue[0]
        head = self._keeper.ledger.sure(key)
        if head is not None and op.unsure:  # an answer to the probe came
            op.unsure, op.until = False, now
        if now < op.until:
            return False
        if op.tries >= TRIES_MAX:  # also when every echo stayed away
            self._reply(op.ask, ok=False, error="the room can't be reached; try again later")
            return True
        if head is None:
            self._unsure(key, op, now, sends, asks)
            return False
        if op.ask.op == "get":
            self._reply(op.ask, ok=True, value=head.value, version=head.epoch)
            return True
        if op.ask.op == "cas" and op.nonces and op.gaps != self._keeper.ledger.gaps:
            self._reply(op.ask, ok=False, error=UNKNOWN)
            return True
        if op.ask.op == "cas" and (head.value or "") != (op.ask.expected or ""):
            self._reply(op.ask, ok=False, value=head.value, error="the value is another one")
            return True
        sends.append(self._write(key, op, head, now, fresh=False))
        return False

    def _write(self, key: ClaimKey, op: _Op, head: Head, now: float, *, fresh: bool) -> Send:
        nonce = self._keeper.me.nonce()
        if not op.nonces:
            op.gaps = self._keeper.ledger.gaps
        op.nonces.append(nonce)
        op.until = now + ECHO_MAX_S
        op.tries += 1
        self._keeper.note_sent(nonce, now)
        carried = None if fresh else self._keeper.ledger.carried(key)
        return memory_write(
            self._keeper.me, nonce, key, head.epoch + 1, head.after, op.ask.value, fresh=fresh,
            head=carried if head.after is not None else None, takes=head.takes if fresh else 0,
        )  # fmt: skip

    def _unsure(self, key: ClaimKey, op: _Op, now: float, sends: list[Send], asks: list[Ask]) -> None:
        op.unsure = True
        if self._keeper.ledger.abroad and op.probed:  # no home node answered
            op.tries = TRIES_MAX
            return
        if op.probe is not None and self._keeper.ledger.since(key, op.probe[0]) is None:
            op.probe, op.back, op.reading = None, None, False  # events were missed since
        if op.probe is None:
            if op.probed and op.ask.op == "get":
                op.tries += 1
            op.probed = True
            _, send = self._keeper.probe((key,), now)
            op.until = now + ECHO_MAX_S
            sends.append(send)
            return
        event, at = op.probe
        quiet = at + self._keeper.ledger.bounds.lease_s_max * (1 + 2 * RHO)
        if now < quiet:
            op.until = quiet
        elif op.back is None:
            op.reading, op.until = True, now + ECHO_MAX_S
            asks.append(ReadBack(f"back {key}", key, self._keeper.ledger.bounds.epoch_step_max))
        elif op.ask.op == "set":
            sends.append(
                self._write(key, op, Head(op.back.epoch, event, takes=op.back.takes), now, fresh=True)
            )
        else:
            op.tries = TRIES_MAX

    def _reply(self, ask: MemoryAsk, *, ok: bool, **fields: str | int | None) -> None:
        if ask.tag:
            self._replies.append(MemoryReply(ask.tag, {"ok": ok, **fields}))
