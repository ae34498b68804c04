"""What the edge tells the core. All that the core knows of the world arrives as one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from cisbot.core.dags.definition import Definition
from cisbot.core.effects import AskEnd
from cisbot.core.frames import TaskEnded, TaskStarted
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId
from cisbot.core.room.events import Message, Reaction, Rejected, RoomEvent
from cisbot.core.room.past import Highest


@dataclass(frozen=True, slots=True)
class Instant:
    """`boot` decides (CLOCK_BOOTTIME seconds, runs on in suspend); `wall_ms` is for people and schedules."""

    boot: float
    wall_ms: int


@dataclass(frozen=True, slots=True)
class RoomBatch:
    """One sync's timeline in stream order.

    `gap`: events were missed before this batch (a limited timeline, a first join). `state` is the room's
    state as the batch's `state` block gives it: the whole at the first join, after a gap what changed in
    it. `history` are messages from inside the gap, oldest first: commands and runs, never claims. `whole`:
    none of the events that claims need is missing.
    """

    cursor: str
    events: tuple[RoomEvent | Rejected, ...]
    gap: bool = False
    initial: bool = False
    state: tuple[RoomEvent | Rejected, ...] = ()
    history: tuple[RoomEvent | Rejected, ...] = ()
    whole: bool = False


@dataclass(frozen=True, slots=True)
class SendDone:
    """The homeserver has the event."""

    txn: str
    event_id: EventId


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The send is given up: `why` is for people. A state PUT may have taken effect all the same."""

    txn: str
    errcode: str
    why: str


@dataclass(frozen=True, slots=True)
class StateRead:
    """What the state names, or None."""

    tag: str
    event: RoomEvent | Rejected | None


@dataclass(frozen=True, slots=True)
class BackRead:
    """What was found, or None where reading failed or did not get far enough."""

    tag: str
    found: Highest | None


@dataclass(frozen=True, slots=True)
class StoryRead:
    """The lock events that refer to a run, in no order that matters; None where reading failed."""

    tag: str
    events: tuple[RoomEvent | Rejected, ...] | None


@dataclass(frozen=True, slots=True)
class RunsRead:
    """Messages and reactions about runs that were asked for, as far as they can be had."""

    tag: str
    events: tuple[Message | Reaction, ...]


@dataclass(frozen=True, slots=True)
class TextRead:
    """A file's text, or why there is none."""

    tag: str
    text: str | None
    why: str = ""


class EndReply(Enum):
    """What became of a request about the delayed end."""

    DONE = "done"
    REFUSED = "the homeserver will not"
    GONE = "the homeserver has no such end: it was sent, or dropped"
    LIMITED = "too many requests: it did nothing"
    UNSENT = "the homeserver was not reached: it did nothing"
    UNKNOWN = "no usable answer: it may have been done"


@dataclass(frozen=True, slots=True)
class EndAnswer:
    """The answer to an `ArmEnd` (with the `delay_id` where done), a `RestartEnd` or a `CancelEnd`.

    `wait_s`: how long the homeserver asks to wait, where it does; `why` is for people.
    """

    asked: AskEnd
    reply: EndReply
    delay_id: str = field(default="", repr=False)
    wait_s: float = 0.0
    why: str = ""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """A validated frame from a worker about a task."""

    frame: TaskStarted | TaskEnded


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died; its unfinished tasks as (run, task, attempt). All they left behind is dead."""

    worker: str
    tasks: tuple[tuple[str, str, int], ...]
    why: str


@dataclass(frozen=True, slots=True)
class Definitions:
    """The node's own definitions, read anew: valid ones by id, and what is wrong with the others."""

    dags: Mapping[str, Definition]
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryAsk:
    """A local caller asks for the public memory: `op` is get, set or cas."""

    tag: str
    op: str
    key: ClaimKey
    value: str | None = None
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class StatusAsk:
    """A local caller asks for the runs, or one of them."""

    tag: str
    run: str | None


@dataclass(frozen=True, slots=True)
class Tick:
    """A deadline that the core named has come."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The operator stops the node."""


Input = (
    RoomBatch
    | SendDone
    | SendFailed
    | StateRead
    | BackRead
    | StoryRead
    | RunsRead
    | TextRead
    | EndAnswer
    | WorkerReport
    | WorkerLost
    | Definitions
    | MemoryAsk
    | StatusAsk
    | Tick
    | Stop
)
