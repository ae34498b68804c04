"""Tasks that ended well and still have something to remember: their end counts once the room has it. Pure.

A crash in between leaves the task unfinished, and the DAG's policy decides; nothing is forgotten in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cisbot.core.claims.memory import Memory, MemoryReply
from cisbot.core.frames import TaskEnded
from cisbot.core.ids import ClaimKey, RunId
from cisbot.core.inputs import MemoryAsk
from cisbot.core.room.wire import MEMORY_PREFIX

MARK = "remember "  # the tag of a write for a task


@dataclass(slots=True)
class _Waiting:
    ended: TaskEnded
    keys: dict[str, str]  # tag -> key
    error: str = ""


class Remembering:
    """The writes of this node's tasks to public memory that are under way."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._waiting: list[_Waiting] = []
        self._count = 0

    def begin(self, ended: TaskEnded, values: Mapping[str, str], now: float) -> None:
        """Write all values; `reply` gives the end back when all are in the room."""
        waiting = _Waiting(ended, {})
        for key, value in values.items():
            self._count += 1
            waiting.keys[f"{MARK}{self._count}"] = key
            self._memory.ask(
                MemoryAsk(f"{MARK}{self._count}", "set", ClaimKey(MEMORY_PREFIX + key), value), now
            )
        self._waiting.append(waiting)

    def reply(self, reply: MemoryReply) -> TaskEnded | None:
        """One write is done or given up; the task's end, if it was the last one."""
        waiting = next((w for w in self._waiting if reply.tag in w.keys), None)
        if waiting is None:
            return None
        key = waiting.keys.pop(reply.tag)
        if not reply.body["ok"]:
            waiting.error = f"remember.{key}: {reply.body['error']}"
        if waiting.keys:
            return None
        self._waiting.remove(waiting)
        return replace(waiting.ended, reason="error", error=waiting.error) if waiting.error else waiting.ended

    def stop(self, run: RunId) -> list[TaskEnded]:
        """The run is stopped or lost: what is not written yet is not written any more. The tasks' ends."""
        stopped = [w for w in self._waiting if w.ended.run == run]
        self._waiting = [w for w in self._waiting if w.ended.run != run]
        for waiting in stopped:
            self._memory.withdraw(waiting.keys)
        return [
            replace(w.ended, reason="cancelled", error="it was stopped before all was remembered")
            for w in stopped
        ]
