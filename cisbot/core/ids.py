"""Names: what identifies nodes, runs, keys and events, and the short ids that people type."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NewType

from cisbot.errors import FieldError

EventId = NewType("EventId", str)
UserId = NewType("UserId", str)
RoomId = NewType("RoomId", str)
NodeId = NewType("NodeId", str)
DagId = NewType("DagId", str)
TaskId = NewType("TaskId", str)
RunId = NewType("RunId", str)
ClaimKey = NewType("ClaimKey", str)
Incarnation = NewType("Incarnation", str)
Nonce = NewType("Nonce", str)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
NAME_RULE = "a letter or digit, then up to 63 letters, digits, '.', '_' or '-'"
_SHORT = "23456789abcdefghjkmnpqrstuvwxyz"  # no 0 o 1 l i: people say and type these on phones
SHORT_LEN = 6


def check_name(field: str, text: str) -> str:
    """Return `text` if it is a valid name; raise `FieldError` else."""
    if not NAME.match(text):
        raise FieldError(field, f"{text[:80]!r} is not a name", NAME_RULE)
    return text


def nearest(word: str, names: Iterable[str]) -> str:
    """A hint such as "Did you mean 'backup'?", or nothing when no name is near."""
    found = difflib.get_close_matches(word, list(names), n=1, cutoff=0.5)
    return f"Did you mean '{found[0]}'?" if found else ""


def run_id(event: EventId, node: NodeId | None = None) -> RunId:
    """A run is named by the event that published it; with target=all, by that event and its node."""
    return RunId(f"{event}|{node}" if node else event)


def run_event(run: RunId) -> EventId:
    """The event that published the run."""
    return EventId(run.partition("|")[0])


def run_node(run: RunId) -> NodeId | None:
    """The node of a run with target=all, else None."""
    node = run.partition("|")[2]
    return NodeId(node) if node else None


@lru_cache(maxsize=4096)
def short_id(run: RunId) -> str:
    """Six unambiguous characters (30 bits) of the publishing event, plus the node of a target=all run."""
    number = int.from_bytes(hashlib.sha256(run_event(run).encode()).digest()[:8], "big")
    chars = []
    for _ in range(SHORT_LEN):
        number, digit = divmod(number, len(_SHORT))
        chars.append(_SHORT[digit])
    node = run_node(run)
    return "".join(chars) + (f"/{node}" if node else "")


def server_of(account: str) -> str:
    """The server name in a user id: all after its first colon."""
    return account.partition(":")[2]


@lru_cache(maxsize=4096)  # every node orders the same few accounts for the same runs, step by step
def order_hash(*parts: str) -> int:
    """A stable pseudo-random order, alike on every node."""
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")
