"""Every claim event that this code sends is read back as what it says; what is hostile is rejected."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.claims import messages
from cisbot.core.claims.messages import Claim, Me
from cisbot.core.effects import Send
from cisbot.core.ids import ClaimKey, DagId, EventId, Incarnation, NodeId, Nonce, RunId, UserId
from cisbot.core.room import events as ev
from cisbot.core.room import wire
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Asker, CarriedHead, Holder, Outcome, Rejected
from cisbot.core.scopes import Scope, ScopeKind, claim_key

SENDER = UserId("@node-1:hs")
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
LOCKS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,219}", fullmatch=True).map(ClaimKey)
MEMORY = NAMES.map(lambda name: ClaimKey(wire.MEMORY_PREFIX + name))
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=320).map(EventId)
RUNS = IDS.map(RunId)
EPOCHS = st.integers(1, wire.EPOCH_MAX)
COUNTS = st.integers(0, wire.EPOCH_MAX)
VALUES = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
TOKENS = st.from_regex(r"[A-Za-z0-9._-]{1,60}", fullmatch=True)
MES = st.builds(Me, NAMES.map(NodeId), st.just(SENDER), TOKENS.map(Incarnation))
HOLDERS = st.builds(
    Holder, st.integers(0, 63), IDS.map(UserId), NAMES.map(NodeId), TOKENS.map(Incarnation), EPOCHS, RUNS,
    st.integers(1, 86_400), TOKENS.map(Nonce),
)  # fmt: skip
ASKERS = st.builds(
    Asker, IDS.map(UserId), NAMES.map(NodeId), TOKENS.map(Incarnation), TOKENS.map(Nonce)
)  # fmt: skip
CLAIMS = st.builds(Claim, RUNS, NAMES, st.text("abc-:", max_size=128), st.integers(1, 86_400), TOKENS)


def heads(key: ClaimKey) -> st.SearchStrategy[CarriedHead]:
    """Heads of a key."""
    held = st.lists(HOLDERS, max_size=3).map(tuple)
    return st.builds(
        CarriedHead, st.just(key), st.integers(0, wire.EPOCH_MAX), st.none() | IDS, held, VALUES, COUNTS
    )


def told(send: Send) -> object:
    """What the others read of it: through JSON, as the homeserver hands it on."""
    raw = {
        "event_id": "$event",
        "sender": SENDER,
        "type": send.type,
        "origin_server_ts": 7,
        "content": json.loads(json.dumps(dict(send.content))),
    }
    return decode(raw if send.state_key is None else {**raw, "state_key": send.state_key})


@given(st.data(), MES, LOCKS, CLAIMS, EPOCHS, st.none() | IDS, st.integers(0, 63), st.booleans())
def test_take(
    data: st.DataObject, me: Me, key: ClaimKey, claim: Claim, epoch: int, after: EventId | None, slot: int,
    fresh: bool,
) -> None:  # fmt: skip
    head, takes = data.draw(st.none() | heads(key)), data.draw(COUNTS)
    asker = data.draw(st.none() | ASKERS)
    nonce = me.nonce()
    opens = me.open_runs = (claim.run,)
    send = messages.take(
        me, nonce, key, slot, epoch, after, claim, fresh=fresh, head=head, takes=takes, asker=asker
    )  # fmt: skip
    assert told(send) == ev.Take(
        EventId("$event"), SENDER, 7, key, me.node, me.incarnation, nonce, slot, epoch, after, claim.run,
        claim.dag, claim.scope, claim.lease_s, claim.definition, fresh, head, takes, opens,
        asker,
    )  # fmt: skip


@given(st.data(), MES, LOCKS, EPOCHS, RUNS, st.none() | st.sampled_from(Outcome))
def test_release(
    data: st.DataObject, me: Me, key: ClaimKey, epoch: int, run: RunId, outcome: Outcome | None
) -> None:
    head = data.draw(st.none() | heads(key))
    send = messages.release(me, key, epoch, run, outcome, head)
    assert told(send) == ev.Release(
        EventId("$event"), SENDER, 7, key, me.node, me.incarnation, Nonce(send.txn), epoch, run, outcome, head
    )  # fmt: skip


@given(MES, LOCKS.flatmap(heads))
def test_the_sign_of_each_holder_travels(me: Me, head: CarriedHead) -> None:
    event = told(messages.restate(me, head))
    assert isinstance(event, ev.Restate)
    assert [h.sign for h in event.head.holders] == [h.sign for h in head.holders]


@given(MES, LOCKS, EPOCHS, CLAIMS)
def test_a_request_for_a_grant(me: Me, key: ClaimKey, epoch: int, claim: Claim) -> None:
    event = told(messages.intent(me, me.nonce(), key, epoch, claim.run, claim))
    assert isinstance(event, ev.Intent)
    assert event.asks == ev.Asks(claim.dag, claim.scope, claim.lease_s, claim.definition)


@given(MES, (LOCKS | MEMORY).flatmap(heads))
def test_restate(me: Me, head: CarriedHead) -> None:
    expected = ev.Restate(EventId("$event"), SENDER, 7, head.key, me.incarnation, head)
    assert told(messages.restate(me, head)) == expected


@given(st.data(), MES, MEMORY, EPOCHS, st.none() | IDS, VALUES, st.booleans())
def test_memory_write(
    data: st.DataObject, me: Me, key: ClaimKey, version: int, after: EventId | None, value: str | None,
    fresh: bool,
) -> None:  # fmt: skip
    head, nonce, takes = data.draw(st.none() | heads(key)), me.nonce(), data.draw(COUNTS)
    send = messages.memory_write(
        me, nonce, key, version, after, value, fresh=fresh, head=head, takes=takes
    )  # fmt: skip
    assert told(send) == ev.MemoryWrite(
        EventId("$event"), SENDER, 7, key, me.incarnation, nonce, version, after, value, fresh, head, takes
    )


@given(MES, LOCKS, EPOCHS, RUNS)
def test_intent(me: Me, key: ClaimKey, epoch: int, run: RunId) -> None:
    nonce = me.nonce()
    expected = ev.Intent(EventId("$event"), SENDER, 7, key, me.node, me.incarnation, nonce, epoch, run)
    assert told(messages.intent(me, nonce, key, epoch, run)) == expected


@given(MES, st.lists(LOCKS | MEMORY, min_size=1, max_size=5).map(tuple))
def test_probe_and_end(me: Me, keys: tuple[ClaimKey, ...]) -> None:
    nonce, here = me.nonce(), (EventId("$event"), SENDER, 7, me.node, me.incarnation)
    assert told(messages.probe(me, nonce, keys)) == ev.Probe(*here, nonce, keys)
    assert told(messages.end(me, me.incarnation)) == ev.End(*here)


@given(MES, st.lists(EPOCHS, max_size=3), st.lists((LOCKS | MEMORY).flatmap(heads), max_size=4))
def test_heartbeats_say_all_renewals_and_heads_once(
    me: Me, epochs: list[int], carries: list[CarriedHead]
) -> None:
    holds = [ev.Renewal(ClaimKey(f"d/{n}"), epoch) for n, epoch in enumerate(epochs)]
    said = [told(send) for _, send in messages.heartbeats(me, holds, carries)]
    beats = [event for event in said if isinstance(event, ev.Heartbeat)]
    assert len(beats) == len(said)
    assert [r for b in beats for r in b.renews] == holds
    assert [h for b in beats for h in b.heads] == carries


def test_many_renewals_and_big_heads_take_several_events_none_too_big() -> None:
    me = Me(NodeId("n"), SENDER, Incarnation("i"))
    holds = [ev.Renewal(ClaimKey(f"d/{n}"), 1) for n in range(450)]
    heads = [CarriedHead(ClaimKey(f"memory:{n}"), 1, None, (), "\x01" * 4_000) for n in range(10)]
    sends = [send for _, send in messages.heartbeats(me, holds, heads)]
    assert all(len(json.dumps(dict(send.content))) < 60_000 for send in sends)
    beats = [event for send in sends if isinstance(event := told(send), ev.Heartbeat)]
    assert [r for b in beats for r in b.renews] == holds
    assert [h for b in beats for h in b.heads] == heads


@given(NAMES, st.sampled_from(ScopeKind), NAMES, st.none() | NAMES.map(NodeId))
def test_every_dag_can_be_claimed(dag: str, kind: ScopeKind, name: str, node: NodeId | None) -> None:
    scope = Scope(kind) if kind is ScopeKind.GLOBAL else Scope(kind, name)
    key = claim_key(DagId(dag), scope, exclusive=False, node=node)
    assert wire.place_of(key) == (wire.T_LOCK, key)
    assert wire.key_of(wire.T_LOCK, key) == key


def test_a_dag_called_memory_is_no_public_memory() -> None:
    lock = claim_key(DagId("memory"), Scope(ScopeKind.PROJECT, "p"), exclusive=False)
    assert wire.key_of(wire.T_MEMORY, "project-p") != lock
    me = Me(NodeId("n"), SENDER, Incarnation("i"))
    send = messages.take(
        me, me.nonce(), lock, 0, 1, None, Claim(RunId("$r"), "memory", "p", 9, "0"), fresh=False, head=None,
    )  # fmt: skip
    assert isinstance(told(send), ev.Take)


@pytest.mark.parametrize(
    ("kind", "state_key"),
    [
        (wire.T_LOCK, "memory:x"), (wire.T_LOCK, ""), (wire.T_LOCK, None), (wire.T_LOCK, "x y"),
        (wire.T_LOCK, "a\n"), (wire.T_MEMORY, "a/b"), (wire.T_MEMORY, "m" * 65), (wire.T_INTENT, "d/s"),
    ],
)  # fmt: skip
def test_no_key(kind: str, state_key: str | None) -> None:
    assert wire.key_of(kind, state_key) is None


@given(LOCKS | MEMORY)
def test_a_key_and_its_place_are_the_same(key: ClaimKey) -> None:
    assert wire.key_of(*wire.place_of(key)) == key


def test_a_head_of_another_key_is_rejected() -> None:
    me = Me(NodeId("n"), SENDER, Incarnation("i"))
    head = CarriedHead(ClaimKey("d/s"), 1, None, ())
    send = messages.release(me, ClaimKey("d/t"), 1, RunId("$r"), None, head)
    assert isinstance(told(send), Rejected)
    assert isinstance(told(replace(messages.restate(me, head), state_key="d/t")), Rejected)
