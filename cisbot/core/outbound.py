"""What the coordinator starts from and what it hands out: the kept past, and a step in the making."""

from __future__ import annotations

from dataclasses import field

from cisbot.core.claims.state import Bounds, Head
from cisbot.core.dags.definition import Definition
from cisbot.core.effects import Ask, Send, Step, Work, Write
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, Incarnation
from cisbot.core.room.events import Message, PowerLevels, RoomCreate
from cisbot.core.runs.state import NodeInfo, Run, TaskRun


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store kept of an earlier process: nothing, for a node that starts for the first time."""

    cursor: str | None = None
    incarnation: Incarnation | None = None
    sure: dict[ClaimKey, Head] = field(default_factory=dict)
    unsure: tuple[ClaimKey, ...] = ()
    runs: tuple[Run, ...] = ()
    tasks: tuple[TaskRun, ...] = ()
    nodes: tuple[NodeInfo, ...] = ()
    definitions: dict[str, Definition] = field(default_factory=dict)
    outbox: tuple[Send, ...] = ()
    bounds: Bounds = Bounds()
    unread: tuple[Message, ...] = ()
    powers: tuple[PowerLevels | RoomCreate, ...] = ()


@dataclass(slots=True)
class Outbound:
    """A step in the making."""

    persist: list[Write] = field(default_factory=list)
    withdraw: list[str] = field(default_factory=list)
    send: list[Send] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    halt: str | None = None
    done: bool = False
    anew: bool = False

    def step(self) -> Step:
        """The finished step."""
        return Step(
            tuple(self.persist),
            tuple(self.withdraw),
            tuple(self.send),
            tuple(self.asks),
            tuple(self.work),
            self.halt,
            self.done,
            self.anew,
        )
