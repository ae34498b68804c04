"""The parts of one node's decisions, put together, and what its desk may ask of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from cisbot.core.abroad import Abroad
from cisbot.core.chat.desk import Desk
from cisbot.core.chat.status import StatusBoard
from cisbot.core.claims.contend import Contender
from cisbot.core.claims.facts import Won
from cisbot.core.claims.grants import Requests
from cisbot.core.claims.keeper import Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.memory import Memory
from cisbot.core.claims.messages import Me
from cisbot.core.dags.definition import Definition
from cisbot.core.effects import Ask, Put, Send, Write
from cisbot.core.ids import RunId, UserId
from cisbot.core.inputs import Instant
from cisbot.core.losing import Losses
from cisbot.core.outbound import Kept, Outbound
from cisbot.core.presence import Presence
from cisbot.core.resend import Resend
from cisbot.core.runs.board import Board
from cisbot.core.runs.execution import Execution, Place
from cisbot.core.runs.gathering import Gathering
from cisbot.core.runs.remembering import Remembering
from cisbot.core.runs.state import Run, TaskRun
from cisbot.core.runs.stories import Stories
from cisbot.core.runs.watch import Watch
from cisbot.core.runs.wishing import fits, loads
from cisbot.core.settings import Settings

FENCES_PER_DELAY = 6  # between TERM and deadline; a restart each third of the delay may fail once before


class Parts(ABC):
    """What decides in one node: claims, runs and chat, each knowing as little of the others as it can."""

    def __init__(
        self,
        settings: Settings,
        me: Me,
        kept: Kept,
        version: str,
        path: str = "",
        end_delay_s: float = 0.0,  # of the delayed end, where this room's homeserver and charter allow it
    ) -> None:
        self.settings = settings
        self.me = me
        self.version = version
        self.ledger = Ledger(kept.bounds, me.account)
        self.ledger.load(kept.sure, kept.unsure)
        self.keeper = Keeper(me, self.ledger, end_delay_s=end_delay_s)
        self.contender = Contender(self.keeper)
        self.asks = self.contender.asks
        self.memory = Memory(self.keeper)
        self.remembering = Remembering(self.memory)
        self.board = Board(settings.policy)
        self.definitions: dict[str, Definition] = {}
        self.problems: tuple[str, ...] = ()
        self.hashes: dict[str, str] = {}  # of its own DAGs, if it executes
        self.pinned: dict[str, Definition] = dict(kept.definitions)
        self.gathering = Gathering(self.keeper, self.pinned)
        self.unread = kept.unread
        self.named: set[RunId] = set()
        self.asked: set[RunId] = set()
        self.lately: tuple[RunId, ...] = ()
        self.executions: dict[RunId, Execution] = {}
        self.own_tasks: dict[RunId, dict[str, TaskRun]] = {}
        self.place = Place(
            settings.node.id,
            str(settings.node.data_dir),
            settings.coordinator.kill_grace,
            path,
            tuple(settings.policy.rooms),
            end_delay_s / FENCES_PER_DELAY if end_delay_s else math.inf,
        )
        self.status = StatusBoard(self.board, me, self.ledger)
        self.desk = Desk(self)
        self.abroad = Abroad(self, self.desk, Requests(self.keeper))
        self.losses = Losses(self.board, self.desk, self.ledger, self.executions, self._unfollow)
        self.presence = Presence(me, self.board)
        self.watch = Watch(self.board, self.keeper)
        self.ready = False  # until the first batch: what was missed comes before any decision
        self.draining = False
        self.left = False
        self.unfollowed: set[RunId] = set()
        self.stories = Stories()
        self._looking: dict[str, Won] = {}
        self.resend = Resend()
        self._out = Outbound()
        self._deadline: float | None = None
        self._load(kept)

    def _load(self, kept: Kept) -> None:
        for powers in kept.powers:
            self.board.note_powers(powers)
        for info in kept.nodes:
            self.board.nodes[info.account] = info
        for run in kept.runs:
            self.board.put(run)
            if not run.status.over:  # maybe it was not followed before either
                self.unfollowed.add(run.id)
        for task in kept.tasks:
            self.own_tasks.setdefault(task.run, {})[task.task] = task
        self.board.dirty.clear()

    # -- what the desk asks (chat/office.py) ---------------------------------------------------------

    @abstractmethod
    def cancel(self, run: Run, user: UserId, now: Instant) -> None:
        """Somebody with the right cancels."""

    def eligible(self, run: Run) -> bool:
        """Whether this node may execute the run."""
        return fits(run, self.settings, self.pinned)

    def loads(self) -> Mapping[UserId, int]:
        """How many runs each account holds, as far as this node is sure; 0 for others."""
        return loads(self.ledger)

    def look_first(self, runs: Iterable[RunId]) -> None:
        """Look at the story of these runs before their first task."""
        self.unfollowed.update(runs)

    def executes(self, run: RunId) -> bool:
        """Whether this node executes the run now."""
        return run in self.executions

    def tasks_of(self, run: RunId) -> dict[str, TaskRun]:
        """What this node knows of the run's tasks: its own, or what the holder told."""
        if (execution := self.executions.get(run)) is not None:
            return execution.tasks
        known = self.board.runs.get(run)
        told = {n: TaskRun(run, n, s) for n, s in known.tasks.items()} if known else {}
        own = self.own_tasks.get(run, {}) if known and known.account == self.me.account else {}
        return {**told, **own}

    def pin(self, definition: Definition) -> str:
        """Keep a definition under its hash, so that an edited file changes the next run only."""
        mark = definition.hash
        if mark not in self.pinned:
            self.pinned[mark] = definition
            self._out.persist.append(
                Put("definitions", {"hash": mark, "dag": definition.id, "text": definition.canonical})
            )
        return mark

    def _unfollow(self, run: RunId) -> None:
        """Something about this run went unjudged: look at its story, now and before its first task."""
        self.unfollowed.add(run)
        self.stories.missed(run)

    def _say(self, *sends: Send) -> None:
        for send in sends:
            self.resend.note(send)
            self._out.send.append(send)

    def ask(self, ask: Ask) -> None:
        """Ask on behalf of the desk."""
        self._out.asks.append(ask)

    def keep(self, write: Write) -> None:
        """Write a row on behalf of the desk."""
        self._out.persist.append(write)
