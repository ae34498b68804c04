"""What cisbot says: short texts, readable on a phone, never by colour or emoji alone.

Values from outside are cut and stripped of control characters, so that none can forge lines or floods.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cisbot.core.dags.definition import Definition
from cisbot.core.runs.state import NodeInfo, Run, RunStatus, TaskRun, TaskStatus
from cisbot.core.settings import Rule
from cisbot.errors import FieldError

TAIL_MAX = 1_500
TASKS_SHOWN = 10
LINES_SHOWN = 20
SILENT_S = 3_600

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]")
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
    lines = [_CONTROL.sub("", line) for line in text.replace("\t", "    ").split("\n")]
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
    for name, param in definition.params.items():
        rule = "required" if param.required else f"default {clean(str(param.default), 40)}"
        lines.append(f"  {name}: {param.type}, {rule}")
    for name, task in list(definition.tasks.items())[:LINES_SHOWN]:
        after = f" after {', '.join(task.needs)}" if task.needs else ""
        lines.append(f"• {name} ({task.kind}){clean(after)}")
    if len(definition.tasks) > LINES_SHOWN:
        lines.append(f"… and {len(definition.tasks) - LINES_SHOWN} more")
    return Text("\n".join(lines), None)


def _title(run: Run) -> str:
    return f"{_MARK[run.status]} {run.dag} {run.short}"


def run_list(runs: Sequence[Run], now_ms: int) -> Text:
    """Runs, one a line."""
    if not runs:
        return Text("No runs yet. Start one: !dag publish DAG", None)
    lines = []
    for run in runs:
        where = f" on {run.node}" if run.node else ""
        lines.append(f"{_title(run)} {run.status}{where}, {_age(run, now_ms)}")
    return Text("\n".join(lines), None)


def _age(run: Run, now_ms: int) -> str:
    if run.ended_ms is not None:
        return f"{seconds(max(0, now_ms - run.ended_ms) / 1000)} ago"
    return f"published {seconds(max(0, now_ms - run.published_ms) / 1000)} ago"


def run_status(run: Run, tasks: Mapping[str, TaskRun], now_ms: int, why: str | None) -> Text:
    """The status message of a run."""
    where = f" on {run.node}" if run.node else ""
    done = sum(1 for t in tasks.values() if t.status is TaskStatus.SUCCEEDED)
    count = f" · {done}/{len(tasks)} tasks" if tasks else ""
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
    if task.status is not TaskStatus.FAILED:
        return ""
    if task.signal:
        return f" (signal {task.signal})"
    if task.exit_code:
        return f" (exit {task.exit_code})"
    return f" ({clean(task.error, 80)})" if task.error else ""


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
    given = ", ".join(f"{k}={clean(v, 40)}" for k, v in list(params.items())[:10])
    lines = [
        f"⏸ {run.dag} {run.short} waits for approval ({needed} needed)",
        f"target {clean(target, 80)}, scope {scope}, definition {mark[:12]}",
        *([f"with {given}"] if given else []),
        f"May approve: {clean(', '.join(who))}",
        "React with ✅ to approve or ❌ to reject.",
    ]
    return Text("\n".join(lines), None)


def final_reply(run: Run, tasks: Mapping[str, TaskRun], took_s: float, failing: TaskRun | None) -> Text:
    """How it ended, with the end of the failing task's log."""
    head = f"{_title(run)} {run.status} on {run.node} after {seconds(took_s)}"
    if run.cancelled_by:
        head += f", cancelled by {run.cancelled_by}"
    if failing is None:
        return Text(f"{head}, {len(tasks)} tasks", None)
    said = f"{failing.task}{_how(failing) or ' failed'}"
    tail = _block(failing.tail)
    plain = f"{head}\n{said}" + (f":\n{tail}" if tail else "") + f"\nMore: !dag logs {run.short}"
    rich = f"{html.escape(head)}<br/>{html.escape(said)}"
    rich += f"<pre><code>{html.escape(tail)}</code></pre>" if tail else "<br/>"
    return Text(plain, f"{rich}More: <code>!dag logs {html.escape(run.short)}</code>")


def lost_question(run: Run, unfinished: Sequence[str]) -> Text:
    """The holder is lost: what is known, and what may be decided."""
    names = clean(", ".join(unfinished[:10])) or "no task that is known"
    plain = (
        f"❓ {run.dag} {run.short}: {clean(run.why)}. Not known to be done: {names}.\n"
        "React with ✅ to resume it from there, or ❌ to close it."
    )
    return Text(plain, None)


def node_list(nodes: Sequence[NodeInfo], now_ms: int, holds: Mapping[str, int]) -> Text:
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
    return Text(f"{user} may not {clean(act)}; that takes {clean(' or '.join(who)) or 'nobody'}.", None)


def error_reply(error: FieldError) -> Text:
    """One short line that names the mistake and the next right command."""
    return Text(clean(error.text(), 600), None)
