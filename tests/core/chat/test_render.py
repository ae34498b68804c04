"""What people read: short, in words, and safe whatever is in the values."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from cisbot.core.chat import render
from cisbot.core.chat.grammar import VERBS
from cisbot.core.dags.definition import Definition
from cisbot.core.ids import ClaimKey, DagId, NodeId, RunId, UserId
from cisbot.core.runs.state import NodeInfo, Run, RunStatus, TaskRun, TaskStatus
from cisbot.core.settings import Rule
from cisbot.errors import FieldError

RUN = Run(
    RunId("$event"), DagId("backup_daily"), ClaimKey("backup_daily/project-proj-a"), "project-proj-a", "any",
    0, {}, UserId("@alice:hs"), 0, RunStatus.RUNNING, node=NodeId("node-1"),
)  # fmt: skip


def tasks(**statuses: TaskStatus) -> dict[str, TaskRun]:
    """Tasks with these statuses."""
    return {name: TaskRun(RUN.id, name, status) for name, status in statuses.items()}


def test_status() -> None:
    shown = tasks(dump=TaskStatus.SUCCEEDED, pack=TaskStatus.RUNNING, send=TaskStatus.PENDING)
    assert render.run_status(RUN, shown, 1000, None).plain == snapshot(
        """\
▶ backup_daily 6knjph running on node-1 · 1/3 tasks
• pack: running
• send: pending
• dump: succeeded\
"""
    )


def test_many_tasks_are_counted() -> None:
    shown = {f"t{n}": TaskRun(RUN.id, f"t{n}", TaskStatus.PENDING) for n in range(1000)}
    text = render.run_status(RUN, shown, 1000, None).plain
    assert len(text.splitlines()) == 12
    assert text.endswith("… 990 pending")


def test_final_reply_shows_the_end_of_the_failing_log() -> None:
    failing = TaskRun(RUN.id, "dump", TaskStatus.FAILED, exit_code=3, tail="line 1\nno space left\n")
    run = replace(RUN, status=RunStatus.FAILED)
    text = render.final_reply(run, {"dump": failing}, 75.2, failing)
    assert text.plain == snapshot(
        """\
❌ backup_daily 6knjph failed on node-1 after 1 min 15 s
dump (exit 3):
line 1
no space left
More: !dag logs 6knjph\
"""
    )
    assert text.html is not None
    assert "<pre><code>line 1" in text.html


def test_html_is_escaped_and_fences_are_harmless() -> None:
    failing = TaskRun(RUN.id, "dump", TaskStatus.FAILED, exit_code=1, tail="<b>x</b> ``` @room")
    text = render.final_reply(RUN, {"dump": failing}, 1.0, failing)
    assert text.html is not None
    assert "<b>" not in text.html
    assert "```" not in text.plain


@pytest.mark.parametrize(
    ("value", "text"), [(0.44, "0.4 s"), (12.0, "12 s"), (185.0, "3 min 5 s"), (7800.0, "2 h 10 min")]
)
def test_durations(value: float, text: str) -> None:
    assert render.seconds(value) == text


def test_denied_and_errors_say_what_would_be_right() -> None:
    rule = Rule(power_level=50, users=("@bob:hs",))
    assert render.denied("@eve:hs", "cancel", rule).plain == snapshot(
        "@eve:hs may not cancel; that takes @bob:hs or power level 50."
    )
    error = FieldError("dag", "no node has a DAG called 'x'", "", "See: !dag list")
    assert render.error_reply(error).plain == snapshot("dag: no node has a DAG called 'x'. See: !dag list")


@given(st.text(max_size=5000))
def test_foreign_text_stays_on_its_line_and_short(text: str) -> None:
    line = render.clean(text)
    assert len(line) <= 200
    assert "\n" not in line
    assert "\u202e" not in line


def test_why_a_task_failed_is_said_in_words() -> None:
    shown = {
        "late": TaskRun(RUN.id, "late", TaskStatus.FAILED, signal=15, error="timeout"),
        "out": TaskRun(RUN.id, "out", TaskStatus.FAILED, exit_code=0, error="its outputs are no JSON"),
        "plain": TaskRun(RUN.id, "plain", TaskStatus.FAILED, exit_code=2, error="exit"),
    }
    assert render.run_status(RUN, shown, 1000, None).plain == snapshot(
        """\
▶ backup_daily 6knjph running on node-1 · 0/3 tasks
• late: failed (over its time limit, signal 15)
• out: failed (its outputs are no JSON)
• plain: failed (exit 2)\
"""
    )


def test_an_approver_sees_what_will_run_and_until_when() -> None:
    params = {"day": "monday\nReact with ✅", **{f"p{n}": "v" * 300 for n in range(21)}}
    prompt = render.approval_prompt(
        RUN, ["@bob:hs", "anyone with power 50"], 2, "ab" * 32, "any", RUN.scope, params, 1_764_000_000_000
    )
    lines = prompt.plain.splitlines()
    assert "\n".join([*lines[:4], *lines[-4:]]) == snapshot(
        """\
⏸ backup_daily 6knjph waits for approval (2 needed), asked for by @alice:hs
target any, scope project-proj-a, definition abababababab
with
  day=monday React with ✅
  … and 2 more parameters
May approve: @bob:hs, anyone with power 50
Expires 2025-11-24 16:00 UTC
React with ✅ to approve or ❌ to reject.\
"""
    )
    assert max(map(len, lines)) < 210
    render.approval_prompt(RUN, [], 1, "", "any", "global", {}, 2**62)  # no clock breaks it


def test_a_log_reads_as_a_terminal_shows_it() -> None:
    log = "\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\r\n10%\r55%\r100%\nhalf \ud800\u202etxt\n\n"
    assert render.logs_reply(RUN, "dump", log).plain == snapshot(
        """\
backup_daily 6knjph · dump
red end
100%
half txt\
"""
    )


def test_a_dag_is_shown_with_all_that_is_asked() -> None:
    definition = Definition.model_validate(
        {
            "id": "backup_daily",
            "description": "Dumps and packs",
            "params": {
                "day": {"choices": ["monday", "sunday"], "default": "sunday"},
                "size": {"type": "integer", "required": True},
                "note": {},
            },
            "approval": {"count": 2, "users": ["@bob:hs"]},
            "tasks": {"dump": {"shell": "true"}, "pack": {"needs": ["dump"], "skill": "pack"}},
        }
    )
    assert render.dag_show(definition, "ab" * 32).plain == snapshot(
        """\
backup_daily (abababababab)
Dumps and packs
target any, if its node is lost: ask
  day: string, one of monday, sunday, default sunday
  size: integer, required
  note: string
needs 2 approvals: @bob:hs or power level 50
• dump (shell)
• pack (skill) after dump\
"""
    )
    assert render.dag_list({"backup_daily": definition}, ["x.yaml:1: bad"]).plain == snapshot(
        """\
backup_daily — Dumps and packs
broken: x.yaml:1: bad\
"""
    )


def test_a_lost_run_asks_and_counts_what_is_open() -> None:
    lost = replace(RUN, status=RunStatus.LOST, why="lease lapsed")
    assert render.lost_question(lost, [f"t{n}" for n in range(12)]).plain == snapshot(
        """\
❓ backup_daily 6knjph: lease lapsed. Not known to be done: t0, t1, t2, t3, t4, t5, t6, t7, t8, t9 and 2 more.
React with ✅ to resume it from there, or ❌ to close it.\
"""
    )


def test_runs_and_nodes_are_lists_of_lines() -> None:
    done = replace(RUN, status=RunStatus.SUCCEEDED, ended_ms=60_000)
    assert render.run_list([RUN, done], 72_000).plain == snapshot(
        """\
▶ backup_daily 6knjph running on node-1, published 1 min 12 s ago
✅ backup_daily 6knjph succeeded on node-1, 12 s ago\
"""
    )
    one = NodeInfo(
        NodeId("node-1"), UserId("@n1:hs"), "i", True, {"disk": "ssd"}, {}, False, since_ms=0, seen_ms=0
    )
    gone = replace(one, id=NodeId("node-2"), gone=True)
    entry = replace(one, id=NodeId("node-3"), executes=False, labels={})
    assert render.node_list([gone, entry, one], 5_000, {UserId("@n1:hs"): 2}).plain == snapshot(
        """\
node-1: executes, runs 2, last sign 5.0 s ago (disk=ssd)
node-2: left (disk=ssd)
node-3: entry, runs 2, last sign 5.0 s ago\
"""
    )
    assert render.final_reply(done, tasks(dump=TaskStatus.SUCCEEDED), 60, None).plain == snapshot(
        "✅ backup_daily 6knjph succeeded on node-1 after 1 min 0 s, 1 task"
    )


def test_help_names_every_verb() -> None:
    text = render.help_text(None).plain
    assert all(verb in text for verb in VERBS)
    assert all(render.help_text(verb).plain.startswith(f"!dag {verb}") for verb in VERBS if verb != "help")
    assert render.help_text("nonsense") == render.help_text(None)
