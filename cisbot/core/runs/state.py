"""Values of runs and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from cisbot.core.dags.definition import OnLost
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, DagId, EventId, NodeId, RunId, UserId, short_id
from cisbot.core.room.events import Outcome


class RunStatus(StrEnum):
    """Where a run stands; the value is what people read."""

    WAITING = "waiting for approval"
    PENDING = "pending"
    RUNNING = "running"
    LOST = "lost"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"

    @property
    def over(self) -> bool:
        """Nothing more will happen to it."""
        return self in _OVER


_OVER = frozenset(
    {
        RunStatus.SUCCEEDED,
        RunStatus.FAILED,
        RunStatus.CANCELLED,
        RunStatus.REJECTED,
        RunStatus.EXPIRED,
    }
)
HOLDERS_KEPT = 8
OF_OUTCOME: Mapping[Outcome, RunStatus] = {
    Outcome.SUCCEEDED: RunStatus.SUCCEEDED,
    Outcome.FAILED: RunStatus.FAILED,
    Outcome.CANCELLED: RunStatus.CANCELLED,
    Outcome.REJECTED: RunStatus.REJECTED,
    Outcome.EXPIRED: RunStatus.EXPIRED,
    Outcome.LOST: RunStatus.FAILED,
}


class TaskStatus(StrEnum):
    """Where a task stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def over(self) -> bool:
        """It will not run again in this attempt of the run."""
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Run:
    """One run as this node knows it from the room.

    `scope` is the scope's label. `definition` is the hash that the run is pinned to, empty while unknown.
    Times are wall clock milliseconds, for people. `tasks` is what the holder last said
    of them, `outputs` what their finished ones gave to those that need them (None: too much for the room).
    """

    id: RunId
    dag: DagId
    key: ClaimKey | None
    scope: str
    target: str
    priority: int
    params: Mapping[str, str]
    publisher: UserId
    published_ms: int
    status: RunStatus
    definition: str = ""
    on_lost: OnLost = OnLost.ASK
    approvals: tuple[UserId, ...] = ()
    approvals_needed: int = 0
    expires_ms: int | None = None
    node: NodeId | None = None
    account: UserId | None = None
    epoch: int = 0
    started_ms: int | None = None
    ended_ms: int | None = None
    tasks: Mapping[str, TaskStatus] = field(default_factory=dict)
    outputs: Mapping[str, Mapping[str, str] | None] = field(default_factory=dict)
    messages: tuple[EventId, ...] = ()  # prompt, status and ask messages: reactions to them count
    why: str = ""
    cancelled_by: UserId | None = None
    asked: bool = False
    question: int = 0  # the epoch whose loss nobody has decided about yet
    decided: int = 0  # the epoch up to which a person decided that it goes on
    answered: tuple[int, bool, UserId] | None = None  # a decision on the question about this epoch
    holders: tuple[tuple[int, UserId], ...] = ()  # who began it at which epoch, the newest few
    told: Outcome | None = None  # how it ended, by a holder's word that the claims don't confirm (yet)

    @property
    def undecided(self) -> bool:
        """A person is asked, in the room: to approve it, or what becomes of it without its holder."""
        lost = self.asked and self.status in (RunStatus.LOST, RunStatus.RUNNING)
        return lost or self.status is RunStatus.WAITING

    def held(self, epoch: int, account: UserId) -> bool:
        """Whether the account is known to have begun it at that epoch."""
        return (epoch, account) in self.holders

    def given_back(self, epoch: int) -> tuple[tuple[int, UserId], ...]:
        """The holders without that one: it did not begin the run."""
        return tuple(held for held in self.holders if held[0] != epoch)

    def begun(self, epoch: int, account: UserId) -> tuple[tuple[int, UserId], ...]:
        """The holders with that one."""
        return (*(held for held in self.holders if held != (epoch, account)), (epoch, account))[
            -HOLDERS_KEPT:
        ]

    @property
    def short(self) -> str:
        """What people type."""
        return short_id(self.id)


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task of a run that this node executes."""

    run: RunId
    task: str
    status: TaskStatus
    attempt: int = 0
    exit_code: int | None = None
    signal: int | None = None
    error: str = ""
    tail: str = ""
    log_path: str = ""
    started_ms: int | None = None
    ended_ms: int | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One node of the room, from its own record."""

    id: NodeId
    account: UserId
    incarnation: str
    executes: bool
    labels: Mapping[str, str]
    dags: Mapping[str, str]
    gone: bool
    since_ms: int
    seen_ms: int
    said_ms: int = 0  # the homeserver's time of its record
