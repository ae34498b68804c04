"""Contending: whether to wait, hint, ask or take, one key at a time.

The preferred node takes at once, each next one waits longer than one PUT-to-echo time and goes only if
nobody did. All reckon the same order, so the others know who goes first without being told. Who goes out of
that order sends an intent: a hint that keeps N contenders from costing N locks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeVar

from cisbot.core.claims.answers import CHECK
from cisbot.core.claims.fold import concerns
from cisbot.core.claims.grants import Asks
from cisbot.core.claims.keeper import RHO, Keeper
from cisbot.core.claims.messages import Claim, intent, take
from cisbot.core.claims.state import Head
from cisbot.core.effects import Ask, ReadBack, ReadState, Send
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId, Nonce, RunId
from cisbot.core.room.events import Asker, ClaimEvent, Intent, Probe, Rejected, RoomEvent, Take
from cisbot.core.room.past import Highest
from cisbot.core.room.wire import EPOCH_MAX, KEYS_MAX, T_INTENT

V = TypeVar("V")
ECHO_MAX_S = 30.0  # an own send whose echo stays away so long is given up
RETRY_S = 1.0
BACK_RETRY_S = 30.0
SPOILT_S = 2.0  # before a spoilt probe is asked again
ECHO_PER_PEER_S = 0.01  # every bot that follows the room delays all news; who never spoke measured nothing
NOTED_MAX = 4_000
INTENT = "intent "  # the tag of a question, before the key


class Phase(Enum):
    """Where an attempt stands; each waits for an event or for `until`."""

    TURN = "waits for its turn"
    INTENT = "sent an intent"
    ASKED = "asked whom the room names"
    DEFERRED = "waits for the lock of another"
    TAKE = "sent a lock request"
    PROBE = "sent a probe"
    BACK = "reads the highest epoch"
    GRANT = "asked the home server for a grant"


@dataclass(frozen=True, slots=True)
class Wish:
    """A run that this node may claim now, or grant to `asker`. `rank` 0 goes first."""

    key: ClaimKey
    claim: Claim
    rank: int
    asker: Asker | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try for one key, on one state of its head."""

    base: EventId | None
    run: RunId
    phase: Phase
    until: float
    rank: int
    nonce: Nonce | None = None


class Contender:
    """The attempts of one node. Pure."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._attempts: dict[ClaimKey, Attempt] = {}
        self._intents: dict[ClaimKey, int] = {}
        self._probes: dict[ClaimKey, tuple[EventId, float]] = {}
        self._wakes: list[float] = []
        self._stale: list[Nonce] = []
        self.asks = Asks(keeper)

    # -- receiving -----------------------------------------------------------------------------

    def observe(self, event: ClaimEvent | Intent, now: float) -> list[Ask]:
        """Note intents and probes of others, and the echo of an own intent."""
        match event:
            case Intent():
                _note(self._intents, event.key, event.epoch)
                attempt = self._attempts.get(event.key)
                if attempt and attempt.phase is Phase.INTENT and attempt.nonce == event.nonce:
                    self._move(event.key, attempt, Phase.ASKED, now + ECHO_MAX_S)
                    return [ReadState(INTENT + event.key, T_INTENT, event.key)]
            case Probe():
                for key in event.keys:
                    if self._keeper.ledger.is_unsure(key):
                        _note(self._probes, key, (event.event_id, now))
            case _:
                self._spoil(event, now)
        return []

    def _spoil(self, event: ClaimEvent, now: float) -> None:
        """What matters to a probed key came too early: ask again, in turn."""
        for key in [key for key in self._probes if concerns(event, key)]:
            del self._probes[key]
            attempt = self._attempts.get(key)
            if attempt is not None and attempt.phase is Phase.PROBE:
                wait = SPOILT_S + attempt.rank * self._stagger()
                self._attempts[key] = Attempt(None, attempt.run, Phase.TURN, now + wait, attempt.rank)
        if isinstance(event, Take) and self._keeper.ledger.is_unsure(event.key):
            attempt = self._attempts.get(event.key)
            if attempt is not None and attempt.nonce == event.nonce:
                self._move(event.key, attempt, Phase.TAKE, now)  # no longer waits for its echo

    def state_read(self, tag: str, found: RoomEvent | Rejected | None, now: float) -> None:
        """An answer to a `ReadState`: about an intent, or what the state says of a key."""
        if tag.startswith(CHECK):
            self._keeper.answers.stated(ClaimKey(tag.removeprefix(CHECK)), found, now)
        else:
            self.named(ClaimKey(tag.removeprefix(INTENT)), found, now)

    def named(self, key: ClaimKey, found: object, now: float) -> None:
        """The room's state names a contender: the others stand down for a while."""
        attempt = self._attempts.get(key)
        if attempt is None or attempt.phase is not Phase.ASKED:
            return
        mine = isinstance(found, Intent) and found.nonce == attempt.nonce
        other = isinstance(found, Intent) and not mine and found.epoch == self._intents.get(key)
        wait = self._patience(attempt.rank) if other else 0.0
        self._move(key, attempt, Phase.DEFERRED, now + wait)

    def back(self, key: ClaimKey, found: Highest | None, wish: Wish | None, now: float) -> list[Send]:
        """The highest epoch is known: take afresh, naming the probe."""
        attempt, probe = self._attempts.get(key), self._probe_of(key)
        if attempt is None or attempt.phase is not Phase.BACK:
            return []
        if found is None or found.epoch >= EPOCH_MAX:  # reading may cost hundreds of requests
            self._move(key, attempt, Phase.BACK, now + BACK_RETRY_S)
            return []
        if wish is None or probe is None or not self._keeper.ledger.is_unsure(key):
            self._move(key, attempt, Phase.PROBE, now + RETRY_S)
            return []
        return self._take(wish, probe[0], found.epoch + 1, 0, now, fresh=found)

    def failed(self, nonce: str, now: float, wait_s: float = RETRY_S) -> None:
        """A send of this node is given up: try again a little later."""
        for key, attempt in self._attempts.items():
            if attempt.nonce == nonce:
                self._move(key, attempt, Phase.TURN, now + wait_s)

    def gap(self) -> None:
        """Events were missed: nothing seen before counts."""
        self._probes.clear()
        self._intents.clear()
        self._attempts.clear()
        self._wakes.clear()

    def deadline(self) -> float | None:
        """When `pursue` has something to do."""
        asks = self.asks.deadline()
        if asks is None and not self._wakes:
            return None
        return min(self._wakes if asks is None else [*self._wakes, asks])

    # -- deciding ------------------------------------------------------------------------------

    def take_stale(self) -> list[Nonce]:
        """Intents and lock requests that would come too late, if they are not sent yet."""
        stale, self._stale = self._stale, []
        return stale

    def _drop(self, key: ClaimKey) -> None:
        attempt = self._attempts.pop(key, None)
        unsaid = (Phase.INTENT, Phase.TAKE, Phase.GRANT)
        if attempt is not None and attempt.nonce is not None and attempt.phase in unsaid:
            self._stale.append(attempt.nonce)
        self.asks.drop(key)

    def pursue(self, wishes: Sequence[Wish], now: float) -> tuple[list[Send], list[Ask]]:
        """One step for every wish; attempts at keys that are not wished for any more are dropped."""
        sends: list[Send] = []
        asks: list[Ask] = [*self._keeper.answers.checks(now)]
        self._wakes = []
        if (check := self._keeper.answers.next_check()) is not None:
            self._wakes.append(check)
        if self._keeper.mine_over:
            self._attempts.clear()
            return sends, asks
        if not (wishes or self._attempts):
            return sends, asks
        wanted = {wish.key for wish in wishes}
        for key in self._attempts.keys() - wanted:
            self._drop(key)
        unknown: list[Wish] = []
        for wish in wishes:
            if self._keeper.holds.held(wish.key, wish.claim.run):
                self._attempts.pop(wish.key, None)
                continue
            head = self._keeper.ledger.sure(wish.key)
            if head is not None and self._keeper.ledger.abroad:
                sends.extend(self._abroad(wish, head, now))
            elif head is not None:
                sends.extend(self._sure(wish, head, now))
            elif (question := self._unsure(wish, now)) is not None:
                asks.append(question)
            elif now >= self._attempts[wish.key].until:
                unknown.append(wish)
        sends.extend(self._probe(unknown, now))
        self._wakes.extend(max(attempt.until, now + 0.001) for attempt in self._attempts.values())
        return sends, asks

    def _sure(self, wish: Wish, head: Head, now: float) -> list[Send]:
        slot = self._slot(wish, now)
        if slot is None:
            return []
        attempt = self._attempts.get(wish.key)
        run = wish.claim.run
        asking = attempt is not None and attempt.phase in (Phase.PROBE, Phase.BACK)
        if attempt is None or asking or attempt.base != head.after or attempt.run != run:
            self._drop(wish.key)
            turn = now + wish.rank * self._stagger()
            attempt = Attempt(head.after, run, Phase.TURN, turn, wish.rank)
            self._attempts[wish.key] = attempt
        if now < attempt.until:
            return []
        if attempt.phase is Phase.TURN and wish.rank > 0:
            if self._intents.get(wish.key) == head.epoch + 1:
                self._move(wish.key, attempt, Phase.DEFERRED, now + self._patience(wish.rank))
                return []
            nonce = self._keeper.me.nonce()
            self._keeper.note_sent(nonce, now)
            until = now + max(8 * self._keeper.echo_s, 2.0)
            self._attempts[wish.key] = Attempt(head.after, run, Phase.INTENT, until, wish.rank, nonce)
            return [intent(self._keeper.me, nonce, wish.key, head.epoch + 1, run)]
        if attempt.phase is Phase.TAKE:  # its echo never came
            self._move(wish.key, attempt, Phase.TURN, now + RETRY_S)
            return []
        return self._take(wish, head.after, head.epoch + 1, slot, now, fresh=None)

    def _abroad(self, wish: Wish, head: Head, now: float) -> list[Send]:
        """Off the home server: ask for a grant, in turn, and again; or claim alone, where that is allowed."""
        key, claim = wish.key, wish.claim
        slot = self._slot(wish, now)
        if slot is None:
            return []
        attempt = self._attempts.get(key)
        if attempt is None or attempt.run != claim.run:
            turn = now + wish.rank * self._stagger()
            attempt = self._attempts[key] = Attempt(None, claim.run, Phase.TURN, turn, wish.rank)
        if attempt.phase in (Phase.TURN, Phase.TAKE) and now < attempt.until:
            return []
        alone = self.asks.alone_at(key, claim)
        if alone is not None and now >= alone:
            return self._take(wish, head.after, head.epoch + 1, slot, now, fresh=None)
        sends: list[Send] = []
        if now >= self.asks.again_at(key, claim, now):
            nonce, send = self.asks.ask(key, slot, claim, now)
            attempt = replace(attempt, nonce=nonce)
            sends.append(send)
        times = (self.asks.again_at(key, claim, now), self.asks.alone_at(key, claim))
        self._move(key, attempt, Phase.GRANT, min(at for at in times if at is not None))
        return sends

    def _slot(self, wish: Wish, now: float) -> int | None:
        """A slot to be taken. None: wait."""
        slot, at = self._keeper.slot_for(wish.key, wish.claim.run, wish.claim.slots, now)
        if slot is None:
            self._attempts.pop(wish.key, None)
            self._wakes.append(at)
        return slot

    def _take(
        self,
        wish: Wish,
        after: EventId | None,
        epoch: int,
        slot: int,
        now: float,
        *,
        fresh: Highest | None,
    ) -> list[Send]:
        keeper = self._keeper
        nonce = keeper.me.nonce()
        keeper.note_sent(nonce, now)
        self._attempts[wish.key] = Attempt(
            after, wish.claim.run, Phase.TAKE, now + ECHO_MAX_S, wish.rank, nonce
        )  # fmt: skip
        head = None if fresh or after is None else keeper.ledger.carried(wish.key)
        return [
            take(
                keeper.me, nonce, wish.key, slot, epoch, after, wish.claim, fresh=fresh is not None,
                head=head, takes=fresh.takes if fresh else 0, asker=wish.asker,
            )
        ]  # fmt: skip

    def _unsure(self, wish: Wish, now: float) -> Ask | None:
        """Wait for a turn to probe, then until it was quiet for long enough, then read back."""
        key, attempt = wish.key, self._attempts.get(wish.key)
        asked = self._probe_of(key)
        if attempt and attempt.phase in (Phase.TAKE, Phase.BACK) and now < attempt.until:
            return None
        if asked is not None:
            event, at = asked
            quiet = at + self._keeper.ledger.bounds.lease_s_max * (1 + 2 * RHO)
            quiet += wish.rank * self._stagger()
            if now < quiet:
                self._attempts[key] = Attempt(event, wish.claim.run, Phase.PROBE, quiet, wish.rank)
                return None
            self._attempts[key] = Attempt(event, wish.claim.run, Phase.BACK, now + ECHO_MAX_S, wish.rank)
            return ReadBack(f"back {key}", key, self._keeper.ledger.bounds.epoch_step_max)
        if attempt is None:
            turn = now + wish.rank * self._stagger()
            self._attempts[key] = Attempt(None, wish.claim.run, Phase.TURN, turn, wish.rank)
        return None

    def _probe(self, wishes: Sequence[Wish], now: float) -> list[Send]:
        """One probe for all of them."""
        sends: list[Send] = []
        for start in range(0, len(wishes), KEYS_MAX):
            some = wishes[start : start + KEYS_MAX]
            nonce, send = self._keeper.probe(tuple(wish.key for wish in some), now)
            sends.append(send)
            for wish in some:
                run, until = wish.claim.run, now + ECHO_MAX_S
                self._attempts[wish.key] = Attempt(None, run, Phase.PROBE, until, wish.rank, nonce)
        return sends

    def _probe_of(self, key: ClaimKey) -> tuple[EventId, float] | None:
        """The last probe of an unsure key, and when it came; none if events were missed since."""
        asked = self._probes.get(key)
        if asked is not None and self._keeper.ledger.since(key, asked[0]) is None:
            del self._probes[key]
            return None
        return asked

    def _stagger(self) -> float:
        return max(2 * self._echo_s(), 0.2)

    def _patience(self, rank: int) -> float:
        """How long the lock of whom the room names may take; then the next in turn goes on."""
        return max(4 * self._echo_s(), 0.5) + rank * self._stagger()

    def _echo_s(self) -> float:
        return max(self._keeper.echo_s, ECHO_PER_PEER_S * len(self._keeper.me.peers))

    def _move(self, key: ClaimKey, attempt: Attempt, phase: Phase, until: float) -> None:
        self._attempts[key] = replace(attempt, phase=phase, until=until)
        self._wakes.append(until)


def _note(noted: dict[ClaimKey, V], key: ClaimKey, what: V) -> None:
    """Keep the newest."""
    noted.pop(key, None)
    noted[key] = what
    if len(noted) > NOTED_MAX:
        del noted[next(iter(noted))]
