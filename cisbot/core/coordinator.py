"""The coordinator: one input in, one `Step` out. It alone sees claims, runs and chat together.

Room events go through the claim fold and the board, what time brings through the keeper; then the wishes
of this node are pursued, executions go on, answers that are due are given, and all that changed is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cisbot.core.claims.contend import RETRY_S
from cisbot.core.claims.ledger import spoilt_keys
from cisbot.core.claims.memory import MemoryReply
from cisbot.core.claims.messages import end, end_txn, told_dags
from cisbot.core.claims.rows import changed_heads
from cisbot.core.effects import Answer, Drop, Put, ReadRuns, ReadStory, Step
from cisbot.core.frames import TaskEnded, TaskStarted
from cisbot.core.ids import ClaimKey, RunId
from cisbot.core.inputs import (
    BackRead,
    Definitions,
    EndAnswer,
    EndReply,
    Input,
    Instant,
    MemoryAsk,
    RoomBatch,
    RunsRead,
    SendDone,
    SendFailed,
    StateRead,
    StatusAsk,
    Stop,
    StoryRead,
    TextRead,
    Tick,
    WorkerLost,
    WorkerReport,
)
from cisbot.core.lifecycle import LOOK, Lifecycle
from cisbot.core.outbound import Kept, Outbound
from cisbot.core.room import events as ev
from cisbot.core.room.events import Rejected, RoomEvent
from cisbot.core.room.wire import MEMORY_PREFIX, OPEN_RUNS_MAX
from cisbot.core.runs.power_rows import powers_to_row
from cisbot.core.runs.remembering import MARK
from cisbot.core.runs.rows import changed_rows
from cisbot.core.runs.state import RunStatus
from cisbot.core.runs.story import OPEN_ASKED_MAX, called_open

FORBIDDEN_S = 60.0  # before a claim is tried again that the room refused


class Coordinator(Lifecycle):
    """One node's decisions. Pure: no clock, no I/O; `handle` is called with one input after the other."""

    # -- the one way in --------------------------------------------------------------------------

    def start(self, kept: Kept, now: Instant) -> Step:
        """The first step: say again what was not said, and end the incarnation before this one."""
        self._out = Outbound()
        self._say(*kept.outbox)
        held = any(
            h.account == self.me.account and h.incarnation == kept.incarnation
            for head in kept.sure.values()
            for h in head.holders
        )
        if kept.incarnation is not None and (held or kept.unsure):
            self._say(end(self.me, kept.incarnation))
        self._out.persist.append(Put("meta", {"key": "incarnation", "value": self.me.incarnation}))
        return self._finish(now)

    def handle(self, item: Input, now: Instant) -> Step:
        """Decide all that follows from one input."""
        self._out = Outbound()
        quiet = False
        match item:
            case RoomBatch():
                self._batch(item, now)
            case SendDone() | SendFailed():
                quiet = not self._sent(item, now)
            case StateRead() | BackRead() | StoryRead() | RunsRead() | TextRead():
                self._read(item, now)
            case EndAnswer():
                quiet = not self._end_answered(item, now)
            case WorkerReport():
                self._report(item.frame, now)
            case WorkerLost():
                for run, task, attempt in item.tasks:
                    if execution := self.executions.get(RunId(run)):
                        execution.worker_lost(task, attempt, item.why, now.wall_ms)
            case Definitions():
                self._definitions(item)
            case MemoryAsk() if item.op != "get" and (why := self.abroad.no_memory(f"memory {item.op}")):
                self._out.work.append(Answer(item.tag, {"ok": False, "error": why}))
            case MemoryAsk():
                self.memory.ask(item, now.boot)
            case StatusAsk():
                self._out.work.append(Answer(item.tag, self.desk.status_of(item.run, now)))
            case Stop():
                self._stop(now)
            case Tick():
                pass
        return self._out.step() if quiet and self._nothing_due(now) else self._finish(now)

    def _read(self, item: StateRead | BackRead | StoryRead | RunsRead | TextRead, now: Instant) -> None:
        match item:
            case StateRead():
                self.contender.state_read(item.tag, item.event, now.boot)
            case BackRead():
                self._back(item, now)
            case StoryRead():
                self._story(item, now)
            case RunsRead():
                self._past(item.events, now)
            case TextRead():
                self.desk.text_read(item, now)

    def deadline(self) -> float | None:
        """The boot time at which to call `handle(Tick())` at the latest."""
        return self._deadline

    def _nothing_due(self, now: Instant) -> bool:
        """Whether all there is to do lies ahead: where nothing is new, nothing is to be decided then."""
        self._deadline = self._next()
        return not self.draining and (self._deadline is None or now.boot < self._deadline)

    def _next(self) -> float | None:
        times = [self.keeper.deadline(), self.resend.deadline(), self.memory.deadline()]
        times += [self.desk.deadline(), self.status.deadline()]
        if not self.draining:
            times += [self.stories.deadline(), self.presence.deadline(), self.contender.deadline()]
            times += [self.watch.at, self.gathering.at]
        return min([at for at in times if at is not None], default=None)

    # -- room events -----------------------------------------------------------------------------

    def _batch(self, batch: RoomBatch, now: Instant) -> None:
        if batch.initial or batch.gap:
            self._gap(batch, now)
        self._past(batch.history, now)
        if batch.initial or batch.gap:
            self._ask_open()
        for event in batch.events:
            if isinstance(event, Rejected):
                if self.keeper.reject(event, now.boot):
                    self.contender.gap()
                continue
            self.abroad.heard(event, now)
            self._event(event, now)
        self.desk.remind(now)
        self._out.persist.append(Put("meta", {"key": "cursor", "value": batch.cursor}))
        if not self.ready:
            self.ready = True
            self._out.halt = self._out.halt or self.presence.joined(chartered=bool(self.ledger.bounds.home))

    def _past(self, events: Iterable[RoomEvent | Rejected], now: Instant) -> None:
        """What was said while this node did not follow: runs and decisions, looked at before they run."""
        before = set(self.board.runs)
        for event in events:
            if not isinstance(event, Rejected):
                self._chat(event, now, history=True)
        self.unfollowed |= self.board.runs.keys() - before

    def _ask_open(self) -> None:
        """Lock events name the runs that were open then: read those that the history did not show."""
        unknown = [run for run in self.lately if run not in self.board.runs]
        if unknown:
            self._out.asks.append(ReadRuns("open", tuple(unknown[:OPEN_ASKED_MAX])))

    def _gap(self, batch: RoomBatch, now: Instant) -> None:
        also: set[ClaimKey] = set()
        for event in batch.state:
            if isinstance(event, Rejected):
                also |= spoilt_keys(event)
            elif not isinstance(event, ev.LockEvent | ev.MemoryWrite):
                self._event(event, now, live=False)
        for event in batch.state:  # only now it is known who is a node
            if isinstance(event, ev.LockEvent | ev.MemoryWrite):
                also.add(event.key)
                self.losses.hint(event, now)
        for run in self.board.open_runs():
            self._unfollow(run.id)
        self.named, self.lately = called_open(batch.state)
        if not batch.whole:
            self.keeper.gap(also, now.boot)
            self.contender.gap()

    def _event(self, event: RoomEvent, now: Instant, *, live: bool = True) -> None:
        match event:
            case ev.Charter():
                self._out.persist.append(self.abroad.charter(event))
                self.keeper.armed.allow(allowed=event.delayed_ends)
            case ev.PowerLevels() | ev.RoomCreate():
                self.board.note_powers(event)
                self._out.persist.append(powers_to_row(event))
            case ev.Encryption():
                self._out.halt = (
                    "the room is encrypted, which cisbot can't serve yet. Use a room without encryption"
                )
            case ev.NodeRecord():
                if live or not self.board.outdated(event):
                    self._out.halt = self._out.halt or self.presence.record(event)
                    self.board.note_node(event, now.wall_ms)
            case ev.Member():
                self.board.note_member(event)
            case ev.Intent():
                self._out.asks.extend(self.contender.observe(event, now.boot))
            case ev.Message() | ev.Reaction():
                if live:
                    self._chat(event, now, history=False)
            case _:
                if live:
                    self._claim(event, now)

    def _claim(self, event: ev.ClaimEvent | ev.Restate, now: Instant) -> None:
        self.board.seen(event, now.wall_ms)
        if not isinstance(event, ev.Restate):
            self._out.asks.extend(self.contender.observe(event, now.boot))
        if isinstance(event, ev.Take) and self.ledger.is_unsure(event.key) and event.run in self.board.runs:
            self._unfollow(event.run)
        if isinstance(event, ev.Release) and event.outcome is not None and self.losses.credible(event):
            self.losses.settle(event, now)
        facts, sends = self.keeper.observe(event, now.boot)
        told, returned = self.asks.believe(event, now.boot)
        self._say(*sends, *returned)
        self._facts((*facts, *told), now)
        if not isinstance(event, ev.Restate):
            self.memory.observe(event, now.boot)
            self.watch.heard(event, now.boot)
        if isinstance(event, ev.Heartbeat):
            self._alive_again(event)

    def _alive_again(self, event: ev.Heartbeat) -> None:
        """A holder that was thought lost renewed in time: it still runs.

        A question that was asked meanwhile stands: it is not asked again should the holder be lost after all.
        """
        for renewal in event.renews if event.sender != self.me.account else ():
            head = self.ledger.sure(renewal.key)
            holder = head.held_by(event.sender, event.incarnation, renewal.epoch) if head else None
            run = self.board.runs.get(holder.run) if holder else None
            own = run is not None and (run.key, run.epoch) == (renewal.key, renewal.epoch)
            if run and own and run.status in (RunStatus.LOST, RunStatus.PENDING):
                self.watch.alive(run.id, renewal.epoch)
                self.board.put(replace(run, status=RunStatus.RUNNING, why=""))

    def _chat(self, event: RoomEvent, now: Instant, *, history: bool) -> None:
        if isinstance(event, ev.Message):
            self.desk.message(event, now, history=history)
        elif isinstance(event, ev.Reaction):
            self.desk.reaction(event, now, history=history)

    # -- what the edge reports ---------------------------------------------------------------------

    def _report(self, frame: TaskStarted | TaskEnded, now: Instant) -> None:
        execution = self.executions.get(RunId(frame.run))
        if execution is None:
            return
        if isinstance(frame, TaskStarted):
            execution.started(frame, now.wall_ms)
            return
        task = execution.definition.tasks.get(frame.task)  # type: ignore[call-overload]
        good = frame.exit_code == 0 and frame.reason == "exit" and execution.runs(frame.task, frame.attempt)
        if task is None or not good or not task.remember or execution.stopping is not None:
            execution.ended(frame, now.wall_ms)
        elif (why := self.abroad.no_memory("remember")) is not None:
            execution.ended(replace(frame, reason="error", error=why), now.wall_ms)
        else:
            self.remembering.begin(frame, task.remember, now.boot)

    def _sent(self, item: SendDone | SendFailed, now: Instant) -> bool:
        """What became of a send; whether anybody here waited for that."""
        unknown = isinstance(item, SendFailed) and item.errcode == "UNKNOWN"
        if unknown and self.resend.failed(item.txn, now.boot):
            return True
        waited = self.resend.over(item.txn)
        if self.left and isinstance(item, SendDone) and item.txn == end_txn(self.me.incarnation):
            self._out.asks.extend(self.keeper.armed.farewell())
        self._out.persist.append(Drop("outbox", item.txn))
        waited |= self.desk.voice.answers.sent(item.txn)
        why = None if isinstance(item, SendDone) else item.why
        for execution in self.executions.values():
            waited |= execution.sent(item.txn, why, now.wall_ms)
        if isinstance(item, SendFailed):
            wait_s = FORBIDDEN_S if item.errcode == "M_FORBIDDEN" else RETRY_S
            self.presence.failed(item, now.boot)
            self.contender.failed(item.txn, now.boot, wait_s)
            self.memory.failed(item.txn, now.boot)
            self.status.failed(item.txn, now)
            return True
        return self.status.sent(item.txn, item.event_id, now) or waited

    def _end_answered(self, item: EndAnswer, now: Instant) -> bool:
        """What became of the delayed end; whether that changes more than when to ask again."""
        fit = self.keeper.armed.fit(now.boot)
        facts = self.keeper.end_answered(item, now.boot)
        self._facts(facts, now)
        return bool(facts) or item.reply is not EndReply.DONE or not (fit and self.keeper.armed.fit(now.boot))

    def _back(self, item: BackRead, now: Instant) -> None:
        key = ClaimKey(item.tag.removeprefix("back "))
        if key.startswith(MEMORY_PREFIX):
            self.memory.back(key, item.found, now.boot)
            return
        wish = next((w for w in self._wishes(now) if w.key == key), None)
        self._say(*self.contender.back(key, item.found, wish, now.boot))

    def _definitions(self, item: Definitions) -> None:
        self.definitions = dict(item.dags)
        self.problems = item.problems
        if self.settings.node.execute:
            self.hashes = {d.id: d.hash[:16] for d in item.dags.values()}
            if untold := len(self.hashes) - len(told_dags(self.hashes)):
                why = f"{untold} of {len(self.hashes)} DAGs are more than this node can tell the others of"
                self.problems = (*self.problems, why)

    # -- time and the end of every step --------------------------------------------------------------

    def _finish(self, now: Instant) -> Step:
        self.me.open_runs = self.board.oldest_open(OPEN_RUNS_MAX)
        self.me.peers = self.board.peers(self.ledger.bounds.home)
        facts, sends = self.keeper.due(now.boot)
        self._facts(facts, now)
        self._say(*sends)
        self._stay(now)
        if self.draining:
            self._drained(now)
        elif self.ready and self._out.halt is None:
            self._announce(now)
            self._watch(now)
            self.abroad.tell(now)
            self._execute(now)
            sends, asks = self.contender.pursue(self._wishes(now), now.boot)
            self._out.withdraw.extend(self.contender.take_stale())
            self._say(*sends)
            self._out.asks.extend(asks)
            for hold in self.gathering.idle(self.board.runs, self.executions):
                self._say(self.keeper.release(hold, None))
        self._out.send.extend(self.resend.due(now.boot))
        if self.ready:
            self._serve_memory(now)
        self._say(*self.status.due(now))
        self._say(*self.desk.due(now))
        self._out.withdraw.extend((*self.desk.voice.answers.take_stale(), *self.status.take_stale()))
        self._write()
        self._deadline = self._next()
        return self._out.step()

    def _serve_memory(self, now: Instant) -> None:
        sends, asks, replies = self.memory.due(now.boot)
        self._say(*sends)
        self._out.asks.extend(asks)
        for reply in replies:
            self._remembered(reply, now)

    def _remembered(self, reply: MemoryReply, now: Instant) -> None:
        if not reply.tag.startswith(MARK):
            self._out.work.append(Answer(reply.tag, reply.body))
            return
        ended = self.remembering.reply(reply)
        execution = self.executions.get(RunId(ended.run)) if ended else None
        if ended is not None and execution is not None:
            execution.ended(ended, now.wall_ms)
            self._execute(now)

    def _watch(self, now: Instant) -> None:
        """Runs whose holder went silent or let them go unseen, and approvals whose deadline passed."""
        silent, unseen, late = self.watch.due(self.executions, now)
        for run, why in silent:
            self.losses.lost(run, why, now)
            if self.ledger.abroad:  # between servers events overtake each other: its end may have come first
                self._unfollow(run.id)
        for run in unseen:
            self._out.asks.append(ReadStory(f"{LOOK}{run.id}", run.id))
        for run in late:
            self.desk.expired(self.board.timely(run, now.wall_ms), now)

    # -- out -----------------------------------------------------------------------------------------

    def _write(self) -> None:
        self._out.persist += [*changed_heads(self.ledger), *changed_rows(self.board)]
        if gone := self.board.forget_old():
            self._forget(gone)

    def _forget(self, gone: list[RunId]) -> None:
        """Whatever belongs to runs that are over and old, definitions that nothing is pinned to too."""
        out = self._out.persist
        for run in gone:
            out.append(Drop("runs", run))
            out.extend(Drop("tasks", f"{run} {name}") for name in self.own_tasks.pop(run, {}))
        self.watch.forget(gone)
        self.unfollowed.difference_update(gone)
        self.stories.forget(gone)
        needed = {run.definition for run in self.board.runs.values()}
        for mark in self.pinned.keys() - needed:
            del self.pinned[mark]
            out.append(Drop("definitions", mark))
