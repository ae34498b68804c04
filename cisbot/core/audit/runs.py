"""What was done under claims: outcomes and messages, against who held what. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

from cisbot.core.audit.evidence import Claimed
from cisbot.core.audit.found import Breach, Finding, Hold, HoldEnd, Remark
from cisbot.core.audit.replay import Story
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, RunId, UserId, short_id
from cisbot.core.room.events import Message, Outcome, Rejected, Release, RoomEvent
from cisbot.core.scopes import is_lock, lock_name

RAN = (Outcome.SUCCEEDED, Outcome.FAILED)
CLUSTER_WIDE = "global"


@dataclass(frozen=True, slots=True)
class _End:
    """An outcome that a holder gave; `late`: it did not hold any more."""

    release: Release
    outcome: Outcome
    late: bool


class Executions:
    """Which runs were executed, by whom, as far as releases and messages tell."""

    def __init__(
        self,
        stories: Mapping[ClaimKey, Story],
        nodes: frozenset[UserId],
        apart: Callable[[UserId], bool],
    ) -> None:
        self._stories, self._nodes, self._apart = stories, nodes, apart
        self._unjudged = any(story.unjudged for story in stories.values())
        self._ends: dict[RunId, list[_End]] = defaultdict(list)
        self._holds: dict[tuple[RunId, UserId, int], Hold] = {}
        own = [story for key, story in stories.items() if not is_lock(key)]  # under which tasks are told of
        for story in own:
            self._holds |= {(h.run, h.account, h.epoch): h for h in story.holds}
        self._void = {(v.run, v.account, v.epoch) for story in own for v in story.voids}

    def judge(self, events: Iterable[RoomEvent | Rejected]) -> Iterator[Finding]:
        """Everything that contradicts the holds."""
        said: set[tuple[RunId, UserId, int]] = set()
        for event in events:
            if isinstance(event, Release) and event.outcome is not None:
                yield from self._release(event, event.outcome)
            elif isinstance(event, Message) and event.sender in self._nodes:
                yield from self._message(event, said)
        for run, ends in self._ends.items():
            yield from _ends(run, ends)
        yield from _two_holders([h for story in self._stories.values() for h in story.holds])

    def _release(self, event: Release, outcome: Outcome) -> Iterator[Finding]:
        story = self._stories.get(event.key)
        if story is None or story.unjudged:
            return
        claimed: Claimed = (event.key, event.sender, event.incarnation, event.epoch)
        at = story.granted.get(claimed)
        hold = story.holds[at] if at is not None else None
        if hold is None or hold.run != event.run:
            void = claimed in story.refused
            what = "though its take was void" if void else "which it never held"
            yield Finding(
                self._without_hold(event.sender, void=void),
                f"{event.node} says {short_id(event.run)} {outcome} under epoch {event.epoch}, {what}",
                event.ts_ms, event.key, event.run, event.event_id, event.sender,
            )  # fmt: skip
            return
        late = hold.end is not HoldEnd.RELEASED
        self._ends[event.run].append(_End(event, outcome, late))
        if late and outcome is not Outcome.LOST and hold.until_ms is not None:
            yield Finding(
                Remark.LATE_OUTCOME,
                f"{event.node} says {short_id(event.run)} {outcome} {_after(event.ts_ms, hold.until_ms)} "
                f"after its hold had ended ({hold.end})",
                event.ts_ms, event.key, event.run, event.event_id, event.sender,
            )  # fmt: skip

    def _without_hold(self, account: UserId, *, void: bool) -> Breach | Remark:
        if void and self._apart(account):
            return Remark.RAN_APART
        return Breach.VOID_RAN if void else Breach.NOT_HELD

    def _message(self, event: Message, said: set[tuple[RunId, UserId, int]]) -> Iterator[Finding]:
        block = event.block or {}
        run, epoch, kind = block.get("run"), block.get("epoch"), block.get("kind")
        if kind not in ("status", "final") or not isinstance(run, str) or not isinstance(epoch, int):
            return
        claim = (RunId(run), event.sender, epoch)
        hold = self._holds.get(claim)
        if hold is None:
            if self._unjudged or claim in said:
                return
            said.add(claim)
            void = claim in self._void
            what = "though its take was void" if void else "which it never held"
            yield Finding(
                self._without_hold(event.sender, void=void),
                f"{event.sender} tells of tasks of {short_id(RunId(run))} under epoch {epoch}, {what}",
                event.ts_ms, None, RunId(run), event.event_id, event.sender,
            )  # fmt: skip
            return
        done = next((e for e in self._ends.get(hold.run, ()) if not e.late and e.outcome in RAN), None)
        again = done is not None and (done.release.key != hold.key or done.release.epoch < epoch)
        if done is not None and again and kind == "final" and block.get("status") in RAN:
            yield Finding(
                Breach.RUN_TWICE,
                f"{short_id(hold.run)} {done.outcome} on {done.release.node} (epoch {done.release.epoch}), "
                f"and {hold.node} tells that it {block.get('status')} there (epoch {epoch})",
                event.ts_ms, hold.key, hold.run, event.event_id, event.sender,
            )  # fmt: skip
        over = hold.end in (HoldEnd.TAKEN, HoldEnd.ENDED)
        working = block.get("status") == "running" or kind == "final"
        if over and working and hold.until_ms is not None and event.ts_ms > hold.until_ms:
            yield Finding(
                Remark.RAN_ON,
                f"{hold.node} says {short_id(hold.run)} is {block.get('status')} under epoch {epoch}, "
                f"{_after(event.ts_ms, hold.until_ms)} after its hold had ended ({hold.end})",
                event.ts_ms, hold.key, hold.run, event.event_id, event.sender,
            )  # fmt: skip


def _after(ts_ms: int, until_ms: int) -> str:
    return f"{max(0, ts_ms - until_ms) / 1000:.1f} s"


def _ends(run: RunId, ends: list[_End]) -> Iterator[Finding]:
    """A run has one outcome, unless what came first came too late or was no end."""
    claims: dict[tuple[ClaimKey, int], _End] = {}
    for end in ends:
        first = claims.setdefault((end.release.key, end.release.epoch), end)
        if first.outcome is not end.outcome:
            yield _breach(Breach.OUTCOMES_DIFFER, run, first, end, "under one epoch")
    settled: _End | None = None
    one_key = len({key for key, _ in claims}) == 1
    in_order = sorted(claims.values(), key=lambda end: end.release.epoch) if one_key else claims.values()
    for end in in_order:
        if settled is not None and end.outcome in RAN:
            yield _breach(Breach.RUN_TWICE, run, settled, end, "under another epoch, for no reason")
        elif not end.late and end.outcome is not Outcome.LOST:
            settled = settled or end


def _breach(kind: Breach, run: RunId, first: _End, again: _End, how: str) -> Finding:
    event = again.release
    what = (
        f"{short_id(run)} {first.outcome} on {first.release.node} (epoch {first.release.epoch}), and "
        f"{again.outcome} on {event.node} (epoch {event.epoch}) {how}"
    )
    return Finding(kind, what, event.ts_ms, event.key, run, event.event_id, event.sender)


def _two_holders(holds: list[Hold]) -> Iterator[Finding]:
    """Two places of one run, of a lock, or of the scope with one worker in the cluster, at the same time."""
    by_what: dict[str, list[Hold]] = defaultdict(list)
    for hold in holds:
        if is_lock(hold.key):  # which a run has beside its own key
            by_what[f"the lock {lock_name(hold.key)}"].append(hold)
            continue
        by_what[f"the run {short_id(hold.run)}"].append(hold)
        if hold.scope == CLUSTER_WIDE:
            by_what[f"the scope {CLUSTER_WIDE}"].append(hold)
    for what, group in by_what.items():
        group.sort(key=lambda hold: (hold.since_ms, hold.epoch))
        last = group[0]
        for hold in group[1:]:
            until_ms = last.until_ms if last.until_ms is not None else _still_ms(last)
            apart = (hold.key, hold.slot) == (last.key, last.slot)  # the fold gives a slot to one only
            if not apart and hold.since_ms < until_ms:
                yield Finding(
                    Breach.TWO_HOLDERS,
                    f"{hold.node} holds {what} {_by(hold)} while {last.node} holds it {_by(last)}",
                    hold.since_ms, hold.key, hold.run, hold.event, hold.account,
                )  # fmt: skip
            if hold.until_ms is None or last.until_ms is not None and hold.until_ms >= last.until_ms:
                last = hold


def _by(hold: Hold) -> str:
    return f"in slot {hold.slot}" if is_lock(hold.key) else f"by {hold.key}"


def _still_ms(hold: Hold) -> int:
    return hold.last_sign_ms + 1000 * hold.lease_s
