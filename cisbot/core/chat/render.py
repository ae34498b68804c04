"""What cisbot says: short texts, readable on a phone, never by colour or emoji alone.

Values from outside are cut and stripped of control characters, so that none can forge lines or floods.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from cisbot.core.dags.definition import Definition, Param
from cisbot.core.frozen import dataclass
from cisbot.core.ids import UserId
from cisbot.core.runs.state import NodeInfo, Run, RunStatus, TaskRun, TaskStatus
from cisbot.core.settings import Rule
from cisbot.errors import FieldError

TAIL_MAX = 1_500
TASKS_SHOWN = 10
LINES_SHOWN = 20
PARAMS_SHOWN = 20
AVAILABLE = "This room is available: may run twice."
YEAR_MAX_MS = 253_402_300_799_000  # the end of year 9999

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_TERMINAL = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[ -/]*[0-~])")
_MARK = {
    RunStatus.WAITING: "⏸",
    RunStatus.PENDING: "⏳",
    RunStatus.RUNNING: "▶",
    RunStatus.LOST: "❓",
    RunStatus.SUCCEEDED: "✅",
    RunStatus.FAILED: "❌",
    RunStatus.CANCELLED: "⏹",
    RunStatus.REJECTED: "⛔",
    RunStatus.EXPIRED: "⌛",
}
_HELP = {
    "publish": "!dag publish DAG [target=node|label|any|all] [scope=…] [priority=…] [key=value …]\n"
    'Values with spaces go in quotes: text="two words". A DAG may be attached where nodes allow it.',
    "status": "!dag status [RUN]: all runs, or one of them. In a run's thread: !dag status",
    "cancel": "!dag cancel RUN, or ❌ on its message.",
    "approve": "!dag approve RUN, or ✅ on its message.",
    "reject": "!dag reject RUN [reason], or ❌ on its message.",
    "logs": "!dag logs RUN [TASK]: the end of a task's log.",
    "show": "!dag show DAG: its tasks and parameters.",
    "list": "!dag list: the DAGs that can be published.",
    "nodes": "!dag nodes: who is here.",
}


@dataclass(frozen=True, slots=True)
class Text:
    """A message's plain text, and its HTML where that helps."""

    plain: str
    html: str | None


def clean(text: str, most: int = 200) -> str:
    """One line's worth of foreign text."""
    line = _CONTROL.sub("", text.replace("\n", " ").replace("\t", " "))
    return line if len(line) <= most else line[: most - 1] + "…"


def _block(text: str, most: int = TAIL_MAX) -> str:
    """The end of a log as a terminal would leave it: colours gone, a progress bar's last state only."""
    plain = _TERMINAL.sub("", text).replace("\t", "    ").replace("\r\n", "\n")
    lines = [_CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in plain.split("\n")]
    while lines and not lines[-1].strip():
        lines.pop()
    tail = "\n".join(lines[-LINES_SHOWN:]).strip("\n")[-most:]
    return tail.replace("```", "'''")


def seconds(value: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if value < 10:
        return f"{value:.1f} s"
    whole = int(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _moment(wall_ms: int) -> str:
    moment = datetime.fromtimestamp(min(max(0, wall_ms), YEAR_MAX_MS) / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _values(params: Mapping[str, str]) -> list[str]:
    """Parameters one a line, and how many more there are: nothing is left out silently."""
    lines = [f"  {clean(name, 64)}={clean(value)}" for name, value in list(params.items())[:PARAMS_SHOWN]]
    more = len(params) - len(lines)
    return [*lines, f"  … and {_many(more, 'more parameter')}"] if more > 0 else lines


def in_mode(text: Text, *, available: bool) -> Text:
    """What a status says, with what to know of its room."""
    if not available:
        return text
    rich = f"{text.html}<br/>{AVAILABLE}" if text.html is not None else None
    return Text(f"{text.plain}\n{AVAILABLE}", rich)


def help_text(topic: str | None) -> Text:
    """What can be said."""
    if topic is not None and topic.lower() in _HELP:
        return Text(_HELP[topic.lower()], None)
    verbs = ", ".join(_HELP)
    plain = (
        f"!dag {verbs}\nStart a run: !dag publish DAG key=value\nFollow it: its thread, or !dag status\n"
        "✅ approves, ❌ rejects or cancels. More: !dag help publish"
    )
    return Text(plain, None)


def dag_list(definitions: Mapping[str, Definition], problems: Sequence[str]) -> Text:
    """The DAGs of a node."""
    lines = [
        f"{name} — {clean(d.description, 80)}" if d.description else name
        for name, d in sorted(definitions.items())
    ]
    shown = lines[:LINES_SHOWN]
    if len(lines) > len(shown):
        shown.append(f"… and {len(lines) - len(shown)} more")
    if not lines:
        shown.append("No DAGs here. A node reads them from its [node] dags folders.")
    shown += [f"broken: {clean(p, 160)}" for p in problems[:5]]
    return Text("\n".join(shown), None)


def dag_show(definition: Definition, mark: str) -> Text:
    """One DAG: what it does and needs."""
    lines = [f"{definition.id} ({mark[:12]})"]
    if definition.description:
        lines.append(clean(definition.description))
    lines.append(f"target {definition.target}, if its node is lost: {definition.on_lost}")
    if definition.locks:
        lines.append(f"needs {_many(len(definition.locks), 'lock')}: {', '.join(definition.locks)}")
    if (most := definition.overlap.allow) > 1:
        lines.append(f"up to {most} runs of a scope at once")
    lines += [f"  {name}: {_rule(param)}" for name, param in list(definition.params.items())[:PARAMS_SHOWN]]
    if len(definition.params) > PARAMS_SHOWN:
        lines.append(f"  … and {_many(len(definition.params) - PARAMS_SHOWN, 'more parameter')}")
    if (approval := definition.approval) is not None:
        who = [*approval.users]
        who += [f"power level {approval.power_level}"] if approval.power_level is not None else []
        lines.append(f"needs {_many(approval.count, 'approval')}: {clean(' or '.join(who))}")
    for name, task in list(definition.tasks.items())[:LINES_SHOWN]:
        after = f" after {', '.join(task.needs)}" if task.needs else ""
        lines.append(f"• {name} ({task.kind}){clean(after)}")
    if len(definition.tasks) > LINES_SHOWN:
        lines.append(f"… and {len(definition.tasks) - LINES_SHOWN} more")
    return Text("\n".join(lines), None)


def _rule(param: Param) -> str:
    words = [str(param.type)]
    if param.choices:
        words.append(f"one of {clean(', '.join(map(str, param.choices)), 80)}")
    if param.required:
        words.append("required")
    elif param.default is not None:
        words.append(f"default {clean(str(param.default), 40)}")
    return ", ".join(words)


def _title(run: Run) -> str:
    return f"{_MARK[run.status]} {run.dag} {run.short}"


def run_list(runs: Sequence[Run], now_ms: int, more: int = 0) -> Text:
    """Runs, one a line, and how many more there are."""
    if not runs:
        return Text("No runs yet. Start one: !dag publish DAG", None)
    lines = []
    for run in runs:
        where = f" on {run.node}" if run.node else ""
        lines.append(f"{_title(run)} {run.status}{where}, {_age(run, now_ms)}")
    if more > 0:
        lines.append(f"… and {_many(more, 'older run')}")
    return Text("\n".join(lines), None)


def _age(run: Run, now_ms: int) -> str:
    if run.ended_ms is not None:
        return f"{seconds(max(0, now_ms - run.ended_ms) / 1000)} ago"
    return f"published {seconds(max(0, now_ms - run.published_ms) / 1000)} ago"


def run_status(run: Run, tasks: Mapping[str, TaskRun], now_ms: int, why: str | None) -> Text:
    """The status message of a run."""
    where = f" on {run.node}" if run.node else ""
    done = sum(1 for t in tasks.values() if t.status is TaskStatus.SUCCEEDED)
    count = f" · {done}/{_many(len(tasks), 'task')}" if tasks else ""
    lines = [f"{_title(run)} {run.status}{where}{count}"]
    if why or run.why:
        lines.append(clean(why or run.why))
    lines += _task_lines(tasks.values())
    return Text("\n".join(lines), None)


def _task_lines(tasks: Iterable[TaskRun]) -> list[str]:
    order = [TaskStatus.FAILED, TaskStatus.RUNNING, TaskStatus.CANCELLED, TaskStatus.SKIPPED]
    order += [TaskStatus.PENDING, TaskStatus.SUCCEEDED]
    ranked = sorted(tasks, key=lambda t: order.index(t.status))
    lines = [f"• {t.task}: {t.status}{_how(t)}" for t in ranked[:TASKS_SHOWN]]
    rest = ranked[TASKS_SHOWN:]
    if rest:
        counts = {s: sum(1 for t in rest if t.status is s) for s in order}
        lines.append("… " + ", ".join(f"{n} {s}" for s, n in counts.items() if n))
    return lines


def _how(task: TaskRun) -> str:
    """Why it failed: what is known in words first, then the number."""
    if task.status is not TaskStatus.FAILED:
        return ""
    error = "over its time limit" if task.error == "timeout" else task.error
    parts = [clean(error, 80)] if error not in ("", "exit") else []
    if task.signal:
        parts.append(f"signal {task.signal}")
    elif task.exit_code:
        parts.append(f"exit {task.exit_code}")
    return f" ({', '.join(parts)})" if parts else ""


def approval_prompt(
    run: Run,
    who: Sequence[str],
    needed: int,
    mark: str,
    target: str,
    scope: str,
    params: Mapping[str, str],
    expires_ms: int | None,
) -> Text:
    """Ask for approval, saying exactly what would run."""
    lines = [
        f"⏸ {run.dag} {run.short} waits for approval ({needed} needed), asked for by {clean(run.publisher)}",
        f"target {clean(target, 80)}, scope {scope}, definition {mark[:12]}",
        *(["with", *_values(params)] if params else []),
        f"May approve: {clean(', '.join(who), 600)}",
        *([f"Expires {_moment(expires_ms)}"] if expires_ms is not None else []),
        "React with ✅ to approve or ❌ to reject.",
    ]
    return Text("\n".join(lines), None)


def final_reply(run: Run, tasks: Mapping[str, TaskRun], took_s: float, failing: TaskRun | None) -> Text:
    """How it ended, with the end of the failing task's log."""
    head = f"{_title(run)} {run.status}{f' on {run.node}' if run.node else ''} after {seconds(took_s)}"
    if run.cancelled_by:
        head += f", cancelled by {clean(run.cancelled_by)}"
    if failing is None:
        return Text(f"{head}, {_many(len(tasks), 'task')}", None)
    said = f"{failing.task}{_how(failing) or ' failed'}"
    tail = _block(failing.tail)
    plain = f"{head}\n{said}" + (f":\n{tail}" if tail else "") + f"\nMore: !dag logs {run.short}"
    rich = f"{html.escape(head)}<br/>{html.escape(said)}"
    rich += f"<pre><code>{html.escape(tail)}</code></pre>" if tail else "<br/>"
    return Text(plain, f"{rich}More: <code>!dag logs {html.escape(run.short)}</code>")


def lost_question(run: Run, unfinished: Sequence[str]) -> Text:
    """The holder is lost: what is known, and what may be decided."""
    names = clean(", ".join(unfinished[:10]), 700) or "no task that is known"
    if len(unfinished) > 10:
        names += f" and {len(unfinished) - 10} more"
    plain = (
        f"❓ {run.dag} {run.short}: {clean(run.why)}. Not known to be done: {names}.\n"
        "React with ✅ to resume it from there, or ❌ to close it."
    )
    return Text(plain, None)


def node_list(nodes: Sequence[NodeInfo], now_ms: int, holds: Mapping[UserId, int]) -> Text:
    """Who is here."""
    lines = []
    for node in sorted(nodes, key=lambda n: n.id):
        labels = ", ".join(f"{k}={v}" for k, v in sorted(node.labels.items()))
        role = "executes" if node.executes else "entry"
        seen = seconds(max(0, now_ms - node.seen_ms) / 1000)
        state = "left" if node.gone else f"{role}, runs {holds.get(node.account, 0)}, last sign {seen} ago"
        lines.append(f"{node.id}: {state}" + (f" ({clean(labels, 100)})" if labels else ""))
    return Text("\n".join(lines) or "No nodes yet. Start one: cisbot run --config …", None)


def logs_reply(run: Run, task: str, text: str) -> Text:
    """The end of a task's log."""
    tail = _block(text, 3_000) or "(empty)"
    head = f"{run.dag} {run.short} · {task}"
    rich = f"{html.escape(head)}<pre><code>{html.escape(tail)}</code></pre>"
    return Text(f"{head}\n{tail}", rich)


def denied(user: str, act: str, rule: Rule) -> Text:
    """Somebody lacks the right."""
    who = [*rule.users]
    if rule.power_level is not None:
        who.append(f"power level {rule.power_level}")
    return Text(
        f"{clean(user)} may not {clean(act)}; that takes {clean(' or '.join(who)) or 'nobody'}.", None
    )


def error_reply(error: FieldError) -> Text:
    """One short line that names the mistake and the next right command."""
    return Text(clean(error.text(), 600), None)
