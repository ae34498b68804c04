"""Runs, tasks and nodes as rows of the store: what is searched for as columns, the whole as JSON."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from cisbot.core.effects import Put
from cisbot.core.runs.board import Board
from cisbot.core.runs.state import NodeInfo, Run, TaskRun

Row = Mapping[str, str | int | float | None]

_RUN = TypeAdapter(Run)
_TASK = TypeAdapter(TaskRun)
_NODE = TypeAdapter(NodeInfo)


def run_to_row(run: Run) -> Put:
    """A run of the DAG table."""
    return Put(
        "runs",
        {
            "id": run.id,
            "dag": run.dag,
            "key": run.key,
            "status": run.status.value,
            "published_ms": run.published_ms,
            "doc": _RUN.dump_json(run).decode(),
        },
    )


def run_from_row(row: Row) -> Run:
    """The run."""
    return _RUN.validate_json(str(row["doc"]))


def task_to_row(task: TaskRun) -> Put:
    """A task of a run that this node executes."""
    return Put(
        "tasks",
        {
            "id": f"{task.run} {task.task}",
            "run": task.run,
            "task": task.task,
            "status": task.status.value,
            "attempt": task.attempt,
            "doc": _TASK.dump_json(task).decode(),
        },
    )


def task_from_row(row: Row) -> TaskRun:
    """The task."""
    return _TASK.validate_json(str(row["doc"]))


def node_to_row(node: NodeInfo) -> Put:
    """A node of the room."""
    return Put("nodes", {"account": node.account, "doc": _NODE.dump_json(node).decode()})


def changed_rows(board: Board) -> list[Put]:
    """The runs and nodes that changed, each as it is now; they count as written then."""
    rows = [run_to_row(board.runs[run]) for run in sorted(board.dirty)]
    rows += [node_to_row(board.nodes[account]) for account in sorted(board.dirty_nodes)]
    board.dirty.clear()
    board.dirty_nodes.clear()
    return rows


def node_from_row(row: Row) -> NodeInfo:
    """The node."""
    return _NODE.validate_json(str(row["doc"]))
