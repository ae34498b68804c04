"""What becomes of claims, as one node learns it: its own holds, and the holders of other accounts."""

from __future__ import annotations

from cisbot.core.claims.holds import Hold
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, Nonce
from cisbot.core.room.events import ClaimEvent, Holder, Take


@dataclass(frozen=True, slots=True)
class Won:
    """This node holds the key now."""

    hold: Hold
    take: Take


@dataclass(frozen=True, slots=True)
class Taken:
    """Another account's take was accepted."""

    holder: Holder
    take: Take


@dataclass(frozen=True, slots=True)
class Extended:
    """A renewal's echo moved the deadline."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Ended:
    """A hold of this node is over: by its own deadline, an end, or a take of others."""

    hold: Hold
    why: str
    by: Holder | None = None  # who holds the key instead, if that is known


@dataclass(frozen=True, slots=True)
class Freed:
    """Somebody's slot is free again; `by` is the event that freed it."""

    key: ClaimKey
    holder: Holder
    by: ClaimEvent


@dataclass(frozen=True, slots=True)
class Refused:
    """A take of this node was void."""

    key: ClaimKey
    nonce: Nonce


@dataclass(frozen=True, slots=True)
class Learned:
    """A key became sure by a carried head: this is one of its holders, whose take went unjudged."""

    key: ClaimKey
    holder: Holder


Fact = Won | Taken | Extended | Ended | Freed | Refused | Learned
