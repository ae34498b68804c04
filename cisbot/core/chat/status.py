"""The one status message of a run that this node executes: posted at the claim, edited, closed.

Edits are rare on purpose: every event costs every node and every phone. The gap between two edits grows
with the run's age, and after so many of them at once by much more: whatever a run does, and for how long,
it costs no more than 40 events in a year, its claim and its messages included.
"""

from __future__ import annotations

from dataclasses import dataclass

from cisbot.core.chat.posts import Post, edit_of, send_of
from cisbot.core.chat.render import final_reply, in_mode, run_status
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.messages import Me
from cisbot.core.effects import Priority, Send
from cisbot.core.ids import EventId, RunId, run_event
from cisbot.core.inputs import Instant
from cisbot.core.room.events import Json, JsonMap
from cisbot.core.room.wire import fitting
from cisbot.core.runs.board import Board
from cisbot.core.runs.execution import Execution
from cisbot.core.runs.state import Run, RunStatus, TaskStatus

POST_AFTER_S = 1.5  # a run that is over sooner has its final reply only
EDIT_GAP_S = 5.0
AGAIN_S = 15.0  # doubled by each failure: before a status message is sent again that could not be sent
EDIT_GAP_SHARE = 0.37  # of the run's age: 28 edits in the first half day
EDITS_OFTEN = 28
RARE_GAP_SHARE = 3.0  # after that: five more in the rest of a year
TASKS_TOLD_BYTES_MAX = 30_000  # of an event's 64 KiB; those that succeeded come first, for who resumes


@dataclass(slots=True)
class _Shown:
    execution: Execution
    opened: float
    event: EventId | None = None
    dirty: bool = False
    edited: float = 0.0
    count: int = 0
    posted: bool = False
    closing: bool = False
    failures: int = 0


class StatusBoard:
    """The status messages of this node. Pure."""

    def __init__(self, board: Board, me: Me, ledger: Ledger) -> None:
        self._board = board
        self._ledger = ledger
        self._me = me
        self._shown: dict[RunId, _Shown] = {}
        self._txns: dict[str, RunId] = {}
        self._stale: list[str] = []

    def opened(self, execution: Execution, now: Instant) -> None:
        """The run is claimed: its status message is due in the thread of its publishing message."""
        self._shown[execution.run.id] = _Shown(execution, now.boot, edited=now.boot)

    def changed(self, run: RunId) -> None:
        """Something about the run's tasks is new."""
        if (shown := self._shown.get(run)) is not None:
            shown.dirty = True

    def sent(self, txn: str, event: EventId, now: Instant) -> bool:
        """The homeserver has the status message: edits may follow. Whether it is one."""
        run_id = self._txns.pop(txn, None)
        shown = self._shown.get(run_id) if run_id else None
        if shown is None or run_id is None:
            return False
        shown.event = event
        if (run := self._board.runs.get(run_id)) is not None:
            self._board.add_message(run, event)
        return True

    def failed(self, txn: str, now: Instant) -> None:
        """The status message could not be sent: try again a little later, or let it be if the run is over."""
        run_id = self._txns.pop(txn, None)
        shown = self._shown.get(run_id) if run_id else None
        if shown is None or run_id is None:
            return
        if shown.closing:
            del self._shown[run_id]
        else:
            shown.posted, shown.failures = False, shown.failures + 1
            shown.opened = now.boot + AGAIN_S * 2.0 ** min(shown.failures, 10)

    def closed(self, run: Run, execution: Execution, now: Instant) -> list[Send]:
        """The run is over: the final reply, which mentions the publisher, and a last edit."""
        shown = self._shown.get(run.id)
        if shown is None:
            return []
        shown.dirty = shown.closing = True
        if not shown.posted:
            del self._shown[run.id]
        elif shown.event is None:  # it waits to be sent, and would say "running" after the end
            self._stale.append(f"status.{self._mark(run)}")
        started = run.started_ms or now.wall_ms
        text = final_reply(run, execution.tasks, max(0, now.wall_ms - started) / 1000, execution.failing())
        text = in_mode(text, available=self._ledger.bounds.available)
        block = self._block(run, shown)
        block["kind"] = "final"
        post = Post(
            f"final.{self._mark(run)}", text.plain, text.html, run_event(run.id), block,
            mentions=(run.publisher,), notify=True, priority=Priority.FINAL,
        )  # fmt: skip
        return [send_of(post)]

    def take_stale(self) -> list[str]:
        """Status messages that say nothing new any more, if they are not sent yet."""
        stale, self._stale = self._stale, []
        return stale

    def fenced(self, run_id: RunId) -> None:
        """This node let the run go: a last edit says so, if there is a status message."""
        shown, run = self._shown.get(run_id), self._board.runs.get(run_id)
        if shown is None or run is None:
            return
        shown.dirty = shown.closing = True
        if not shown.posted:
            del self._shown[run_id]

    def due(self, now: Instant) -> list[Send]:
        """Edits whose time has come."""
        sends: list[Send] = []
        for run_id, shown in list(self._shown.items()):
            run = self._board.runs.get(run_id)
            if run is None:
                del self._shown[run_id]
                continue
            if not shown.posted:
                if now.boot >= shown.opened + POST_AFTER_S:
                    sends.append(self._first(run, shown, now))
                continue
            if shown.event is None or not shown.dirty:
                continue
            if not shown.closing and now.boot < self._next(shown):
                continue
            shown.dirty, shown.edited, shown.count = False, now.boot, shown.count + 1
            mark = self._mark(run)
            post = self._post(f"edit.{mark}.{self._me.incarnation}.{shown.count}", run, shown, now)
            sends.append(edit_of(post, shown.event, f"edit {mark}"))
            if shown.closing:
                del self._shown[run_id]
        return sends

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        if not self._shown:
            return None
        times: list[float] = []
        for shown in self._shown.values():
            if not shown.posted:
                times.append(shown.opened + POST_AFTER_S)
            elif shown.dirty and shown.event is not None:
                times.append(self._next(shown))
        return min(times, default=None)

    def _first(self, run: Run, shown: _Shown, now: Instant) -> Send:
        shown.posted, shown.dirty, shown.edited = True, False, now.boot
        txn = f"status.{self._mark(run)}"
        self._txns[txn] = run.id
        return send_of(self._post(txn, run, shown, now))

    @staticmethod
    def _next(shown: _Shown) -> float:
        return shown.edited + gap_s(shown.edited - shown.opened, shown.count)

    def _mark(self, run: Run) -> str:
        return f"{run.short}.{run.epoch}".replace("/", "-")

    def _post(self, txn: str, run: Run, shown: _Shown, now: Instant) -> Post:
        text = run_status(run, shown.execution.tasks, now.wall_ms, None)
        text = in_mode(text, available=self._ledger.bounds.available)
        return Post(txn, text.plain, text.html, run_event(run.id), self._block(run, shown))

    def _block(self, run: Run, shown: _Shown) -> JsonMap:
        status = run.status.value if run.status is not RunStatus.PENDING else "given back"
        return {
            "kind": "status",
            "run": run.id,
            "epoch": shown.execution.hold.epoch,
            "node": self._me.node,
            "status": status,
            "tasks": _told(shown.execution),
            "outputs": {
                name: dict(outputs) if outputs is not None else None
                for name, outputs in shown.execution.told_outputs().items()
            },
        }


def gap_s(age_s: float, edits: int) -> float:
    """How long to wait after so many edits, the last of them at this age of the run."""
    return max(EDIT_GAP_S, age_s * (EDIT_GAP_SHARE if edits < EDITS_OFTEN else RARE_GAP_SHARE))


def _told(execution: Execution) -> dict[str, Json]:
    """The tasks' statuses, as many as there is room for."""
    named = [(name, task.status) for name, task in execution.tasks.items()]
    named.sort(key=lambda item: item[1] is not TaskStatus.SUCCEEDED)
    return fitting(named, TASKS_TOLD_BYTES_MAX)
