"""The coordinator: one input in, one `Step` out. It alone sees claims, runs and chat together.

Room events go through the claim fold and the board, what time brings through the keeper; then the wishes
of this node are pursued, executions go on, answers that are due are given, and all that changed is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from cisbot.core.chat.desk import Desk
from cisbot.core.chat.status import StatusBoard
from cisbot.core.claims.contend import Contender, Wish
from cisbot.core.claims.keeper import Ended, Extended, Fact, Freed, Hold, Keeper, Taken, Won
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.memory import Memory, MemoryReply
from cisbot.core.claims.messages import Claim, Me, end, node_record
from cisbot.core.claims.rows import head_to_row
from cisbot.core.claims.state import Bounds, Head
from cisbot.core.dags.definition import Definition, OnLost
from cisbot.core.dags.parse import canonical, definition_hash
from cisbot.core.effects import Answer, Ask, CancelWork, Drop, MoveDeadline, Put, Send, Step, Work, Write
from cisbot.core.frames import TaskEnded, TaskStarted
from cisbot.core.ids import ClaimKey, Incarnation, RunId, UserId, order_hash, run_node
from cisbot.core.inputs import (
    BackRead,
    Definitions,
    Input,
    Instant,
    MemoryAsk,
    RoomBatch,
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
from cisbot.core.placement import matches
from cisbot.core.room import events as ev
from cisbot.core.room.events import Outcome, Rejected, RoomEvent
from cisbot.core.room.rows import powers_to_row
from cisbot.core.room.wire import MEMORY_PREFIX
from cisbot.core.runs.board import Board
from cisbot.core.runs.execution import Execution, Place, taken_up
from cisbot.core.runs.rows import node_to_row, run_to_row, task_to_row
from cisbot.core.runs.state import NodeInfo, Run, RunStatus, TaskRun
from cisbot.core.settings import Settings

APPROVAL_CHECK_S = 5.0


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
    powers: tuple[ev.PowerLevels | ev.RoomCreate, ...] = ()


class Coordinator:
    """One node's decisions. Pure: no clock, no I/O; `handle` is called with one input after the other."""

    def __init__(self, settings: Settings, me: Me, kept: Kept, version: str) -> None:
        self.settings = settings
        self.me = me
        self.version = version
        self.ledger = Ledger(kept.bounds)
        self.ledger.load(kept.sure, kept.unsure)
        self.keeper = Keeper(me, self.ledger)
        self.contender = Contender(self.keeper)
        self.memory = Memory(self.keeper)
        self.board = Board(settings.policy)
        self.definitions: dict[str, Definition] = {}
        self.problems: tuple[str, ...] = ()
        self.pinned: dict[str, Definition] = dict(kept.definitions)
        self.executions: dict[RunId, Execution] = {}
        self.own_tasks: dict[RunId, dict[str, TaskRun]] = {}
        self.place = Place(settings.node.id, str(settings.node.data_dir), settings.coordinator.kill_grace)
        self.status = StatusBoard(self.board, me)
        self.desk = Desk(self)
        self.lapsed: set[tuple[RunId, int]] = set()
        self.ready = kept.cursor is not None
        self.charter: ev.Charter | None = None
        self.draining = False
        self._unsettled: dict[str, Send] = {}
        self._announced: str = ""
        self._out = Outbound()
        self._load(kept)

    def _load(self, kept: Kept) -> None:
        for powers in kept.powers:
            self.board.note_powers(powers)
        for info in kept.nodes:
            self.board.nodes[info.account] = info
        for run in kept.runs:
            self.board.put(run)
        for task in kept.tasks:
            self.own_tasks.setdefault(task.run, {})[task.task] = task
        self.board.dirty.clear()

    # -- the one way in --------------------------------------------------------------------------

    def start(self, kept: Kept, now: Instant) -> Step:
        """The first step: say again what was not said, and end the incarnation before this one."""
        self._out = Outbound()
        self._out.send.extend(kept.outbox)
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
        match item:
            case RoomBatch():
                self._batch(item, now)
            case SendDone() | SendFailed():
                self._sent(item, now)
            case StateRead():
                key = ClaimKey(item.tag.removeprefix("intent "))
                self.contender.named(key, item.event, now.boot)
            case BackRead():
                self._back(item, now)
            case StoryRead():
                self._story(item, now)
            case TextRead():
                self.desk.text_read(item, now)
            case WorkerReport():
                self._report(item.frame, now)
            case WorkerLost():
                for run, task, attempt in item.tasks:
                    if execution := self.executions.get(RunId(run)):
                        execution.worker_lost(task, attempt, item.why, now.wall_ms)
            case Definitions():
                self._definitions(item)
            case MemoryAsk():
                self.memory.ask(item, now.boot)
            case StatusAsk():
                self._out.work.append(Answer(item.tag, {"text": self.desk.status_text(item.run, now)}))
            case Stop():
                self._stop(now)
            case Tick():
                pass
        return self._finish(now)

    def deadline(self) -> float | None:
        """The boot time at which to call `handle(Tick())` at the latest."""
        times = [
            self.keeper.deadline(),
            self.contender.deadline(),
            self.memory.deadline(),
            self.desk.deadline(),
            self.status.deadline(),
            self._watch_at,
        ]
        return min((t for t in times if t is not None), default=None)

    _watch_at: float | None = None

    # -- room events -----------------------------------------------------------------------------

    def _batch(self, batch: RoomBatch, now: Instant) -> None:
        if batch.initial or batch.gap:
            self._gap(batch, now)
        for event in batch.history:
            if not isinstance(event, Rejected):
                self._chat(event, now, history=True)
        for event in batch.events:
            if isinstance(event, Rejected):
                continue
            self._event(event, now)
        self._out.persist.append(Put("meta", {"key": "cursor", "value": batch.cursor}))
        if not self.ready:
            self.ready = True
            self._join(now)

    def _gap(self, batch: RoomBatch, now: Instant) -> None:
        also: set[ClaimKey] = set()
        for event in batch.state:
            match event:
                case ev.Take() | ev.Release() | ev.Restate() | ev.MemoryWrite():
                    also.add(event.key)
                    self.board_hint(event, now)
                case Rejected():
                    if event.type in ("io.cisbot.lock", "io.cisbot.memory"):
                        continue
                case _:
                    self._event(event, now, live=False)
        self.keeper.gap(also, now.boot)
        self.contender.gap()
        for hold in self.keeper.holds.values():
            self._out.asks.extend(())
            if execution := self.executions.get(hold.run):
                execution.hold = hold

    def board_hint(self, event: RoomEvent, now: Instant) -> None:
        """What the state says of runs after a gap: a hint for people; claims wait for a sure head."""
        match event:
            case ev.Take():
                run = self.board.runs.get(event.run)
                if run is not None and not run.status.over and event.epoch > run.epoch:
                    self.board.put(
                        replace(
                            run, status=RunStatus.RUNNING, node=event.node, account=event.sender,
                            epoch=event.epoch, definition=event.definition,
                        )
                    )  # fmt: skip
            case ev.Release() if event.outcome is not None:
                self._settle(event, now)
            case _:
                pass

    def _join(self, now: Instant) -> None:
        """The first batch is folded: refuse what can't be served, then say who this node is."""
        twin = self._twin()
        if twin is not None:
            self._out.halt = (
                f"node.id: '{self.me.node}' belongs to {twin.account} in this room; expected an id of its "
                f"own. Choose another [node] id, or stop that node and let it leave"
            )
        elif self.charter is None:
            self._out.halt = "the room has no charter (io.cisbot.charter). Run: cisbot room init"

    def _twin(self) -> NodeInfo | None:
        return next(
            (n for n in self.board.living() if n.id == self.me.node and n.account != self.me.account), None
        )

    def _event(self, event: RoomEvent, now: Instant, *, live: bool = True) -> None:
        match event:
            case ev.Charter():
                self.charter = event
                self.ledger.bounds = Bounds(event.lease_s_max, event.epoch_step_max)
                self._out.persist.append(
                    Put("meta", {"key": "bounds", "value": f"{event.lease_s_max} {event.epoch_step_max}"})
                )
            case ev.PowerLevels() | ev.RoomCreate():
                self.board.note_powers(event)
                self._out.persist.append(powers_to_row(event))
            case ev.Encryption():
                self._out.halt = (
                    "the room is encrypted, which cisbot can't serve yet. Use a room without encryption"
                )
            case ev.NodeRecord():
                self._node(event, now)
            case ev.Member():
                pass
            case ev.Intent():
                self._out.asks.extend(self.contender.observe(event, now.boot))
            case ev.Message() | ev.Reaction():
                if live:
                    self._chat(event, now, history=False)
            case _:
                if live:
                    self._claim(event, now)

    def _node(self, record: ev.NodeRecord, now: Instant) -> None:
        mine = record.sender == self.me.account
        if mine and record.incarnation != self.me.incarnation and self._announced:
            self._out.halt = (
                f"another process runs as {self.me.account} and took over; this one stops. "
                "Give every node an account of its own"
            )
        self.board.note_node(record, now.wall_ms)
        if not mine and record.node == self.me.node and not record.gone and self._announced:
            own, other = self.me.account, record.sender
            if other < own:  # both see both: exactly one of them yields
                self._out.halt = f"node.id: '{self.me.node}' is also used by {other}; choose another id"

    def _claim(self, event: ev.ClaimEvent | ev.Restate, now: Instant) -> None:
        self.board.seen(event.sender, now.wall_ms)
        if not isinstance(event, ev.Restate):
            self._out.asks.extend(self.contender.observe(event, now.boot))
        if isinstance(event, ev.Release) and event.outcome is not None:
            self._settle(event, now)
        facts, sends = self.keeper.observe(event, now.boot)
        self._say(*sends)
        self._facts(facts, now)
        if not isinstance(event, ev.Restate):
            self.memory.observe(event, now.boot)
        if isinstance(event, ev.Heartbeat):
            self._alive_again(event)

    def _settle(self, event: ev.Release, now: Instant) -> None:
        """An outcome settles the run also where its release came too late and was void."""
        run = self.board.runs.get(event.run)
        if run is None or event.outcome is None or not self.board.is_node(event.sender):
            return
        if run.id in self.executions or event.epoch < run.epoch:
            return
        if event.outcome is Outcome.LOST:
            self._lost(run, f"{event.node} lost its lease", now)
        else:
            self.board.settled(run, event.outcome, now.wall_ms)

    def _alive_again(self, event: ev.Heartbeat) -> None:
        """A holder that was thought lost renewed in time: it still runs."""
        for renewal in event.renews:
            head = self.ledger.sure(renewal.key)
            holder = head.held_by(event.sender, event.incarnation, renewal.epoch) if head else None
            run = self.board.runs.get(holder.run) if holder else None
            if run and run.epoch == renewal.epoch and run.status in (RunStatus.LOST, RunStatus.PENDING):
                self.lapsed.discard((run.id, renewal.epoch))
                self.board.put(replace(run, status=RunStatus.RUNNING, why="", asked=False))

    def _chat(self, event: RoomEvent, now: Instant, *, history: bool) -> None:
        if isinstance(event, ev.Message):
            self.desk.message(event, now, history=history)
        elif isinstance(event, ev.Reaction):
            self.desk.reaction(event, now, history=history)

    # -- facts of the claims -----------------------------------------------------------------------

    def _facts(self, facts: Iterable[Fact], now: Instant) -> None:
        for fact in facts:
            match fact:
                case Won():
                    self._won(fact, now)
                case Taken():
                    self.board.taken(fact.take, fact.holder, now.wall_ms)
                    self._fenced(fact.take.run, "another node runs it now", now)
                case Extended():
                    if execution := self.executions.get(fact.hold.run):
                        execution.hold = fact.hold
                        self._out.work.append(MoveDeadline(fact.hold.run, fact.hold.deadline))
                case Ended():
                    self._fenced(fact.hold.run, fact.why, now)
                    if (run := self.board.runs.get(fact.hold.run)) and not run.status.over:
                        self._lost(run, fact.why, now)
                case Freed():
                    self._freed(fact, now)
                case _:
                    pass

    def _freed(self, fact: Freed, now: Instant) -> None:
        run = self.board.runs.get(fact.holder.run)
        if run is None or run.status.over or run.epoch > fact.holder.epoch:
            return
        if isinstance(fact.by, ev.Release):
            if fact.by.outcome is None:
                self.board.put(replace(run, status=RunStatus.PENDING, why="given back"))
            return
        if isinstance(fact.by, ev.Take) and fact.by.run == run.id:
            return
        if run.id not in self.executions:
            self._lost(run, f"{fact.holder.node} is gone", now)

    def _lost(self, run: Run, why: str, now: Instant) -> None:
        """The run's holder is lost: its DAG's policy decides what happens."""
        if run.status in (RunStatus.LOST, RunStatus.PENDING):
            return
        if run.on_lost is OnLost.ASK:
            run = self.board.put(replace(run, status=RunStatus.LOST, why=why))
            self.desk.ask_lost(run, now)
        else:
            self.board.put(replace(run, status=RunStatus.PENDING, why=f"{why}; {run.on_lost} by its policy"))

    def _won(self, won: Won, now: Instant) -> None:
        run = self.board.runs.get(won.take.run)
        definition = self.pinned.get(won.take.definition)
        held = self.keeper.ledger.sure(won.take.key)
        holder = held.held_by(self.me.account, self.me.incarnation, won.take.epoch) if held else None
        stale = run is None or run.status is not RunStatus.PENDING or definition is None
        if stale or holder is None or won.hold.deadline <= now.boot or self.draining:
            self._say(self.keeper.release(won.take.key, None, ()))
            return
        assert run is not None and definition is not None
        taken = self.board.taken(won.take, holder, now.wall_ms)
        assert taken is not None
        own = self.own_tasks.get(run.id, {})
        rerun = run.on_lost is OnLost.RERUN and run.epoch > 0
        tasks = taken_up(run, own, rerun=rerun)
        execution = Execution(taken, definition, won.hold, self.place, tasks)
        self.executions[run.id] = execution
        self.status.opened(taken, execution, now)

    def _fenced(self, run: RunId, why: str, now: Instant) -> None:
        """This node no longer holds the run: whatever still runs of it must be dead at once."""
        execution = self.executions.pop(run, None)
        if execution is None:
            return
        self._keep_tasks(execution)
        self._out.work.append(CancelWork(run, 0.0))
        self._say(*self.status.fenced(run, why, now))

    # -- what the edge reports ---------------------------------------------------------------------

    def _report(self, frame: TaskStarted | TaskEnded, now: Instant) -> None:
        execution = self.executions.get(RunId(frame.run))
        if execution is None:
            return
        if isinstance(frame, TaskStarted):
            execution.started(frame, now.wall_ms)
            return
        task = execution.ended(frame, now.wall_ms)
        if task is None:
            return
        remember = execution.definition.tasks[frame.task].remember  # type: ignore[index]
        if frame.exit_code == 0 and frame.reason == "exit" and self.settings.policy.memory:
            for key, value in remember.items():
                self.memory.set(ClaimKey(MEMORY_PREFIX + key), value, now.boot)

    def _sent(self, item: SendDone | SendFailed, now: Instant) -> None:
        again = self._unsettled.get(item.txn)
        if isinstance(item, SendFailed) and item.errcode == "UNKNOWN" and again is not None:
            self._out.send.append(again)  # a second release or end is void, a lost one is not
            return
        self._unsettled.pop(item.txn, None)
        self._out.persist.append(Drop("outbox", item.txn))
        why = None if isinstance(item, SendDone) else item.why
        for execution in self.executions.values():
            execution.sent(item.txn, why, now.wall_ms)
        if isinstance(item, SendFailed):
            self.contender.failed(item.txn, now.boot)
            self.memory.failed(item.txn, now.boot)
        else:
            self.status.sent(item.txn, item.event_id, now)
            self.desk.sent(item.txn, item.event_id)

    def _back(self, item: BackRead, now: Instant) -> None:
        key = ClaimKey(item.tag.removeprefix("back "))
        if key.startswith(MEMORY_PREFIX):
            self.memory.back(key, item.epoch, now.boot)
            return
        wish = next((w for w in self._wishes(now) if w.key == key), None)
        self._say(*self.contender.back(key, item.epoch, wish, now.boot))

    def _story(self, item: StoryRead, now: Instant) -> None:
        for event in item.events or ():
            if isinstance(event, ev.Release) and event.outcome is not None:
                self._settle(event, now)

    def _definitions(self, item: Definitions) -> None:
        self.definitions = dict(item.dags)
        self.problems = item.problems

    def pin(self, definition: Definition) -> str:
        """Keep a definition under its hash, so that an edited file changes the next run only."""
        mark = definition_hash(definition)
        if mark not in self.pinned:
            self.pinned[mark] = definition
            self._out.persist.append(
                Put("definitions", {"hash": mark, "dag": definition.id, "text": canonical(definition)})
            )
        return mark

    # -- cancelling and stopping -------------------------------------------------------------------

    def cancel(self, run: Run, user: UserId, now: Instant) -> None:
        """Somebody with the right cancels: at once if nobody runs it, else its holder stops it."""
        self.board.put(replace(run, cancelled_by=user))
        if run.id in self.executions:
            self._stop_run(run.id, Outcome.CANCELLED)
        elif run.status is not RunStatus.RUNNING:
            self.board.close(replace(run, cancelled_by=user), RunStatus.CANCELLED, f"by {user}", now.wall_ms)

    def _stop_run(self, run: RunId, outcome: Outcome) -> None:
        execution = self.executions[run]
        if execution.stop(outcome):
            self._out.work.append(CancelWork(run, execution.grace_s))

    def _stop(self, now: Instant) -> None:
        """A clean stop: give back what has not started, let the rest go, and leave."""
        self.draining = True
        for run in list(self.executions):
            execution = self.executions.pop(run)
            self._keep_tasks(execution)
            self._out.work.append(CancelWork(run, execution.grace_s))
            self._say(*self.status.fenced(run, "its node was stopped", now))
        self.keeper.holds.clear()
        self._say(end(self.me, self.me.incarnation))
        self._say(node_record(self.me, self._dags(), self.settings.node, self.version, gone=True))

    # -- time and the end of every step --------------------------------------------------------------

    def _finish(self, now: Instant) -> Step:
        facts, sends = self.keeper.due(now.boot)
        self._facts(facts, now)
        self._say(*sends)
        if self.ready and not self.draining and self._out.halt is None:
            self._announce()
            self._watch(now)
            self._execute(now)
            sends, asks = self.contender.pursue(self._wishes(now), now.boot)
            self._say(*sends)
            self._out.asks.extend(asks)
        sends, asks, replies = self.memory.due(now.boot)
        self._say(*sends)
        self._out.asks.extend(asks)
        self._out.work.extend(_answer(reply) for reply in replies)
        self._say(*self.status.due(now))
        sends, asks = self.desk.due(now)
        self._say(*sends)
        self._out.asks.extend(asks)
        self._write()
        return self._out.step()

    def _announce(self) -> None:
        """The node's record: sent at start and when its definitions changed."""
        dags = self._dags()
        mark = f"{self.me.incarnation} {sorted(dags.items())}"
        if mark != self._announced:
            self._announced = mark
            self._say(node_record(self.me, dags, self.settings.node, self.version, gone=False))

    def _dags(self) -> dict[str, str]:
        if not self.settings.node.execute:
            return {}
        return {d.id: definition_hash(d)[:16] for d in self.definitions.values()}

    def _watch(self, now: Instant) -> None:
        """Runs whose holder went silent, and approvals whose deadline passed."""
        self._watch_at = None
        watch: list[float] = []
        for key in self.ledger.known():
            head = self.ledger.sure(key)
            for holder in head.holders if head else ():
                run = self.board.runs.get(holder.run)
                if run is None or run.status is not RunStatus.RUNNING or run.id in self.executions:
                    continue
                lapse = self.keeper.lapses_at(key, holder.slot, now.boot)
                if lapse > now.boot:
                    watch.append(lapse)
                elif (run.id, holder.epoch) not in self.lapsed:
                    self.lapsed.add((run.id, holder.epoch))
                    self._lost(run, f"{holder.node} went silent", now)
        for run in self.board.open_runs():
            if run.status is RunStatus.WAITING and run.expires_ms is not None:
                if run.expires_ms <= now.wall_ms:
                    self.board.close(run, RunStatus.EXPIRED, "nobody approved in time", now.wall_ms)
                    self.desk.expired(run, now)
                else:
                    watch.append(now.boot + min(APPROVAL_CHECK_S, (run.expires_ms - now.wall_ms) / 1000))
        self._watch_at = min(watch, default=None)

    def _execute(self, now: Instant) -> None:
        for run, execution in list(self.executions.items()):
            work, sends = execution.start_ready(now.wall_ms)
            self._out.work.extend(work)
            self._say(*sends)
            if execution.dirty:
                self._keep_tasks(execution)
                self.status.changed(run, execution, now)
            outcome = execution.outcome()
            if outcome is not None:
                self._complete(execution, outcome, now)

    def _complete(self, execution: Execution, outcome: Outcome, now: Instant) -> None:
        run = self.board.runs[execution.run.id]
        del self.executions[run.id]
        run = self.board.put(replace(run, tasks=execution.statuses()))
        run = self.board.settled(run, outcome, now.wall_ms)
        if execution.hold.key in self.keeper.holds:
            self._say(self.keeper.release(execution.hold.key, outcome, ()))
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
        """The first waiting run of every key that this node may claim now."""
        if not self.settings.node.execute or self.draining or not self.ready:
            return []
        if len(self.executions) >= self.settings.coordinator.max_runs:
            return []
        wishes: dict[ClaimKey, Wish] = {}
        for run in self.board.waiting():
            if run.key is None or run.key in wishes or not self.eligible(run):
                continue
            wishes[run.key] = self._wish(run)
        return list(wishes.values())

    def eligible(self, run: Run) -> bool:
        """Whether this node may execute the run: it matches, and has the very definition."""
        if not self.settings.node.execute or run.definition not in self.pinned:
            return False
        node = run_node(run.id)
        if node is not None:
            return node == self.me.node
        return matches(run.target, self.me.node, self.settings.node.labels)

    def _wish(self, run: Run) -> Wish:
        rivals = self.board.eligible(run.dag, run.target) if run_node(run.id) is None else []
        order = sorted(
            {n.account for n in rivals} | {self.me.account},
            key=lambda a: (self.load(a), order_hash(run.id, a)),
        )
        assert run.key is not None
        lease = int(min(self.settings.coordinator.claim_lease_duration, self.ledger.bounds.lease_s_max))
        claim = Claim(run.id, run.dag, run.scope, max(1, lease), run.definition)
        return Wish(run.key, claim, order.index(self.me.account), len(order) == 1)

    def load(self, account: UserId) -> int:
        """How many claims the account holds, as far as this node is sure."""
        heads = (self.ledger.sure(key) for key in self.ledger.known())
        return sum(1 for head in heads if head for h in head.holders if h.account == account)

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

    @staticmethod
    def hash_of(definition: Definition) -> str:
        """The definition's hash."""
        return definition_hash(definition)

    def hold_of(self, key: ClaimKey) -> Hold | None:
        """The hold of this node on the key, if any."""
        return self.keeper.holds.get(key)

    # -- out -----------------------------------------------------------------------------------------

    def _say(self, *sends: Send) -> None:
        for send in sends:
            if send.durable and send.state_key is not None:
                self._unsettled[send.txn] = send
            self._out.send.append(send)

    def say(self, *sends: Send) -> None:
        """Send on behalf of the desk."""
        self._say(*sends)

    def ask(self, ask: Ask) -> None:
        """Ask on behalf of the desk."""
        self._out.asks.append(ask)

    def _write(self) -> None:
        out = self._out.persist
        for key in sorted(self.ledger.dirty):
            head = self.ledger.sure(key)
            out.append(head_to_row(key, head if head is not None else Head(), sure=head is not None))
        self.ledger.dirty.clear()
        for run in sorted(self.board.dirty):
            out.append(run_to_row(self.board.runs[run]))
        self.board.dirty.clear()
        for account in sorted(self.board.dirty_nodes):
            out.append(node_to_row(self.board.nodes[account]))
        self.board.dirty_nodes.clear()


@dataclass(slots=True)
class Outbound:
    """A step in the making."""

    persist: list[Write] = field(default_factory=list)
    send: list[Send] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    work: list[Work] = field(default_factory=list)
    halt: str | None = None

    def step(self) -> Step:
        """The finished step."""
        return Step(tuple(self.persist), tuple(self.send), tuple(self.asks), tuple(self.work), self.halt)


def _answer(reply: MemoryReply) -> Answer:
    return Answer(reply.tag, reply.body)
