"""What the nodes' traces tell: from a run's message to its first task, and from a PUT to each node."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

Line = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Start:
    """One claim, in seconds: arrival to the last lock request, that to its win, that to the first task."""

    node: str
    to_take: float
    to_win: float
    to_task: float

    @property
    def whole(self) -> float:
        """From the message's arrival at the node to its first task's start."""
        return self.to_take + self.to_win + self.to_task


class Traces:
    """What every node wrote, by its name."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._steps: dict[str, list[Line]] = {
            node: [json.loads(line) for line in path.open()] for node, path in files.items()
        }

    def starts(self, runs: Iterable[str]) -> list[Start]:
        """The start of every run, on the node that won it. Raises `AssertionError` for a run without one."""
        found = []
        for run in runs:
            starts = (_start(node, steps, run) for node, steps in self._steps.items())
            start = next((start for start in starts if start), None)
            assert start is not None, f"no node started a task of {run}"
            found.append(start)
        return found

    def echoes(self, puts: Mapping[str, float]) -> list[float]:
        """For every PUT and every node: seconds from before the PUT until the node had it."""
        found = []
        for steps in self._steps.values():
            for step in steps:
                for text in _strings(step, "events"):
                    if (event := text.rpartition(" ")[2]) in puts:
                        found.append(_seconds(step, "came") - puts[event])
        return found


def _start(node: str, steps: Iterable[Line], run: str) -> Start | None:
    came = take = work = 0.0
    for step in steps:
        at = _seconds(step, "came")
        if f"Message {run}" in _strings(step, "events"):
            came = at
        if not came:
            continue
        if any(send.startswith("io.cisbot.lock ") for send in _strings(step, "send")) and not work:
            take = _seconds(step, "at")
        if any(f"StartWork {run} " in f"{text} " for text in _strings(step, "work")):
            work = work or at
        if str(step.get("task", "")).startswith(f"TaskStarted {run} "):
            return Start(node, take - came, work - take, at - work)
    return None


def _seconds(step: Line, name: str) -> float:
    value = step[name]
    assert isinstance(value, float | int)
    return float(value)


def _strings(step: Line, name: str) -> list[str]:
    value = step.get(name, [])
    return [str(item) for item in value] if isinstance(value, list) else []
