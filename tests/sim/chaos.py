"""Disasters: what happens to machines and to the homeserver, and when. Drawn from the seed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cisbot.core.claims.messages import Claim, Me, take
from cisbot.core.ids import EventId, Incarnation, NodeId, RunId, UserId
from cisbot.core.room.wire import EPOCH_MAX
from cisbot.core.scopes import claim_key, lock_key, parse_scope
from tests.sim.plan import DAGS

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

STEP_MAX = 1_000
BACKUP_S = 3.0
EVIL = UserId("@evil:hs")


class Chaos:
    """Strikes at random until the calm."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._evil = Me(NodeId("evil"), EVIL, Incarnation("evil"))

    def plan(self) -> None:
        """Put all strikes into the world's calendar."""
        world, faults = self._world, self._world.plan.faults
        for every, strike in (
            (faults.crash_s, self._crash),
            (faults.pause_s, self._pause),
            (faults.suspend_s, self._suspend),
            (faults.lag_s, self._lag),
            (faults.clock_s, self._clock),
            (faults.down_s, self._down),
            (faults.junk_s, self._junk),
            (faults.cut_s if world.plan.abroad else 0.0, self._cut),
            (BACKUP_S, self._backup),
        ):
            at = 0.0
            while every and (at := at + world.rng.expovariate(1 / every)) < world.plan.chaos_s:
                world.after(at, strike)

    def _one(self) -> Machine:
        return self._world.rng.choice(self._world.machines)

    def _crash(self) -> None:
        machine, rng = self._one(), self._world.rng
        if machine.process is None:
            return
        if rng.random() < 0.5:
            machine.crash_after = rng.randint(1, 6)  # in the middle of what comes next
        else:
            machine.crash()

    def _pause(self) -> None:
        machine, seconds = self._one(), self._world.rng.uniform(0.2, 2.5) * self._world.plan.lease_max_s
        machine.pause(seconds)
        self._world.log("{} is stopped for {:.2f} s, its workers are not", machine.name, seconds)

    def _suspend(self) -> None:
        machine, seconds = self._one(), self._world.rng.uniform(0.2, 2.5) * self._world.plan.lease_max_s
        machine.suspend(seconds)
        self._world.log("{} sleeps for {:.2f} s", machine.name, seconds)

    def _lag(self) -> None:
        machine, seconds = self._one(), self._world.rng.uniform(0.2, 2.5) * self._world.plan.lease_max_s
        machine.lag_until = self._world.now + seconds
        self._world.log("{} hears nothing for {:.2f} s", machine.name, seconds)

    def _clock(self) -> None:
        step_ms = self._world.rng.choice((-30_000, -2_000, 2_000, 30_000))
        if self._world.rng.random() < 0.5:
            self._world.server.clock_ms += step_ms
            self._world.log("the homeserver's clock is set by {} ms", step_ms)
        else:
            machine = self._one()
            machine.wall_off_ms += step_ms
            self._world.log("{}'s clock is set by {} ms", machine.name, step_ms)

    def _down(self) -> None:
        seconds = self._world.rng.uniform(0.2, 1.5) * self._world.plan.lease_max_s
        self._world.down_until = self._world.now + seconds
        self._world.log("the homeserver is away for {:.2f} s", seconds)

    def _cut(self) -> None:
        """Two servers don't hear each other for a while, or only one the other."""
        rng, world = self._world.rng, self._world
        one, two = (server.name for server in rng.sample(world.servers, 2))
        world.links.cut((one, two))
        if rng.random() < 0.7:
            world.links.cut((two, one))
        seconds = rng.uniform(0.2, 2.5) * world.plan.lease_max_s
        world.log("{} and {} are apart for {:.2f} s", one, two, seconds)
        world.after(seconds, world.links.heal)

    def _backup(self) -> None:
        """Somebody copies a database, to put it back one day."""
        machine = self._one()
        machine.backup = machine.database.copy()

    def _junk(self) -> None:
        """A member sends a lock request that is void, with an epoch that nobody can take seriously."""
        rng, nonce = self._world.rng, self._evil.nonce()
        dag = DAGS[rng.choice([dag for _, dag in self._world.plan.runs])]
        scope = parse_scope(dag.scope or "")
        key = rng.choice((claim_key(dag.id, scope, exclusive=False), *map(lock_key, dag.locks)))
        epoch = rng.choice((1, STEP_MAX, STEP_MAX + 1, STEP_MAX * rng.randint(2, 9), EPOCH_MAX))
        claim = Claim(RunId("$evil"), "d", "s", 1, "0")
        send = take(
            self._evil, nonce, key, 0, epoch, EventId("$nowhere"), claim, fresh=rng.random() < 0.5, head=None,
            takes=EPOCH_MAX,
        )  # fmt: skip
        if rng.random() < 0.3:
            send = replace(send, content={"action": "steal"})
        self._world.persist(EVIL, send, self._world.now)
