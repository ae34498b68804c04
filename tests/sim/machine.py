"""One machine: a clock of its own, a database, and the processes that live on it one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

from cisbot.core.effects import (
    Answer,
)
from cisbot.core.ids import Incarnation, UserId
from cisbot.core.inputs import (
    Instant,
    MemoryAsk,
    RoomBatch,
    Tick,
)
from cisbot.node.kept import load_kept
from tests.sim.homeserver import Answer as SyncAnswer
from tests.sim.homeserver import Homeserver
from tests.sim.process import Database, Died, Process, Tables, drive

if TYPE_CHECKING:
    from tests.sim.world import World

LIMIT = 100


class Machine:
    """A machine, and the process on it if one is alive. `blind`: its clock stands while it sleeps."""

    blind: ClassVar[bool] = False

    def __init__(self, world: World, name: str, offset: float, rate: float, server: Homeserver) -> None:
        self.world = world
        self.name = name
        self.server = server
        self.account = UserId(f"@{name}:{server.name}")
        self._offset, self._rate = offset, rate
        self._sleeps: list[tuple[float, float]] = []
        self.wall_off_ms = 0
        self.database = Database(self)
        self.backup: Tables | None = None
        self.process: Process | None = None
        self.paused_until = self.suspended_until = self.lag_until = 0.0
        self.crash_after: int | None = None  # effects from now on
        self.lease_s = world.plan.lease_s
        self.deaf = False  # hears nothing until a script lets it
        self.keeps: int | None = None  # of its next sync; what is before that is a gap
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
        if self.blind:
            now -= sum(max(0.0, min(now, end) - begin) for begin, end in self._sleeps)
        return self._offset + self._rate * now

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

    def anew(self) -> None:
        """This incarnation is over, and the same process goes on as a new one."""
        assert self.process is not None
        self.process.die()
        self.process = None
        self.world.died()
        self.world.after(0.1, self.start)

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
        heard = self.place == len(self.server.stream)
        if process is None or not heard or self.database.tables["outbox"]:
            return False
        keeper = process.coordinator.keeper
        return process.outbox.empty and not keeper.holds and not keeper.abandoned

    def answered(self, answer: Answer) -> None:
        """A local caller has its answer."""
        self.world.answered(self, answer)

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
        if process.heard and self.place == len(self.server.stream):
            return
        self._polling = True
        wait = max(0.0, self.lag_until - self.world.now, self.paused_until - self.world.now)
        self.world.after(wait + self.world.rng.uniform(0.005, 0.06), lambda: self._fetch(process))

    def _fetch(self, process: Process) -> None:
        if self.process is not process:
            return
        self._polling = False
        server, faults, rng = self.server, self.world.faults, self.world.rng
        lags = max(self.lag_until, self.paused_until) > self.world.now
        waits = lags or self.deaf or self.world.down()
        if waits or (faults.sync_lost and rng.random() < faults.sync_lost):
            self.world.after(0.2 if waits else 0.01, self.poll)
            return
        if self.place is None:
            self._batch(process, server.join(), initial=True)
        else:
            cut = faults.gap and rng.random() < faults.gap
            limit = rng.randint(1, 4) if cut else LIMIT
            if self.keeps is not None:
                limit, self.keeps = self.keeps, None
            self._batch(process, server.sync(self.place, limit), initial=False)
        self.poll()

    def _batch(self, process: Process, answer: SyncAnswer, *, initial: bool) -> None:
        if answer.gap:
            self.world.log("{} has a gap before {}", self.name, answer.cursor)
        self.place, process.heard = answer.cursor, True
        process.emit(
            RoomBatch(str(answer.cursor), answer.events, answer.gap, initial, answer.state, answer.history)
        )
        if process.alive and self.server is self.world.server:
            self.world.checkers.folded(self.name, process.coordinator.ledger, answer)
