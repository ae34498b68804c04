"""One machine: the real ledger, keeper, contender and memory, a database, and a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cisbot.core.claims.contend import Contender, Wish
from cisbot.core.claims.keeper import Ended, Extended, Fact, Hold, Keeper, Won
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.memory import Memory, MemoryReply
from cisbot.core.claims.messages import Claim, Me, end, release
from cisbot.core.claims.state import Head
from cisbot.core.effects import Ask, ReadBack, ReadState, Send
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, RunId, UserId, order_hash
from cisbot.core.inputs import MemoryAsk
from cisbot.core.room.events import Intent, Outcome, Rejected, Release, Restate
from cisbot.core.room.wire import MEMORY_PREFIX, key_of
from tests.sim.checkers import Execution
from tests.sim.homeserver import Answer, Seen
from tests.sim.network import Outbox

if TYPE_CHECKING:
    from tests.sim.world import World

COUNTER = ClaimKey(MEMORY_PREFIX + "counter")


@dataclass(frozen=True, slots=True)
class Saved:
    """What one transaction left in the database."""

    incarnation: Incarnation
    place: int
    sure: dict[ClaimKey, Head]
    unsure: frozenset[ClaimKey]
    outbox: tuple[Send, ...]
    done: frozenset[RunId]


class Node:
    """A machine, and the process on it if one is alive."""

    def __init__(self, world: World, name: str, offset: float, rate: float) -> None:
        self.world = world
        self.name = name
        self.account = UserId(f"@{name}:hs")
        self._offset, self._rate = offset, rate
        self.saved: list[Saved] = []
        self.alive = False
        self.paused_until = 0.0
        self.lag_until = 0.0
        self.executions: dict[ClaimKey, Execution] = {}
        self.asked = self.done_ones = self.refused = 0  # increments of the counter
        self._starts = 0
        self._polling = False
        self._timer = 0

    # -- time ------------------------------------------------------------------------------------

    def clock(self) -> float:
        """This machine's boot time now."""
        return self._offset + self._rate * self.world.now

    def true(self, boot: float) -> float:
        """The true time at which this machine's clock reads `boot`."""
        return (boot - self._offset) / self._rate

    # -- life ------------------------------------------------------------------------------------

    def start(self, saved: Saved | None) -> None:
        """A new process, on a database or without."""
        self._starts += 1
        self.alive, self.paused_until = True, 0.0
        incarnation = Incarnation(f"{self.name}-{self._starts}")
        self.me = Me(NodeId(self.name), self.account, incarnation)
        self.ledger = Ledger(self.world.bounds)
        self.keeper = Keeper(self.me, self.ledger)
        self.contender = Contender(self.keeper)
        self.memory = Memory(self.keeper)
        self.outbox = Outbox(self.world, self.account, self._report)
        self.durable: dict[str, Send] = {}
        self.done: set[RunId] = set()
        self.place: int | None = None
        self._expected = 0
        self._polling = False
        self.world.log(f"{self.name} starts as {incarnation} {'with' if saved else 'without'} its database")
        if saved is not None:
            self.ledger.load(dict(saved.sure), saved.unsure)
            self.place, self.done = saved.place, set(saved.done)
            self._say([*saved.outbox, end(self.me, saved.incarnation)])
        self._finish()
        self.poll()

    def crash(self) -> None:
        """The process dies and its tasks with it; what it sent may arrive all the same."""
        self.world.log(f"{self.name} crashes")
        self.alive = self.outbox.alive = False
        for execution in self.executions.values():
            self._over(execution)
        self.executions.clear()

    def _over(self, execution: Execution) -> None:
        if execution.ended is None:
            execution.ended = self.world.now

    def soon(self, delay: float, act: str, *args: object) -> None:
        """Call a method of this process later: not before a pause ends, and never in another process."""
        incarnation = self.me.incarnation

        def go() -> None:
            if not self.alive or self.me.incarnation != incarnation:
                return
            if self.world.now < self.paused_until:
                wait = self.paused_until - self.world.now + self.world.rng.uniform(0, 0.01)
                self.world.after(wait, go)
            else:
                getattr(self, act)(*args)

        self.world.after(delay, go)

    # -- the room --------------------------------------------------------------------------------

    def poll(self) -> None:
        """Something is new, or a sync was handled: ask again unless a request is under way."""
        server = self.world.server
        if not self.alive or self._polling or self.place == len(server.stream):
            return
        self._polling = True
        lag = max(0.0, self.lag_until - self.world.now)
        self.soon(lag + self.world.rng.uniform(0.002, 0.03), "fetch")

    def fetch(self) -> None:
        """One answer to a sync."""
        self._polling = False
        server, faults, rng = self.world.server, self.world.faults, self.world.rng
        if rng.random() < faults.sync_lost:
            self.poll()
        elif self.place is None:
            self._batch(server.join())
        else:
            limit = rng.randint(1, 4) if rng.random() < faults.gap else 100
            self._batch(server.sync(self.place, limit))

    def _batch(self, answer: Answer) -> None:
        now = self.clock()
        if answer.gap:
            self.world.log(f"{self.name} has a gap before {answer.cursor}")
            self.keeper.gap({key for event in answer.state if (key := _key_of(event))}, now)
            self.contender.gap()
            for event in answer.state:
                self._note(event)
        for event in answer.events:
            self._event(event, now)
        self.place = answer.cursor
        self._finish()
        self.world.checkers.folded(self.name, self.ledger, answer.cursor, self.world.server)
        self.poll()

    def _event(self, event: Seen, now: float) -> None:
        self._note(event)
        if isinstance(event, Rejected):
            if self.keeper.reject(event, now):
                self.contender.gap()
        elif isinstance(event, Intent):
            self._ask(self.contender.observe(event, now))
        else:
            assert not hasattr(event, "msgtype")
            if not isinstance(event, Restate):
                self._ask(self.contender.observe(event, now))  # type: ignore[arg-type]
            facts, sends = self.keeper.observe(event, now)  # type: ignore[arg-type]
            self._say(sends)
            self._facts(facts)
            if not isinstance(event, Restate):
                self.memory.observe(event, now)  # type: ignore[arg-type]

    def _note(self, event: Seen) -> None:
        if isinstance(event, Release) and event.outcome is Outcome.SUCCEEDED:
            self.done.add(event.run)

    # -- deciding --------------------------------------------------------------------------------

    def wake(self) -> None:
        """There is something new to wish for."""
        self._finish()

    def tick(self, token: int) -> None:
        """A deadline that the machines named has come."""
        if token == self._timer:
            self._finish()

    def _finish(self) -> None:
        now = self.clock()
        facts, sends = self.keeper.due(now)
        self._facts(facts)
        self._say(sends)
        if self.place is not None:
            sends, asks = self.contender.pursue(self._wishes(), now)
            self._say(sends)
            self._ask(asks)
        sends, asks, replies = self.memory.due(now)
        self._say(sends)
        self._ask(asks)
        for reply in replies:
            self._answered(reply)
        self._save()
        self._arm()

    def _arm(self) -> None:
        times = [self.keeper.deadline(), self.contender.deadline(), self.memory.deadline()]
        known = [t for t in times if t is not None]
        self._timer += 1
        if known:
            self.soon(max(0.0, self.true(min(known)) - self.world.now) + 1e-6, "tick", self._timer)

    def _save(self) -> None:
        if self.place is None:
            return
        known = list(self.ledger.known())
        sure = {k: h for k in known if (h := self.ledger.sure(k)) is not None}
        unsure = frozenset(k for k in known if self.ledger.is_unsure(k))
        saved = Saved(
            self.me.incarnation, self.place, sure, unsure, tuple(self.durable.values()), frozenset(self.done)
        )  # fmt: skip
        self.saved = [*self.saved[-30:], saved]

    def _wishes(self) -> list[Wish]:
        wishes = []
        for key in self.world.keys:
            head = self.ledger.sure(key)
            held = {h.run for h in head.holders} if head else set()
            waiting = [r for r in self.world.published(key) if r not in self.done]
            run = next((r for r in waiting if r not in held), waiting[0] if waiting else None)
            if run is None:
                continue
            order = sorted(self.world.accounts(), key=lambda a: order_hash(run, a))
            claim = Claim(run, "d", "s", self.world.lease_s, "0")
            alone = len(order) == 1 or self.world.headless
            wishes.append(Wish(key, claim, order.index(self.account), alone, self.world.slots))
        return wishes

    # -- what follows ----------------------------------------------------------------------------

    def _facts(self, facts: list[Fact]) -> None:
        for fact in facts:
            match fact:
                case Won():
                    self._won(fact.hold)
                case Extended():
                    if (execution := self._execution(fact.hold)) is not None:
                        deadline = self.true(fact.hold.deadline)
                        self.world.checkers.extended(execution, deadline, self.world.now)
                case Ended():
                    self.world.log(f"{self.name} lost {fact.hold.key} epoch {fact.hold.epoch}: {fact.why}")
                    if (execution := self._execution(fact.hold)) is not None:
                        self._over(execution)
                        del self.executions[fact.hold.key]
                    self._give_up(fact.hold)
                case _:
                    pass

    def _execution(self, hold: Hold) -> Execution | None:
        found = self.executions.get(hold.key)
        return found if found is not None and found.epoch == hold.epoch else None

    def _won(self, hold: Hold) -> None:
        story = self.world.outcomes()
        if hold.deadline <= self.clock() or hold.run in story:
            self.done |= story
            self._say([self.keeper.release(hold.key, None)])
            return
        self.world.log(f"{self.name} WON {hold.key} slot {hold.slot} epoch {hold.epoch} for {hold.run}")
        deadline = self.true(hold.deadline)
        new = Execution(self.name, hold.key, hold.slot, hold.epoch, hold.run, self.world.now, deadline)
        self.executions[hold.key] = new
        self.world.checkers.began(new, self.world.now)
        self.soon(self.world.rng.uniform(0.1, 2.5) * self.world.lease_s, "complete", new)

    def complete(self, execution: Execution) -> None:
        """The tasks ended well; if they got so far."""
        if not execution.runs_at(self.world.now):
            return
        self._over(execution)
        del self.executions[execution.key]
        self.done.add(execution.run)
        self._say([self.keeper.release(execution.key, Outcome.SUCCEEDED)])
        self.world.log(f"{self.name} completed {execution.run} under epoch {execution.epoch}")
        self._finish()

    def _give_up(self, hold: Hold) -> None:
        head = self.ledger.sure(hold.key)
        if head is None or head.held_by(self.account, self.me.incarnation, hold.epoch):
            carried = self.ledger.carried(hold.key)
            self._say([release(self.me, hold.key, hold.epoch, hold.run, Outcome.LOST, carried)])

    def count(self) -> None:
        """Increment the counter in the public memory."""
        self.memory.ask(MemoryAsk("get", "get", COUNTER), self.clock())
        self._finish()

    def _answered(self, reply: MemoryReply) -> None:
        body = reply.body
        if reply.tag == "get" and body["ok"]:
            value = body["value"]
            more = str(int(str(value or 0)) + 1)
            old = None if value is None else str(value)
            self.asked += 1
            self.memory.ask(MemoryAsk("cas", "cas", COUNTER, more, old), self.clock())
            self.soon(0.001, "wake")
        elif reply.tag == "cas":
            self.done_ones += bool(body["ok"])
            self.refused += body.get("error") in ("another write came first", "the value is another one")

    def _say(self, sends: list[Send]) -> None:
        for send in sends:
            self.world.log_send(self.name, send)
            if send.durable:
                self.durable[send.txn] = send
            self.outbox.send(send)

    def _report(self, send: Send, event_id: EventId | None) -> None:
        self.soon(0.0, "reported", send, event_id)

    def reported(self, send: Send, event_id: EventId | None) -> None:
        """A send is done, or given up: then a durable one is sent again, for a second one is void."""
        if event_id is None and send.durable:
            self.outbox.send(send)
            return
        self.durable.pop(send.txn, None)
        if event_id is None:
            self.contender.failed(send.txn, self.clock())
            self.memory.failed(send.txn, self.clock())
        self._finish()

    def _ask(self, asks: list[Ask]) -> None:
        for ask in asks:
            self.soon(self.world.rng.uniform(0.005, 0.05), "answered", ask)

    def answered(self, ask: Ask) -> None:
        """What the room says, read now."""
        server, now = self.world.server, self.clock()
        match ask:
            case ReadState():
                self.contender.state_read(ask.tag, server.named(ask.type, ask.state_key), now)
            case ReadBack() if ask.key == COUNTER:
                self.memory.back(ask.key, server.highest(ask), now)
            case ReadBack():
                wish = next((w for w in self._wishes() if w.key == ask.key), None)
                self._say(self.contender.back(ask.key, server.highest(ask), wish, now))
            case _:
                raise AssertionError(ask)
        self._finish()


def _key_of(event: Seen) -> ClaimKey | None:
    if isinstance(event, Rejected):
        return key_of(event.type, event.state_key)
    key: ClaimKey | None = getattr(event, "key", None)
    return None if isinstance(event, Intent) else key
