"""A counter in the public memory that all nodes increment: none may be lost or counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cisbot.core.effects import Answer
from cisbot.core.ids import ClaimKey
from cisbot.core.inputs import MemoryAsk
from cisbot.core.room.wire import MEMORY_PREFIX
from tests.sim.violation import Violation

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

COUNTER = ClaimKey(MEMORY_PREFIX + "counter")
CERTAIN = ("another write came first", "the value is another one")


class Counter:
    """Reads, then writes one more by compare-and-set; keeps when each write was asked for and answered."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked = 0
        self._refused = 0
        self._open: dict[str, tuple[int, int]] = {}  # asked: the new value, the stream's place
        self.written: dict[int, tuple[int, int]] = {}  # version: places between which it must have come

    def increment(self, machine: Machine) -> None:
        """A task on that machine counts."""
        machine.ask_memory(MemoryAsk("get", "get", COUNTER))

    def answered(self, machine: Machine, answer: Answer) -> None:
        """The node has read, or written."""
        body = answer.body
        place = len(self._world.server.stream)
        if answer.tag == "get":
            if not body["ok"]:
                return
            value = body["value"]
            more = int(str(value or 0)) + 1
            self._asked += 1
            tag = f"cas {self._asked}"
            self._open[tag] = (more, place)
            old = None if value is None else str(value)
            machine.ask_memory(MemoryAsk(tag, "cas", COUNTER, str(more), old))
            return
        more, asked = self._open.pop(answer.tag)
        if not body["ok"]:
            self._refused += body.get("error") in CERTAIN
            return
        version = int(str(body["version"]))
        if version in self.written:
            raise Violation(f"version {version} of the counter was written twice")
        if str(body["value"]) != str(more):
            raise Violation(f"{machine.name} wrote {more} and was told {body['value']}")
        self.written[version] = (asked, place)

    def check(self) -> None:
        """What was written stands: every write took effect between question and answer, none was lost."""
        truth = self._world.checkers.truth
        truth.follow(self._world.server.stream)
        done, unknown = len(self.written), self._asked - len(self.written) - self._refused
        value = int(truth.at(COUNTER, len(self._world.server.stream))[3] or 0)
        if not done <= value <= done + unknown:
            raise Violation(f"the counter reads {value} after {done} increments ({unknown} not known)")
        for version, (asked, answered) in self.written.items():
            if truth.at(COUNTER, asked)[0] >= version or truth.at(COUNTER, answered)[0] < version:
                raise Violation(f"version {version} took effect outside the call that wrote it")
