"""Hypothesis drives the same model: it looks for the shortest story that breaks a rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from cisbot.core.ids import RunId
from cisbot.core.runs.state import RunStatus
from tests.sim.machine import Machine
from tests.sim.plan import DAGS
from tests.sim.script import ANY, HEARTBEAT, LOCK, Story
from tests.sim.violation import Violation

LEASE_S = 6
dags = st.sampled_from(sorted(DAGS))
tasks_s = st.sampled_from((0.3, 9.0, 20.0))
numbers = st.integers(0, 2)
whiles = st.sampled_from((0.3, 2.0, 5.0, 7.0, 14.0))  # below, about and above a lease
thens = st.sampled_from((0.0, 0.1, 0.5, 2.0, 4.0, 7.0))
kinds = st.sampled_from((ANY, LOCK, HEARTBEAT))


def happening(*given: st.SearchStrategy[object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A rule after which some time passes; the last that is drawn says how long."""

    def made(act: Callable[..., None]) -> Callable[..., None]:
        def acted(cluster: Cluster, drawn: tuple[object, ...]) -> None:
            act(cluster, *drawn[:-1])
            seconds = drawn[-1]
            assert isinstance(seconds, float)
            cluster.story.passes(seconds)

        acted.__name__ = act.__name__
        return rule(drawn=st.tuples(*given, thens))(acted)

    return made


class Cluster(RuleBasedStateMachine):
    """Three nodes and all that can happen to them. The checkers watch every step."""

    story: Story

    @initialize(seed=st.integers(0, 255), dag=dags, task_s=tasks_s)
    def opens(self, seed: int, dag: str, task_s: float) -> None:
        """A room, three nodes that know each other, and a run."""
        self.story = Story(seed, 3, LEASE_S)
        self.story.start(*self.story.machines)
        self.story.task_s = task_s
        self.story.publish(dag)
        self.story.passes(0.5)

    def machine(self, number: int) -> Machine:
        """One of them."""
        return self.story.machines[number]

    @rule(seconds=st.sampled_from((0.02, 0.1, 0.5, 2.0, 7.0)))
    def passes(self, seconds: float) -> None:
        """Time goes by."""
        self.story.passes(seconds)

    @happening(dags, tasks_s)
    def publish(self, dag: str, task_s: float) -> None:
        """A run is published; its tasks take so long."""
        self.story.task_s = task_s
        self.story.publish(dag)

    @happening(numbers)
    def increment(self, number: int) -> None:
        """A task counts in the public memory."""
        self.story.counter.increment(self.machine(number))

    @happening(numbers)
    def crash(self, number: int) -> None:
        """A process is killed; its database stays."""
        self.story.crash(self.machine(number))

    @happening(numbers, st.integers(1, 6))
    def crash_soon(self, number: int, effects: int) -> None:
        """A process is killed in the middle of what comes next."""
        self.machine(number).crash_after = effects

    @happening(numbers)
    def lose_database(self, number: int) -> None:
        """A process is killed and its database is gone."""
        self.story.crash(self.machine(number), database=False)

    @happening(numbers)
    def keep_copy(self, number: int) -> None:
        """Somebody copies a database."""
        self.machine(number).backup = self.machine(number).database.copy()

    @happening(numbers)
    def put_back(self, number: int) -> None:
        """A process is killed and the copy of its database is put back."""
        machine = self.machine(number)
        if machine.backup is not None:
            self.story.crash(machine)
            machine.database.tables = {table: dict(rows) for table, rows in machine.backup.items()}

    @happening(numbers)
    def start(self, number: int) -> None:
        """A process is started, if none is alive."""
        self.machine(number).start()

    @happening(numbers, whiles)
    def pause(self, number: int, seconds: float) -> None:
        """A node is stopped; its tasks are not."""
        self.machine(number).pause(seconds)

    @happening(numbers, whiles)
    def suspend(self, number: int, seconds: float) -> None:
        """A machine sleeps."""
        self.machine(number).suspend(seconds)

    @happening(numbers, whiles)
    def lag(self, number: int, seconds: float) -> None:
        """A node hears nothing."""
        self.machine(number).lag_until = self.story.now + seconds

    @happening(numbers, st.integers(1, 4))
    def gap(self, number: int, only: int) -> None:
        """Of what a node hears next it hears the last few events only."""
        self.machine(number).keeps = only

    @happening(numbers, kinds)
    def lose(self, number: int, kind: str) -> None:
        """A request never arrives."""
        self.story.lose(self.machine(number), kind)

    @happening(numbers, kinds)
    def lose_answer(self, number: int, kind: str) -> None:
        """A request takes effect, and its sender never learns so."""
        self.story.lose_answer(self.machine(number), kind)

    @happening(numbers, kinds, whiles)
    def delay(self, number: int, kind: str, seconds: float) -> None:
        """A request is late."""
        self.story.delay(self.machine(number), kind, seconds)

    @happening(whiles)
    def away(self, seconds: float) -> None:
        """The homeserver is away."""
        self.story.down_until = self.story.now + seconds

    @happening(st.sampled_from((-30_000, 30_000)), st.none() | numbers)
    def set_clock(self, ms: int, number: int | None) -> None:
        """The homeserver's clock is set, or a machine's."""
        if number is None:
            self.story.server.clock_ms += ms
        else:
            self.machine(number).wall_off_ms += ms

    @happening(dags)
    def stranger(self, dag: str) -> None:
        """A member who is no node sends a void lock request."""
        self.story.stranger_takes(dag)

    @precondition(lambda self: self.lost())
    @rule()
    def approve(self) -> None:
        """The operator has a lost run taken up again."""
        self.story.approve(self.lost()[0])

    def lost(self) -> list[RunId]:
        """Runs about which somebody is asked."""
        alive = [m.process.coordinator.board for m in self.story.machines if m.process is not None]
        return [r.id for board in alive for r in board.open_runs() if r.status is RunStatus.LOST and r.asked]

    @invariant()
    def one_at_once(self) -> None:
        """No run is executed twice at once."""
        living = [attempt for attempt, _ in self.story.checkers.attempts if attempt.alive()]
        if len({(a.run, a.node) for a in living}) > len({a.run for a in living}):
            raise Violation(f"{living}: two at once")

    @override
    def teardown(self) -> None:
        """The faults end: everything gets done."""
        if hasattr(self, "story"):
            self.story.ends()


Cluster.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=30,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestCluster = pytest.mark.long(Cluster.TestCase)
