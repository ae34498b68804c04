"""The contents that this node sends about claims. Content only: when to send them is decided elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from cisbot.core.effects import Priority, Send
from cisbot.core.frozen import dataclass
from cisbot.core.ids import (
    ClaimKey,
    EventId,
    Incarnation,
    NodeId,
    Nonce,
    RunId,
    UserId,
    order_hash,
    run_event,
)
from cisbot.core.room import wire
from cisbot.core.room.events import Asker, CarriedHead, Json, JsonMap, Outcome
from cisbot.core.room.wire import head_to_wire
from cisbot.core.settings import Node

RANKS = 8  # turns that one node has alone; after that, four share one
SHARE = 4
DAGS_BYTES_MAX = 50_000
BEAT_BYTES_MAX = 50_000  # of the homeserver's 64 KiB for an event


class HoldLike(Protocol):
    """What a heartbeat renews."""

    @property
    def key(self) -> ClaimKey:
        """The key."""

    @property
    def epoch(self) -> int:
        """Its epoch."""


@dataclass(slots=True)
class Me:
    """Who this process is. `incarnation` is random at process start and never read from disk."""

    node: NodeId
    account: UserId
    incarnation: Incarnation
    open_runs: tuple[RunId, ...] = ()  # told with every lock event, for nodes without a database
    peers: tuple[UserId, ...] = ()  # the living nodes on the room's home server
    _count: int = field(default=0)

    def nonce(self) -> Nonce:
        """A name that no other attempt has."""
        self._count += 1
        return Nonce(f"{self.incarnation}.{self._count}")

    def rank(self, *about: str) -> int:
        """This node's turn among those that could answer: few share one, however many nodes there are."""
        if not self.peers:
            return order_hash(*about, self.account) % RANKS
        place = self.place(*about)
        return place if place < RANKS else RANKS + (place - RANKS) // SHARE

    def place(self, *about: str) -> int:
        """This node's place among the home server's living nodes; 0 goes first."""
        order = sorted({*self.peers, self.account}, key=lambda account: order_hash(*about, account))
        return order.index(self.account)

    def named(self) -> JsonMap:
        """The fields that every claim event carries."""
        return {"node": self.node, "incarnation": self.incarnation}


def _reference(run: RunId) -> JsonMap:
    return {"rel_type": "m.reference", "event_id": run_event(run)}


@dataclass(frozen=True, slots=True)
class Claim:
    """What a take says of its run; `slots`: how many runs may hold the key at once, for who grants it."""

    run: RunId
    dag: str
    scope: str
    lease_s: int
    definition: str
    slots: int = 1


def take(
    me: Me,
    nonce: Nonce,
    key: ClaimKey,
    slot: int,
    epoch: int,
    after: EventId | None,
    claim: Claim,
    *,
    fresh: bool,
    head: CarriedHead | None,
    takes: int = 0,
    asker: Asker | None = None,
) -> Send:
    """A lock request, or a grant to the asker. `takes` is for fresh ones: how many the key had before."""
    content: dict[str, Json] = {
        **me.named(),
        "action": "take",
        "nonce": nonce,
        "slot": slot,
        "epoch": epoch,
        "after": after,
        "run": claim.run,
        "dag": claim.dag,
        "scope": claim.scope,
        "lease_s": claim.lease_s,
        "definition": claim.definition,
        "fresh": fresh,
        "takes": takes,
        "open_runs": list(me.open_runs),
        "m.relates_to": _reference(claim.run),
    }
    if head is not None:
        content["head"] = head_to_wire(head)
    if asker is not None:
        content["asker"] = {
            "account": asker.account,
            "node": asker.node,
            "incarnation": asker.incarnation,
            "nonce": asker.nonce,
        }
    return Send(nonce, wire.T_LOCK, content, Priority.LOCK, state_key=key)


def release(
    me: Me,
    key: ClaimKey,
    epoch: int,
    run: RunId,
    outcome: Outcome | None,
    head: CarriedHead | None,
) -> Send:
    """Give a key back. Durable: an outcome must reach the room even after a crash."""
    nonce = me.nonce()
    content: dict[str, Json] = {
        **me.named(),
        "action": "release",
        "nonce": nonce,
        "epoch": epoch,
        "run": run,
        "outcome": outcome.value if outcome else None,
        "open_runs": [other for other in me.open_runs if other != run or outcome is None],
        "m.relates_to": _reference(run),
    }
    if head is not None:
        content["head"] = head_to_wire(head)
    return Send(nonce, wire.T_LOCK, content, Priority.LOCK, state_key=key, durable=True)


def restate(me: Me, head: CarriedHead) -> Send:
    """Write the true head into the state key again: for those who read only the state, so it may wait."""
    nonce, (kind, state_key), mark = me.nonce(), wire.place_of(head.key), f"restate {head.key}"
    content: dict[str, Json] = {"incarnation": me.incarnation, "head": head_to_wire(head)}
    if kind == wire.T_MEMORY:
        content |= {
            "restate": True, "nonce": nonce, "version": head.epoch, "after": head.after, "value": head.value,
        }  # fmt: skip
        return Send(nonce, kind, content, Priority.CHAT, state_key=state_key, coalesce=mark)
    content |= {"node": me.node, "action": "restate", "open_runs": list(me.open_runs)}
    return Send(nonce, kind, content, Priority.CHAT, state_key=state_key, coalesce=mark)


def intent(me: Me, nonce: Nonce, key: ClaimKey, epoch: int, run: RunId, asks: Claim | None = None) -> Send:
    """Ask the room to pick one of several contenders; or, off the home server, a home node for a grant."""
    content: dict[str, Json] = {**me.named(), "nonce": nonce, "epoch": epoch, "run": run}
    if asks is not None:
        content["asks"] = {
            "dag": asks.dag,
            "scope": asks.scope,
            "lease_s": asks.lease_s,
            "definition": asks.definition,
            "slots": asks.slots,
        }
    return Send(nonce, wire.T_INTENT, content, Priority.LOCK, state_key=key)


def heartbeats(
    me: Me, holds: Sequence[HoldLike], heads: Sequence[CarriedHead], *, answers: bool = False
) -> list[tuple[Nonce, Send]]:
    """Signs of life that renew all holds and carry heads: one event, or several where one is too small.

    A mere renewal replaces one that waits unsent; what answers a probe is never dropped.
    """
    rest, wired = list(holds), [head_to_wire(head) for head in heads]
    beats: list[tuple[Nonce, Send]] = []
    while rest or wired:
        renews: list[Json] = [{"key": h.key, "epoch": h.epoch} for h in rest[: wire.KEYS_MAX]]
        mark = None if answers else f"heartbeat {len(beats)}"
        rest = rest[wire.KEYS_MAX :]
        room = BEAT_BYTES_MAX - len(json.dumps(renews))
        carries: list[Json] = []
        while wired and len(carries) < wire.KEYS_MAX and (size := len(json.dumps(wired[0]))) <= room:
            carries.append(wired.pop(0))
            room -= size
        nonce = me.nonce()
        content: dict[str, Json] = {**me.named(), "nonce": nonce, "renews": renews, "heads": carries}
        beats.append((nonce, Send(nonce, wire.T_HEARTBEAT, content, Priority.RENEWAL, coalesce=mark)))
        if not renews and not carries:
            wired.pop(0)  # too big for any event
            beats.pop()
    return beats


def probe(me: Me, nonce: Nonce, keys: tuple[ClaimKey, ...]) -> Send:
    """Ask for the heads of some keys."""
    content: dict[str, Json] = {**me.named(), "nonce": nonce, "keys": list(keys[: wire.KEYS_MAX])}
    return Send(nonce, wire.T_PROBE, content, Priority.LOCK)


def end(me: Me, incarnation: Incarnation) -> Send:
    """An incarnation of this node is over, for ever."""
    content: dict[str, Json] = {"node": me.node, "incarnation": incarnation}
    return Send(end_txn(incarnation), wire.T_END, content, Priority.LOCK, durable=True)


def end_txn(incarnation: Incarnation) -> str:
    """The transaction under which an incarnation's end is sent, by whatever process."""
    return f"end.{incarnation}"


def delayed_end(me: Me) -> Send:
    """The end that the homeserver is to send in our name. A transaction of its own: each is armed apart."""
    return Send(me.nonce(), wire.T_END, me.named(), Priority.LOCK)


def memory_write(
    me: Me,
    nonce: Nonce,
    key: ClaimKey,
    version: int,
    after: EventId | None,
    value: str | None,
    *,
    fresh: bool,
    head: CarriedHead | None,
    takes: int = 0,
) -> Send:
    """A write to public memory. `takes` is for fresh ones: how many writes the key had before."""
    content: dict[str, Json] = {
        "incarnation": me.incarnation,
        "nonce": nonce,
        "version": version,
        "after": after,
        "value": value,
        "fresh": fresh,
        "takes": takes,
    }
    if head is not None:
        content["head"] = head_to_wire(head)
    kind, name = wire.place_of(key)
    return Send(nonce, kind, content, Priority.CHAT, state_key=name)


def told_dags(dags: Mapping[str, str]) -> dict[str, Json]:
    """As many of a node's DAGs as an event has room for, by name."""
    return wire.fitting(sorted(dags.items())[: wire.DAGS_MAX], DAGS_BYTES_MAX)


def node_record(me: Me, dags: Mapping[str, str], node: Node, version: str, *, gone: bool) -> Send:
    """What this node says of itself."""
    content: dict[str, Json] = {
        "id": me.node,
        "incarnation": me.incarnation,
        "executes": node.execute,
        "labels": dict(node.labels),
        "dags": told_dags(dags),
        "gone": gone,
        "version": version,
    }
    return Send(me.nonce(), wire.T_NODE, content, Priority.CHAT, state_key=me.account, coalesce="node")
