"""Whatever the room says: an event of a known type is read or rejected, and nothing is ever raised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.room import events as ev
from cisbot.core.room import wire
from cisbot.core.room.decode import decode
from cisbot.core.room.events import Rejected
from tests.core.claims.made import KEY

KINDS = [
    *wire.STATE_TYPES,
    *wire.TIMELINE_TYPES,
    "m.room.power_levels",
    "m.room.create",
    "m.room.encryption",
    "m.room.member",
    "m.room.message",
    "m.reaction",
]
FIELDS = [
    "action", "after", "body", "dag", "definition", "epoch", "event_id", "fresh", "head", "heads", "holders",
    "home", "id", "incarnation", "key", "keys", "lease_s", "m.relates_to", "msgtype", "node", "nonce",
    "open_runs", "outcome", "renews", "restate", "run", "scope", "slot", "users", "value", "version",
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["take", "release", "restate", "$x", "d/s", "memory:x", "a" * 5_000, "\ud800", "\x00"])
)
NAMED = st.sampled_from(FIELDS) | st.text(max_size=10)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMED, inner, max_size=6),
    max_leaves=25,
)
TAKE: dict[str, Any] = {
    "action": "take", "node": "n", "incarnation": "i", "nonce": "x", "slot": 0, "epoch": 1, "after": None,
    "run": "$r", "dag": "d", "scope": "s", "lease_s": 9, "definition": "0", "fresh": False, "open_runs": [],
}  # fmt: skip


def raw(kind: str, content: object, state_key: object = KEY) -> dict[str, object]:
    """An event as the homeserver hands it on."""
    known = {"event_id": "$e", "sender": "@s:hs", "type": kind, "origin_server_ts": 1, "content": content}
    return known if state_key is None else {**known, "state_key": state_key}


@given(st.sampled_from(KINDS), JSON, st.none() | st.just(KEY) | st.just("") | JSON)
def test_no_content_raises(kind: str, content: object, state_key: object) -> None:
    found = decode(raw(kind, content, state_key))
    assert found is None or isinstance(found, ev.Event)
    if kind.startswith("io.cisbot."):
        assert found is not None, "an event of ours is read, or rejected with its reason"


@given(st.dictionaries(st.sampled_from(list(raw("", {}))) | st.text(max_size=8), JSON, max_size=7))
def test_no_envelope_raises(event: dict[str, object]) -> None:
    decode(event)


@given(st.sampled_from(sorted(TAKE)), JSON)
def test_no_field_of_a_take_raises(field: str, value: object) -> None:
    found = decode(raw(wire.T_LOCK, {**TAKE, field: value}))
    assert isinstance(found, ev.LockEvent | Rejected)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epoch", 0), ("epoch", wire.EPOCH_MAX + 1), ("epoch", 2**53), ("epoch", 1.0), ("epoch", True),
        ("epoch", "1"), ("slot", 64), ("slot", -1), ("lease_s", 0), ("lease_s", 86_401),
        ("run", ""), ("run", "r" * 321), ("node", "../x"), ("node", "n\n"), ("nonce", ""), ("after", ""),
        ("open_runs", ["$r"] * 51), ("scope", "s" * 129), ("action", "steal"), ("node", "\ud800"),
    ],
)  # fmt: skip
def test_a_take_out_of_bounds_is_rejected(field: str, value: object) -> None:
    assert isinstance(decode(raw(wire.T_LOCK, TAKE)), ev.Take)
    assert isinstance(decode(raw(wire.T_LOCK, {**TAKE, field: value})), Rejected)


@pytest.mark.parametrize("field", sorted(set(TAKE) - {"slot", "fresh", "open_runs"}))
def test_a_take_needs_its_fields(field: str) -> None:
    left = {name: value for name, value in TAKE.items() if name != field}
    assert isinstance(decode(raw(wire.T_LOCK, left)), Rejected)


def test_newer_fields_are_ignored() -> None:
    assert decode(raw(wire.T_LOCK, {**TAKE, "since": {"version": 9}})) == decode(raw(wire.T_LOCK, TAKE))


def test_nested_too_deep() -> None:
    deep = json.loads("[" * 900 + "]" * 900)
    assert isinstance(decode(raw(wire.T_LOCK, {**TAKE, "head": deep})), Rejected)


def test_more_heads_than_an_event_may_carry() -> None:
    head = {"key": KEY, "epoch": 1, "after": None}
    beat = {"node": "n", "incarnation": "i", "nonce": "x", "heads": [head] * (wire.KEYS_MAX + 1)}
    assert isinstance(decode(raw(wire.T_HEARTBEAT, beat, None)), Rejected)


@pytest.mark.parametrize("mark", ["redacted_because", "redacted_by"])
def test_a_redacted_event_says_so(mark: str) -> None:
    found = decode({**raw(wire.T_LOCK, {}), "unsigned": {mark: {}}})
    assert isinstance(found, Rejected)
    assert found.redacted
    assert (found.type, found.state_key) == (wire.T_LOCK, KEY)


def test_a_node_record_of_another_account_is_rejected() -> None:
    record = {"id": "n", "incarnation": "i", "executes": True}
    assert isinstance(decode(raw(wire.T_NODE, record, "@other:hs")), Rejected)
    assert isinstance(decode(raw(wire.T_NODE, record, "@s:hs")), ev.NodeRecord)
