"""Runs that others hold, lose, give back or end: what this node makes of it on its board. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace

from cisbot.core.chat.desk import Desk
from cisbot.core.claims.facts import Ended, Freed, Learned
from cisbot.core.claims.ledger import Ledger
from cisbot.core.dags.definition import OnLost
from cisbot.core.ids import RunId
from cisbot.core.inputs import Instant
from cisbot.core.room import events as ev
from cisbot.core.room.events import Outcome, RoomEvent
from cisbot.core.runs.board import Board
from cisbot.core.runs.state import Run, RunStatus
from cisbot.core.scopes import is_lock


class Losses:
    """How runs leave their holders. `executions` are our own, `unfollow` marks a run to be looked up."""

    def __init__(
        self,
        board: Board,
        desk: Desk,
        ledger: Ledger,
        executions: Container[RunId],
        unfollow: Callable[[RunId], None],
    ) -> None:
        self._board, self._desk, self._ledger = board, desk, ledger
        self._executions, self._unfollow = executions, unfollow

    def freed(self, fact: Freed, now: Instant) -> None:
        """Somebody's slot is free again: given back, ended, or taken by another run."""
        run = self._board.runs.get(fact.holder.run)
        if run is None or run.status.over or run.epoch > fact.holder.epoch:
            return
        if isinstance(fact.by, ev.Release):
            if fact.by.outcome is None and run.status is RunStatus.RUNNING and run.cancelled_by is not None:
                self._board.close(run, RunStatus.CANCELLED, f"by {run.cancelled_by}", now.wall_ms)
            elif fact.by.outcome is None and run.status is RunStatus.RUNNING and not self._told(run, now):
                self._given_back(run, fact.holder.epoch, now)
            return
        if isinstance(fact.by, ev.Take) and fact.by.run == run.id:
            return
        if run.id not in self._executions:
            self.lost(run, f"{fact.holder.node} is gone", now)

    def _given_back(self, run: Run, epoch: int, now: Instant) -> None:
        """Who took it did not begin it; an earlier holder may have, and then its DAG's policy decides."""
        run = replace(run, holders=run.given_back(epoch))
        before = max((held for held, _ in run.holders), default=0)
        if run.on_lost is not OnLost.ASK or before <= run.decided:
            self._board.put(replace(run, status=RunStatus.PENDING, why="given back"))
            return
        asked = run.question > 0
        why = "nobody decided yet what becomes of it"
        run = self._board.put(
            replace(run, status=RunStatus.LOST, epoch=before, asked=asked, question=before, why=why)
        )
        if not asked:
            self._desk.ask_lost(run, now)

    def begun(self, take: ev.Take) -> None:
        """Somebody may have begun the run at that epoch: what he tells of its end counts."""
        run = self._board.runs.get(take.run)
        holder = take.who.account
        known = run is None or run.status.over or run.held(take.epoch, holder)
        if run is not None and not known and run.key == take.key and self._board.is_node(take.sender):
            self._board.put(replace(run, holders=run.begun(take.epoch, holder)))

    def learned(self, fact: Learned) -> None:
        """Somebody holds a run whose take this node could not judge; its story tells the rest, if need be."""
        run, holder = self._board.runs.get(fact.holder.run), fact.holder
        if run is None or run.status.over or run.status is RunStatus.WAITING or run.epoch >= holder.epoch:
            return
        self._unfollow(run.id)
        self._board.put(
            replace(
                run, status=RunStatus.RUNNING, node=holder.node, account=holder.account, epoch=holder.epoch,
                holders=run.begun(holder.epoch, holder.account), why="", asked=False, answered=None,
            )
        )  # fmt: skip

    def lost(self, run: Run, why: str, now: Instant) -> None:
        """The run's holder is lost: its DAG's policy decides what happens."""
        if run.status is not RunStatus.RUNNING or self._told(run, now):
            return
        if run.answered is not None and run.answered[0] == run.epoch:  # decided before this node knew of it
            self._board.decided(run, now.wall_ms)
            return
        if run.cancelled_by is not None:
            run = self._board.close(run, RunStatus.CANCELLED, f"by {run.cancelled_by}", now.wall_ms)
            said = f"{run.dag} {run.short} was cancelled by {run.cancelled_by}, and its node is lost"
            self._desk.voice.note(run, f"{said}: {why}.", f"cancelled {run.id}", now)
            return
        if run.on_lost is OnLost.ASK:
            run = self._board.put(replace(run, status=RunStatus.LOST, why=why, question=run.epoch))
            self._desk.ask_lost(run, now)
        else:
            self._board.put(replace(run, status=RunStatus.PENDING, why=f"{why}; {run.on_lost} by its policy"))

    def _told(self, run: Run, now: Instant) -> bool:
        """An earlier holder told how it ended, too late for its claim, but its tasks did end in time."""
        if run.told is None:
            return False
        self._board.settled(run, run.told, now.wall_ms)
        return True

    def ended(self, run: Run, fact: Ended, now: Instant) -> None:
        """A hold of this node is over: somebody else goes on with the run, or nobody does."""
        other = fact.by
        if other is None or other.run != run.id:
            self.lost(run, fact.why, now)
            return
        self._board.put(
            replace(
                run, status=RunStatus.RUNNING, node=other.node, account=other.account, epoch=other.epoch,
                holders=run.begun(other.epoch, other.account),
            )
        )  # fmt: skip
        said = f"{run.node} has stopped its tasks of {run.dag} {run.short}: {fact.why}."
        first = (run.account,) if run.account is not None else None
        self._desk.voice.note(run, said, f"stopped {run.id} {fact.hold.epoch}", now, first=first)

    def ended_unseen(self, run_id: RunId, now: Instant) -> None:
        """The room tells no outcome of a run that nobody holds any more: its holder was lost in a gap."""
        run = self._board.runs.get(run_id)
        if run is None or run.key is None or run_id in self._executions:
            return
        head = self._ledger.sure(run.key)
        if head is not None and not any(holder.run == run_id for holder in head.holders):
            self.lost(run, f"{run.node} let it go", now)

    def settle(self, event: ev.Release, now: Instant) -> None:
        """An outcome settles the run also where its release came too late and was void."""
        run = self._board.runs.get(event.run)
        if run is None or event.outcome is None:
            return
        if run.id in self._executions:  # it goes on; but should it be lost, it is over
            if event.epoch < run.epoch and event.outcome is not Outcome.LOST and not run.status.over:
                self._board.put(replace(run, told=event.outcome))
            return
        if event.outcome is Outcome.LOST and event.epoch >= run.epoch:
            self.lost(run, f"{event.node} lost its lease", now)
        elif event.outcome is not Outcome.LOST:
            self._board.settled(run, event.outcome, now.wall_ms)

    def credible(self, event: ev.Release) -> bool:
        """Whether the sender held the run at that epoch, as far as this node can know."""
        run = self._board.runs.get(event.run)
        unsure = self._ledger.abroad or self._ledger.sure(event.key) is None
        if run is None or unsure or run.key is None:
            return self._board.is_node(event.sender)
        if event.key != run.key or event.epoch > run.epoch:  # so no lock tells an outcome
            return False
        return (event.epoch, event.sender) == (run.epoch, run.account) or run.held(event.epoch, event.sender)

    def hint(self, event: RoomEvent, now: Instant) -> None:
        """What the state says of runs after a gap: a hint for people; claims wait for a sure head."""
        match event:
            case ev.Take() if not is_lock(event.key):
                self.begun(event)
                run = self._board.runs.get(event.run)
                if run is not None and not run.status.over and event.epoch > run.epoch:
                    self._board.put(
                        replace(
                            run, status=RunStatus.RUNNING, node=event.who.node, account=event.who.account,
                            epoch=event.epoch, definition=event.definition,
                        )
                    )  # fmt: skip
            case ev.Release() if event.outcome is not None:
                self.settle(event, now)
            case _:
                pass
