"""Messages whose attached file is not read yet, as rows: a crash must not lose what somebody published."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cisbot.core.effects import Drop, Put
from cisbot.core.ids import EventId, UserId
from cisbot.core.room.events import FileRef, Message


def unread_to_row(msg: Message) -> Put:
    """A message with a file."""
    assert msg.file is not None
    doc = {
        "sender": msg.sender,
        "ts_ms": msg.ts_ms,
        "msgtype": msg.msgtype,
        "body": msg.body,
        "thread": msg.thread,
        "file": {name: getattr(msg.file, name) for name in FileRef.__slots__},
    }
    return Put("unread", {"event": msg.event_id, "doc": json.dumps(doc)})


def unread_from_row(row: Mapping[str, str | int | float | None]) -> Message:
    """The message, as far as publishing needs it."""
    doc = json.loads(str(row["doc"]))
    thread = EventId(doc["thread"]) if doc["thread"] else None
    return Message(
        EventId(str(row["event"])), UserId(doc["sender"]), doc["ts_ms"], doc["msgtype"], doc["body"], thread,
        None, None, None, FileRef(**doc["file"]),
    )  # fmt: skip


def read(msg: Message) -> Drop:
    """It needs no reading any more."""
    return Drop("unread", msg.event_id)
