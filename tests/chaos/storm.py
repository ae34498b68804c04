"""One storm: nodes start, runs are published and faults committed by the plan, all heals, all runs end."""

from __future__ import annotations

import json
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from homeserver.config import Limits
from homeserver.synapse import Synapse
from tests.chaos import checker, plan, processes
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Faults
from tests.chaos.proxy import Proxy

Say = Callable[[str], None]
LOOK_S = 0.2
WHOSE = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


@dataclass(frozen=True)
class Wanted:
    """What kind of storm: how many runs at which pace, how many nodes, how long a lease."""

    runs: int
    seed: int
    nodes: int = 10
    lease_s: int = 12
    limits: Limits = "lifted"
    pace_s: float = 1.0  # a run each so many seconds
    patience_s: float = 120.0  # from when all is healthy again to the end of the last run

    @property
    def seconds(self) -> float:
        """How long it storms."""
        return self.runs * self.pace_s


@dataclass
class Outcome:
    """What became of it."""

    findings: list[checker.Finding] = field(default_factory=list)
    figures: dict[str, object] = field(default_factory=dict)
    alone: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """No rule was broken, no node ended by itself, no process is left."""
        return not (self.alone or self.left or any(f.broken for f in self.findings))


class Storm:
    """The hours of a storm, on a cluster that runs."""

    def __init__(self, wanted: Wanted, cluster: Cluster, say: Say) -> None:
        self.wanted, self.cluster, self.say = wanted, cluster, say
        self.faults = Faults(cluster, wanted.seed)
        self.committed: Counter[str] = Counter()
        self._published: list[str] = []
        self._ended: set[object] = set()
        self._read = 0  # bytes of what the follower wrote

    def blow(self, names: list[str]) -> None:
        """Publish and commit faults by the plan; then make all good."""
        wanted = self.wanted
        acts: list[tuple[float, Callable[[], None]]] = []
        for fault in plan.faults(wanted.seed, names, wanted.seconds, wanted.lease_s):
            acts.append((fault.at_s, partial(self._commit, fault)))
            acts.append((fault.at_s + fault.for_s, partial(self.faults.end, fault)))
        longest = wanted.lease_s * 0.3
        for run in plan.publications(wanted.seed, wanted.runs, names, wanted.seconds, longest):
            acts.append((run.at_s, partial(self._publish, run.words)))
        began, never = time.monotonic(), threading.Event()
        for at, act in sorted(acts, key=lambda one: one[0]):
            while (rest := began + at - time.monotonic()) > 0:
                never.wait(min(rest, LOOK_S))
                self._look()
            act()
        self.say(f"all nodes healthy after {time.monotonic() - began:.0f} s")

    def settle(self) -> None:
        """Wait until every run has an outcome, or patience ends: the checker tells which has none."""
        began, never = time.monotonic(), threading.Event()
        while (open_runs := self._open()) and time.monotonic() < began + self.wanted.patience_s:
            never.wait(LOOK_S)
            self._look()
        self.say(f"{len(open_runs)} runs without an outcome {time.monotonic() - began:.0f} s later")

    def _commit(self, fault: plan.Fault) -> None:
        if self.faults.begin(fault):
            self.committed[fault.kind.value] += 1

    def _publish(self, words: str) -> None:
        self._published.append(self.cluster.person.say(words))

    def _open(self) -> set[object]:
        return {run for run in self._published if run not in self._ended}

    def _look(self) -> None:
        """Note outcomes, and say yes to every question."""
        self.faults.look()
        with (self.cluster.evidence / "room.jsonl").open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        for event in map(json.loads, whole.splitlines()):
            content = event["content"]
            if content.get("outcome") not in (None, "lost"):
                self._ended.add(content.get("run"))
            block = content.get("io.cisbot")
            if isinstance(block, dict) and block.get("kind") == "ask" and "m.new_content" not in content:
                self.cluster.person.react(event["event_id"], "✅")


def run(wanted: Wanted, root: Path, say: Say) -> Outcome:
    """The whole of it: homeserver, nodes, storm, end, judgement. Nothing is left running."""
    began = time.monotonic()
    names = [f"node-{number}" for number in range(1, wanted.nodes + 1)]
    outcome = Outcome()
    with Synapse.start(root / "synapse", limits=wanted.limits) as synapse:

        def account(prefix: str, *, admin: bool = False):  # type: ignore[no-untyped-def]
            return synapse.accounts.create(prefix, "secret word", admin=admin)

        with (
            Proxy(synapse.base_url, names, wanted.seed, wanted.lease_s) as proxy,
            Cluster(synapse, account, root, proxy, wanted.lease_s) as cluster,
        ):
            synapse.accounts.lift_limits(cluster.operator.user_id, admin=account("admin", admin=True))
            cluster.begin(names)
            say(f"{wanted.nodes} nodes after {time.monotonic() - began:.0f} s")
            storm = Storm(wanted, cluster, say)
            storm.blow(names)
            storm.settle()
            cluster.end()
            befallen = dict(proxy.befallen)
    evidence = checker.load(cluster.evidence)
    outcome.findings = checker.judge(evidence)
    outcome.alone = storm.faults.alone
    outcome.left = processes.below(root)
    seen = {int(line[who]): int(line["at_ns"]) for line in evidence.record for who in ("pid", "worker")}
    outcome.left += [f"{pid} of the record" for pid, at in seen.items() if processes.lives(pid, at)]
    outcome.figures = {
        **checker.figures(evidence),
        "faults": dict(storm.committed),
        "requests befallen": befallen,
        "processes that are gone": len(seen),
        "seconds": round(time.monotonic() - began),
        "seconds of CPU": round(
            sum(resource.getrusage(who)[0] + resource.getrusage(who)[1] for who in WHOSE)
        ),
    }
    return outcome
