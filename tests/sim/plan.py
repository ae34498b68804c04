"""What one history is made of, drawn from its seed: sizes, leases, DAGs, faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from cisbot.core.dags.definition import Definition
from cisbot.core.dags.parse import parse


def _dag(text: str) -> Definition:
    parsed = parse(text, "sim")
    assert isinstance(parsed, Definition), parsed
    return parsed


DAGS: dict[str, Definition] = {
    str(dag.id): dag
    for dag in (
        _dag("id: again\non_lost: rerun\nidempotent: true\nscope: proj-a\ntasks:\n  a: {shell: 'true'}\n"),
        _dag(
            "id: steps\non_lost: resume\nscope: proj-a\n"
            "tasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n"
        ),
        _dag("id: asks\nscope: proj-a\ntasks:\n  a: {shell: 'true'}\n"),
        _dag("id: one\non_lost: rerun\nidempotent: true\nscope: global\ntasks:\n  a: {shell: 'true'}\n"),
        _dag(
            "id: pair\non_lost: rerun\nidempotent: true\nscope: proj-a\noverlap: {allow: 2}\n"
            "tasks:\n  a: {shell: 'true'}\n"
        ),
        _dag(
            "id: left\non_lost: rerun\nidempotent: true\nscope: proj-a\nlocks: [middle, left]\n"
            "tasks:\n  a: {shell: 'true'}\n"
        ),
        _dag(
            "id: right\non_lost: resume\nscope: proj-b\nlocks: [middle, right]\n"
            "tasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n"
        ),
        _dag(
            "id: both\non_lost: rerun\nidempotent: true\nscope: global\nlocks: [right, middle]\n"
            "tasks:\n  a: {shell: 'true'}\n"
        ),
        _dag("id: two\non_lost: resume\nscope: global\ntasks:\n  a: {shell: 'true'}\n"),
    )
}
COMMON = ("again", "again", "steps", "asks")
LOCKING = ("left", "right", "right", "both")


@dataclass(frozen=True, slots=True)
class Faults:
    """How often something goes wrong: probability a request, mean seconds between disasters (0: never)."""

    request_lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    limited: float = 0.0
    sync_lost: float = 0.0
    gap: float = 0.0
    read_lost: float = 0.0
    crash_s: float = 0.0
    pause_s: float = 0.0
    suspend_s: float = 0.0
    lag_s: float = 0.0
    clock_s: float = 0.0
    down_s: float = 0.0
    junk_s: float = 0.0
    cut_s: float = 0.0


CALM = Faults()
MILD = Faults(0.01, 0.02, 0.01, 0.03, 0.05, 0.005, 0.02, 40.0, 60.0, 90.0, 60.0, 60.0, 90.0)
HARD = Faults(0.05, 0.05, 0.05, 0.10, 0.10, 0.05, 0.05, 12.0, 15.0, 30.0, 15.0, 30.0, 40.0, cut_s=12.0)
HOSTILE = replace(HARD, junk_s=4.0)


class Size(StrEnum):
    """How large histories are: most are small, for what breaks in large ones mostly breaks in small ones."""

    SMALL = "small"
    MIDDLE = "middle"
    LARGE = "large"  # 50 nodes


@dataclass(frozen=True, slots=True)
class Plan:
    """One history: `runs` are (seconds, DAG) of what is published."""

    nodes: int
    lease_s: int
    lease_max_s: int
    runs: tuple[tuple[float, str], ...]
    faults: Faults
    chaos_s: float
    task_leases: float  # the longest that a task takes
    end_delay_s: float  # of the delayed end; 0: the homeserver has none
    abroad: int  # servers beside the room's home
    counts: int  # increments of a counter in the public memory


Focus = Callable[[Plan], Plan]


def draw(rng: random.Random, size: Size) -> Plan:
    """A plan of that size."""
    lease = rng.choice((3, 6))
    longest = lease * rng.choice((1, 1, 2))
    match size:
        case Size.SMALL:
            nodes, runs = rng.choice((2, 2, 2, 2, 2, 2, 3, 4)), rng.choice((1, 1, 1, 1, 2))
            chaos = rng.uniform(1.0, 2.6) * lease
            faults = rng.choice((HARD, HARD, HARD, HOSTILE, MILD))
        case Size.MIDDLE:
            nodes, runs, chaos = rng.randint(2, 5), rng.randint(2, 5), rng.uniform(15, 40)
            faults = rng.choice((CALM, MILD, HARD, HARD, HOSTILE))
        case Size.LARGE:
            nodes, runs, chaos = 50, 1, rng.uniform(2, 6)
            faults = rng.choice((CALM, MILD, MILD))
    alone = (rng.choice(COMMON),)
    # Locks cost events, so they are in one history of twenty.
    others = (*[("one", "two")] * 5, *[alone] * 3, ("pair",), ("pair",), LOCKING)
    some = rng.choice((*[COMMON] * 9, *others))
    published = tuple(sorted((rng.uniform(0.3, 0.3 + 0.5 * chaos), rng.choice(some)) for _ in range(runs)))
    counts = 0 if size is Size.LARGE else rng.choice((0, 0, 2, 4))
    longest_task = rng.choice((1.0, 1.0, 3.0))
    end_delay_s = 0.0 if size is Size.LARGE else rng.choice((0.0, 0.0, 0.0, lease / 2))
    abroad = 0 if size is Size.LARGE else rng.choice((0, 0, 0, 0, 0, 0, 0, 1, 1, 2))
    return Plan(
        max(nodes, abroad + 1), lease, longest, published, faults, chaos, longest_task, end_delay_s, abroad,
        counts,
    )  # fmt: skip
