"""The life of runs on this node: what the claims' facts mean for them, executing, letting go, wishing.

A run is begun only by a win that is still good, and let go only when its last process is dead.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from typing_extensions import override

from cisbot.core.claims.contend import Wish
from cisbot.core.claims.facts import Ended, Extended, Fact, Freed, Learned, Taken, Won
from cisbot.core.claims.holds import Hold
from cisbot.core.claims.messages import end, node_record
from cisbot.core.dags.definition import OnLost
from cisbot.core.effects import CancelWork, MoveDeadline, ReadStory
from cisbot.core.ids import ClaimKey, RunId, UserId
from cisbot.core.inputs import Instant, StoryRead
from cisbot.core.parts import Parts
from cisbot.core.room import events as ev
from cisbot.core.room.events import Outcome
from cisbot.core.runs.execution import Execution, taken_up
from cisbot.core.runs.rows import task_to_row
from cisbot.core.runs.state import Run, RunStatus
from cisbot.core.runs.story import begun_before
from cisbot.core.runs.wishing import Candidates
from cisbot.core.scopes import is_lock, lock_name

STORY = "story "  # the tag of a question, before the run: asked after a win
LOOK = "look "  # the same before a wish, or where a run ended unseen


class Lifecycle(Parts):
    """The runs that this node holds or would hold. `Coordinator` adds the room and the way in and out."""

    # -- facts of the claims -----------------------------------------------------------------------

    def _facts(self, facts: Iterable[Fact], now: Instant) -> None:
        for fact in facts:
            match fact:
                case Won() if is_lock(fact.take.key):
                    self.gathering.won(fact.take.run, now.boot)
                case Won():
                    self._won(fact, now)
                case Taken():
                    self.abroad.requests.granted(fact.take)
                    if (
                        fact.holder.account == self.me.account
                        and fact.holder.incarnation != self.me.incarnation
                    ):
                        self._say(end(self.me, fact.holder.incarnation))  # won, then crashed
                    if not is_lock(fact.take.key):
                        self.board.taken(fact.take, fact.holder, now.wall_ms)
                    if self._its_key(fact.take.key, fact.take.run):
                        self._fenced(fact.take.run)
                case Extended():
                    self._extended(fact.hold)
                case Ended() if is_lock(fact.hold.key):
                    self._unlocked(fact, now)
                case Ended():
                    self._fenced(fact.hold.run)
                    if (run := self.board.runs.get(fact.hold.run)) and not run.status.over:
                        self.losses.ended(run, fact, now)
                case Freed() if self._its_key(fact.key, fact.holder.run):
                    self.losses.freed(fact, now)
                case Learned() if self._its_key(fact.key, fact.holder.run):
                    self.losses.learned(fact)
                case _:
                    pass

    def _its_key(self, key: ClaimKey, run: RunId) -> bool:
        """Whether the key is the run's own: what anybody holds elsewhere in its name is nothing to it."""
        known = self.board.runs.get(run)
        return not is_lock(key) and (known is None or known.key in (None, key))

    def _extended(self, hold: Hold) -> None:
        """A run lives as long as the first of its claims to run out."""
        execution = self.executions.get(hold.run)
        if execution is None:
            return
        if hold.key == execution.hold.key:
            execution.hold = hold
        before = execution.deadline
        if execution.bounded(self.keeper.holds.of_run(hold.run)) != before:
            self._out.work.append(MoveDeadline(hold.run, execution.deadline))

    def _unlocked(self, fact: Ended, now: Instant) -> None:
        """A run whose lock is lost is stopped at once; its own key follows when its last process is dead."""
        hold = fact.hold
        if now.boot >= hold.deadline:
            self.keeper.abandon(hold)  # perhaps nobody has taken it over yet
        execution = self.executions.get(hold.run)
        if execution is not None and execution.locks.get(lock_name(hold.key)) == hold.epoch:
            execution.why = f"lost the lock {lock_name(hold.key)}: {fact.why}"
            self._stop_run(hold.run, Outcome.LOST, now, grace_s=0.0)

    def _won(self, won: Won, now: Instant) -> None:
        run = self.board.runs.get(won.take.run)
        definition = self.pinned.get(won.take.definition)
        held = self.keeper.ledger.sure(won.take.key)
        holder = held.held_by(self.me.account, self.me.incarnation, won.take.epoch) if held else None
        stale = run is None or run.status is not RunStatus.PENDING or definition is None
        if run is not None and run.key is not None:  # the key may be another by now, or a lock lost
            stale = stale or run.key != won.take.key or bool(self.gathering.missing(run))
        if stale or holder is None or won.hold.deadline <= now.boot or self.draining:
            cancelled = run is not None and run.status is RunStatus.CANCELLED
            self._say(self.keeper.release(won.hold, Outcome.CANCELLED if cancelled else None))
            return
        assert run is not None and definition is not None
        if run.id in self.unfollowed:  # it may be over: look before the first task
            tag = f"{STORY}{run.id}"
            self._looking[tag] = won
            self._out.asks.append(ReadStory(tag, run.id))
            return
        taken = self.board.taken(won.take, holder, now.wall_ms)
        assert taken is not None
        own = self.own_tasks.get(run.id, {})
        rerun = run.on_lost is OnLost.RERUN and run.epoch > 0
        tasks = taken_up(run, own, rerun=rerun)
        holds = self.keeper.holds.of_run(run.id)
        execution = Execution(taken, definition, won.hold, holds, self.place, tasks)
        self.executions[run.id] = execution
        self.status.opened(execution, now)

    def _story(self, item: StoryRead, now: Instant) -> None:
        """What the room tells of a run that this node has not followed from its beginning."""
        won = self._looking.pop(item.tag, None)
        named = RunId(item.tag.partition(" ")[2])
        self.stories.answered(named, good=item.events is not None, now=now.boot)
        story = item.events or ()
        began = {(e.who.account, e.who.incarnation, e.epoch) for e in story if isinstance(e, ev.Take)}
        for take in sorted((e for e in story if isinstance(e, ev.Take)), key=lambda e: e.epoch):
            self.losses.begun(take)
        for event in story:
            if isinstance(event, ev.Release) and (event.sender, event.incarnation, event.epoch) in began:
                self.losses.settle(event, now)
        if won is None:
            if item.events is not None:
                self.losses.ended_unseen(named, now)
            return
        hold = self.keeper.holds.get(won.hold.place)
        held = hold is not None and hold.epoch == won.hold.epoch
        if item.events is None and hold is not None and held:  # the read itself waited before it gave up
            self._say(self.keeper.release(hold, None))
        if item.events is None:
            return
        self.unfollowed.discard(won.take.run)
        if hold is not None and held and self._goes_on(item.events, won, now):
            self._won(Won(hold, won.take), now)

    def _goes_on(self, story: Iterable[ev.RoomEvent | ev.Rejected], won: Won, now: Instant) -> bool:
        """Whether a run may begin here: if somebody had begun it, its DAG's policy decides first."""
        run, before = self.board.runs.get(won.take.run), begun_before(story, won.take, self.board.is_node)
        if run is None or run.status.over or before is None:
            return True
        decided = before.epoch <= run.epoch  # this node knew that it was lost
        if run.on_lost is OnLost.ASK and not decided:
            begun = replace(
                run, status=RunStatus.RUNNING, node=before.who.node, account=before.who.account,
                epoch=won.take.epoch, definition=before.definition,
            )  # fmt: skip
            self._say(self.keeper.release(won.hold, Outcome.LOST))
            self.losses.lost(self.board.put(begun), f"{before.who.node} is gone", now)
            return False
        self.board.put(replace(run, epoch=max(run.epoch, before.epoch), definition=before.definition))
        if before.definition != won.take.definition:  # it stays pinned to what it began with
            self._say(self.keeper.release(won.hold, None))
            return False
        return True

    def _fenced(self, run: RunId) -> None:
        """This node no longer holds the run: whatever still runs of it must be dead at once."""
        execution = self.executions.pop(run, None)
        if execution is None:
            return
        self._out.withdraw.extend(execution.sending)  # unsaid once the run is not ours
        self.remembering.stop(run)
        self._keep_tasks(execution)
        self._out.work.append(CancelWork(run, 0.0))
        for hold in self.keeper.holds.of_run(run):
            self.keeper.abandon(hold)
        self.status.fenced(run)

    def _stay(self, now: Instant) -> None:
        """Keep the delayed end from being sent; go, where this incarnation is over all the same."""
        if self.ready and not self.left:
            self._out.asks.extend(self.keeper.ask_end(now.boot, leaving=self.draining))
        if self.keeper.mine_over and not self.draining and self._out.halt is None:
            self._out.halt, self._out.anew = self.presence.ended(self.keeper.armed)

    def _announce(self, now: Instant) -> None:
        """The node's record: sent at start and when its definitions changed."""
        known = self.keeper.armed.settled or self.presence.deadline() is not None  # what failed can't wait
        if known and self.presence.untold(self.hashes, now.boot):
            record = node_record(self.me, self.hashes, self.settings.node, self.version, gone=False)
            self._say(self.presence.tell(self.hashes, record))

    # -- cancelling and stopping -------------------------------------------------------------------

    @override
    def cancel(self, run: Run, user: UserId, now: Instant) -> None:
        """Somebody with the right cancels: at once if nobody runs it, else its holder stops it."""
        self.board.put(replace(run, cancelled_by=user))
        if run.id in self.executions:
            self._stop_run(run.id, Outcome.CANCELLED, now)
        elif run.status is not RunStatus.RUNNING:
            self.board.close(replace(run, cancelled_by=user), RunStatus.CANCELLED, f"by {user}", now.wall_ms)

    def _stop_run(self, run: RunId, outcome: Outcome, now: Instant, *, grace_s: float | None = None) -> None:
        execution = self.executions[run]
        for ended in self.remembering.stop(run):
            execution.ended(ended, now.wall_ms)
        self._out.withdraw.extend(execution.sending)  # unsaid once the run is not ours
        if execution.stop(outcome):
            self._out.work.append(CancelWork(run, execution.grace_s if grace_s is None else grace_s))

    def _stop(self, now: Instant) -> None:
        """A clean stop begins: nothing new, and what runs is stopped. The claims end when all is dead."""
        self.draining = True
        for run in list(self.executions):
            self._stop_run(run, Outcome.LOST, now)

    def _drained(self, now: Instant) -> None:
        """Everything of this node is dead: give all claims back, and leave."""
        for execution in list(self.executions.values()):
            outcome = execution.outcome()
            if outcome is None:
                return
            self._keep_tasks(execution)
            if outcome is not Outcome.LOST:
                self._complete(execution, outcome, now)
                continue
            del self.executions[execution.run.id]
            self.status.fenced(execution.run.id)
        if self.left or self.keeper.abandoned:  # of what was fenced something may live until its deadline
            return
        self.left = True
        self.keeper.leave()
        self._say(end(self.me, self.me.incarnation))
        self._say(node_record(self.me, self.hashes, self.settings.node, self.version, gone=True))
        self._out.done = True

    def _execute(self, now: Instant) -> None:
        for run, execution in list(self.executions.items()):
            work, sends = execution.start_ready(now.wall_ms)
            self._out.work.extend(work)
            self._say(*sends)
            if execution.dirty:
                self._keep_tasks(execution)
                self.status.changed(run)
            outcome = execution.outcome()
            if outcome is not None:
                self._complete(execution, outcome, now)

    def _complete(self, execution: Execution, outcome: Outcome, now: Instant) -> None:
        run = self.board.runs[execution.run.id]
        del self.executions[run.id]
        run = self.board.put(replace(run, tasks=execution.statuses()))
        holds = self.keeper.holds.of_run(run.id)
        for hold in sorted(holds, key=lambda hold: is_lock(hold.key)):  # the outcome first
            self._say(self.keeper.release(hold, None if is_lock(hold.key) else outcome))
        if outcome is Outcome.LOST:
            self.status.fenced(run.id)
            self.losses.lost(run, f"{self.me.node} {execution.why}", now)
            return
        run = self.board.settled(run, outcome, now.wall_ms)
        self._say(*self.status.closed(run, execution, now))

    def _keep_tasks(self, execution: Execution) -> None:
        for name in sorted(execution.dirty):
            self._out.persist.append(task_to_row(execution.tasks[name]))
        execution.dirty.clear()
        self.own_tasks[execution.run.id] = dict(execution.tasks)
        run = self.board.runs.get(execution.run.id)
        if run is not None:
            self.board.put(replace(run, tasks=execution.statuses()))

    def _wishes(self, now: Instant) -> list[Wish]:
        """The first waiting run of every key that it may claim now; of others it reads the story first."""
        self.gathering.begin()
        self.stories.passed(now.boot)
        if self.draining or not self.ready:
            return []
        if not self.board.is_node(self.me.account):
            return []  # its record comes first: whoever judges its claims must know it for a node
        if not self.keeper.armed.fit(now.boot):
            return []
        room = self.settings.coordinator.max_runs - len(self.keeper.holds.runs())
        unread = self.stories.unread(self.unfollowed)
        candidates = Candidates(self.settings, self.me, self.pinned, unread, self.keeper, self.gathering)
        found, stories = candidates.wishes(self.board, room, now.boot)
        found, more = self.abroad.grants(found, unread, now)
        lost = [run.id for run in self.board.open_runs() if run.status is RunStatus.LOST] if unread else []
        stories += [*more, *(run for run in lost if run in unread)]
        due = self.stories.to_ask(stories, now.boot)
        self._out.asks.extend(ReadStory(f"{LOOK}{run}", run) for run in due)
        return found
