"""Heads as rows of the store."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import TypeAdapter

from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.state import Bounds, Head
from cisbot.core.effects import Put
from cisbot.core.ids import ClaimKey

_HEAD = TypeAdapter(Head)
_BOUNDS = TypeAdapter(Bounds)


def head_to_row(key: ClaimKey, head: Head, *, sure: bool) -> Put:
    """One key as this node knows it."""
    return Put("heads", {"key": key, "sure": int(sure), "doc": _HEAD.dump_json(head).decode()})


def changed_heads(ledger: Ledger) -> list[Put]:
    """The keys that changed, each as it is now; they count as written then."""
    rows: list[Put] = []
    for key in sorted(ledger.dirty):
        head = ledger.sure(key)
        rows.append(head_to_row(key, head if head is not None else Head(), sure=head is not None))
    ledger.dirty.clear()
    return rows


def bounds_to_row(bounds: Bounds) -> Put:
    """What the charter says."""
    return Put("meta", {"key": "charter", "value": _BOUNDS.dump_json(bounds).decode()})


def bounds_from_meta(meta: Mapping[str, str]) -> Bounds:
    """What the charter said when it was last read."""
    return _BOUNDS.validate_json(meta["charter"]) if "charter" in meta else Bounds()


def head_from_row(row: Mapping[str, str | int | float | None]) -> tuple[ClaimKey, Head, bool]:
    """The key, its head, and whether the node was sure of it."""
    return ClaimKey(str(row["key"])), _HEAD.validate_json(str(row["doc"])), bool(row["sure"])
