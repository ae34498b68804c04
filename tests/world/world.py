"""The world: a room, some machines, and virtual time."""

from __future__ import annotations

from typing import Self

from cisbot.core.dags.definition import Definition
from cisbot.core.inputs import Instant
from cisbot.core.settings import Policy
from tests.world.delays import Delays
from tests.world.machine import Machine
from tests.world.room import OPERATOR, ModelRoom

STEP_S = 0.25
ROUNDS_MAX = 200


class World:
    """Runs until nothing is left to do, or for a span of virtual time."""

    def __init__(
        self,
        dags: list[Definition],
        nodes: int = 2,
        *,
        lease_s_max: int = 600,
        policy: Policy | None = None,
        max_runs: int = 16,
        end_delay_s: float = 0.0,
        lease_s: float = 30.0,
        lag_s: float = 0.0,
    ) -> None:
        self.room = ModelRoom(lease_s_max)
        self.delays = Delays(self.room)
        self.boot = self.room.boot = 1_000.0
        self.machines = [
            Machine(
                self.room, f"node-{n + 1}", dags, policy=policy, max_runs=max_runs, delays=self.delays,
                end_delay_s=end_delay_s, lease_s=lease_s, lag_s=lag_s * (0.5 + n / nodes),
            )
            for n in range(nodes)
        ]  # fmt: skip
        for machine in self.machines:
            machine.start(self.now)
        self.settle()

    def slow(self) -> Self:
        """Tasks end when the test says so."""
        for machine in self.machines:
            machine.auto = False
        return self

    @property
    def now(self) -> Instant:
        """The present moment."""
        return Instant(self.boot, self.room.wall_ms)

    def settle(self) -> None:
        """Hand on all that is new, until nobody says anything more."""
        for _ in range(ROUNDS_MAX):
            moved = [self.deliver(), *(machine.sync(self.now) for machine in self.machines)]
            for machine in self.machines:
                if machine.alive:
                    machine.tick(self.now)
                if machine.again:
                    machine.again = False
                    machine.start(self.now)
                    moved.append(True)
            self.check()
            if not any(moved):
                return
        raise AssertionError("the nodes never come to rest")

    def deliver(self) -> bool:
        """Hand on what is under way between servers, if there are several; whether there was something."""
        return False

    def check(self) -> None:
        """After every move: no run's tasks run on two machines."""
        at = [run for machine in self.machines for run in {key[0] for key in machine.running}]
        assert len(at) == len(set(at)), f"two at once at {self.boot}: {at}"

    def wait(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.boot + seconds
        while self.boot < end:
            self.tick(STEP_S)
            self.settle()

    def tick(self, seconds: float) -> None:
        """A moment passes, and nothing is handed on yet."""
        self.boot += seconds
        self.room.boot = self.boot
        self.room.wall_ms += int(seconds * 1000)
        self.delays.fire(self.boot)

    def say(self, body: str, sender: str = OPERATOR, *, wait_s: float = 3.0) -> str:
        """A person says something; then time passes."""
        event = self.room.say(sender, body)
        self.settle()
        self.wait(wait_s)
        return event

    def react(self, target: str, key: str, sender: str = OPERATOR, *, wait_s: float = 3.0) -> None:
        """A person reacts; then time passes."""
        self.room.react(sender, target, key)
        self.settle()
        self.wait(wait_s)

    def began(self) -> list[str]:
        """All tasks that any node began, as node:task@fence."""
        return [f"{m.name}:{what}" for m in self.machines for what in m.began]
