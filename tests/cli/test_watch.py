"""What `cisbot publish` reads from the room: refused, accepted, over, lost, without a final message."""

from __future__ import annotations

import itertools

import pytest

from cisbot.cli.watch import Watch
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, Nonce, RunId, UserId, run_id
from cisbot.core.inputs import RoomBatch
from cisbot.core.room.events import JsonMap, Message, NodeRecord, Outcome, Release, RoomEvent, Take

RUN = EventId("$run")
count = itertools.count(1)


def account(node: str) -> UserId:
    return UserId(f"@{node}:test")


def event_id() -> EventId:
    return EventId(f"$e{next(count)}")


def record(node: str) -> NodeRecord:
    dags = {"job": "hash"}
    return NodeRecord(
        event_id(), account(node), 0, NodeId(node), Incarnation("i"), True, {}, dags, False, "1"
    )  # fmt: skip


def said(block: JsonMap, *, node: str = "node-1", body: str = "text", edits: str | None = None) -> Message:
    edited = EventId(edits) if edits else None
    return Message(event_id(), account(node), 0, "m.notice", body, RUN, None, edited, block, None)


def own() -> Message:
    block: JsonMap = {"kind": "command"}
    return Message(RUN, account("node-1"), 0, "m.text", "!dag publish job", None, None, None, block, None)


def take(run: RunId, *, node: str = "node-1", epoch: int = 1) -> Take:
    return Take(
        event_id(), account(node), 0, ClaimKey("k"), NodeId(node), Incarnation("i"), Nonce("n"), 0, epoch,
        None, run, "job", "global", 300, "hash",
    )  # fmt: skip


def release(run: RunId, outcome: Outcome | None, *, node: str = "node-1", epoch: int = 1) -> Release:
    return Release(
        event_id(), account(node), 0, ClaimKey("k"), NodeId(node), Incarnation("i"), Nonce("n"), epoch, run,
        outcome,
    )  # fmt: skip


def batch(*events: RoomEvent) -> RoomBatch:
    return RoomBatch("c", events)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def watch(notes: list[str]) -> Watch:
    made = Watch(notes.append)
    made.begin(batch(record("node-1"), record("node-2")))
    made.published(RUN, "job")
    made.take(batch(own()))
    assert not made.heard
    return made


def test_a_nodes_answer_refuses(watch: Watch) -> None:
    answer = {"kind": "answer", "answers": str(RUN)}
    watch.take(batch(said({**answer}, node="stranger", body="nonsense")))
    assert not watch.heard
    watch.take(batch(said({**answer}, body="dag: no node has it")))
    assert (watch.refused, watch.over, watch.accepted) == ("dag: no node has it", True, False)


@pytest.mark.parametrize(
    "sign",
    [
        take(run_id(RUN)),
        said({"kind": "prompt", "run": RUN}),
        said({"kind": "status", "run": RUN}),
        said({"kind": "answer", "run": RUN, "answers": f"waits {RUN}"}),
    ],
)
def test_any_sign_of_the_run_accepts(watch: Watch, sign: RoomEvent) -> None:
    watch.take(batch(sign))
    assert (watch.heard, watch.accepted, watch.settled) == (True, True, False)


def test_other_runs_are_no_concern(watch: Watch) -> None:
    final: JsonMap = {"kind": "final", "run": "$other", "status": "succeeded"}
    watch.take(batch(take(RunId("$other")), release(RunId("$other"), Outcome.FAILED), said(final)))
    assert not watch.heard and not watch.settled


def test_the_final_message_ends(watch: Watch, notes: list[str]) -> None:
    status: JsonMap = {"kind": "status", "run": RUN, "status": "running"}
    watch.take(batch(take(run_id(RUN)), said(status, body="▶ job running · 0/2\nmore")))
    watch.take(batch(said(status, body="* ▶ job running · 0/2\nmore", edits="$s")))
    watch.take(
        batch(said(status, body="* ▶ job running · 1/2", edits="$s"), release(run_id(RUN), Outcome.FAILED))
    )
    assert (watch.settled, watch.over) == (True, False)
    watch.take(batch(said({"kind": "final", "run": RUN, "status": "failed"}, body="❌ job failed")))
    assert watch.over
    assert [(e.well, e.text) for e in watch.ends.values()] == [(False, "❌ job failed")]
    assert notes[1:] == ["▶ job running · 0/2", "▶ job running · 1/2"]
    assert notes[0].startswith("node-1 claims ")


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.CANCELLED])
def test_the_release_tells_it_where_the_final_message_never_comes(watch: Watch, outcome: Outcome) -> None:
    watch.take(batch(release(run_id(RUN), Outcome.SUCCEEDED)))
    assert not watch.settled, "nobody took it"
    watch.take(batch(take(run_id(RUN)), release(run_id(RUN), outcome)))
    assert watch.settled and not watch.over
    watch.give_up_on_messages()
    (end,) = watch.ends.values()
    assert watch.over and end.well is (outcome is Outcome.SUCCEEDED)
    assert f"{outcome} on node-1; its final message did not come" in end.text


def test_a_lost_run_goes_on_or_asks(watch: Watch, notes: list[str]) -> None:
    watch.take(batch(take(run_id(RUN)), release(run_id(RUN), Outcome.LOST)))
    assert not watch.settled and "on_lost" in notes[-1]
    watch.take(
        batch(take(run_id(RUN), node="node-2", epoch=2), release(run_id(RUN), None, node="node-2", epoch=2))
    )
    assert not watch.settled and notes[-1].startswith("node-2 gives ")
    watch.take(batch(said({"kind": "ask", "run": RUN, "answers": "lost"}, body="❓ react")))
    assert watch.over and [e.well for e in watch.ends.values()] == [False]


@pytest.mark.parametrize("word", ["rejected", "cancelled", "expired", "closed"])
def test_a_closing_reply_ends(watch: Watch, word: str) -> None:
    watch.take(batch(said({"kind": "answer", "run": RUN, "answers": f"{word} {RUN}"}, body=f"was {word}")))
    assert watch.over and [e.text for e in watch.ends.values()] == [f"was {word}"]


def test_all_nodes(watch: Watch) -> None:
    one, two = run_id(RUN, NodeId("node-1")), run_id(RUN, NodeId("node-2"))
    watch.take(batch(said({"kind": "final", "run": one, "status": "succeeded"})))
    assert not watch.settled
    watch.take(batch(take(two, node="node-2"), release(two, Outcome.SUCCEEDED, node="node-2")))
    assert watch.settled and not watch.over
    watch.take(batch(said({"kind": "final", "run": two, "status": "succeeded"}, node="node-2")))
    assert watch.over and all(end.well for end in watch.ends.values())
