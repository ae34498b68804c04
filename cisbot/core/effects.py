"""What the core asks the edge to do. Order within a `Step`: withdraw, persist, send, ask, work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import IntEnum

from cisbot.core.frames import StartTask
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, RunId
from cisbot.core.room.events import Json


class Priority(IntEnum):
    """Which send goes first when the homeserver limits us: a renewal must never wait for chatter."""

    RENEWAL = 0
    LOCK = 1
    FINAL = 2
    CHAT = 3
    EDIT = 4


@dataclass(frozen=True, slots=True)
class Send:
    """One event for the room. `state_key` None means a timeline event sent under transaction id `txn`.

    A `durable` send is kept in the outbox table until the homeserver has it, and sent again under the
    same `txn` after a crash. A send with `coalesce` replaces an unsent older one of the same mark.
    """

    txn: str
    type: str
    content: Mapping[str, Json]
    priority: Priority
    state_key: str | None = None
    durable: bool = False
    coalesce: str | None = None
    room: str | None = None  # another room than the cluster's, for `matrix` tasks


@dataclass(frozen=True, slots=True)
class ReadState:
    """Ask what the room's state names under a key; answered by `StateRead`."""

    tag: str
    type: str
    state_key: str


@dataclass(frozen=True, slots=True)
class ReadBack:
    """Ask above which epoch a fresh take of `key` must be, read from the room's end; answered by `BackRead`.

    A take counts only where the charter's `epoch_step_max` allows that it was accepted.
    """

    tag: str
    key: ClaimKey
    epoch_step_max: int


@dataclass(frozen=True, slots=True)
class ReadStory:
    """Ask for all lock events that refer to the run; answered by `StoryRead`."""

    tag: str
    run: RunId


@dataclass(frozen=True, slots=True)
class ReadRuns:
    """Ask for the messages that published these runs, and what was said of them; answered by `RunsRead`."""

    tag: str
    runs: tuple[RunId, ...]


@dataclass(frozen=True, slots=True)
class ReadMedia:
    """Ask for an attached file's text; answered by `TextRead`."""

    tag: str
    url: str
    bytes_max: int


@dataclass(frozen=True, slots=True)
class ReadLog:
    """Ask for the end of a log file; answered by `TextRead`."""

    tag: str
    path: str
    bytes_max: int


@dataclass(frozen=True, slots=True)
class ArmEnd:
    """Have the homeserver send the event after `delay_s`, unless told otherwise; answered by `EndAnswer`.

    This and the two below are answered within `timeout_s` in any case.
    """

    send: Send
    delay_s: float
    timeout_s: float


@dataclass(frozen=True, slots=True)
class RestartEnd:
    """Let the delay of an armed end begin anew; answered by `EndAnswer`."""

    delay_id: str = field(repr=False)  # whoever knows it can have the end sent
    timeout_s: float


@dataclass(frozen=True, slots=True)
class CancelEnd:
    """Take an armed end back; answered by `EndAnswer`."""

    delay_id: str = field(repr=False)
    timeout_s: float


AskEnd = ArmEnd | RestartEnd | CancelEnd
Reading = ReadState | ReadBack | ReadStory | ReadRuns | ReadMedia | ReadLog
Ask = Reading | AskEnd


@dataclass(frozen=True, slots=True)
class StartWork:
    """Hand a task to the worker of a scope."""

    worker: str
    frame: StartTask


@dataclass(frozen=True, slots=True)
class CancelWork:
    """Stop the run's tasks: TERM, grace, KILL."""

    run: RunId
    grace_s: float


@dataclass(frozen=True, slots=True)
class MoveDeadline:
    """The moment (boot time, seconds) when the run's last process must be dead."""

    run: RunId
    deadline: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Reply to a local caller (the node's socket)."""

    tag: str
    body: Mapping[str, Json]


Work = StartWork | CancelWork | MoveDeadline | Answer


@dataclass(frozen=True, slots=True)
class Put:
    """Insert or replace one row. `table` names one of the store's tables, `row` its columns."""

    table: str
    row: Mapping[str, str | int | float | None]


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete one row by its primary key."""

    table: str
    key: str


Write = Put | Drop


@dataclass(frozen=True, slots=True)
class Step:
    """All that follows from one input. `halt` ends the node with this text, `done` ends it in peace.
    With `anew` too, the text says why this incarnation is over, and the node goes on as a new one.

    `withdraw` names sends that must not go out any more; one that is in flight may arrive all the same.
    """

    persist: tuple[Write, ...] = ()
    withdraw: tuple[str, ...] = ()
    send: tuple[Send, ...] = ()
    ask: tuple[Ask, ...] = ()
    work: tuple[Work, ...] = ()
    halt: str | None = None
    done: bool = False
    anew: bool = False
