"""Granting: what a home node takes for others, and what of its own goes before that."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from cisbot.core.claims.contend import Wish
from cisbot.core.claims.messages import Claim, Me
from cisbot.core.ids import ClaimKey, DagId, EventId, Incarnation, NodeId, Nonce, RunId, UserId
from cisbot.core.room.events import Asks, Intent, NodeRecord
from cisbot.core.runs.board import Board
from cisbot.core.runs.granting import grants
from cisbot.core.runs.state import Run, RunStatus
from cisbot.core.settings import Policy

KEY = ClaimKey("job/project-p")
AWAY, HOME = UserId("@r:away"), UserId("@a:hs")
RUN = Run(
    RunId("$run"), DagId("job"), KEY, "project-p", "any", 0, {}, UserId("@p:hs"), 5, RunStatus.PENDING
)  # fmt: skip
ASKED = Intent(
    EventId("$ask"), AWAY, 0, KEY, NodeId("r"), Incarnation("r-1"), Nonce("n"), 1, RUN.id,
    Asks("job", "project-p", 30, "hash"),
)  # fmt: skip
OWN = Wish(KEY, Claim(RUN.id, "job", "project-p", 30, "hash"), 0)


def board(*runs: Run) -> Board:
    """A board on which both nodes are."""
    made = Board(Policy())
    for account, name in ((AWAY, "r"), (HOME, "a")):
        record = NodeRecord(
            EventId("$n"), account, 0, NodeId(name), Incarnation(f"{name}-1"), True, {}, {}, False, ""
        )  # fmt: skip
        made.note_node(record, 0)
    for run in runs or (RUN,):
        made.put(run)
    return made


def granted(
    asked: list[Intent], made: Board, own: list[Wish] | None = None, **load: int
) -> list[tuple[RunId, str | None]]:
    """Each wish's run, and for whom it is."""
    me = Me(NodeId("a"), HOME, Incarnation("a-1"))
    loads = Counter({UserId(f"@{name}:{'away' if name == 'r' else 'hs'}"): n for name, n in load.items()})
    wishes, _ = grants(asked, own or [], made, me, (), loads)
    return [(wish.claim.run, wish.asker.node if wish.asker else None) for wish in wishes]


def test_who_asks_for_a_run_that_waits_is_granted_it() -> None:
    assert granted([ASKED], board()) == [(RUN.id, "r")]


@pytest.mark.parametrize(
    "run",
    [
        replace(RUN, status=RunStatus.WAITING),
        replace(RUN, status=RunStatus.RUNNING),
        replace(RUN, status=RunStatus.SUCCEEDED),
        replace(RUN, target="a"),
        replace(RUN, key=ClaimKey("other/project-p")),
        replace(RUN, id=RunId("$other")),
    ],
    ids=["not approved", "running", "over", "for another", "another key", "unknown"],
)
def test_what_may_not_run_there_is_not(run: Run) -> None:
    assert granted([ASKED], board(run)) == []


def test_nor_is_a_process_that_is_not_the_nodes_own() -> None:
    assert granted([replace(ASKED, incarnation=Incarnation("r-0"))], board()) == []
    assert granted([replace(ASKED, sender=UserId("@x:away"))], board()) == []


def test_of_two_that_want_the_same_who_holds_less_goes_first() -> None:
    assert granted([ASKED], board(), [OWN], a=1) == [(RUN.id, "r")]
    assert granted([ASKED], board(), [OWN], r=1) == [(RUN.id, None)]


def test_an_earlier_run_and_a_higher_priority_go_first() -> None:
    early = replace(RUN, id=RunId("$early"), published_ms=1)
    other = replace(OWN, claim=replace(OWN.claim, run=early.id))
    assert granted([ASKED], board(RUN, early), [other], a=1) == [(early.id, None)]
    urgent = replace(RUN, priority=1)
    assert granted([ASKED], board(urgent, early), [other], r=1) == [(RUN.id, "r")]


def test_of_what_it_has_not_followed_it_reads_the_story_first() -> None:
    me = Me(NodeId("a"), HOME, Incarnation("a-1"))
    assert grants([ASKED], [], board(), me, {RUN.id}, Counter()) == ([], [RUN.id])
