"""Raw Matrix event → `RoomEvent`, or `Rejected` with the reason, or None where it doesn't concern us.

Never raises: every event is treated as hostile input. The sender of a node record must be the account
that its state key names; the homeserver enforces that for keys that begin with "@", and so do we.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from pydantic import TypeAdapter, ValidationError

from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, Nonce, RunId, UserId
from cisbot.core.room import events as ev
from cisbot.core.room import wire
from cisbot.core.room.events import Rejected, RoomEvent
from cisbot.core.room.wire import head_from_wire

CONTENT_BYTES_MAX = 65_536
_LOCK: TypeAdapter[wire.LockTake | wire.LockRelease | wire.LockRestate] = TypeAdapter(
    wire.LockTake | wire.LockRelease | wire.LockRestate
)


class _Bad(Exception):
    """This event is to be rejected; the text says why."""


class _Raw:
    """The envelope of a raw event, checked."""

    __slots__ = (
        "content",
        "event_id",
        "redacted",
        "redacted_by",
        "sender",
        "state_key",
        "ts_ms",
        "txn",
        "type",
    )

    def __init__(self, raw: Mapping[str, object]) -> None:
        self.event_id = EventId(_text(raw, "event_id"))
        self.sender = UserId(_text(raw, "sender"))
        self.type = _text(raw, "type")
        ts = raw.get("origin_server_ts", 0)
        self.ts_ms = ts if isinstance(ts, int) and 0 <= ts < 2**53 else 0
        content = raw.get("content")
        self.content: Mapping[str, object] = content if isinstance(content, dict) else {}
        key = raw.get("state_key")
        self.state_key = key if isinstance(key, str) else None
        unsigned = raw.get("unsigned")
        txn = unsigned.get("transaction_id") if isinstance(unsigned, dict) else None
        self.txn = txn if isinstance(txn, str) else None
        self.redacted = isinstance(unsigned, dict) and (
            "redacted_because" in unsigned or "redacted_by" in unsigned
        )
        because = unsigned.get("redacted_because") if isinstance(unsigned, dict) else None
        by = because.get("sender") if isinstance(because, dict) else None
        self.redacted_by = UserId(by) if isinstance(by, str) and len(by) <= 320 else None


def _text(raw: Mapping[str, object], field: str) -> str:
    value = raw.get(field)
    if not isinstance(value, str) or not value or len(value) > 320:
        raise _Bad(f"{field}: not a short text")
    return value


def decode(raw: Mapping[str, object]) -> RoomEvent | Rejected | None:
    """Decode one raw event. Pure; never raises."""
    try:
        event = _Raw(raw)
    except _Bad as bad:
        kind = raw.get("type")
        return Rejected(EventId(""), UserId(""), 0, kind[:64] if isinstance(kind, str) else "", str(bad))
    reader = _READERS.get(event.type)
    if reader is None:
        return None
    try:
        return reader(event)
    except _Bad as bad:
        return _rejected(event, str(bad))
    except RecursionError:
        return _rejected(event, "content: nested too deep")
    except ValidationError as invalid:
        first = invalid.errors()[0]
        where = ".".join(str(part) for part in first["loc"])[:120]
        return _rejected(event, f"{where}: {first['msg'][:160]}")


def _rejected(event: _Raw, why: str) -> Rejected:
    return Rejected(
        event.event_id, event.sender, event.ts_ms, event.type, why, event.state_key, event.redacted,
        event.redacted_by,
    )  # fmt: skip


def _claim_key(event: _Raw, kind: str) -> ClaimKey:
    key = wire.key_of(kind, event.state_key)
    if key is None:
        raise _Bad("state_key: missing, or not the name of a claim")
    return key


def _event_id(text: str | None) -> EventId | None:
    return EventId(text) if text is not None else None


def _lock(e: _Raw) -> RoomEvent:
    key = _claim_key(e, wire.T_LOCK)
    model = _LOCK.validate_python(dict(e.content))
    node, incarnation = NodeId(model.node), Incarnation(model.incarnation)
    runs = tuple(RunId(r) for r in model.open_runs)
    head = head_from_wire(model.head) if model.head else None
    if head is not None and head.key != key:
        raise _Bad("head.key: is not this event's key")
    match model:
        case wire.LockTake():
            return ev.Take(
                e.event_id, e.sender, e.ts_ms, key, node, incarnation, Nonce(model.nonce),
                model.slot, model.epoch, _event_id(model.after), RunId(model.run), model.dag,
                model.scope, model.lease_s, model.definition, model.fresh, head, model.takes, runs,
                _asker(model.asker),
            )  # fmt: skip
        case wire.LockRelease():
            return ev.Release(
                e.event_id, e.sender, e.ts_ms, key, node, incarnation, Nonce(model.nonce),
                model.epoch, RunId(model.run), model.outcome, head, runs,
            )  # fmt: skip
        case wire.LockRestate():
            if head is None:
                raise _Bad("head: missing")
            return ev.Restate(e.event_id, e.sender, e.ts_ms, key, incarnation, head, runs)


def _asker(m: wire.AskerWire | None) -> ev.Asker | None:
    if m is None:
        return None
    return ev.Asker(UserId(m.account), NodeId(m.node), Incarnation(m.incarnation), Nonce(m.nonce))


def _intent(e: _Raw) -> RoomEvent:
    m = wire.IntentWire.model_validate(dict(e.content))
    asks = m.asks
    return ev.Intent(
        e.event_id, e.sender, e.ts_ms, _claim_key(e, wire.T_LOCK), NodeId(m.node), Incarnation(m.incarnation),
        Nonce(m.nonce), m.epoch, RunId(m.run),
        ev.Asks(asks.dag, asks.scope, asks.lease_s, asks.definition, asks.slots) if asks else None,
    )  # fmt: skip


def _heartbeat(e: _Raw) -> RoomEvent:
    m = wire.HeartbeatWire.model_validate(dict(e.content))
    return ev.Heartbeat(
        e.event_id, e.sender, e.ts_ms, NodeId(m.node), Incarnation(m.incarnation), Nonce(m.nonce),
        tuple(ev.Renewal(ClaimKey(r.key), r.epoch) for r in m.renews),
        tuple(head_from_wire(h) for h in m.heads),
    )  # fmt: skip


def _probe(e: _Raw) -> RoomEvent:
    m = wire.ProbeWire.model_validate(dict(e.content))
    return ev.Probe(
        e.event_id, e.sender, e.ts_ms, NodeId(m.node), Incarnation(m.incarnation), Nonce(m.nonce),
        tuple(ClaimKey(k) for k in m.keys),
    )  # fmt: skip


def _end(e: _Raw) -> RoomEvent:
    m = wire.EndWire.model_validate(dict(e.content))
    return ev.End(e.event_id, e.sender, e.ts_ms, NodeId(m.node), Incarnation(m.incarnation))


def _memory(e: _Raw) -> RoomEvent:
    key = _claim_key(e, wire.T_MEMORY)
    kind = wire.MemoryRestate if e.content.get("restate") is True else wire.MemoryWire
    m = kind.model_validate(dict(e.content))
    head = head_from_wire(m.head) if m.head else None
    if head is not None and head.key != key:
        raise _Bad("head.key: is not this event's key")
    if isinstance(m, wire.MemoryRestate):
        return ev.Restate(
            e.event_id, e.sender, e.ts_ms, key, Incarnation(m.incarnation), head_from_wire(m.head)
        )
    return ev.MemoryWrite(
        e.event_id, e.sender, e.ts_ms, key, Incarnation(m.incarnation), Nonce(m.nonce), m.version,
        _event_id(m.after), m.value, m.fresh, head, m.takes,
    )  # fmt: skip


def _charter(e: _Raw) -> RoomEvent:
    if e.state_key != "":
        raise _Bad("state_key: must be empty")
    m = wire.CharterWire.model_validate(dict(e.content))
    return ev.Charter(
        e.event_id, e.sender, e.ts_ms, m.version, m.home, m.lease_s_max, m.epoch_step_max, m.delayed_ends,
        m.mode == "available",
    )  # fmt: skip


def _node(e: _Raw) -> RoomEvent:
    if e.state_key != e.sender:
        raise _Bad("state_key: must be the sender's own account")
    m = wire.NodeWire.model_validate(dict(e.content))
    return ev.NodeRecord(
        e.event_id, e.sender, e.ts_ms, NodeId(m.id), Incarnation(m.incarnation), m.executes,
        dict(m.labels), dict(m.dags), m.gone, m.version,
    )  # fmt: skip


def _level(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _levels(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, int)}


def _power(e: _Raw) -> RoomEvent | None:
    if e.state_key != "":
        return None
    c = e.content
    return ev.PowerLevels(
        e.event_id, e.sender, e.ts_ms, _levels(c.get("users")), _level(c.get("users_default"), 0),
        _levels(c.get("events")), _level(c.get("state_default"), 50),
        _level(c.get("events_default"), 0), _level(c.get("redact"), 50),
    )  # fmt: skip


def _create(e: _Raw) -> RoomEvent | None:
    if e.state_key != "":
        return None
    version = e.content.get("room_version")
    more = e.content.get("additional_creators")
    extra = [UserId(u) for u in more if isinstance(u, str)] if isinstance(more, list) else []
    return ev.RoomCreate(
        e.event_id, e.sender, e.ts_ms, version if isinstance(version, str) else "1",
        (e.sender, *extra),
    )  # fmt: skip


def _encryption(e: _Raw) -> RoomEvent | None:
    return ev.Encryption(e.event_id, e.sender, e.ts_ms) if e.state_key == "" else None


def _member(e: _Raw) -> RoomEvent | None:
    membership = e.content.get("membership")
    if e.state_key is None or not isinstance(membership, str):
        return None
    return ev.Member(e.event_id, e.sender, e.ts_ms, UserId(e.state_key), membership)


def _reaction(e: _Raw) -> RoomEvent | None:
    relates = e.content.get("m.relates_to")
    if not isinstance(relates, dict) or relates.get("rel_type") != "m.annotation":
        return None
    target, key = relates.get("event_id"), relates.get("key")
    if not isinstance(target, str) or not isinstance(key, str) or len(key) > 64:
        raise _Bad("m.relates_to: event_id and key must be short texts")
    return ev.Reaction(e.event_id, e.sender, e.ts_ms, EventId(target), key)


def _message(e: _Raw) -> RoomEvent | None:
    body, msgtype = e.content.get("body"), e.content.get("msgtype")
    if not isinstance(body, str) or not isinstance(msgtype, str):
        return None  # a redacted message, or none of ours
    thread = reply = edits = None
    relates = e.content.get("m.relates_to")
    if isinstance(relates, dict):
        target = relates.get("event_id")
        known = EventId(target) if isinstance(target, str) else None
        thread = known if relates.get("rel_type") == "m.thread" else None
        edits = known if relates.get("rel_type") == "m.replace" else None
        inner = relates.get("m.in_reply_to")
        to = inner.get("event_id") if isinstance(inner, dict) else None
        fallback = thread is not None and relates.get("is_falling_back") is True
        reply = EventId(to) if isinstance(to, str) and not fallback else None
    source: object = e.content.get("m.new_content") if edits else e.content
    block = source.get(wire.BLOCK) if isinstance(source, dict) else None
    if len(body) > CONTENT_BYTES_MAX or (block and len(json.dumps(block)) > CONTENT_BYTES_MAX):
        raise _Bad("content: over 64 KiB")
    return ev.Message(
        e.event_id, e.sender, e.ts_ms, msgtype, body, thread, reply, edits,
        block if isinstance(block, dict) else None, _file(e.content), e.txn,
    )  # fmt: skip


def _file(content: Mapping[str, object]) -> ev.FileRef | None:
    if content.get("msgtype") != "m.file":
        return None
    url, name, info = content.get("url"), content.get("filename"), content.get("info")
    size = info.get("size") if isinstance(info, dict) else None
    if not isinstance(url, str) or not url.startswith("mxc://") or len(url) > 320:
        return None
    return ev.FileRef(url, str(name)[:128] if name else "", size if isinstance(size, int) else 0)


_READERS: Mapping[str, Callable[[_Raw], RoomEvent | None]] = {
    wire.T_LOCK: _lock,
    wire.T_INTENT: _intent,
    wire.T_HEARTBEAT: _heartbeat,
    wire.T_PROBE: _probe,
    wire.T_END: _end,
    wire.T_MEMORY: _memory,
    wire.T_CHARTER: _charter,
    wire.T_NODE: _node,
    "m.room.power_levels": _power,
    "m.room.create": _create,
    "m.room.encryption": _encryption,
    "m.room.member": _member,
    "m.room.message": _message,
    "m.reaction": _reaction,
}
