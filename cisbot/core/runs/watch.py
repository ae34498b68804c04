"""Watching what others hold: whose holder fell silent, what ended unseen, and which approvals came too late.

Pure. A run is silent when its observer's clock has run out: counted from the last sign of life that this node
received, or, while it is unsure of the key, from when nothing that names the claim was heard any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from cisbot.core.claims.keeper import RHO, Keeper
from cisbot.core.ids import RunId
from cisbot.core.inputs import Instant
from cisbot.core.room.events import ClaimEvent, Heartbeat, Take
from cisbot.core.runs.board import Board
from cisbot.core.runs.state import Run, RunStatus

LOOK_AGAIN_S = 30.0  # after a story that could not be read
APPROVAL_CHECK_S = 5.0


class Watch:
    """What this node waits to see, or not to see any more, of the runs of others."""

    def __init__(self, board: Board, keeper: Keeper) -> None:
        self._board = board
        self._keeper = keeper
        self._told: set[tuple[RunId, int]] = set()
        self._unheard: dict[RunId, float] = {}
        self._looking: dict[RunId, float] = {}  # until when its story is not asked for again
        self.at: float | None = None

    def heard(self, event: ClaimEvent, now: float) -> None:
        """An event that may be a sign of life of a claim of which this node is not sure."""
        if isinstance(event, Heartbeat):
            signs = {(renewal.key, renewal.epoch) for renewal in event.renews}
        elif isinstance(event, Take):
            signs = {(event.key, event.epoch)}
        else:
            return
        for run_id in self._unheard:
            run = self._board.runs.get(run_id)
            if run is not None and (run.key, run.epoch) in signs:
                self._unheard[run_id] = now

    def alive(self, run: RunId, epoch: int) -> None:
        """It was thought lost and renewed in time."""
        self._told.discard((run, epoch))

    def forget(self, runs: Iterable[RunId]) -> None:
        """These runs are over and gone."""
        gone = set(runs)
        self._told = {mark for mark in self._told if mark[0] not in gone}
        for run in gone:
            self._unheard.pop(run, None)
            self._looking.pop(run, None)

    def due(self, own: Collection[RunId], now: Instant) -> tuple[list[tuple[Run, str]], list[Run], list[Run]]:
        """Runs that fell silent, with why; runs that ended unseen; runs that nobody approved in time.

        `at` is when to look again.
        """
        silent: list[tuple[Run, str]] = []
        unseen: list[Run] = []
        late: list[Run] = []
        times: list[float] = []
        for run in self._board.open_runs():
            if run.status is RunStatus.WAITING and run.expires_ms is not None:
                if run.expires_ms < now.wall_ms:
                    late.append(run)
                else:
                    rest = (run.expires_ms - now.wall_ms) / 1000 + 0.001
                    times.append(now.boot + min(APPROVAL_CHECK_S, rest))
            if run.status is not RunStatus.RUNNING or run.key is None or run.id in own:
                self._unheard.pop(run.id, None)
                continue
            lapse = self._lapse(run, now.boot)
            if lapse is None:
                if self._looking.get(run.id, now.boot) <= now.boot:
                    self._looking[run.id] = now.boot + LOOK_AGAIN_S
                    unseen.append(run)
                times.append(self._looking[run.id])
            elif lapse > now.boot:
                times.append(lapse)
            elif (run.id, run.epoch) not in self._told:
                self._told.add((run.id, run.epoch))
                silent.append((run, f"{run.node} went silent"))
        self.at = min(times) if times else None
        return silent, unseen, late

    def _lapse(self, run: Run, now: float) -> float | None:
        """When the run's holder counts as gone; None where a sure head says that nobody holds it."""
        assert run.key is not None
        head = self._keeper.ledger.sure(run.key)
        if head is None:
            longest = self._keeper.ledger.bounds.lease_s_max * (1 + 2 * RHO)
            return self._unheard.setdefault(run.id, now) + longest
        self._unheard.pop(run.id, None)
        holder = next((h for h in head.holders if h.run == run.id), None)
        return None if holder is None else self._keeper.lapses_at(run.key, holder.slot, now)
