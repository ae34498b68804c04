"""Runs, tasks and nodes survive the store whole, whatever their values."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.dags.definition import OnLost
from cisbot.core.ids import ClaimKey, DagId, EventId, NodeId, RunId, UserId
from cisbot.core.runs.rows import (
    node_from_row,
    node_to_row,
    run_from_row,
    run_to_row,
    task_from_row,
    task_to_row,
)
from cisbot.core.runs.state import NodeInfo, Run, RunStatus, TaskRun, TaskStatus

TEXT = st.text(max_size=30)
NUMBER = st.integers(-(2**62), 2**62)
MAYBE = st.none() | NUMBER
RUNS = st.builds(
    Run,
    id=TEXT.map(RunId),
    dag=TEXT.map(DagId),
    key=st.none() | TEXT.map(ClaimKey),
    scope=TEXT,
    target=TEXT,
    priority=NUMBER,
    params=st.dictionaries(TEXT, TEXT, max_size=3),
    publisher=TEXT.map(UserId),
    published_ms=NUMBER,
    status=st.sampled_from(RunStatus),
    definition=TEXT,
    on_lost=st.sampled_from(OnLost),
    approvals=st.lists(TEXT.map(UserId), max_size=3).map(tuple),
    approvals_needed=NUMBER,
    expires_ms=MAYBE,
    node=st.none() | TEXT.map(NodeId),
    account=st.none() | TEXT.map(UserId),
    epoch=NUMBER,
    started_ms=MAYBE,
    ended_ms=MAYBE,
    tasks=st.dictionaries(TEXT, st.sampled_from(TaskStatus), max_size=3),
    messages=st.lists(TEXT.map(EventId), max_size=3).map(tuple),
    why=TEXT,
    cancelled_by=st.none() | TEXT.map(UserId),
    asked=st.booleans(),
)
TASKS = st.builds(
    TaskRun,
    run=TEXT.map(RunId),
    task=TEXT,
    status=st.sampled_from(TaskStatus),
    attempt=NUMBER,
    exit_code=MAYBE,
    signal=MAYBE,
    error=TEXT,
    tail=TEXT,
    log_path=TEXT,
    started_ms=MAYBE,
    ended_ms=MAYBE,
    outputs=st.dictionaries(TEXT, TEXT, max_size=3),
)
LABELS = st.dictionaries(TEXT, TEXT, max_size=3)
NODES = st.builds(
    NodeInfo,
    id=TEXT.map(NodeId),
    account=TEXT.map(UserId),
    incarnation=TEXT,
    executes=st.booleans(),
    labels=LABELS,
    dags=LABELS,
    gone=st.booleans(),
    since_ms=NUMBER,
    seen_ms=NUMBER,
)


def same(found: object, kept: Run | TaskRun | NodeInfo) -> None:
    """Every field is equal and of its own type: an enum must not come back as plain text."""
    assert found == kept
    for field in fields(kept):
        assert type(getattr(found, field.name)) is type(getattr(kept, field.name)), field.name


@given(RUNS)
def test_a_run_comes_back_as_it_was(run: Run) -> None:
    row = run_to_row(run).row
    same(run_from_row(row), run)
    assert (row["id"], row["dag"], row["status"]) == (run.id, run.dag, run.status.value)
    assert (row["key"], row["published_ms"]) == (run.key, run.published_ms)


@given(TASKS)
def test_a_task_comes_back_as_it_was(task: TaskRun) -> None:
    row = task_to_row(task).row
    same(task_from_row(row), task)
    assert row["id"] == f"{task.run} {task.task}"


@given(NODES)
def test_a_node_comes_back_as_it_was(node: NodeInfo) -> None:
    same(node_from_row(node_to_row(node).row), node)
