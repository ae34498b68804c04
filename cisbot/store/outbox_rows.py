"""Durable sends as rows: said again after a crash, under the same transaction id."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cisbot.core.effects import Priority, Put, Send

_FIELDS = ("txn", "type", "state_key", "coalesce", "room")


def send_to_row(send: Send) -> Put:
    """A send that the homeserver does not have yet."""
    doc = {name: getattr(send, name) for name in _FIELDS}
    doc |= {"priority": int(send.priority), "content": dict(send.content)}
    return Put("outbox", {"txn": send.txn, "doc": json.dumps(doc)})


def send_from_row(row: Mapping[str, str | int | float | None]) -> Send:
    """The send."""
    doc = json.loads(str(row["doc"]))
    return Send(
        doc["txn"], doc["type"], doc["content"], Priority(doc["priority"]), doc["state_key"], True,
        doc["coalesce"], doc["room"],
    )  # fmt: skip
