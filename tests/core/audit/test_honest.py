"""Honest histories, forks read in another order than the stream's among them: never an inconsistency."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cisbot.core.audit.examine import audit
from cisbot.core.audit.found import Breach, Reading, Report
from cisbot.core.audit.order import forked
from cisbot.core.room.events import ClaimEvent, Outcome, Rejected, Restate, RoomEvent
from tests.core.audit.history import LEASE_S, History
from tests.sim.mutants import MUTANTS, without
from tests.sim.plan import CALM, HARD, MILD, Size
from tests.sim.violation import Violation
from tests.sim.world import World

NODES = ("a", "b", "c")


class Honest:
    """Three nodes and one key: each does only what an honest one may."""

    def __init__(self) -> None:
        self.history = History(*NODES)
        self.lives = dict.fromkeys(NODES, 1)
        self.lost: list[tuple[str, int, str, int]] = []  # holds whose node has not noticed yet
        self.signed_ms = 0
        self.runs = 0

    def act(self, what: str, name: str, other: str, swapped: bool) -> None:
        """One thing; nothing where it may not."""
        holders = self.history.head().holders
        holder = holders[0] if holders else None
        mine = holder is not None and holder.node == name and self.fresh
        free = holder is None or not self.fresh
        match what:
            case "take" if free:
                self._take(name, other if other != name else None, swapped)
            case "beat" if mine and holder is not None:
                self._fork(name, holder.epoch, other, swapped)
            case "release" if mine and holder is not None:
                self.history.say(name, holder.epoch, run=holder.run)
                self.history.release(name, holder.epoch, run=holder.run, life=self.lives[name])
                self.history.say(name, holder.epoch, "succeeded", holder.run)
            case "give back" if mine and holder is not None:
                self.history.release(name, holder.epoch, None, holder.run, life=self.lives[name])
            case "probe":
                self.history.probe(name, life=self.lives[name])
            case "restart":
                self.history.end(name, self.lives[name])
                self.lives[name] += 1
                self.history.record(name, life=self.lives[name])
                self.lost = [lost for lost in self.lost if lost[0] != name]
            case "notice" if self.lost:
                node, epoch, run, life = self.lost.pop()
                self.history.release(node, epoch, Outcome.LOST, run, life=life)
            case "wait":
                self.history.wait(LEASE_S)
            case _:
                pass

    @property
    def fresh(self) -> bool:
        """Whether the holder's lease runs."""
        return self.history.ms + 5_000 < self.signed_ms + LEASE_S * 1000

    def _take(self, name: str, rival: str | None, swapped: bool) -> None:
        seen = self.history.head()
        self.lost += [(h.node, h.epoch, h.run, int(h.incarnation[2:])) for h in seen.holders]
        if not seen.holders:
            self.runs += 1
        run = seen.holders[0].run if seen.holders else f"$run{self.runs}"
        won = self.history.take(name, run, life=self.lives[name])
        self.signed_ms = self.history.ms
        if rival is not None:
            void = self.history.take(rival, run, seen=seen, life=self.lives[rival])
            self.history.beat(name, won.epoch, life=self.lives[name])
            if swapped:
                self.history.swap(won, void)

    def _fork(self, name: str, epoch: int, other: str, swapped: bool) -> None:
        """The renewal forks from a probe."""
        beat = self.history.beat(name, epoch, life=self.lives[name])
        self.signed_ms = self.history.ms
        if other != name:
            probe = self.history.probe(other, life=self.lives[other])
            self.history.beat(other, 0, life=self.lives[other])
            if swapped:
                self.history.swap(beat, probe)


ACTS = ("take", "take", "beat", "beat", "release", "give back", "probe", "restart", "notice", "wait")
STEPS = st.tuples(
    st.sampled_from(ACTS), st.sampled_from(NODES), st.sampled_from(NODES), st.booleans()
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
@example(
    [("take", "c", "a", False), ("beat", "c", "a", True), ("wait", "a", "a", False), ("take", "a", "b", True)]
)
def test_honest_nodes_are_never_accused(steps: list[tuple[str, str, str, bool]]) -> None:
    honest = Honest()
    for what, name, other, swapped in steps:
        honest.act(what, name, other, swapped)
    report = honest.history.report()
    assert report.breaches == ()
    true = [holder.epoch for holder in honest.history.head().holders]
    assert [hold.epoch for hold in report.holds if hold.until_ms is None] == true


# -- the simulator's histories: whole nodes under faults -----------------------------------------------


def simulated(seed: int) -> tuple[list[RoomEvent | Rejected], tuple[RoomEvent | Rejected, ...], int]:
    """The stream, the state where it must tell the truth, and the time. The clocks are not set: leases are so
    short here that a step of 2 s looks like a takeover that came too early.
    """
    faults = replace((CALM, MILD, HARD)[seed % 3], clock_s=0.0)
    world = World(seed, Size.SMALL, lambda plan: replace(plan, faults=faults))
    world.run()
    stated = [found.event for found in world.server.state.values()] if seed % 3 == 0 else []
    return list(world.server.stream), tuple(stated), world.server.clock_ms + int(world.now * 1000)


def read(events: Iterable[RoomEvent | Rejected], state: tuple[RoomEvent | Rejected, ...], ms: int) -> Report:
    return audit(Reading(tuple(events), state, True, ms))


def as_listed(stream: list[RoomEvent | Rejected], rng: random.Random) -> list[RoomEvent | Rejected]:
    """Some neighbours that forked are told the other way round, as a homeserver may."""
    line = list(stream)
    for n in range(len(line) - 1):
        one, other = line[n], line[n + 1]
        if not isinstance(one, ClaimEvent | Restate) or not isinstance(other, ClaimEvent | Restate):
            continue
        if abs(one.ts_ms - other.ts_ms) < 60 and forked(one, other) and rng.random() < 0.5:
            line[n], line[n + 1] = other, one
    return line


@pytest.mark.parametrize("piece", range(4))
def test_simulated_nodes_are_never_accused(piece: int) -> None:
    for seed in range(piece * 30, (piece + 1) * 30):
        stream, state, ms = simulated(seed)
        true = read(stream, state, ms)
        assert true.breaches == (), seed
        listed = read(as_listed(stream, random.Random(seed)), state, ms)
        assert listed.breaches == (), seed
        assert {hold.event for hold in listed.holds} == {hold.event for hold in true.holds}, seed
        assert {void.event for void in listed.voids} == {void.event for void in true.voids}, seed


def test_a_cluster_without_compare_and_set_is_accused() -> None:
    """Nodes that accept any take carry heads that are not the rule's."""
    accused: set[Breach] = set()
    for seed in range(40):
        with without("after"), suppress(Violation):
            world = World(seed, Size.SMALL, MUTANTS["after"].focus)
            world.run()
        report = read(world.server.stream, (), world.server.clock_ms + int(world.now * 1000))
        accused |= {Breach(finding.kind) for finding in report.breaches}
    assert Breach.HEAD_DIFFERS in accused
