"""Virtual time, chaos, and the transcript. Every choice comes from the seed: same seed, same history."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from cisbot.core.claims.messages import Claim, Me, take
from cisbot.core.claims.state import Bounds
from cisbot.core.effects import Send
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, RunId, UserId
from cisbot.core.room.events import Outcome, Release
from cisbot.core.room.wire import EPOCH_MAX
from tests.sim.checkers import Checkers, Violation
from tests.sim.homeserver import Homeserver
from tests.sim.node import COUNTER, Node

LOG_MAX = 400
STEPS_MAX = 60_000
EVENTS_MAX = 6_000


@dataclass(frozen=True, slots=True)
class Faults:
    """How often something goes wrong: probability a request, mean seconds between disasters (0: never)."""

    request_lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    limited: float = 0.0
    sync_lost: float = 0.0
    gap: float = 0.0
    crash_s: float = 0.0
    pause_s: float = 0.0
    lag_s: float = 0.0
    junk_s: float = 0.0


CALM = Faults()
MILD = Faults(0.01, 0.02, 0.01, 0.03, 0.05, 0.005, 40.0, 60.0, 60.0)
HARD = Faults(0.05, 0.05, 0.05, 0.10, 0.10, 0.05, 15.0, 20.0, 20.0)
HOSTILE = replace(HARD, junk_s=4.0)
STEP_MAX = 1_000
EVIL = Me(NodeId("evil"), UserId("@evil:hs"), Incarnation("evil"))


class World:
    """One history."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.seed = seed
        self.now = 0.0
        self.lease_s = rng.choice((3, 6))
        self.lease_max_s = self.lease_s * rng.choice((1, 2))
        self.slots = rng.choice((1, 1, 2))
        self.headless = rng.random() < 0.2  # nobody waits for an intent: all ask at once
        self.faults = rng.choice((CALM, MILD, HARD, HARD, HOSTILE))
        self.chaos_s = rng.uniform(20, 60)
        self.bounds = Bounds(self.lease_max_s, STEP_MAX)
        self.server = Homeserver()
        self.checkers = Checkers(self.bounds)
        self.keys = [ClaimKey(f"d/{n}") for n in range(rng.choice((1, 1, 2)))]
        self._runs = {
            key: [RunId(f"$run{key[-1]}{n}") for n in range(rng.randint(2, 5))] for key in self.keys
        }
        self._outcomes: set[RunId] = set()
        self._crashed = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._log: list[str] = []
        self.nodes = [
            Node(self, f"node-{n + 1}", rng.uniform(0, 9_000), rng.uniform(0.9955, 1.0045))
            for n in range(rng.randint(2, 4))
        ]

    # -- time ------------------------------------------------------------------------------------

    def after(self, delay: float, act: Callable[[], None]) -> None:
        """Call it later."""
        heapq.heappush(self._heap, (self.now + delay, next(self._count), act))

    def run(self) -> None:
        """The whole history: chaos, then calm, in which everything must get done. Raises `Violation`."""
        self.log(
            f"seed {self.seed}: {len(self.nodes)} nodes, {len(self.keys)} keys, {self.slots} slots, lease "
            f"{self.lease_s} of {self.lease_max_s} s, {self.faults}"
        )
        for node in self.nodes:
            self.after(self.rng.uniform(0, 1), lambda node=node: node.start(None))  # type: ignore[misc]
            for _ in range(3):
                self.after(self.rng.uniform(1, self.chaos_s), lambda node=node: self._count_up(node))  # type: ignore[misc]
        for n in range(1, max(len(runs) for runs in self._runs.values())):
            self.after(n * self.lease_s + 0.01, self._published)
        self._disasters()
        try:
            self._until(self.chaos_s, lambda: False)
            self._calm()
        except Violation as violation:
            raise Violation(f"{violation}\n{self.transcript()}") from violation

    def _until(self, end: float, done: Callable[[], bool]) -> None:
        for _ in range(STEPS_MAX):
            if done() or not self._heap or self._heap[0][0] > end:
                self.now = min(end, self._heap[0][0]) if self._heap else end
                return
            self.now, _, act = heapq.heappop(self._heap)
            act()
        raise Violation(f"{STEPS_MAX} steps and no end: a storm")

    def _calm(self) -> None:
        self.faults = CALM
        self.log("--- the faults end")
        for node in self.nodes:
            node.paused_until = node.lag_until = min(node.paused_until, self.now)
            if not node.alive:
                node.start(node.saved[-1] if node.saved and self.rng.random() < 0.5 else None)
        runs = {run for key in self.keys for run in self._runs[key]}
        self._until(self.now + 30 * self.lease_max_s + 60, lambda: runs <= self._outcomes)
        if left := runs - self._outcomes:
            raise Violation(f"stuck: {sorted(left)} never got done")
        if len(self.server.stream) > EVENTS_MAX:
            raise Violation(f"{len(self.server.stream)} events: a storm")
        self._until(self.now + 40, lambda: False)
        self._counted()
        if all(not node.ledger.is_unsure(key) for node in self.nodes for key in (*self.keys, COUNTER)):
            self.checkers.settled(self.server, self._crashed)

    def _counted(self) -> None:
        truth = self.checkers.truth
        truth.follow(self.server.stream)
        value = int(truth.at(COUNTER, len(self.server.stream))[3] or 0)
        done = sum(node.done_ones for node in self.nodes)
        unknown = sum(node.asked - node.done_ones - node.refused for node in self.nodes)
        if not done <= value <= done + unknown:
            raise Violation(f"the counter reads {value} after {done} increments ({unknown} not known)")

    # -- chaos -----------------------------------------------------------------------------------

    def _disasters(self) -> None:
        for every, strike in (
            (self.faults.crash_s, self._crash),
            (self.faults.pause_s, self._pause),
            (self.faults.lag_s, self._lag),
            (self.faults.junk_s, self._junk),
        ):
            at = 0.0
            while every and (at := at + self.rng.expovariate(1 / every)) < self.chaos_s:
                self.after(at, strike)

    def _crash(self) -> None:
        node = self.rng.choice(self.nodes)
        if not node.alive:
            return
        node.crash()
        self._crashed = self.now
        kept = self.rng.random()
        old = node.saved[:1] if kept < 0.65 else []
        saved = node.saved[-1:] if kept < 0.5 else old  # the database, an old copy of it, or none
        node.saved = list(saved)
        away = self.rng.uniform(0.1, 3 * self.lease_max_s)
        self.after(away, lambda: None if node.alive else node.start(saved[-1] if saved else None))

    def _pause(self) -> None:
        node = self.rng.choice(self.nodes)
        node.paused_until = self.now + self.rng.uniform(0.2, 3) * self.lease_max_s
        self.log(f"{node.name} is stopped until {node.paused_until:.2f}")

    def _lag(self) -> None:
        node = self.rng.choice(self.nodes)
        node.lag_until = self.now + self.rng.uniform(0.2, 3) * self.lease_max_s
        self.log(f"{node.name} hears nothing until {node.lag_until:.2f}")

    def _junk(self) -> None:
        """A member sends a lock request that is void, with an epoch that nobody can take seriously."""
        key, rng, nonce = self.rng.choice(self.keys), self.rng, EVIL.nonce()
        epoch = rng.choice((1, STEP_MAX, STEP_MAX + 1, STEP_MAX * rng.randint(2, 9), EPOCH_MAX))
        claim = Claim(RunId("$evil"), "d", "s", 1, "0")
        send = take(
            EVIL, nonce, key, 0, epoch, EventId("$nowhere"), claim, fresh=rng.random() < 0.5, head=None,
            takes=EPOCH_MAX,
        )  # fmt: skip
        if rng.random() < 0.3:
            send = replace(send, content={"action": "steal"})
        self.persist(EVIL.account, send, self.now)

    def _published(self) -> None:
        for node in self.nodes:
            if node.alive:
                node.soon(0.0, "wake")

    def _count_up(self, node: Node) -> None:
        if node.alive and node.place is not None and self.now >= node.paused_until:
            node.count()

    # -- what nodes see of it ----------------------------------------------------------------------

    def published(self, key: ClaimKey) -> list[RunId]:
        """The runs of a key; they are published one after the other."""
        return self._runs[key][: 1 + int(self.now / self.lease_s)]

    def outcomes(self) -> set[RunId]:
        """The runs that the room says are done."""
        return set(self._outcomes)

    def accounts(self) -> list[str]:
        """The accounts of all nodes."""
        return [node.account for node in self.nodes]

    def persist(self, account: str, send: Send, began: float) -> EventId:
        """The homeserver has an event; all who wait are told."""
        known = len(self.server.stream)
        event_id = self.server.persist(account, send, began, self.now, self.rng.randrange(65_536))
        if len(self.server.stream) > known:
            event = self.server.stream[-1]
            self.log(
                f"{event_id} is at {known + 1}: {account} {send.type.removeprefix('io.cisbot.')} {send.txn}"
            )
            if isinstance(event, Release) and event.outcome is Outcome.SUCCEEDED:
                self._outcomes.add(event.run)
            for node in self.nodes:
                node.poll()
        return event_id

    # -- the transcript ----------------------------------------------------------------------------

    def log(self, line: str) -> None:
        """Note what happened."""
        self._log.append(f"{self.now:9.3f} {line}")

    def log_send(self, node: str, send: Send) -> None:
        """Note what a node says."""
        told = ("action", "epoch", "slot", "after", "fresh", "run", "renews", "keys", "version", "value")
        what = " ".join(
            f"{k}={send.content[k]}" for k in told if send.content.get(k) not in (None, False, [])
        )
        kind = send.type.removeprefix("io.cisbot.")
        self.log(f"{node} says {kind} {send.state_key or ''} {send.txn}: {what}")

    def transcript(self) -> str:
        """What happened, the last of it."""
        return "\n".join([self._log[0], *self._log[-LOG_MAX:]])
