"""`make bench-claims`: what a claim costs, in time as ratios to one state PUT's echo, and in events.

Every node is a process of its own, on one real Synapse without rate limits. The last line is one JSON
object:

- `one`, `ten`, `fifty`: for so many matching nodes, the median time from the arrival of the publishing
  message at the winner to the start of its first task in a warm worker, divided by the median echo of one
  state PUT, measured in the same room between the publications.
- `events_one`, `events_fifty`: intents and lock requests, restates and void ones too, for each claim.
- `takeover_leases`: from SIGKILL right after a sign of life (the worst moment) to the task's start
  elsewhere, in leases.
- `takeover_delayed_s`: from SIGKILL to that start in seconds, with a delayed end of 4 s armed.
- `claims_per_s`: claims of ten nodes a second, while all is published at once.

What was not measured is null.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from homeserver.accounts import Account
from homeserver.demo.person import Event
from homeserver.synapse import Synapse
from tests.bench.echo import Yardstick
from tests.bench.steps import Start, Traces
from tests.integration.nodes import LOCK, Nodes

INTENT = "io.cisbot.intent"
STARTED_AT_ONCE = 8  # node processes that start at the same time
WARM_RUNS = 3  # before what is measured
TAKEOVER_LEASE_S = 10
TAKEOVERS = 3
LEASE_S = 300  # the default
END_DELAY_S = 4
END_DELAY = "CISBOT_COORDINATOR__END_DELAY"
BURST = 60
ONE_TASK = "scope: proj-a\ntasks: {a: {shell: 'true'}}\n"
QUIET_S = 0.5
KEYS = (
    *("one", "ten", "fifty", "takeover_leases", "takeover_delayed_s"),
    *("events_one", "events_fifty", "claims_per_s"),
)
SIZES = {"one": 1, "ten": 10, "fifty": 50}


@dataclass(frozen=True, slots=True)
class Contention:
    """What so many matching nodes came to."""

    ratio: float
    events: float


class Bench:
    """One Synapse, and a room with fresh accounts for every question."""

    def __init__(self, synapse: Synapse, root: Path) -> None:
        self._synapse, self._root = synapse, root

    def account(self, prefix: str, *, admin: bool = False) -> Account:
        """A fresh account."""
        return self._synapse.accounts.create(f"{prefix}-{secrets.token_hex(4)}", "secret word", admin=admin)

    @contextmanager
    def cluster(
        self, size: int, lease_s: int, dags: dict[str, str], *, warm: bool = False
    ) -> Iterator[Nodes]:
        """So many running nodes, all of which know the DAGs; if `warm`, with a worker for `proj-a`.

        Some start at a time: the more bots there are, the longer all that they say takes.
        """
        folder = Path(tempfile.mkdtemp(dir=self._root))
        with Nodes(self._synapse, self.account, folder, lease_s=lease_s, traced=True) as nodes:
            names = [f"node-{number}" for number in range(1, size + 1)]
            warming = {f"warm-{number}": ONE_TASK for number in range(STARTED_AT_ONCE if warm else 0)}
            for name, text in (dags | warming).items():
                nodes.write_dag(name, text)
            nodes.accounts = {name: self.account(name) for name in names}
            nodes.make_room()
            for first in range(0, size, STARTED_AT_ONCE):
                some = names[first : first + STARTED_AT_ONCE]
                for name in some:
                    nodes.write_settings(name)
                    nodes.start(name)
                for name in some:
                    nodes.joined(name)
                if warm:  # each by a DAG of its own, so that none waits for another
                    said = [f"!dag publish warm-{n} target={name}" for n, name in enumerate(some)]
                    for run in [nodes.person.say(text) for text in said]:
                        nodes.reply(run, "succeeded on", 120)
            yield nodes

    def contention(self, size: int, runs: int) -> Contention:
        """Runs that all nodes match, one after the other, beside echoes."""
        with self.cluster(size, LEASE_S, {"job": ONE_TASK}, warm=True) as nodes:
            yardstick = Yardstick(self._synapse.base_url, nodes.operator, nodes.room)
            published: list[str] = []
            first = 0
            for number in range(WARM_RUNS + runs):
                if number == WARM_RUNS:
                    first = len(nodes.person.events)
                    yardstick.puts.clear()
                quiet(nodes)
                yardstick.put()
                quiet(nodes)
                published.append(run := nodes.person.say("!dag publish job"))
                nodes.reply(run, "succeeded on", 60)
            quiet(nodes)
            events = claiming(nodes.person.events[first:])
            traces = Traces({name: nodes.trace(name) for name in nodes.accounts})
            found = traces.starts(published[WARM_RUNS:])
            return summary(size, found, traces.echoes(yardstick.puts), events)

    def takeovers(self, lease_s: int, end_delay_s: int) -> float:
        """The median of some takeovers, in seconds; the holder is killed at the worst moment.

        Without a delayed end that is right after it renewed. With one it is whenever it runs: it says nothing
        then, but has the homeserver begin the delay anew each third of it.
        """
        with environment(END_DELAY, end_delay_s), self.cluster(3, lease_s, {}) as nodes:
            nodes.write_dag("long", nodes.job("sleep 600", "scope: proj-a\non_lost: resume"))
            found = []
            for number in range(TAKEOVERS):
                before = len(nodes.marks())
                run = nodes.person.say("!dag publish long")
                holder = nodes.marks(before + 1)[-1][1]
                if not end_delay_s:
                    nodes.person.wait(f"a renewal by {holder}", renewal_of(holder, run))
                nodes.kill(holder)
                killed = time.monotonic()
                nodes.marks(before + 2)
                found.append(time.monotonic() - killed)
                nodes.person.react(run, "❌")
                nodes.outcome(run)
                if number + 1 < TAKEOVERS:
                    said = len(nodes.person.events)
                    nodes.start(holder)
                    nodes.person.wait(
                        f"{holder} to be back", partial(joined_after, nodes.person.events, said, holder)
                    )
            print(
                f"takeover after SIGKILL, lease {lease_s} s, delayed end {end_delay_s} s: {listed(found)} s"
            )
            return statistics.median(found)

    def burst(self) -> float:
        """Claims a second of ten nodes, from the first publication to the last claim."""
        names = [f"job-{number}" for number in range(BURST)]
        with self.cluster(10, LEASE_S, dict.fromkeys(names, ONE_TASK)) as nodes:
            quiet(nodes)
            began = time.monotonic()
            with ThreadPoolExecutor(4) as threads:
                runs = list(threads.map(lambda name: nodes.person.say(f"!dag publish {name}"), names))
            for run in runs:
                nodes.person.wait(f"a claim of {run}", partial(takes_run, run))
            return BURST / (time.monotonic() - began)


@contextmanager
def environment(name: str, value: float) -> Iterator[None]:
    """What is started meanwhile has this in its environment."""
    os.environ[name] = str(value)
    yield
    os.environ.pop(name, None)


def quiet(nodes: Nodes) -> None:
    """Wait until nothing was said for `QUIET_S`: every node has everything then."""
    pause, seen = threading.Event(), -1
    while seen != (seen := len(nodes.person.events)):
        pause.wait(QUIET_S)


def content_of(event: Event) -> dict[str, object]:
    """Its content."""
    content = event.get("content")
    return content if isinstance(content, dict) else {}


def takes(event: Event) -> object:
    """The run that a lock request asks for."""
    content = content_of(event)
    return content.get("run") if event.get("type") == LOCK and content.get("action") == "take" else None


def takes_run(run: str, event: Event) -> bool:
    """Whether it is a lock request for that run."""
    return takes(event) == run


def claiming(events: list[Event]) -> float:
    """Intents, takes and restates, for each run."""
    acts = [content_of(e).get("action") for e in events if e.get("type") == LOCK]
    intents = sum(e.get("type") == INTENT and "nonce" in content_of(e) for e in events)
    runs = {takes(e) for e in events} - {None}
    return (intents + acts.count("take") + acts.count("restate")) / len(runs)


def renewal_of(holder: str, run: str) -> Callable[[Event], bool]:
    """Whether an event is a heartbeat by which the node renews its claim on the run, after its take."""
    taken = False

    def match(event: Event) -> bool:
        nonlocal taken
        taken = taken or takes(event) == run
        beat = event.get("type") == "io.cisbot.heartbeat" and content_of(event).get("node") == holder
        return taken and beat and bool(content_of(event).get("renews"))

    return match


def summary(size: int, found: list[Start], echoes: list[float], events: float) -> Contention:
    """The ratio, and a line that tells what it is made of."""
    echo, whole = statistics.median(echoes), statistics.median(start.whole for start in found)
    parts = [[s.to_take for s in found], [s.to_win for s in found], [s.to_task for s in found]]
    said = ", ".join(
        f"{name} {statistics.median(part) * 1000:.1f}"
        for name, part in zip(("to the take", "to the win", "to the task"), parts, strict=True)
    )
    print(
        f"{size} matching: arrival to task {whole * 1000:.1f} ms ({said}); "
        f"echo {echo * 1000:.1f} ms; ratio {whole / echo:.2f}; {events:.2f} events a claim; "
        f"{len(found)} runs on {len({s.node for s in found})} nodes"
    )
    return Contention(whole / echo, events)


def joined_after(events: list[Event], said: int, name: str, event: Event) -> bool:
    """Whether it is the node's record and came after so many events."""
    content = content_of(event)
    record = event.get("type") == "io.cisbot.node" and content.get("id") == name and not content.get("gone")
    return record and any(event is late for late in events[said:])


def listed(values: list[float]) -> str:
    """Numbers for people."""
    return ", ".join(f"{value:.2f}" for value in values)


def main(argv: list[str]) -> int:
    """Measure what is asked for, and print it."""
    parser = argparse.ArgumentParser(prog="tests.bench.claims")
    parts = [*SIZES, "takeover", "burst"]
    parser.add_argument("--only", nargs="*", choices=parts, default=parts)
    parser.add_argument("--runs", type=int, default=30)
    options = parser.parse_args(argv)
    os.environ["CISBOT_COORDINATOR__WORKER_IDLE_TIMEOUT"] = "300"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or else the nodes would outlive us
    result: dict[str, float | None] = dict.fromkeys(KEYS)
    with (
        tempfile.TemporaryDirectory() as folder,
        Synapse.start(Path(folder) / "synapse", limits="lifted") as synapse,
    ):
        bench = Bench(synapse, Path(folder))
        for name, size in SIZES.items():
            if name in options.only:
                found = bench.contention(size, options.runs)
                result[name] = found.ratio
                if f"events_{name}" in result:
                    result[f"events_{name}"] = found.events
        if "takeover" in options.only:
            result["takeover_leases"] = bench.takeovers(TAKEOVER_LEASE_S, 0) / TAKEOVER_LEASE_S
            result["takeover_delayed_s"] = bench.takeovers(LEASE_S, END_DELAY_S)
        if "burst" in options.only:
            result["claims_per_s"] = bench.burst()
    print(json.dumps({key: None if value is None else round(value, 2) for key, value in result.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
