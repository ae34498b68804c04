"""Wishing: whose turn it is, among the nodes that match and among the runs that wait for one key."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from cisbot.core.claims.keeper import Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.messages import Me
from cisbot.core.claims.state import Bounds
from cisbot.core.dags.definition import Definition
from cisbot.core.dags.parse import parse
from cisbot.core.ids import ClaimKey, DagId, EventId, Incarnation, NodeId, RunId, UserId, run_id
from cisbot.core.runs.board import Board
from cisbot.core.runs.gathering import Gathering
from cisbot.core.runs.state import NodeInfo, Run, RunStatus
from cisbot.core.runs.wishing import AHEAD_MAX, Candidates
from cisbot.core.settings import Matrix, Node, Policy, Settings

KEY = ClaimKey("job/p")
ME = Me(NodeId("node-1"), UserId("@node-1:hs"), Incarnation("one"))


def job(more: str = "") -> Definition:
    """The DAG, and what else it says."""
    parsed = parse(f"id: job\n{more}\ntasks:\n  a: {{shell: 'true'}}\n", "test")
    assert isinstance(parsed, Definition), parsed
    return parsed


JOB = job()


def board_of(*nodes: str, gone: str = "") -> Board:
    """A board that knows these nodes; all have the DAG."""
    board = Board(Policy())
    for name in nodes:
        account = UserId(f"@{name}:hs")
        board.nodes[account] = NodeInfo(
            NodeId(name), account, "i", True, {}, {"job": "0"}, name == gone, 0, 0
        )  # fmt: skip
    return board


def publish(board: Board, number: int, target: str, key: ClaimKey = KEY) -> RunId:
    """A run that waits."""
    name = run_id(EventId(f"${number}"), None)
    run = Run(name, DagId("job"), key, "p", target, 0, {}, UserId("@a:hs"), number, RunStatus.PENDING, "0")
    return board.put(run).id


def wish_of(board: Board, tmp_path: Path) -> tuple[RunId, int]:
    """The run that node-1 wishes for, and in which turn."""
    settings = Settings(
        node=Node(id=ME.node, data_dir=tmp_path),
        matrix=Matrix(homeserver="http://hs", user_id=ME.account, access_token=SecretStr("x"), room="!r"),
    )
    keeper, pinned = Keeper(ME, Ledger(Bounds())), {"0": JOB}
    candidates = Candidates(settings, ME, pinned, set(), keeper, Gathering(keeper, pinned))
    ((wish,), _) = candidates.wishes(board, 16, 1.0)
    return wish.claim.run, wish.rank


@pytest.mark.parametrize(("gone", "rank"), [("", 1), ("node-2", 0)])
def test_a_run_for_another_node_that_came_first_has_the_first_turn(
    tmp_path: Path, gone: str, rank: int
) -> None:
    board = board_of("node-1", "node-2", gone=gone)
    publish(board, 1, "node-2")
    mine = publish(board, 2, "node-1")
    assert wish_of(board, tmp_path) == (mine, rank)


def test_a_run_that_came_later_or_has_another_key_takes_no_turn(tmp_path: Path) -> None:
    board = board_of("node-1", "node-2")
    publish(board, 1, "node-2", ClaimKey("job/q"))
    mine = publish(board, 2, "node-1")
    publish(board, 3, "node-2")
    assert wish_of(board, tmp_path) == (mine, 0)


def test_those_who_may_be_dead_are_not_waited_for_without_end(tmp_path: Path) -> None:
    board = board_of("node-1", "node-2")
    for number in range(100):
        publish(board, number, "node-2")
    mine = publish(board, 100, "node-1")
    assert wish_of(board, tmp_path) == (mine, AHEAD_MAX)
