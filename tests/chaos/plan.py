"""The faults of a storm, and its runs, drawn from a seed: the same seed draws the same plan. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What befalls a node, or the homeserver. `for_s` of a fault is the time until it is made good again."""

    KILL = "kill"  # SIGKILL to the node, which is started again
    KILL_BOTH = "kill node and worker"  # only the worker's guard is left to kill the tasks
    KILL_STOPPED = "stop worker, kill node"  # likewise
    LOSE = "kill, delete database"
    OLD = "kill, put back old database"
    STOP_NODE = "stop node"  # SIGSTOP, then SIGCONT; so do the next
    STOP_WORKER = "stop worker"
    STOP_ALL = "stop node, worker, guard and tasks"
    DROP = "drop responses"  # the request takes effect, its answer is lost
    LATE = "late requests"  # the answer is lost at once, and the request takes effect seconds later
    DELAY = "delay"
    HANG = "hang syncs"
    GAP = "cut timelines"  # the homeserver is asked for two events at most
    CUT = "cut off"  # no connection
    SYNAPSE = "kill homeserver"
    COPY = "copy database"  # no fault: what `OLD` puts back


PROCESS = (
    Kind.KILL, Kind.KILL_BOTH, Kind.KILL_STOPPED, Kind.LOSE, Kind.OLD, Kind.STOP_NODE, Kind.STOP_WORKER,
    Kind.STOP_ALL,
)  # fmt: skip
NETWORK = (Kind.DROP, Kind.LATE, Kind.DELAY, Kind.HANG, Kind.GAP, Kind.CUT)
SEEKING = 0.7  # the part of all faults that seek a node which runs tasks
SUFFERING_MAX = 0.4  # the part of all nodes whose processes are gone or stopped at a time


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins, whom it befalls ("" for the homeserver), how long it lasts.

    With `seeks`, a node that runs tasks just then is its victim instead, if there is one.
    """

    at_s: float
    kind: Kind
    node: str
    for_s: float
    seeks: bool = False


@dataclass(frozen=True, slots=True)
class Publication:
    """One run: when it is published, and the words for it."""

    at_s: float
    words: str


def faults(seed: int, nodes: Sequence[str], seconds: float, lease_s: float) -> list[Fault]:
    """A fault of every node each lease and a quarter, of all kinds alike; the homeserver dies twice."""
    dice = random.Random(f"faults {seed}")
    found: list[Fault] = []
    busy: dict[str, float] = {}
    kinds: list[Kind] = []
    at = 0.0
    while (at := at + dice.uniform(0.6, 1.9) * lease_s / len(nodes)) < seconds:
        if not kinds:  # every kind comes before any comes again
            kinds = [*PROCESS, *NETWORK]
            dice.shuffle(kinds)
        kind, node = kinds.pop(), dice.choice(nodes)
        span = _span(kind, dice, lease_s)
        if kind in PROCESS:
            suffering = {name for name, until in busy.items() if until > at}
            free = [name for name in nodes if name not in suffering]
            if len(suffering) >= SUFFERING_MAX * len(nodes):
                kinds.insert(0, kind)
                continue
            node = dice.choice(free)
            busy[node] = at + span + lease_s / 2
        if kind is Kind.OLD:
            found.append(Fault(at * dice.uniform(0.2, 0.9), Kind.COPY, node, 0.0))
        found.append(Fault(at, kind, node, span, seeks=kind is not Kind.OLD and dice.random() < SEEKING))
    found += [
        Fault(seconds * dice.uniform(*part), Kind.SYNAPSE, "", 0.0) for part in ((0.2, 0.4), (0.6, 0.8))
    ]
    return sorted(found, key=lambda fault: fault.at_s)


def _span(kind: Kind, dice: random.Random, lease_s: float) -> float:
    if kind in (Kind.STOP_NODE, Kind.STOP_WORKER, Kind.STOP_ALL):
        return dice.uniform(1.1, 2.0) * lease_s
    if kind in (Kind.HANG, Kind.CUT):
        return dice.uniform(0.3, 1.6) * lease_s
    return dice.uniform(0.1, 1.5) * lease_s


def publications(
    seed: int, count: int, nodes: Sequence[str], seconds: float, longest_s: float
) -> list[Publication]:
    """Runs of all DAGs and scopes, some for one node; the longest task takes `longest_s`."""
    dice = random.Random(f"runs {seed}")
    found: list[Publication] = []
    for number in range(count):
        dag = dice.choice(("again", "goes-on", "goes-on", "asks", "again"))
        scope = dice.choice(("a", "b", "c", "d", "global"))
        target = dice.choice(nodes) if dice.random() < 0.1 else "any"
        words = f"!dag publish {dag} scope={scope} target={target}"
        manner = dice.choice(("mild", "stubborn"))
        words += f" seconds={dice.uniform(0.1, 1.0) ** 2 * longest_s:.2f} manner={manner}"
        found.append(Publication(seconds * number / count, words))
    return found
