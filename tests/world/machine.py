"""Nodes of the pure world: a real coordinator each, a store of rows, and a worker that obeys the test."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from cisbot.core.chat.unread import unread_from_row
from cisbot.core.claims.messages import Me
from cisbot.core.claims.rows import bounds_from_meta, head_from_row
from cisbot.core.claims.state import Head
from cisbot.core.coordinator import Coordinator
from cisbot.core.dags.definition import Definition
from cisbot.core.dags.parse import parse
from cisbot.core.effects import (
    Answer,
    ArmEnd,
    Ask,
    CancelEnd,
    CancelWork,
    Drop,
    MoveDeadline,
    Put,
    ReadBack,
    ReadMedia,
    ReadRuns,
    ReadState,
    ReadStory,
    RestartEnd,
    Send,
    StartWork,
    Step,
    Work,
)
from cisbot.core.frames import StartTask, TaskEnded, TaskStarted
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, RunId, UserId, run_event
from cisbot.core.inputs import (
    BackRead,
    Definitions,
    Input,
    Instant,
    RoomBatch,
    RunsRead,
    SendDone,
    SendFailed,
    StateRead,
    Stop,
    StoryRead,
    TextRead,
    Tick,
    WorkerReport,
)
from cisbot.core.outbound import Kept
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Json, Message, Reaction
from cisbot.core.room.past import Highest, Past
from cisbot.core.room.wire import T_NODE
from cisbot.core.runs.power_rows import powers_from_meta
from cisbot.core.runs.rows import node_from_row, run_from_row, task_from_row
from cisbot.core.settings import Coordinator as CoordinatorSettings
from cisbot.core.settings import Matrix, Node, Policy, Settings
from cisbot.store.dag_table import KEYS
from cisbot.store.outbox_rows import send_from_row, send_to_row
from tests.world.delays import Delays
from tests.world.room import HOME, ModelRoom

Row = Mapping[str, str | int | float | None]


def dag(text: str) -> Definition:
    """A definition from YAML that is valid."""
    parsed = parse(text, "test")
    assert isinstance(parsed, Definition), parsed
    return parsed


class Machine:
    """One node. `crash` loses all but the rows; `lose` also those."""

    def __init__(
        self,
        room: ModelRoom,
        name: str,
        dags: list[Definition],
        *,
        execute: bool = True,
        policy: Policy | None = None,
        labels: Mapping[str, str] | None = None,
        max_runs: int = 16,
        server: str = HOME,
        delays: Delays | None = None,
        end_delay_s: float = 0.0,
        lease_s: float = 30.0,
        lag_s: float = 0.0,
    ) -> None:
        self.room = room
        self.delays = delays or Delays(room)
        self.end_delay_s = end_delay_s
        self.over: list[str] = []  # why incarnations ended while they lived
        self.again = False  # the host starts a new one
        self.stopped = False  # SIGSTOP to the node, not to its worker
        self.deadlines: dict[str, float] = {}
        self._unheard: list[Input] = []
        self.name = name
        self.account = f"@{name}:{server}"
        self.dags = dags
        self.execute = execute
        self.policy = policy or Policy()
        self.max_runs = max_runs
        self.lease_s = lease_s
        self.lag_s = lag_s  # from an event's arrival in the room to its arrival here
        self.labels = dict(labels or {})
        self.rows: dict[str, dict[str, Row]] = {table: {} for table in KEYS}
        self.running: dict[tuple[str, str, int], StartTask] = {}
        self.began: list[str] = []
        self.halted: str | None = None
        self.done = False
        self.alive = False
        self.auto: bool = True
        self.crash_after: int | None = None  # effects from now on
        self.ended: list[str] = []
        self.files: dict[str, str] = {}
        self.outputs: dict[str, dict[str, str]] = {}
        self.deaf: list[Send] = []  # what it wants to send while `mute`
        self.mute = False
        self._starts = 0
        self._place = 0
        self.coordinator: Coordinator

    # -- life ------------------------------------------------------------------------------------

    def start(self, now: Instant, *, history: bool = False) -> None:
        """Start a new process on the kept rows, and catch up; without them, on the room's history if so."""
        kept = self.build(now)
        if kept.cursor is None:
            self._place = len(self.room.stream)
            state = self.room.whole_state()
            told = self.room.events(0) if history else ()
            said = tuple(e for e in told if isinstance(e, Message | Reaction))
            self.feed(RoomBatch(str(self._place), (), gap=True, initial=True, state=state, history=said), now)
        else:
            start, self._place = int(kept.cursor), len(self.room.stream)
            self.feed(RoomBatch(str(self._place), self.room.events(start)), now)

    def build(self, now: Instant) -> Kept:
        """A new process that knows nothing of the room yet but what was kept."""
        self._starts += 1
        settings = Settings(
            coordinator=CoordinatorSettings(claim_lease_duration=self.lease_s, max_runs=self.max_runs),
            policy=self.policy,
            node=Node(id=NodeId(self.name), data_dir=Path("/data"), labels=self.labels, execute=self.execute),
            matrix=Matrix(
                homeserver="http://hs", user_id=self.account, access_token=SecretStr("x"), room="!r"
            ),
        )
        incarnation = Incarnation(f"{self.name}-{self._starts}")
        me = Me(NodeId(self.name), UserId(self.account), incarnation)
        kept = self._kept()
        self.coordinator = Coordinator(settings, me, kept, "test", end_delay_s=self.end_delay_s)
        self.alive, self.halted, self.running = True, None, {}
        found = Definitions({d.id: d for d in self.dags}, ())
        self._perform(self.coordinator.handle(found, now), now)
        self._perform(self.coordinator.start(kept, now), now)
        return kept

    def crash(self) -> None:
        """The process dies, with all its tasks."""
        self.alive, self.stopped, self.running, self.crash_after, self.deaf = False, False, {}, None, []
        self._unheard = []

    def lose(self) -> None:
        """The database is gone too."""
        self.crash()
        self.rows = {table: {} for table in KEYS}

    def sync(self, now: Instant) -> bool:
        """Hand the node what is new in the room; whether there was something."""
        told = bisect_right(self.room.times, now.boot - self.lag_s)
        if not self.alive or self.stopped or self._place >= told:
            return False
        start, self._place = self._place, told
        self.feed(RoomBatch(str(self._place), self.room.events(start, told)), now)
        return True

    def feed(self, item: Input, now: Instant) -> None:
        """One input, and all that follows from it at once."""
        if self.alive:
            self._perform(self.coordinator.handle(item, now), now)

    def tick(self, now: Instant) -> None:
        """Time has come. A stopped node does not notice; its worker kills what passed its deadline."""
        if self.stopped:
            for key in [k for k in self.running if now.boot >= self.deadlines[k[0]]]:
                del self.running[key]
                self._unheard.append(WorkerReport(TaskEnded(*key, None, 9, "fenced", "", "", {})))
            return
        deadline = self.coordinator.deadline() if self.alive else None
        if deadline is not None and deadline <= now.boot:
            self.feed(Tick(), now)

    def stop(self, now: Instant) -> None:
        """SIGTERM; its last words are said and confirmed."""
        self.feed(Stop(), now)

    def go_on(self, now: Instant) -> None:
        """SIGCONT."""
        self.stopped = False
        for report in self._unheard:
            self.feed(report, now)
        self._unheard = []

    def end_task(
        self,
        task: str,
        now: Instant,
        code: int = 0,
        reason: Literal["exit", "cancelled", "fenced"] = "exit",
        tail: str = "",
    ) -> None:
        """A running task ends."""
        key = next(k for k in self.running if k[1] == task)
        del self.running[key]
        if code == 0:
            self.ended.append(task)
        ended = TaskEnded(*key, code, None, reason, "", tail, self.outputs.get(task, {}))
        self.feed(WorkerReport(ended), now)

    # -- effects ---------------------------------------------------------------------------------

    def _perform(self, step: Step, now: Instant) -> None:
        writes = [*step.persist, *(send_to_row(s) for s in step.send if s.durable)]
        for write in writes:
            match write:
                case Put():
                    self.rows[write.table][str(write.row[KEYS[write.table]])] = write.row
                case Drop():
                    self.rows[write.table].pop(write.key, None)
        self.done = self.done or step.done
        if step.halt is not None and step.anew:
            self.over.append(step.halt)
            self.crash()
            self.again = True
            return
        if step.halt is not None:
            self.halted, self.alive = step.halt, False
            return
        if writes and self._dies():
            return
        for txn in step.withdraw:
            if any(send.txn == txn for send in self.deaf):
                self.deaf = [send for send in self.deaf if send.txn != txn]
                self.feed(SendFailed(txn, "WITHDRAWN", ""), now)
        for send in step.send:
            self._send(send, now)
            if self._dies():
                return
        for ask in step.ask:
            if not self.alive:
                return
            self._ask(ask, now)
        for work in step.work:
            if self._dies():
                return
            self._do(work, now)

    def _ask(self, ask: Ask, now: Instant) -> None:
        match ask:
            case ReadMedia():
                self.feed(TextRead(ask.tag, self.files.get(ask.url), "gone"), now)
            case ReadState():
                raw = self.room.state.get((ask.type, ask.state_key))
                self.feed(StateRead(ask.tag, decode(raw) if raw else None), now)
            case ReadBack():
                self.feed(BackRead(ask.tag, self._past(ask)), now)
            case ReadRuns():
                said = [e for e in self.room.events(0) if isinstance(e, Message | Reaction)]
                asked = {run_event(run) for run in ask.runs}
                about = [e for e in said if {e.event_id, getattr(e, "target", None)} & asked]
                self.feed(RunsRead(ask.tag, tuple(about)), now)
            case ArmEnd() | RestartEnd() | CancelEnd():
                self.feed(self.delays.request(self.account, ask, now.boot), now)
            case ReadStory():
                events = tuple(e for e in self.room.events(0) if getattr(e, "run", None) == ask.run)
                self.feed(StoryRead(ask.tag, events), now)
            case _:
                raise AssertionError(ask)

    def _do(self, work: Work, now: Instant) -> None:
        match work:
            case StartWork():
                self._work(work.frame, now)
            case CancelWork():
                for key in [k for k in self.running if k[0] == work.run]:
                    self.end_task(key[1], now, code=-15, reason="cancelled")
            case MoveDeadline():
                self.deadlines[work.run] = work.deadline
            case Answer():
                pass
            case _:
                raise AssertionError(work)

    def _dies(self) -> bool:
        """Count one effect; whether the process is dead by now."""
        if self.alive and self.crash_after is not None:
            self.crash_after -= 1
            if self.crash_after <= 0:
                self.crash()
        return not self.alive

    def _past(self, ask: ReadBack) -> Highest:
        past = Past(ask.key, ask.epoch_step_max)
        for event in reversed(self.room.events(0)):
            if event.event_id and past.reaches(event):
                break
        return past.highest()

    def _send(self, send: Send, now: Instant) -> None:
        if self.mute:
            self.deaf.append(send)
            return
        event = self.room.put(self.account, send.type, send.content, state_key=send.state_key, txn=send.txn)
        self.feed(SendDone(send.txn, EventId(event)), now)

    def _work(self, frame: StartTask, now: Instant) -> None:
        key = (frame.run, frame.task, frame.attempt)
        self.running[key] = frame
        self.deadlines[frame.run] = frame.deadline
        self.began.append(f"{frame.task}@{frame.env['CIS_FENCE']}")
        self.feed(WorkerReport(TaskStarted(*key, 1)), now)
        if self.auto and key in self.running:
            self.end_task(frame.task, now)

    def _kept(self) -> Kept:
        meta = {key: str(row["value"]) for key, row in self.rows["meta"].items()}
        heads = [head_from_row(row) for row in self.rows["heads"].values()]
        sure: dict[ClaimKey, Head] = {key: head for key, head, is_sure in heads if is_sure}
        return Kept(
            cursor=meta.get("cursor"),
            incarnation=Incarnation(meta["incarnation"]) if "incarnation" in meta else None,
            sure=sure,
            unsure=tuple(key for key, _, is_sure in heads if not is_sure),
            runs=tuple(run_from_row(r) for r in self.rows["runs"].values()),
            tasks=tuple(task_from_row(r) for r in self.rows["tasks"].values()),
            nodes=tuple(node_from_row(r) for r in self.rows["nodes"].values()),
            definitions={str(r["hash"]): dag(str(r["text"])) for r in self.rows["definitions"].values()},
            outbox=tuple(send_from_row(r) for r in self.rows["outbox"].values()),
            powers=powers_from_meta(meta),
            bounds=bounds_from_meta(meta),
            unread=tuple(unread_from_row(r) for r in self.rows["unread"].values()),
        )

    def status(self, run: str) -> str:
        """The run's status as this node knows it."""
        return str(self.coordinator.board.runs[RunId(run)].status)

    def short(self, run: str) -> str:
        """What people call the run."""
        return self.coordinator.board.runs[RunId(run)].short

    def record(self) -> Mapping[str, Json]:
        """What it last said of itself."""
        content = self.room.state[T_NODE, self.account]["content"]
        assert isinstance(content, dict)
        return content
