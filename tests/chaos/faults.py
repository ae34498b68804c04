"""Committing faults on a cluster's processes and databases, and making them good again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterable

from tests.chaos.cluster import Cluster
from tests.chaos.plan import NETWORK, PROCESS, Fault, Kind
from tests.chaos.sink import append

_KILLS = (Kind.KILL, Kind.KILL_BOTH, Kind.KILL_STOPPED, Kind.LOSE, Kind.OLD)


class Faults:
    """What is committed, and what of it is not made good yet. Stops are written down for the checker."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster = cluster
        self._dice = random.Random(f"victims {seed}")
        self._stopped: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._down: dict[str, Kind] = {}
        self._victims: dict[Fault, str] = {}
        self.alone: list[str] = []  # nodes that ended by themselves

    def begin(self, fault: Fault) -> bool:
        """Commit a fault; False where its victim suffers already, for another fault sought it out."""
        cluster = self._cluster
        name = self._busy(fault) or fault.node
        if fault.kind in PROCESS and (name in self._down or name in self._stopped):
            return False
        self._victims[fault] = name
        if fault.kind in NETWORK:
            cluster.proxy.change(name, fault.kind, on=True)
        elif fault.kind is Kind.SYNAPSE:
            cluster.synapse.kill()
            cluster.synapse.restart()
        elif fault.kind is Kind.COPY:
            self._copy(name)
        elif fault.kind in _KILLS:
            self._kill(name, fault.kind)
        else:
            self._stop(name, fault.kind)
        return True

    def end(self, fault: Fault) -> None:
        """Make it good."""
        name = self._victims.pop(fault, "")
        if name and fault.kind in NETWORK:
            self._cluster.proxy.change(name, fault.kind, on=False)
        elif name in self._stopped:
            self._continue(name)
        elif name in self._down:
            self._restart(name)

    def _busy(self, fault: Fault) -> str | None:
        """A node that runs tasks, whose processes are left alone by other faults."""
        if not fault.seeks:
            return None
        free = [name for name in self._cluster.processes if name not in {*self._down, *self._stopped}]
        busy = [name for name in free if self._cluster.family(name).tasks]
        return self._dice.choice(busy) if busy else None

    def look(self) -> None:
        """Start again, as a service manager would, what ended by itself; such an end is remembered."""
        for name, process in self._cluster.processes.items():
            if process.poll() is not None and name not in self._down:
                said = self._cluster.log(name).splitlines()[-1:]
                self.alone.append(f"{name} ended by itself with {process.returncode}: {' '.join(said)}")
                self._cluster.start(name)

    def _kill(self, name: str, kind: Kind) -> None:
        process, family = self._cluster.processes[name], self._cluster.family(name)
        at = _now()
        if kind is Kind.KILL_STOPPED:
            _signal(family.workers, signal.SIGSTOP)
        process.kill()
        if kind is Kind.KILL_BOTH:
            _signal(family.workers, signal.SIGKILL)
        process.wait()
        self._down[name] = kind
        if kind is Kind.KILL_STOPPED:  # for ever: its guard kills it
            self._note(name, at, at + 10**12, family.workers)

    def _restart(self, name: str) -> None:
        kind, data = self._down.pop(name), self._cluster.data(name)
        copy = data.with_name("copy.db")
        if kind is Kind.LOSE or (kind is Kind.OLD and copy.exists()):
            shutil.rmtree(data)
        if kind is Kind.OLD and copy.exists():
            data.mkdir(mode=0o700)
            shutil.copy(copy, data / "node.db")
        self._cluster.start(name)

    def _copy(self, name: str) -> None:
        path = self._cluster.data(name) / "node.db"
        if not path.exists():
            return
        with (
            contextlib.closing(sqlite3.connect(path, timeout=5)) as old,
            contextlib.closing(sqlite3.connect(path.parent.with_name("copy.db"))) as new,
            contextlib.suppress(sqlite3.OperationalError),
        ):
            old.backup(new)

    def _stop(self, name: str, kind: Kind) -> None:
        process, family = self._cluster.processes[name], self._cluster.family(name)
        pids = {
            Kind.STOP_NODE: (process.pid,),
            Kind.STOP_WORKER: family.workers,
            Kind.STOP_ALL: (process.pid, *family.all),
        }[kind]
        self._stopped[name] = (_now(), pids)
        _signal(pids, signal.SIGSTOP)

    def _continue(self, name: str) -> None:
        since, pids = self._stopped.pop(name)
        self._note(name, since, _now(), pids)
        _signal(reversed(pids), signal.SIGCONT)

    def _note(self, name: str, since: int, until: int, pids: Iterable[int]) -> None:
        line = {"node": name, "from_ns": since, "until_ns": until, "pids": list(pids)}
        append(self._cluster.evidence / "stops.jsonl", line)


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    """To processes of ours, found a moment ago; such that are gone by now are none."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
