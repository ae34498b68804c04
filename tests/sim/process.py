"""One process of a node: the product's `NodeLoop` with its `Coordinator`, and models of what is around."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import SecretStr

from cisbot.core.claims.messages import Me
from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import (
    ArmEnd,
    Ask,
    CancelEnd,
    Drop,
    Put,
    ReadBack,
    ReadRuns,
    ReadState,
    ReadStory,
    RestartEnd,
    Send,
    Write,
)
from cisbot.core.ids import Incarnation, NodeId, UserId
from cisbot.core.inputs import (
    BackRead,
    Definitions,
    Input,
    Instant,
    RunsRead,
    StateRead,
    StoryRead,
)
from cisbot.core.outbound import Kept
from cisbot.core.settings import Coordinator as CoordinatorSettings
from cisbot.core.settings import Matrix, Node, Settings
from cisbot.node.loop import Anew, Halted, NodeLoop
from cisbot.store.dag_table import KEYS
from tests.sim.network import Outbox
from tests.sim.plan import DAGS
from tests.sim.workers import Workers

if TYPE_CHECKING:
    from tests.sim.machine import Machine

Row = dict[str, str | int | float | None]
Tables = dict[str, dict[str, Row]]
T = TypeVar("T")
LIMIT = 100


class Died(Exception):
    """The process was killed between two effects."""


@cache
def settings_of(account: UserId, lease_s: int) -> Settings:
    """The settings of a node."""
    return Settings(
        coordinator=CoordinatorSettings(claim_lease_duration=float(lease_s), kill_grace=0.5),
        node=Node(id=NodeId(account[1:].partition(":")[0]), data_dir=Path("/data")),
        matrix=Matrix(homeserver="http://hs", user_id=account, access_token=SecretStr("x"), room="!r"),
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


class Process:
    """The product's loop on the models: `Room`, `Clock` and `Files` of `node.ports` in one."""

    def __init__(self, machine: Machine, incarnation: Incarnation, kept: Kept) -> None:
        self.machine = machine
        self.world = machine.world
        settings = settings_of(machine.account, machine.lease_s)
        me = Me(NodeId(machine.name), machine.account, incarnation)
        self.coordinator = Coordinator(settings, me, kept, "sim", end_delay_s=self.world.plan.end_delay_s)
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
        except Anew as over:
            self.world.log("{} goes on as a new incarnation: {}", self.machine.name, over)
            self.machine.anew()
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
        mine = self._timer

        def come() -> None:
            if self.alive and mine == self._timer:
                if self.machine.clock() < boot:  # the clock stood still meanwhile
                    self.world.after(boot - self.machine.clock() + 1e-6, come)
                else:
                    callback()
                    self.pump()

        self.world.after(max(0.0, self.machine.true(boot) - self.world.now) + 1e-6, come)
        return self._no_timer

    def _no_timer(self) -> None:
        self._timer += 1  # there is only one

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
        """Start one read, or ask about the delayed end."""
        if isinstance(ask, ArmEnd | RestartEnd | CancelEnd):
            self.world.delays.request(self, ask)
            return
        self.world.after(self.world.rng.uniform(0.005, 0.05), lambda: self._answer(ask))

    def _answer(self, ask: Ask) -> None:
        if self.world.down():
            self.world.after(0.5, lambda: self._answer(ask))
            return
        server, faults = self.machine.server, self.world.faults
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


def drive(turn: Coroutine[object, None, T]) -> T:
    """Run a coroutine that has nothing to wait for."""
    try:
        turn.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the node waits for something that the simulator does not have")
