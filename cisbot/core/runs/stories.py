"""Whose stories were read, are asked for, or can't be had just now. Pure.

A run's story are the lock events that refer to it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

from cisbot.core.ids import RunId

STORIES_MAX = 50  # asked for at once
AGAIN_S = 30.0  # after one that could not be read


class Stories:
    """What this node read of runs that it had not followed."""

    def __init__(self) -> None:
        self._read: set[RunId] = set()
        self._not_before: dict[RunId, float] = {}  # asked for again; infinity: the answer is on its way

    def unread(self, runs: set[RunId]) -> set[RunId]:
        """Those of the runs that may be over without this node's knowledge."""
        return runs - self._read

    def to_ask(self, wanted: Collection[RunId], now: float) -> list[RunId]:
        """Whose story is to be asked for now, of those that are wanted."""
        if not wanted:
            return []
        free = STORIES_MAX - sum(at == math.inf for at in self._not_before.values())
        due = [run for run in dict.fromkeys(wanted) if run not in self._not_before][: max(0, free)]
        self._not_before.update(dict.fromkeys(due, math.inf))
        return due

    def answered(self, run: RunId, *, good: bool, now: float) -> None:
        """It is read; or it could not be, and is asked for again in a while."""
        if good:
            self._read.add(run)
            self._not_before.pop(run, None)
        else:
            self._not_before[run] = now + AGAIN_S

    def passed(self, now: float) -> None:
        """What could not be read a while ago may be asked for again."""
        if self._not_before:
            self._not_before = {run: at for run, at in self._not_before.items() if at > now}

    def missed(self, run: RunId) -> None:
        """More of it went unseen: what was read is not all."""
        self._read.discard(run)

    def forget(self, runs: Iterable[RunId]) -> None:
        """These runs are over and gone."""
        for run in runs:
            self._read.discard(run)
            self._not_before.pop(run, None)

    def deadline(self) -> float | None:
        """When `passed` has something to do."""
        if not self._not_before:
            return None
        return min((at for at in self._not_before.values() if at < math.inf), default=None)
