"""What an earlier process of this node has left in the store, as values of the core."""

from __future__ import annotations

from functools import lru_cache, partial

from cisbot.core.chat.unread import unread_from_row
from cisbot.core.claims.rows import bounds_from_meta, head_from_row
from cisbot.core.claims.state import Head
from cisbot.core.dags.definition import Definition
from cisbot.core.dags.parse import parse
from cisbot.core.ids import ClaimKey, Incarnation
from cisbot.core.outbound import Kept
from cisbot.core.runs.power_rows import powers_from_meta
from cisbot.core.runs.rows import node_from_row, run_from_row, task_from_row
from cisbot.node.ports import Store
from cisbot.store.outbox_rows import send_from_row

_parsed = lru_cache(maxsize=32)(partial(parse, source="store"))  # an ended incarnation's text comes again


async def load_kept(store: Store) -> Kept:
    """What an earlier process of this node has left in the store."""
    meta = {str(r["key"]): str(r["value"]) for r in await store.rows("meta")}
    sure: dict[ClaimKey, Head] = {}
    unsure: list[ClaimKey] = []
    for row in await store.rows("heads"):
        key, head, is_sure = head_from_row(row)
        if is_sure:
            sure[key] = head
        else:
            unsure.append(key)
    definitions: dict[str, Definition] = {}
    for row in await store.rows("definitions"):
        parsed = _parsed(str(row["text"]))
        if isinstance(parsed, Definition):
            definitions[str(row["hash"])] = parsed
    incarnation = meta.get("incarnation")
    return Kept(
        cursor=meta.get("cursor") if "charter" in meta else None,  # it says whose stream decides
        incarnation=Incarnation(incarnation) if incarnation else None,
        sure=sure,
        unsure=tuple(unsure),
        runs=tuple(run_from_row(row) for row in await store.rows("runs")),
        tasks=tuple(task_from_row(row) for row in await store.rows("tasks")),
        nodes=tuple(node_from_row(row) for row in await store.rows("nodes")),
        definitions=definitions,
        outbox=tuple(send_from_row(row) for row in await store.rows("outbox")),
        unread=tuple(unread_from_row(row) for row in await store.rows("unread")),
        bounds=bounds_from_meta(meta),
        powers=powers_from_meta(meta),
    )
