"""The desk: what people write and how they react, turned into runs, decisions and answers."""

from __future__ import annotations

from dataclasses import replace

from cisbot.core.chat import grammar, render
from cisbot.core.chat.decisions import Decisions
from cisbot.core.chat.office import Office, why_waiting
from cisbot.core.chat.publish import Publisher
from cisbot.core.chat.render import Text
from cisbot.core.chat.unread import read
from cisbot.core.chat.voice import Voice
from cisbot.core.effects import ReadLog, Send
from cisbot.core.ids import EventId, RunId, run_event
from cisbot.core.inputs import Instant, TextRead
from cisbot.core.room.events import Json, JsonMap, Message, Outcome, Reaction
from cisbot.core.runs.state import OF_OUTCOME, Run, RunStatus, TaskStatus
from cisbot.errors import FieldError

LOG_BYTES_MAX = 3_000
LIST_MAX = 12
NODE_MESSAGES = frozenset({"status", "prompt", "final", "ask", "task", "answer"})


class Desk:
    """The chat of one node. Pure."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self.board = office.board
        self.voice = Voice(office)
        self.publisher = Publisher(office, self.voice)
        self.decisions = Decisions(office, self.publisher, self.voice)
        self._logs: dict[str, tuple[Message, Run, str]] = {}
        self._reminded = False

    # -- in ------------------------------------------------------------------------------------

    def message(self, msg: Message, now: Instant, *, history: bool) -> None:
        """A message of the room, a person's or a node's. `history` is learned from, and not answered."""
        self.voice.past = history
        try:
            self._message(msg, now)
        finally:
            self.voice.past = False

    def _message(self, msg: Message, now: Instant) -> None:
        kind = msg.block.get("kind") if msg.block else None
        if self.board.is_node(msg.sender) and kind != "command":
            self._of_node(msg)
            return
        if msg.edits is not None or msg.msgtype not in ("m.text", "m.file"):
            return
        known = {run.id for run in self.board.runs_of(msg.event_id)}
        asked = {run for run in self._office.asked if run_event(run) == msg.event_id}
        if known and asked <= known:
            return
        try:
            command = grammar.parse_command(msg.body, file=msg.file is not None)
        except FieldError as error:
            self.voice.answer(msg, render.error_reply(error), now)
            return
        if command is None:
            command = self._word(msg)
        if command is None:
            return
        self._command(msg, command, now)

    def reaction(self, event: Reaction, now: Instant, *, history: bool) -> None:
        """✅ or ❌ on a publishing, prompt or status message."""
        self.voice.past = history
        try:
            self._reaction(event, now)
        finally:
            self.voice.past = False

    def _reaction(self, event: Reaction, now: Instant) -> None:
        meaning = grammar.reaction(event.key)
        run = self.board.of_message(event.target)
        if meaning is None or run is None or self.board.is_node(event.sender):
            return
        runs = self.board.runs_of(event.target) or [run]
        for one in runs:
            self.decisions.decide(one, event.sender, meaning == "yes", now, event.ts_ms)

    def text_read(self, item: TextRead, now: Instant) -> None:
        """A log or an attached file was read."""
        if item.tag.startswith("media "):
            self.publisher.media_read(item, now)
            return
        waiting = self._logs.pop(item.tag, None)
        if waiting is None:
            return
        msg, run, task = waiting
        text = item.text if item.text is not None else f"(no log: {item.why})"
        self.voice.answer(msg, render.logs_reply(run, task, text), now, first=(self._office.me.account,))

    # -- nodes' messages -------------------------------------------------------------------------

    def _of_node(self, msg: Message) -> None:
        block = msg.block
        kind = block.get("kind") if block else None
        if block is None or not isinstance(kind, str) or kind not in NODE_MESSAGES:
            return
        answers = block.get("answers")
        if isinstance(answers, str):
            self.voice.answers.heard(answers)
        run_id = block.get("run")
        run = self.board.runs.get(RunId(run_id)) if isinstance(run_id, str) else None
        if self.voice.past and run_id is None and kind == "answer":
            self._refused(msg, answers)
        if run is None:
            return
        if kind in ("status", "prompt", "ask", "final"):
            run = self.board.add_message(run, msg.edits or msg.event_id)
        if block["kind"] == "ask" and not run.asked:
            run = self._asked(run, block.get("epoch"))
        if run.key is None or self.voice.past:
            run = self._learn(run, msg, block)
        if kind in ("status", "final") and msg.sender == run.account:
            self._tasks_told(run, block)
        if kind == "final" and msg.sender == run.account and block.get("epoch") == run.epoch:
            self._end_told(self.board.runs[run.id], block.get("status"), msg.ts_ms)

    def _end_told(self, run: Run, status: Json, ts_ms: int) -> None:
        """Its holder says how it ended: that holds, should the release that says so never come."""
        said = (o for o, known in OF_OUTCOME.items() if known.value == status and o is not Outcome.LOST)
        outcome = next(said, None)
        if outcome is None or run.told is not None or run.status.over:
            return
        run = self.board.put(replace(run, told=outcome))
        if run.status in (RunStatus.PENDING, RunStatus.LOST):  # this node had given it up already
            self.board.settled(run, outcome, ts_ms)

    def _asked(self, run: Run, epoch: Json) -> Run:
        """Others ask what becomes of the run; a node that knew of no holder learns that it is lost."""
        unknown = isinstance(epoch, int) and epoch > run.epoch
        if run.status is not RunStatus.PENDING or not (self.voice.past or unknown):
            return self.board.put(replace(run, asked=True))
        known = epoch if isinstance(epoch, int) else run.epoch
        return self.board.put(
            replace(run, asked=True, status=RunStatus.LOST, epoch=max(run.epoch, known), question=known)
        )

    def _refused(self, msg: Message, answers: Json) -> None:
        """Nodes that were there refused a publication that this node can't judge any more."""
        named = {event for event in (msg.reply_to, answers) if isinstance(event, str)}
        for event in named:
            for run in self.board.runs_of(EventId(event)):
                if not run.status.over and not run.epoch:
                    self.board.close(
                        run, RunStatus.REJECTED, "it was refused when it was published", msg.ts_ms
                    )

    def _learn(self, run: Run, msg: Message, block: JsonMap) -> Run:
        """This node lacks the definition, or was away: others say what the run needs, and that it is over."""
        needed, expires = block.get("needed"), block.get("expires_ms")
        if block["kind"] == "prompt" and run.status is RunStatus.PENDING and run.key is None:
            run = self.board.put(
                replace(
                    run,
                    status=RunStatus.WAITING,
                    approvals_needed=needed if isinstance(needed, int) else 1,
                    expires_ms=expires if isinstance(expires, int) else None,
                )
            )
        ends = {status.value: status for status in RunStatus if status.over}
        final = block.get("status") if block["kind"] == "final" else None
        over = ends.get(str(block.get("over") or final))
        running = run.status is RunStatus.RUNNING and not self.voice.past
        if over is not None and not (run.status.over or running or self._office.executes(run.id)):
            run = self.board.close(run, over, "", msg.ts_ms)
        return run

    def _tasks_told(self, run: Run, block: JsonMap) -> None:
        told, epoch = block.get("tasks"), block.get("epoch")
        if not isinstance(told, dict) or epoch != run.epoch or self._office.executes(run.id):
            return
        known = {s.value: s for s in TaskStatus}
        tasks = {k: known[v] for k, v in told.items() if isinstance(v, str) and v in known}
        outputs = _outputs(block.get("outputs"))
        if (tasks, outputs) != (run.tasks, run.outputs):
            self.board.put(replace(run, tasks=tasks, outputs=outputs))

    # -- people's commands -----------------------------------------------------------------------

    def _word(self, msg: Message) -> grammar.Command | None:
        run = self.board.of_message(msg.thread or msg.reply_to)
        if run is None:
            return None
        word = grammar.parse_word(msg.body)
        return word if run.undecided or isinstance(word, grammar.Cancel) else None  # "no" is just talk there

    def _command(self, msg: Message, command: grammar.Command, now: Instant) -> None:
        try:
            self._obey(msg, command, now)
        except FieldError as error:
            self.voice.answer(msg, render.error_reply(error), now)

    def _obey(self, msg: Message, command: grammar.Command, now: Instant) -> None:
        office = self._office
        match command:
            case grammar.Publish():
                self.publisher.publish(msg, command, now)
                return
            case grammar.Approve() | grammar.Reject():
                run, reason = self._judged(msg, command)
                yes = isinstance(command, grammar.Approve)
                run = self.board.timely(run, msg.ts_ms)
                if not run.undecided:
                    raise FieldError(
                        "run", f"{run.short} is {run.status}, there is nothing to decide", "",
                        f"To stop it: !dag cancel {run.short}",
                    )  # fmt: skip
                self.decisions.decide(run, msg.sender, yes, now, msg.ts_ms, reason)
                return
            case grammar.Cancel():
                self.decisions.cancel(self.run_of(msg, command.run), msg.sender, now)
                return
            case _ if self.voice.past:
                return
            case grammar.Help():
                text = render.help_text(command.topic)
            case grammar.List():
                text = render.dag_list(office.definitions, office.problems)
            case grammar.Show():
                text = self._show(command.dag)
            case grammar.Nodes():
                text = render.node_list(list(self.board.nodes.values()), now.wall_ms, office.loads())
            case grammar.Status():
                text = self._status(msg, command, now)
            case grammar.Logs():
                self._read_log(msg, command, now)
                return
        self.voice.answer(msg, text, now)

    def _show(self, dag: str) -> Text:
        definition = self._office.definitions.get(dag)
        if definition is None:
            raise self.publisher.unknown_dag(dag)
        return render.dag_show(definition, definition.hash)

    def run_of(self, msg: Message, text: str | None) -> Run:
        """The run that a command names, or in whose thread it stands. Raises `FieldError`."""
        if text:
            return self.board.find(text)
        run = self.board.of_message(msg.thread) or self.board.of_message(msg.reply_to)
        if run is None:
            raise FieldError(
                "run", "is not given", "a run's short id, or answer in its thread", "See: !dag status"
            )
        return run

    def _judged(self, msg: Message, command: grammar.Approve | grammar.Reject) -> tuple[Run, str]:
        """The run, and why; in a run's thread a first word that names no run belongs to the reason."""
        reason = command.reason if isinstance(command, grammar.Reject) else ""
        try:
            return self.run_of(msg, command.run), reason
        except FieldError:
            here = self.board.of_message(msg.thread)
            if here is None or isinstance(command, grammar.Approve):
                raise
            return here, f"{command.run or ''} {reason}".strip()

    def _status(self, msg: Message, command: grammar.Status, now: Instant) -> Text:
        if command.run is None and self.board.of_message(msg.thread) is None:
            return self._list(LIST_MAX, now)
        run = self.run_of(msg, command.run)
        return self.describe(run, now)

    def _list(self, most: int, now: Instant) -> Text:
        text = render.run_list(self.board.recent(most), now.wall_ms, len(self.board.runs) - most)
        return render.in_mode(text, available=self._office.ledger.bounds.available)

    def describe(self, run: Run, now: Instant) -> Text:
        """Everything about one run."""
        why = why_waiting(self._office, run, now)
        text = render.run_status(run, self._office.tasks_of(run.id), now.wall_ms, why)
        return render.in_mode(text, available=self._office.ledger.bounds.available)

    def status_of(self, run: str | None, now: Instant) -> JsonMap:
        """The status for a local caller."""
        try:
            if run is None:
                return {"ok": True, "text": self._list(50, now).plain}
            return {"ok": True, "text": self.describe(self.board.find(run), now).plain}
        except FieldError as error:
            return {"ok": False, "error": error.text()}

    def _read_log(self, msg: Message, command: grammar.Logs, now: Instant) -> None:
        run = self.run_of(msg, command.run)
        tasks = self._office.tasks_of(run.id)
        if run.account != self._office.me.account or not tasks:
            where = f"on {run.node}, which does not answer" if run.node else "nowhere: it has not run"
            text = Text(f"The logs of {run.short} are {where}.", None)
            first = (run.account,) if run.account else ()
            self.voice.answer(msg, text, now, first=first)
            return
        mine = (self._office.me.account,)
        if command.task is not None and command.task not in tasks:
            what = f"{run.short} has no task {command.task[:40]!r}"
            error = FieldError("task", what, ", ".join(tasks)[:200])
            self.voice.answer(msg, render.error_reply(error), now, first=mine)
            return
        ran = [t for t in tasks.values() if t.log_path]
        failed = [t for t in ran if t.status is TaskStatus.FAILED]
        newest = sorted(ran, key=lambda t: t.started_ms or 0)[-1:]
        shown = [tasks[command.task]] if command.task else failed[:1] or newest
        pick = shown[0] if shown else None
        if pick is None or not pick.log_path or pick.started_ms is None:
            none = f"No task of {run.short} has written a log yet."
            text = Text(
                f"{run.short} · {command.task} has not written a log." if command.task else none, None
            )
            self.voice.answer(msg, text, now, first=mine)
            return
        tag = f"log {msg.event_id}"
        self._logs[tag] = (msg, run, pick.task)
        self._office.ask(ReadLog(tag, pick.log_path, LOG_BYTES_MAX))

    # -- out -------------------------------------------------------------------------------------

    def ask_lost(self, run: Run, now: Instant) -> None:
        """The holder is lost and the DAG says ask: ask in the thread. Off the home server nobody is sure."""
        if self._office.ledger.abroad:
            return
        done = (TaskStatus.SUCCEEDED, TaskStatus.SKIPPED)
        unfinished = [name for name, status in run.tasks.items() if status not in done]
        self.voice.post(
            run, render.lost_question(run, unfinished), f"lost {run.id} {run.epoch}", now, kind="ask",
            mentions=(run.publisher,), delay_s=1.0, only_if=RunStatus.LOST, more={"epoch": run.epoch},
        )  # fmt: skip

    def remind(self, now: Instant) -> None:
        """Once, after a start: do what an earlier process of this node had to do and did not."""
        if self._reminded:
            return
        self._reminded = True
        for msg in self._office.unread:
            self._office.keep(read(msg))
            self.message(msg, now, history=False)
        for run in self.board.open_runs():
            definition = self._office.pinned.get(run.definition)
            if run.status is RunStatus.LOST and not run.asked:
                self.ask_lost(run, now)
            elif run.status is RunStatus.WAITING and not run.messages and definition and definition.approval:
                self.publisher.prompt(run, definition.approval, now)

    def expired(self, run: Run, now: Instant) -> None:
        """Nobody approved in time."""
        self.voice.note(
            run, f"{run.dag} {run.short} expired: nobody approved in time.", f"expired {run.id}", now
        )

    def due(self, now: Instant) -> list[Send]:
        """Answers whose turn has come."""
        return self.voice.answers.due(now)

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        return self.voice.answers.deadline()


def _outputs(told: Json) -> dict[str, dict[str, str] | None]:
    """What the holder says its finished tasks gave; whatever is no text is left out."""
    found: dict[str, dict[str, str] | None] = {}
    for task, values in told.items() if isinstance(told, dict) else ():
        if values is None:
            found[task] = None
        elif isinstance(values, dict):
            found[task] = {name: value for name, value in values.items() if isinstance(value, str)}
    return found
