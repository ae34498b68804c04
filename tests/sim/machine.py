"""One machine: a clock of its own, a database, and the processes that live on it one after the other.

A process is the product's `NodeLoop` with its `Coordinator`; the adapters around it are models.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from pydantic import SecretStr
from typing_extensions import override

from cisbot.core import scopes
from cisbot.core.claims.contend import Wish
from cisbot.core.claims.messages import Me
from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import (
    Answer,
    Ask,
    Drop,
    Put,
    ReadBack,
    ReadRuns,
    ReadState,
    ReadStory,
    Send,
    Write,
)
from cisbot.core.ids import ClaimKey, Incarnation, NodeId, UserId
from cisbot.core.inputs import (
    BackRead,
    Definitions,
    Input,
    Instant,
    MemoryAsk,
    RoomBatch,
    RunsRead,
    StateRead,
    StoryRead,
    Tick,
)
from cisbot.core.outbound import Kept
from cisbot.core.settings import Coordinator as CoordinatorSettings
from cisbot.core.settings import Matrix, Node, Settings
from cisbot.node.kept import load_kept
from cisbot.node.loop import Halted, NodeLoop
from cisbot.store.dag_table import KEYS
from tests.sim.homeserver import Answer as SyncAnswer
from tests.sim.network import Outbox
from tests.sim.plan import DAGS
from tests.sim.workers import Workers

if TYPE_CHECKING:
    from tests.sim.world import World

Row = dict[str, str | int | float | None]
Tables = dict[str, dict[str, Row]]
T = TypeVar("T")
LIMIT = 100
GLOBAL = ClaimKey(str(scopes.GLOBAL.label))


class Died(Exception):
    """The process was killed between two effects."""


@cache
def settings_of(name: str, lease_s: int) -> Settings:
    """The settings of a node."""
    return Settings(
        coordinator=CoordinatorSettings(claim_lease_duration=float(lease_s), kill_grace=0.5),
        node=Node(id=NodeId(name), data_dir=Path("/data")),
        matrix=Matrix(homeserver="http://hs", user_id=f"@{name}:hs", access_token=SecretStr("x"), room="!r"),
    )


class Database:
    """`node.ports.Store`: rows that outlive a process."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.tables: Tables = {table: {} for table in KEYS}

    async def commit(self, writes: Sequence[Write]) -> None:
        """All writes at once."""
        for write in writes:
            match write:
                case Put():
                    self.tables[write.table][str(write.row[KEYS[write.table]])] = dict(write.row)
                case Drop():
                    self.tables[write.table].pop(write.key, None)
        self._machine.effect()

    async def rows(self, table: str) -> list[Row]:
        """All rows of a table."""
        return list(self.tables[table].values())

    def copy(self) -> Tables:
        """A copy to put back later."""
        return {table: dict(rows) for table, rows in self.tables.items()}


class Slotted(Coordinator):
    """A coordinator whose keys have slots: the claims have them, but no DAG can ask for them yet."""

    slots = 1

    @override
    def _wishes(self, now: Instant) -> list[Wish]:
        wishes = super()._wishes(now)
        return [wish if wish.key == GLOBAL else replace(wish, slots=self.slots) for wish in wishes]


class Process:
    """The product's loop on the models: `Room`, `Clock` and `Files` of `node.ports` in one."""

    def __init__(self, machine: Machine, incarnation: Incarnation, kept: Kept) -> None:
        self.machine = machine
        self.world = machine.world
        settings = settings_of(machine.name, self.world.plan.lease_s)
        me = Me(NodeId(machine.name), machine.account, incarnation)
        self.coordinator = Slotted(settings, me, kept, "sim")
        self.coordinator.slots = self.world.plan.slots
        self.outbox = Outbox(self.world, machine.account, self.emit)
        self.workers = Workers(machine, self.emit)
        self.alive = True
        self.heard = False  # its first answer comes also where nothing is new
        self._running = False
        self._timer = 0
        self._told = False
        self.loop = NodeLoop(
            self.coordinator, room=self, store=machine.database, workers=self.workers, clock=self,
            files=self, say=lambda text: None,
        )  # fmt: skip

    # -- the loop ----------------------------------------------------------------------------------

    def begin(self, kept: Kept) -> None:
        """The first turn."""
        self._turn(self.loop.begin(kept))
        self.pump()

    def emit(self, item: Input) -> None:
        """An adapter has something for the node."""
        if self.alive:
            self.loop.emit(item)
            self.pump()

    def pump(self) -> None:
        """Have the loop work off what waits, unless its process is stopped or already at it."""
        if self._running or not self.alive or self.machine.stopped(self.pump):
            return
        self._running = True
        while self.alive and not self.loop.idle:
            self._turn(self.loop.turn())
        self._running = False

    def _turn(self, turn: Coroutine[object, None, T]) -> None:
        try:
            drive(turn)
        except Died:
            self.machine.crash()
        except Halted as halted:
            self.world.log("{} halts: {}", self.machine.name, halted)
            self.machine.halted()

    def die(self) -> None:
        """The process is gone, and what it ran."""
        self.alive = self.outbox.alive = False
        self.workers.killed()

    # -- node.ports.Clock ----------------------------------------------------------------------------

    def now(self) -> Instant:
        """What this machine's clocks show."""
        return self.machine.instant()

    def call_at(self, boot: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back at that boot time."""
        self._timer += 1
        mine = self._timer

        def come() -> None:
            if self.alive and mine == self._timer:
                if self.machine.clock() < boot:  # the clock stood still meanwhile
                    self.world.after(boot - self.machine.clock() + 1e-6, come)
                else:
                    callback()
                    self.pump()

        self.world.after(max(0.0, self.machine.true(boot) - self.world.now) + 1e-6, come)
        return lambda: None  # there is one timer: a newer one replaces it

    # -- node.ports.Files ----------------------------------------------------------------------------

    async def read(self) -> Definitions | None:
        """The DAGs, which never change."""
        if self._told:
            return None
        self._told = True
        return Definitions(DAGS, ())

    # -- node.ports.Room -----------------------------------------------------------------------------

    def send(self, send: Send) -> None:
        """Queue one send."""
        self.world.log_send(self.machine.name, send)
        self.outbox.send(send)
        self.machine.effect()

    def withdraw(self, txn: str) -> None:
        """Take back a send that waits."""
        self.outbox.withdraw(txn)

    def ask(self, ask: Ask) -> None:
        """Start one read."""
        self.world.after(self.world.rng.uniform(0.005, 0.05), lambda: self._answer(ask))

    def _answer(self, ask: Ask) -> None:
        if self.world.down():
            self.world.after(0.5, lambda: self._answer(ask))
            return
        server, faults = self.world.server, self.world.faults
        lost = bool(faults.read_lost) and self.world.rng.random() < faults.read_lost
        match ask:
            case ReadState():
                self.emit(StateRead(ask.tag, None if lost else server.named(ask.type, ask.state_key)))
            case ReadBack():
                self.emit(BackRead(ask.tag, None if lost else server.highest(ask)))
            case ReadStory():
                self.emit(StoryRead(ask.tag, None if lost else server.story(ask.run)))
            case ReadRuns():
                self.emit(RunsRead(ask.tag, () if lost else server.about(ask.runs)))
            case _:
                raise AssertionError(ask)


class Machine:
    """A machine, and the process on it if one is alive. `blind`: its clock stands while it sleeps."""

    blind: ClassVar[bool] = False

    def __init__(self, world: World, name: str, offset: float, rate: float) -> None:
        self.world = world
        self.name = name
        self.account = UserId(f"@{name}:hs")
        self._offset, self._rate = offset, rate
        self._sleeps: list[tuple[float, float]] = []
        self.wall_off_ms = 0
        self.database = Database(self)
        self.backup: Tables | None = None
        self.process: Process | None = None
        self.paused_until = self.suspended_until = self.lag_until = 0.0
        self.crash_after: int | None = None  # effects from now on
        self.place: int | None = None
        self._starts = 0
        self._polling = False
        self._resuming = False

    @property
    def incarnation(self) -> Incarnation:
        """Of the newest process."""
        return Incarnation(f"{self.name}-{self._starts}")

    # -- time --------------------------------------------------------------------------------------

    def clock(self) -> float:
        """This machine's boot time now."""
        now = self.world.now
        stood = sum(max(0.0, min(now, end) - begin) for begin, end in self._sleeps) if self.blind else 0.0
        return self._offset + self._rate * (now - stood)

    def true(self, boot: float) -> float:
        """The true time at which this machine's clock reads `boot`."""
        return self.world.now + (boot - self.clock()) / self._rate

    def instant(self) -> Instant:
        """What its clocks show."""
        wall = self.world.server.clock_ms + int(self.world.now * 1000) + self.wall_off_ms
        return Instant(self.clock(), wall)

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> None:
        """A new process on what the database holds."""
        if self.process is not None:
            return
        self._starts += 1
        self.paused_until, self.crash_after = 0.0, None
        known = bool(self.database.tables["meta"])
        self.world.log(
            "{} starts as {} {} its database", self.name, self.incarnation, "with" if known else "without"
        )
        kept = drive(load_kept(self.database))
        self.place = None if kept.cursor is None else int(kept.cursor)
        self._polling = False
        process = self.process = Process(self, self.incarnation, kept)
        process.begin(kept)
        self.poll()

    def crash(self) -> None:
        """The process is killed, and its tasks with it; what it sent may arrive all the same."""
        if self.process is None:
            return
        self.world.log("{} crashes", self.name)
        self.process.die()
        self.process = None
        self.world.crashed(self)

    def halted(self) -> None:
        """The process ends by itself, and is started again."""
        assert self.process is not None
        self.process.die()
        self.process = None
        self.world.crashed(self)
        self.world.after(1.0, self.start)

    def effect(self) -> None:
        """One effect is done: maybe the last one. Raises `Died`."""
        if self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after <= 0:
                self.crash_after = None
                raise Died

    def pause(self, seconds: float) -> None:
        """SIGSTOP of the node; its workers run on."""
        self.paused_until = max(self.paused_until, self.world.now + seconds)

    def suspend(self, seconds: float) -> None:
        """The whole machine sleeps; its clock runs on, unless it is blind to that."""
        if not self.frozen():
            self.pause(seconds)
            self.suspended_until = self.world.now + seconds
            self._sleeps.append((self.world.now, self.suspended_until))

    def frozen(self) -> float:
        """For how long its tasks still stand."""
        return max(0.0, self.suspended_until - self.world.now)

    def stopped(self, resume: Callable[[], None]) -> bool:
        """Whether its process stands now; then it is resumed later."""
        wait = self.paused_until - self.world.now
        if wait <= 0:
            return False
        if not self._resuming:
            self._resuming = True

            def go() -> None:
                self._resuming = False
                if self.process is not None:
                    self.process.pump()

            self.world.after(wait + self.world.rng.uniform(0, 0.01), go)
        return True

    def rests(self) -> bool:
        """Whether it lives, has heard all, and has nothing left to say."""
        process = self.process
        heard = self.place == len(self.world.server.stream)
        if process is None or not heard or self.database.tables["outbox"]:
            return False
        return process.outbox.empty and not process.coordinator.keeper.holds

    def answered(self, answer: Answer) -> None:
        """A local caller has its answer."""
        self.world.counter.answered(self, answer)

    def ask_memory(self, ask: MemoryAsk) -> None:
        """A local caller asks."""
        if self.process is not None:
            self.process.emit(ask)

    def wake(self) -> None:
        """Look at the time."""
        if self.process is not None:
            self.process.emit(Tick())

    # -- the room ------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Something is new, or a sync was handled: ask again unless a request is under way."""
        process = self.process
        if process is None or self._polling:
            return
        if process.heard and self.place == len(self.world.server.stream):
            return
        self._polling = True
        wait = max(0.0, self.lag_until - self.world.now, self.paused_until - self.world.now)
        self.world.after(wait + self.world.rng.uniform(0.005, 0.06), lambda: self._fetch(process))

    def _fetch(self, process: Process) -> None:
        if self.process is not process:
            return
        self._polling = False
        server, faults, rng = self.world.server, self.world.faults, self.world.rng
        waits = self.lag_until > self.world.now or self.paused_until > self.world.now or self.world.down()
        if waits or (faults.sync_lost and rng.random() < faults.sync_lost):
            self.world.after(0.2 if waits else 0.01, self.poll)
            return
        if self.place is None:
            self._batch(process, server.join(), initial=True)
        else:
            cut = faults.gap and rng.random() < faults.gap
            self._batch(process, server.sync(self.place, rng.randint(1, 4) if cut else LIMIT), initial=False)
        self.poll()

    def _batch(self, process: Process, answer: SyncAnswer, *, initial: bool) -> None:
        if answer.gap:
            self.world.log("{} has a gap before {}", self.name, answer.cursor)
        self.place, process.heard = answer.cursor, True
        process.emit(
            RoomBatch(str(answer.cursor), answer.events, answer.gap, initial, answer.state, answer.history)
        )
        if process.alive:
            self.world.checkers.folded(self.name, process.coordinator.ledger, answer)


def drive(turn: Coroutine[object, None, T]) -> T:
    """Run a coroutine that has nothing to wait for."""
    try:
        turn.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the node waits for something that the simulator does not have")
