"""Executing one held run: which task starts, what a task's end means, and how the run ends. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from string import Template

from cisbot.core.claims.holds import Hold
from cisbot.core.dags.definition import Definition, OnLost, Task
from cisbot.core.dags.graph import topological_order
from cisbot.core.dags.params import environment
from cisbot.core.effects import Priority, Send, StartWork
from cisbot.core.frames import StartTask, TaskEnded, TaskStarted
from cisbot.core.frozen import dataclass
from cisbot.core.ids import order_hash, run_event, short_id
from cisbot.core.room import wire
from cisbot.core.room.events import JsonMap, Outcome
from cisbot.core.runs.state import Run, TaskRun, TaskStatus
from cisbot.core.scopes import Scope, ScopeKind, is_lock, lock_name, parse_label

OUTPUTS_TOLD_MAX = 8_000  # bytes of outputs in a run's status message
STALE = "could not renew its lease in time"
MESSAGE_MAX = 32_000  # characters of a `matrix` task's message once its values are filled in


@dataclass(frozen=True, slots=True)
class Place:
    """Where this node runs things."""

    node: str
    data_dir: str
    grace_s: float
    path: str = ""
    rooms: tuple[str, ...] = ()
    fence_s_max: float = math.inf  # from TERM to KILL where a deadline comes


class Execution:
    """The tasks of one run that this node holds: `hold` is that of its own key, `holds` all, locks too."""

    def __init__(
        self,
        run: Run,
        definition: Definition,
        hold: Hold,
        holds: Collection[Hold],
        place: Place,
        tasks: Mapping[str, TaskRun],
    ) -> None:
        self.run = run
        self.definition = definition
        self.hold = hold
        self.locks = {lock_name(held.key): held.epoch for held in holds if is_lock(held.key)}
        self.deadline = self.bounded(holds)
        self.why = STALE  # if it is lost
        self.place = place
        self.scope: Scope = parse_label(run.scope)
        self.tasks: dict[str, TaskRun] = {
            name: tasks.get(name) or TaskRun(run.id, name, TaskStatus.PENDING) for name in definition.tasks
        }
        self.dirty: set[str] = set(self.tasks)
        self._changed = True
        named = {str(name): task for name, task in definition.tasks.items()}
        order = topological_order({name: task.needs for name, task in named.items()})
        self._order = [(name, named[name]) for name in order]
        self.stopping: Outcome | None = None
        self.sending: dict[str, str] = {}

    def bounded(self, holds: Collection[Hold]) -> float:
        """The boot time at which its last process must be dead, by the claims that are held for it now."""
        lost = self.locks.keys() - {lock_name(held.key) for held in holds}
        until = min((held.deadline for held in holds), default=self.hold.deadline)
        self.deadline = min(until, self.deadline) if lost else until
        return self.deadline

    @property
    def grace_s(self) -> float:
        """From TERM to KILL; never more than a quarter of the lease."""
        return min(self.place.grace_s, self.hold.lease_s / 4)

    @property
    def fence_s(self) -> float:
        """The same where the deadline comes: a short delayed end leaves less."""
        return min(self.grace_s, self.place.fence_s_max)

    def start_ready(self, now_ms: int) -> tuple[list[StartWork], list[Send]]:
        """Start every task whose needs are met; skip those whose needs failed."""
        work: list[StartWork] = []
        sends: list[Send] = []
        if self.stopping is not None or not self._changed:
            return work, sends
        self._changed = False
        for name, task in self._order:  # every task after all it needs: one pass is enough
            if self.tasks[name].status is not TaskStatus.PENDING:
                continue
            needs = [self.tasks[n].status for n in task.needs]
            if any(s in (TaskStatus.FAILED, TaskStatus.SKIPPED, TaskStatus.CANCELLED) for s in needs):
                self._set(name, status=TaskStatus.SKIPPED)
            elif all(s is TaskStatus.SUCCEEDED for s in needs):
                self._begin(name, task, now_ms, work, sends)
        return work, sends

    def _begin(self, name: str, task: Task, now_ms: int, work: list[StartWork], sends: list[Send]) -> None:
        attempt = self.tasks[name].attempt + 1
        log = f"{self.place.data_dir}/logs/{self._folder()}/{name}.{self.hold.epoch}.{attempt}.log"
        self._set(name, status=TaskStatus.RUNNING, attempt=attempt, log_path=log, started_ms=now_ms)
        if task.matrix is not None and task.matrix.room not in (None, *self.place.rooms):
            error = f"this node may not write to {task.matrix.room}: it is not in [policy] rooms"
            self._set(name, status=TaskStatus.FAILED, error=error, ended_ms=now_ms)
            return
        if task.kind == "matrix":
            sends.append(self._message(name, task))
            return
        work.append(StartWork(self.scope.worker_name, self._frame(name, task, attempt, log)))

    def _folder(self) -> str:
        return f"{short_id(self.run.id)}-{order_hash(self.run.id):016x}".replace("/", "-")

    def _message(self, name: str, task: Task) -> Send:
        assert task.matrix is not None
        # Resumed on the same node it is the same transaction, which the homeserver takes once.
        again = f".{self.hold.epoch}" if self.run.on_lost is OnLost.RERUN else ""
        txn = f"task.{self._folder()}.{name}{again}"
        self.sending[txn] = name
        body = Template(task.matrix.message).safe_substitute(self._env(name, task))
        content: JsonMap = {"msgtype": "m.notice", "body": body[:MESSAGE_MAX]}
        if task.matrix.room is None:
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": run_event(self.run.id)}
            content[wire.BLOCK] = {"kind": "task", "run": self.run.id}
        return Send(txn, "m.room.message", content, Priority.CHAT, room=task.matrix.room)

    def _frame(self, name: str, task: Task, attempt: int, log: str) -> StartTask:
        args = {str(k): v for k, v in task.with_.items()}
        return StartTask(
            run=self.run.id,
            task=name,
            attempt=attempt,
            kind="skill" if task.kind == "skill" else "shell",
            script=task.skill or task.shell or "",
            args=args,
            shell="/bin/sh",
            env=self._env(name, task),
            workdir=task.workdir or f"{self.place.data_dir}/work/{self._folder()}",
            log_path=log,
            priority=self.run.priority,
            order=self.run.published_ms,
            grace_s=self.grace_s,
            fence_s=self.fence_s,
            timeout_s=task.timeout_s,
            deadline=self.deadline,
        )

    def _env(self, name: str, task: Task) -> dict[str, str]:
        env = dict(environment(self.run.params))
        env.update(self.definition.env)
        env.update(task.env)
        for need in task.needs:
            for key, value in self.tasks[need].outputs.items():
                env[f"CIS_OUTPUT_{need}_{key}".upper().replace("-", "_").replace(".", "_")] = value
        if self.scope.kind is ScopeKind.PROJECT:
            env.setdefault("PROJECT_ID", self.scope.name)
        if self.place.path:
            env.setdefault("PATH", self.place.path)
        env.update(
            CIS_RUN_ID=self.run.id,
            CIS_RUN=short_id(self.run.id),
            CIS_DAG=self.run.dag,
            CIS_TASK=name,
            CIS_NODE=self.place.node,
            CIS_SCOPE=self.run.scope,
            CIS_FENCE=str(self.hold.epoch),
            CIS_LOCKS=" ".join(f"{lock}={epoch}" for lock, epoch in sorted(self.locks.items())),
            CIS_SOCKET=f"{self.place.data_dir}/node.sock",
        )
        return env

    # -- what comes back -----------------------------------------------------------------------

    def started(self, frame: TaskStarted, now_ms: int) -> None:
        """The task's process runs."""
        if self.runs(frame.task, frame.attempt):
            self._set(frame.task, started_ms=now_ms)

    def runs(self, name: str, attempt: int) -> bool:
        """Whether this attempt of the task is the one that runs."""
        task = self.tasks.get(name)
        return task is not None and task.attempt == attempt and task.status is TaskStatus.RUNNING

    def ended(self, frame: TaskEnded, now_ms: int) -> TaskRun | None:
        """The attempt is over; None where it is not the running one (a stale frame)."""
        if not self.runs(frame.task, frame.attempt):
            return None
        if frame.reason == "fenced":  # its worker stopped it before the lease ran out
            self.stop(Outcome.LOST)
        good = frame.reason == "exit" and frame.exit_code == 0
        stopped = frame.reason in ("cancelled", "fenced")
        status = TaskStatus.SUCCEEDED if good else TaskStatus.CANCELLED if stopped else TaskStatus.FAILED
        return self._set(
            frame.task,
            status=status,
            exit_code=frame.exit_code,
            signal=frame.signal,
            error=frame.error or ("" if good else frame.reason),
            tail=frame.tail,
            outputs=dict(frame.outputs),
            ended_ms=now_ms,
        )

    def sent(self, txn: str, why: str | None, now_ms: int) -> bool:
        """A `matrix` task's message is in the room (`why` None), or could not be sent; whether it is one."""
        name = self.sending.pop(txn, None)
        if name is None:
            return False
        status = TaskStatus.SUCCEEDED if why is None else TaskStatus.FAILED
        self._set(name, status=status, error=why or "", ended_ms=now_ms)
        return True

    def worker_lost(self, name: str, attempt: int, why: str, now_ms: int) -> None:
        """The worker died under the task. All it left behind is dead."""
        if self.runs(name, attempt):
            self._set(name, status=TaskStatus.FAILED, error=f"worker lost: {why}", ended_ms=now_ms)

    def stop(self, outcome: Outcome) -> bool:
        """Stop the run with this outcome; True where something has to be killed first."""
        self.stopping = self.stopping or outcome
        for name, task in self.tasks.items():
            if task.status is TaskStatus.PENDING:
                self._set(name, status=TaskStatus.CANCELLED)
        return any(t.status is TaskStatus.RUNNING for t in self.tasks.values())

    def outcome(self) -> Outcome | None:
        """How the run ended, once all its tasks are over."""
        if any(not t.status.over for t in self.tasks.values()):
            return None
        if self.stopping is not None:
            return self.stopping
        failed = any(t.status is not TaskStatus.SUCCEEDED for t in self.tasks.values())
        return Outcome.FAILED if failed else Outcome.SUCCEEDED

    def told_outputs(self) -> dict[str, Mapping[str, str] | None]:
        """Outputs of finished tasks that others still need, for whoever resumes; None where too much."""
        needed = {
            need
            for name, task in self.definition.tasks.items()
            if not self.tasks[name].status.over
            for need in task.needs
        }
        left = OUTPUTS_TOLD_MAX
        told: dict[str, Mapping[str, str] | None] = {}
        for name in sorted(needed):
            outputs = self.tasks[name].outputs
            if self.tasks[name].status is TaskStatus.SUCCEEDED and outputs:
                size = len(json.dumps(dict(outputs), ensure_ascii=False).encode())
                told[name] = outputs if size <= left else None
                left -= size if size <= left else 0
        return told

    def failing(self) -> TaskRun | None:
        """The first task that failed."""
        return next((t for t in self.tasks.values() if t.status is TaskStatus.FAILED), None)

    def statuses(self) -> dict[str, TaskStatus]:
        """Every task's status."""
        return {name: task.status for name, task in self.tasks.items()}

    def _set(self, name: str, **changes: object) -> TaskRun:
        self.tasks[name] = replace(self.tasks[name], **changes)  # type: ignore[arg-type]
        self.dirty.add(name)
        self._changed = True
        return self.tasks[name]


def taken_up(run: Run, own: Mapping[str, TaskRun], *, rerun: bool) -> dict[str, TaskRun]:
    """The tasks with which a holder starts: finished ones are kept unless the DAG runs anew.

    A task that the room calls succeeded is; one of our own table too, unless it gave outputs to others
    that were too much for the room and are not known here: then it starts again. So does what ran when the
    holder was lost, with a higher attempt: the DAG says `on_lost: resume`, or a person said so.
    """
    if rerun:
        return {}
    kept: dict[str, TaskRun] = {}
    for name in {*run.tasks, *own}:
        task = own.get(name) or TaskRun(run.id, name, TaskStatus.PENDING)
        told = run.outputs.get(name, {})
        here = task.status is TaskStatus.SUCCEEDED
        there = run.tasks.get(name) is TaskStatus.SUCCEEDED and told is not None
        status = TaskStatus.SUCCEEDED if here or there else TaskStatus.PENDING
        outputs = task.outputs if here else told or {}
        kept[name] = replace(task, status=status, outputs=outputs)
    return kept
