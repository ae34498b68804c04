"""A line of JSON per step: what came in, what was decided. For tests, benchmarks and hard questions."""

from __future__ import annotations

import json
from pathlib import Path

from cisbot.core.effects import StartWork, Step, Work
from cisbot.core.inputs import EndAnswer, Input, RoomBatch, WorkerReport
from cisbot.node.system import boot_time


class TraceFile:
    """Appends to one file, line by line; never holds secrets, for sends are named, not quoted."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, item: Input, came: float, step: Step) -> None:
        """Write one step; `came` is the boot time when its input was handed in."""
        line: dict[str, object] = {
            "came": round(came, 4),
            "at": round(boot_time(), 4),
            "input": type(item).__name__,
        }
        match item:
            case RoomBatch():
                line["events"] = [f"{type(e).__name__} {e.event_id}" for e in item.events]
            case WorkerReport():
                frame = item.frame
                line["task"] = f"{type(frame).__name__} {frame.run} {frame.task} {frame.attempt}"
            case EndAnswer():
                line["end"] = f"{type(item.asked).__name__} {item.reply.name}"
            case _:
                pass
        line["persist"] = len(step.persist)
        line["send"] = [f"{send.type} {send.txn}" for send in step.send]
        line["work"] = [_named(work) for work in step.work]
        if step.ask:
            line["ask"] = [type(ask).__name__ for ask in step.ask]
        if step.halt is not None:
            line["anew" if step.anew else "halt"] = step.halt
        self._file.write(json.dumps(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _named(work: Work) -> str:
    if isinstance(work, StartWork):
        return f"StartWork {work.frame.run} {work.frame.task}"
    return type(work).__name__
