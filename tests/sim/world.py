"""Virtual time, the people, and the transcript. Every choice comes from the seed: same seed, same history."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from cisbot.core.claims.state import Bounds
from cisbot.core.effects import Answer, Priority, Send
from cisbot.core.ids import EventId, RunId, short_id
from cisbot.core.room.events import Json
from cisbot.core.room.wire import T_CHARTER
from cisbot.core.runs.state import RunStatus
from tests.sim.chaos import STEP_MAX, Chaos
from tests.sim.checkers import Checkers, Published
from tests.sim.counter import COUNTER, Counter
from tests.sim.delays import Delays
from tests.sim.homeserver import Homeserver, Written
from tests.sim.links import Links
from tests.sim.machine import Machine
from tests.sim.network import Fate
from tests.sim.plan import CALM, Focus, Size, draw
from tests.sim.violation import Violation

OPERATOR = "@operator:hs"
STEPS_MAX = 100_000
PERSON_S = 4.0  # how often a person looks whether something is asked
QUIET_S = 1.0  # without an event, before it counts as over
LAST_WORDS_S = 35.0


class World:
    """One history."""

    def __init__(self, seed: int, size: Size, focus: Focus | None = None, *, told: bool = False) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.now = 0.0
        plan = draw(self.rng, size)
        self.plan = focus(plan) if focus else plan
        self.faults = self.plan.faults
        self.down_until = 0.0
        self.servers = [Homeserver("hs" if n == 0 else f"hs{n + 1}") for n in range(1 + self.plan.abroad)]
        self.server = self.servers[0]  # the room's home
        self.links = Links(self, self.servers)
        self.delays = Delays(self)
        self.checkers = Checkers(Bounds(self.plan.lease_max_s, STEP_MAX), self.server)
        self.counter = Counter(self)
        self._crashed = self._last_event = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._told = told
        self.lines: list[str] = []
        self._chat = itertools.count()
        self.machines = [
            Machine(
                self,
                f"node-{n + 1}",
                self.rng.uniform(10, 9_000),
                self.rng.uniform(0.9955, 1.0045),
                self.servers[n % len(self.servers)],
            )
            for n in range(self.plan.nodes)
        ]

    # -- time ------------------------------------------------------------------------------------

    def after(self, delay: float, act: Callable[[], None]) -> None:
        """Call it later."""
        heapq.heappush(self._heap, (self.now + delay, next(self._count), act))

    def run(self) -> None:
        """The whole history: chaos, then calm, in which everything must get done. Raises `Violation`."""
        self.log("seed {}: {}", self.seed, self.plan)
        self._open_room()
        for machine in self.machines:
            self.after(self.rng.uniform(0, 0.3), machine.start)
        for at, dag in self.plan.runs:
            self.after(at, lambda dag=dag: self._publish(dag))  # type: ignore[misc]
        for _ in range(self.plan.counts):
            machine = self.rng.choice([m for m in self.machines if m.server is self.server])
            self.after(self.rng.uniform(0.5, self.plan.chaos_s), lambda m=machine: self.counter.increment(m))  # type: ignore[misc]
        Chaos(self).plan()
        try:
            self._until(self.plan.chaos_s, lambda: False)
            self._calm()
        except Violation as violation:
            raise Violation(f"seed {self.seed}: {violation}") from violation

    def _until(self, end: float, done: Callable[[], bool]) -> None:
        heap = self._heap
        for _ in range(STEPS_MAX):
            if not heap or heap[0][0] > end:
                self.now = end
                return
            self.now, _, act = heapq.heappop(heap)
            act()
            if done():
                return
        raise Violation(f"{STEPS_MAX} steps and no end: a storm")

    def _calm(self) -> None:
        self.faults = CALM
        self.log("--- the faults end")
        self.down_until = self.now
        self.links.heal()
        for machine in self.machines:
            machine.lag_until, machine.crash_after = self.now, None
            if machine.process is None:
                machine.start()
        self.after(PERSON_S, self._person)
        self._until(self.now + 30 * self.plan.lease_max_s + 90, self._over)
        if not self._over():
            raise Violation(f"stuck: {self._open()}")
        self.checkers.done([m.process.coordinator.board for m in self.machines if m.process is not None])
        self.checkers.free([m.incarnation for m in self.machines if m.process is not None])
        self.counter.check()
        if not self.plan.end_delay_s:  # whose requests go on all the time
            self._until(self.now + LAST_WORDS_S, lambda: False)
            self._agree()

    def _open_room(self) -> None:
        said: tuple[tuple[str, dict[str, Json]], ...] = (
            ("m.room.create", {"room_version": "12"}),
            ("m.room.power_levels", {"users": {}, "users_default": 0}),
            (
                T_CHARTER,
                {
                    "version": 1,
                    "home": "hs",
                    "lease_s_max": self.plan.lease_max_s,
                    "epoch_step_max": STEP_MAX,
                },
            ),
        )
        for kind, content in said:
            self.server.persist(OPERATOR, kind, content, 0.0, 0.0, state_key="")
            for other in self.servers[1:]:
                other.receive(self.server.last(), 0.0)

    # -- the person ------------------------------------------------------------------------------

    def _say(self, body: str) -> EventId:
        content: dict[str, Json] = {"msgtype": "m.text", "body": body}
        send = Send(f"chat {next(self._chat)}", "m.room.message", content, Priority.CHAT)
        self.log("the operator says {}", body)
        return self.persist(OPERATOR, send, self.now)

    def _publish(self, dag: str) -> None:
        run = RunId(self._say(f"!dag publish {dag}"))
        self.checkers.published[run] = Published(run, dag, [])

    def _person(self) -> None:
        """Have every run that is lost taken up again."""
        asked = {
            run.id
            for machine in self.machines
            if machine.process is not None
            for run in machine.process.coordinator.board.open_runs()
            if run.status is RunStatus.LOST and run.asked
        }
        for run in sorted(asked & self.checkers.published.keys()):
            self.checkers.published[run].answers.append(len(self.server.stream))
            self._say(f"!dag approve {short_id(run)}")
        self.after(PERSON_S, self._person)

    # -- what nodes see of it ----------------------------------------------------------------------

    def persist(self, account: str, send: Send, began: float) -> EventId:
        """The homeserver has an event; all who wait are told."""
        server = next(s for s in self.servers if s.name == account.partition(":")[2])
        known = len(server.stream)
        event_id = server.persist(
            account, send.type, send.content, began, self.now, state_key=send.state_key, txn=send.txn,
            mark=self.rng.randrange(65_536),
        )  # fmt: skip
        if len(server.stream) > known:
            self._last_event = self.now
            self.log("{} is at {}: {} {} {}", event_id, known + 1, account, send.type, send.txn)
            if len(self.servers) > 1:
                self.links.send(server, server.last())
            self._arrived(server)
        return event_id

    def received(self, server: Homeserver, written: Written) -> None:
        """A homeserver has an event of another one."""
        server.receive(written, self.now)
        self._last_event = self.now
        self.log("{} is at {} on {}", written.event.event_id, len(server.stream), server.name)
        self._arrived(server)

    def _arrived(self, server: Homeserver) -> None:
        if server is self.server:
            self.checkers.persisted(server.stream[-1], self.now)
        for machine in self.machines:
            if machine.server is server:
                machine.poll()

    def down(self) -> bool:
        """Whether the homeserver is away."""
        return self.now < self.down_until

    def died(self) -> None:
        """A process ended: what it still owed the state, nobody owes."""
        self._crashed = self.now

    def crashed(self, machine: Machine) -> None:
        """A process ended: its database stays, is put back, or is lost; it is started again later."""
        self.died()
        kept = self.rng.random()
        if kept > 0.8 or (kept > 0.65 and machine.backup is None):
            machine.database.tables = {table: {} for table in machine.database.tables}
            self.log("{} loses its database", machine.name)
        elif kept > 0.65 and machine.backup is not None:
            machine.database.tables = {table: dict(rows) for table, rows in machine.backup.items()}
            self.log("{} gets an old database back", machine.name)
        away = self.rng.uniform(0.1, 2.5 * self.plan.lease_max_s)
        self.after(away, machine.start)

    # -- what a script decides instead of the seed ---------------------------------------------------

    def fate(self, account: str, send: Send) -> Fate | None:
        """What becomes of a request, if that is not left to chance."""
        return None

    def answered(self, machine: Machine, answer: Answer) -> None:
        """What becomes of an answer about the public memory."""
        self.counter.answered(machine, answer)

    def lasts(self) -> float:
        """Seconds that a task takes."""
        return self.rng.uniform(0.05, self.plan.task_leases) * self.plan.lease_s

    # -- the end -----------------------------------------------------------------------------------

    def _open(self) -> list[str]:
        return [
            f"{machine.name}: {run.id} is {run.status} ({run.why})"
            for machine in self.machines
            if machine.process is not None
            for run in machine.process.coordinator.board.open_runs()
        ]

    def _over(self) -> bool:
        return (
            self.now > self._last_event + QUIET_S
            and self.links.idle
            and all(machine.rests() for machine in self.machines)
            and not self._open()
        )

    def _agree(self) -> None:
        """All who are sure of all keys agree with the truth; then the state must name it too."""
        ledgers = [m.process.coordinator.ledger for m in self.machines if m.process is not None]
        keys = {*self.checkers.truth.keys(), COUNTER}
        if all(not ledger.is_unsure(key) for ledger in ledgers for key in keys):
            self.checkers.settled(self._crashed)

    # -- the transcript ----------------------------------------------------------------------------

    def log(self, line: str, *parts: object) -> None:
        """Note what happened, if anybody wants to read it."""
        if self._told:
            self.lines.append(f"{self.now:9.3f} {line.format(*parts)}")

    def log_send(self, node: str, send: Send) -> None:
        """Note what a node says."""
        if not self._told:
            return
        told = (
            "action",
            "epoch",
            "slot",
            "after",
            "fresh",
            "run",
            "outcome",
            "renews",
            "keys",
            "version",
            "value",
            "body",
        )
        what = " ".join(
            f"{k}={send.content[k]}" for k in told if send.content.get(k) not in (None, False, [])
        )
        self.log(
            "{} says {} {} {}: {}",
            node,
            send.type.removeprefix("io.cisbot."),
            send.state_key or "",
            send.txn,
            what,
        )
