"""What people read: short, in words, and safe whatever is in the values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inline_snapshot import snapshot

from cisbot.core.chat import render
from cisbot.core.ids import ClaimKey, DagId, NodeId, RunId, UserId
from cisbot.core.runs.state import Run, RunStatus, TaskRun, TaskStatus
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
    run = Run(**{f: getattr(RUN, f) for f in Run.__slots__} | {"status": RunStatus.FAILED})
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
