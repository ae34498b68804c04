"""The board: names that people type, messages that can be reacted to, runs that are forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cisbot.core.ids import DagId, EventId, NodeId, RunId, UserId, run_id
from cisbot.core.runs import board as module
from cisbot.core.runs.board import MESSAGES_MAX, Board
from cisbot.core.runs.state import Run, RunStatus, TaskStatus
from cisbot.core.settings import Policy
from cisbot.errors import FieldError


def run(event: str, status: RunStatus = RunStatus.PENDING, *, node: str | None = None, at: int = 0) -> Run:
    """A run."""
    name = run_id(EventId(event), NodeId(node) if node else None)
    return Run(name, DagId("job"), None, "", "any", 0, {}, UserId("@a:hs"), at, status)


def test_short_ids_are_found_whatever_their_case() -> None:
    board = Board(Policy())
    made = board.put(run("$one", node="Node-A"))
    for text in (made.short, made.short.upper(), made.short[:8], made.id):
        assert board.find(text) is made
    with pytest.raises(FieldError, match="no run is called"):
        board.find("zzzzzz")


def test_messages_are_remembered_up_to_a_limit_and_forgotten_whole() -> None:
    board = Board(Policy())
    made = board.put(run("$one"))
    for number in range(100):
        made = board.add_message(made, EventId(f"$m{number}"))
    assert len(made.messages) == MESSAGES_MAX
    known = [number for number in range(100) if board.of_message(EventId(f"$m{number}"))]
    assert known == list(range(100 - MESSAGES_MAX, 100))
    assert len(board._by_message) == MESSAGES_MAX + 1


def test_finished_runs_are_forgotten_oldest_first_and_open_ones_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RUNS_KEPT", 10)
    monkeypatch.setattr(module, "RUNS_SLACK", 2)
    board = Board(Policy())
    for number in range(12):
        board.put(run(f"$over{number}", RunStatus.SUCCEEDED, at=number))
    assert board.forget_old() == []
    waiting = [board.put(run(f"$open{number}", at=-number)) for number in range(3)]
    assert board.forget_old() == [f"$over{number}" for number in range(5)]
    assert board.runs_of(EventId("$over0")) == []
    assert [one.id for one in board.open_runs()] == ["$open2", "$open1", "$open0"]
    board.put(replace(waiting[0], status=RunStatus.CANCELLED))
    assert board.oldest_open(5) == (RunId("$open2"), RunId("$open1"))


def test_runs_of_very_many_tasks_are_forgotten_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TASKS_KEPT", 1000)
    board = Board(Policy())
    many = {f"t{number}": TaskStatus.SUCCEEDED for number in range(300)}
    for number in range(4):
        made = board.put(run(f"$over{number}", RunStatus.SUCCEEDED, at=number))
        board.put(replace(made, tasks=many))
    assert board.forget_old() == ["$over0"]
    huge = {f"t{number}": TaskStatus.SUCCEEDED for number in range(2000)}
    board.put(replace(run("$huge", RunStatus.SUCCEEDED, at=9), tasks=huge))
    assert board.forget_old() == ["$over1", "$over2", "$over3"]
    assert board.find(board.runs[RunId("$huge")].short)
