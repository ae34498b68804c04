"""Gathering: the named locks of a run are taken in the order of their names, its own key last.

Pure. Nothing is begun to be taken before all of it looks free. Who holds some and sees another held lets all
of them go at once, and tries again a little later: so nobody waits while it holds, and two runs can't wait
for each other. While a run executes it keeps them; `Lifecycle` stops it when one is lost.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from cisbot.core.claims.holds import Hold
from cisbot.core.claims.keeper import Keeper
from cisbot.core.claims.state import Head
from cisbot.core.dags.definition import Definition
from cisbot.core.ids import ClaimKey, RunId, order_hash
from cisbot.core.runs.state import Run, RunStatus
from cisbot.core.scopes import is_lock, lock_key, slots_of

LEASES_MAX = 2  # of the longest: so long one run may gather before the others get their turn
REST_S = 1.0  # after letting all go; doubled by each time, and between one and two of that
DOUBLED_MAX = 5
JITTER = 1_000


class Gathering:
    """The keys that this node's runs wait for, and since when it holds some of them without executing."""

    def __init__(self, keeper: Keeper, pinned: Mapping[str, Definition]) -> None:
        self._keeper = keeper
        self._pinned = pinned
        self._since: dict[RunId, float] = {}
        self._rests: dict[RunId, tuple[int, float]] = {}  # how often it let go, and until when it rests
        self._met: set[RunId] = set()  # those looked at that are to be claimed here, and don't rest
        self.at: float | None = None  # when to look again

    def keys(self, run: Run) -> tuple[ClaimKey, ...]:
        """All that the run needs, in the order in which it is taken."""
        assert run.key is not None
        definition = self._pinned.get(run.definition)
        locks = sorted(definition.locks) if definition is not None else []
        return (*map(lock_key, locks), run.key)

    def slots(self, run: Run, key: ClaimKey) -> int:
        """How many runs may hold that key of the run at once."""
        definition = self._pinned.get(run.definition)
        return slots_of(key, definition.overlap.allow if definition is not None else 1)

    def missing(self, run: Run) -> list[ClaimKey]:
        """What of it this node does not hold for the run."""
        return [key for key in self.keys(run) if self._keeper.holds.held(key, run.id) is None]

    def begin(self) -> None:
        """A new look at all runs that wait."""
        self._met.clear()
        self.at = None

    def stays(self, run: Run, now: float) -> None:
        """The run is still to be claimed here, though not in this moment."""
        if run.id in self._since and now >= self._end(run.id):
            self._let_go(run.id, now)
            return
        self._met.add(run.id)

    def next(self, run: Run, now: float) -> ClaimKey | None:
        """The key that is to be taken for the run now; None where it waits, and then for all of them."""
        keys = self.keys(run)
        if len(keys) == 1:
            return keys[0]
        missing = self.missing(run)
        if len(missing) == len(keys):
            self._since.pop(run.id, None)
        if run.id in self._since and self._over(run, missing, now):
            self._let_go(run.id, now)
        _, rests = self._rests.get(run.id, (0, now))
        if rests > now:
            self._wake(rests)
            return None
        self._met.add(run.id)
        if len(missing) == len(keys) and not all(self._free(run, key, now) for key in missing):
            return None
        return missing[0] if missing else None

    def won(self, run: RunId, now: float) -> None:
        """The first of its locks is held, or another one."""
        self._since.setdefault(run, now)

    def done(self, pending: Container[RunId]) -> None:
        """All runs that wait were looked at: what was not met is not to be claimed here any more."""
        for run in self._since.keys() - self._met:
            del self._since[run]
        self._rests = {run: rest for run, rest in self._rests.items() if run in pending}

    def idle(self, runs: Mapping[RunId, Run], executing: Container[RunId]) -> list[Hold]:
        """Locks that are held for runs which neither execute nor gather."""
        return [
            hold
            for hold in self._keeper.holds.values()
            if is_lock(hold.key) and hold.run not in executing and not self._needed(hold, runs.get(hold.run))
        ]

    def _needed(self, hold: Hold, run: Run | None) -> bool:
        if run is None or run.key is None or hold.key not in self.keys(run):
            return False
        begins = self._keeper.holds.held(run.key, run.id)  # while its story is read
        return begins is not None or run.status is RunStatus.PENDING and run.id in self._since

    def _over(self, run: Run, missing: list[ClaimKey], now: float) -> bool:
        """Whether it gathered in vain: somebody else holds what it lacks, or it took too long."""
        end = self._end(run.id)
        return now >= end or not all(self._free(run, key, now) for key in missing)

    def _end(self, run: RunId) -> float:
        end = self._since[run] + LEASES_MAX * self._keeper.ledger.bounds.lease_s_max
        self._wake(end)
        return end

    def _let_go(self, run: RunId, now: float) -> None:
        del self._since[run]
        times, _ = self._rests.get(run, (0, now))
        jitter = order_hash(run, self._keeper.me.account, str(times)) % JITTER / JITTER
        self._rests[run] = (times + 1, now + REST_S * 2.0 ** min(times, DOUBLED_MAX) * (1 + jitter))

    def _free(self, run: Run, key: ClaimKey, now: float) -> bool:
        """Whether the key can be taken for the run, as far as this node knows; else when that may change."""
        if (head := self._keeper.ledger.sure(key)) is None or self._coming(run, key, head):
            return True
        slot, at = self._keeper.slot_for(key, run.id, self.slots(run, key), now)
        if slot is None:
            self._wake(at)
        return slot is not None

    def _coming(self, run: Run, key: ClaimKey, head: Head) -> bool:
        """Whether a grant for the run was seen, and a home node has only to say that it counts."""
        keeper, me = self._keeper, (self._keeper.me.account, self._keeper.me.incarnation, run.id)
        mine = (h for h in head.holders if (h.account, h.incarnation, h.run) == me)
        return any(h.epoch > keeper.won_epoch((key, h.slot)) for h in mine)

    def _wake(self, at: float) -> None:
        self.at = at if self.at is None else min(self.at, at)
