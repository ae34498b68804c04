"""Heads as rows of the store."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from cisbot.core.claims.state import Head
from cisbot.core.effects import Put
from cisbot.core.ids import ClaimKey

_HEAD = TypeAdapter(Head)


def head_to_row(key: ClaimKey, head: Head, *, sure: bool) -> Put:
    """One key as this node knows it."""
    return Put("heads", {"key": key, "sure": int(sure), "doc": _HEAD.dump_json(head).decode()})


def head_from_row(row: Mapping[str, str | int | float | None]) -> tuple[ClaimKey, Head, bool]:
    """The key, its head, and whether the node was sure of it."""
    return ClaimKey(str(row["key"])), _HEAD.validate_json(str(row["doc"])), bool(row["sure"])
