"""Random histories of two and three servers: links are cut one way or both, nodes die, runs come from all.

At no moment two nodes run tasks of one key; once all links and nodes are back, every run ends. Seeds replay.
"""

from __future__ import annotations

import random

import pytest

from cisbot.core.dags.definition import Definition
from tests.world.machine import dag
from tests.world.room import OPERATOR
from tests.world.servers import Consistent

NODES = [(1, 1), (2, 1), (1, 2), (2, 2), (1, 1, 1), (2, 1, 2)]
STEPS = 30
ENDS_S = 600


def job(name: str, target: str) -> Definition:
    """A DAG of one task that is begun anew when its node is lost."""
    return dag(
        f"id: {name}\nscope: proj-{name}\ntarget: {target}\non_lost: rerun\ntasks:\n  a: {{shell: x}}\n"
    )


class History:
    """One random history."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        dags = [job("any", "any"), job("all", "all"), job("away", "hs2-1")]
        self.world = Consistent(
            dags, dice.choice(NODES), lease_s_max=40, delay_s=dice.choice([0.25, 0.5, 1.0])
        )
        for machine in self.world.machines:
            machine.auto = False
        self.runs: list[str] = []
        self.log: list[str] = []

    def step(self) -> None:
        """Something happens, and time passes."""
        what = self.dice.choice(
            ["publish", "publish", "end", "end", "cut", "heal", "crash", "start", "start"]
        )
        getattr(self, what)()
        self.world.wait(self.dice.choice([0.25, 1.0, 5.0, 20.0]))

    def publish(self) -> None:
        """On any server, which may be cut off."""
        server = self.dice.choice(self.world.servers)
        name = self.dice.choice(["any", "any", "away", "all"])
        self.runs.append(server.say(OPERATOR, f"!dag publish {name}"))
        self.log.append(f"publish {name} at {server.name}")

    def end(self) -> None:
        """A task that runs somewhere ends."""
        running = [(m, task) for m in self.world.machines if m.alive for _, task, _ in m.running]
        if running:
            machine, task = self.dice.choice(running)
            machine.end_task(task, self.world.now)
            self.log.append(f"end {task} on {machine.name}")

    def cut(self) -> None:
        """One direction, or all of one server."""
        one, other = self.dice.sample(self.world.servers, 2)
        if self.dice.random() < 0.5:
            self.world.links.cut(one.name, other.name)
        else:
            self.world.cut(one.name)
        self.log.append(f"cut {one.name} {other.name}")

    def heal(self) -> None:
        """One server's links are back."""
        server = self.dice.choice(self.world.servers)
        self.world.heal(server.name)
        self.log.append(f"heal {server.name}")

    def crash(self) -> None:
        """A node dies, perhaps with its database."""
        machine = self.dice.choice(self.world.machines)
        (machine.lose if self.dice.random() < 0.2 else machine.crash)()
        self.log.append(f"crash {machine.name}")

    def start(self) -> None:
        """A dead node is started again."""
        dead = [m for m in self.world.machines if not m.alive]
        if dead:
            machine = self.dice.choice(dead)
            machine.start(self.world.now, history=True)
            self.log.append(f"start {machine.name}")

    def finish(self) -> None:
        """All faults are over, and whatever runs ends."""
        world = self.world
        for server in world.servers:
            world.heal(server.name)
        while any(not m.alive for m in world.machines):
            self.start()
        for _ in range(ENDS_S):
            while any(m.running for m in world.machines):
                self.end()
            world.wait(1.0)
            if not self.left():
                return

    def left(self) -> list[str]:
        """Runs that a node could execute and still waits for."""
        return [
            f"{m.name}: {run.dag} {run.status} {run.why} {run.key}"
            for m in self.world.machines
            for run in m.coordinator.board.open_runs()
            if m.coordinator.eligible(run)
        ]


@pytest.mark.parametrize("seed", range(24))
def test_never_two_and_all_is_done_in_the_end(seed: int) -> None:
    history = History(seed)
    for _ in range(STEPS):
        history.step()
    history.finish()
    assert not history.left(), history.log
    assert not [m.halted for m in history.world.machines if m.halted], history.log
