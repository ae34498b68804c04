"""Claims across servers: how a node off the home server asks for them, and what a home node keeps of that.

Only the home stream decides, and only home nodes see it. So a node elsewhere asks by an intent; a home node
takes for it (a grant), sees that accepted, and says so in a heartbeat that carries the head. The same tells
the holder of each of its signs of life that counted. Its deadline counts from before it sent the sign that
such a head names; what its own server echoes proves nothing. While the link is cut it gets no grants, and
what it holds runs out.

Where the charter says `available`, it claims by its own server's stream once no home node was heard for a
lease. Such a claim ends when a home node tells of another holder; or the home stream accepts it later.
"""

from __future__ import annotations

from cisbot.core.claims.facts import Ended, Fact
from cisbot.core.claims.holds import Hold, Place
from cisbot.core.claims.keeper import Keeper
from cisbot.core.claims.ledger import heads_of
from cisbot.core.claims.messages import Claim, intent, release
from cisbot.core.effects import Send
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, Nonce, RunId, UserId
from cisbot.core.room.events import CarriedHead, ClaimEvent, End, Holder, Intent, Restate, Take
from cisbot.core.room.wire import EPOCH_MAX

AGAIN_MAX_S = 600.0  # between two requests while nothing is heard from the home server
SHARE = 0.5  # of a lease: so long a request is worth a grant, and so often it is said again
TELL_S = 10.0  # of waiting, before people are told
ASKED_MAX = 1_000
REQUESTS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Request:
    """An intent from off the home server, and until when (boot time) it is worth a grant."""

    intent: Intent
    until: float


class Requests:
    """What nodes on other servers ask a home node for: the newest of each account for each key. Pure."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._kept: dict[tuple[ClaimKey, UserId], Request] = {}

    def note(self, event: Intent, now: float) -> None:
        """Keep what can be granted. Too old ones are worth nothing to their sender, who asks again."""
        bounds = self._keeper.ledger.bounds
        if self._keeper.ledger.abroad or event.asks is None or bounds.at_home(event.sender):
            return
        if event.asks.lease_s > bounds.lease_s_max:
            return
        self._kept.pop((event.key, event.sender), None)
        head = self._keeper.ledger.sure(event.key)
        holders = head.holders if head is not None else ()
        if any(
            (h.account, h.incarnation, h.run) == (event.sender, event.incarnation, event.run) for h in holders
        ):
            answers = self._keeper.answers  # perhaps it has not heard of its grant
            answers.told_abroad(event.key, event.event_id, self._keeper.echo_s, now, first=False)
        self._kept[event.key, event.sender] = Request(event, now + event.asks.lease_s * SHARE)
        while len(self._kept) > REQUESTS_MAX:
            del self._kept[next(iter(self._kept))]

    def granted(self, take: Take) -> None:
        """It has what it asked for."""
        self._kept.pop((take.key, take.who.account), None)

    def over(self, event: End) -> None:
        """An incarnation is over: it wants nothing any more."""
        for at, kept in list(self._kept.items()):
            if (at[1], kept.intent.incarnation) == (event.sender, event.incarnation):
                del self._kept[at]

    def open(self, now: float) -> list[Intent]:
        """The requests that are still worth a grant."""
        if not self._kept:
            return []
        self._kept = {at: kept for at, kept in self._kept.items() if kept.until > now}
        return [kept.intent for kept in self._kept.values()]


@dataclass(frozen=True, slots=True)
class _Asked:
    """The newest request for a key. `since`: its run was first asked for; `tries` since home was heard."""

    run: RunId
    nonce: Nonce
    sent: float
    since: float
    tries: int


class Asks:
    """The requests of a node off the home server, and what home nodes' heads make of them. Pure."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._newest: dict[ClaimKey, _Asked] = {}
        self._sent: dict[Nonce, tuple[ClaimKey, int, Claim]] = {}
        self._returned: dict[Place, int] = {}
        self._told: set[RunId] = set()
        self._repeated: set[RunId] = set()
        self.heard_at: float | None = None  # when a home node was last heard

    # -- asking --------------------------------------------------------------------------------

    def again_at(self, key: ClaimKey, claim: Claim, now: float) -> float:
        """When the request is to be said again; `now` if it was not said yet."""
        asked = self._newest.get(key)
        if asked is None or asked.run != claim.run:
            return now
        pause = claim.lease_s * SHARE
        if not self._heard_since(asked.sent):
            pause = max(pause, min(pause * 2.0 ** min(asked.tries - 1, 20), AGAIN_MAX_S))
        return asked.sent + pause

    def ask(self, key: ClaimKey, slot: int, claim: Claim, now: float) -> tuple[Nonce, Send]:
        """Ask the home server's nodes to take the key for this node."""
        keeper, asked = self._keeper, self._newest.get(key)
        nonce = keeper.me.nonce()
        keeper.note_sent(nonce, now)
        again = asked if asked is not None and asked.run == claim.run else None
        if again is not None:
            self._repeated.add(claim.run)
        since = again.since if again is not None else now
        tries = again.tries + 1 if again is not None and not self._heard_since(again.sent) else 1
        if asked is not None and again is None:
            self._told.discard(asked.run)
        self._newest[key] = _Asked(claim.run, nonce, now, since, tries)
        self._sent[nonce] = (key, slot, claim)
        while len(self._sent) > ASKED_MAX:
            del self._sent[next(iter(self._sent))]
        head = keeper.ledger.sure(key)
        epoch = min((head.epoch if head else 0) + 1, EPOCH_MAX)
        return nonce, intent(keeper.me, nonce, key, epoch, claim.run, claim)

    def take_repeated(self) -> list[RunId]:
        """Runs that were asked for again: if they are over without this node's knowledge, no grant comes."""
        if not self._repeated:
            return []
        repeated, self._repeated = sorted(self._repeated), set()
        return repeated

    def alone_at(self, key: ClaimKey, claim: Claim) -> float | None:
        """When this node may claim without a grant, if the charter allows it: after a lease of silence."""
        asked = self._newest.get(key)
        if not self._keeper.ledger.bounds.available or asked is None or asked.run != claim.run:
            return None
        return max(asked.since, self.heard_at or asked.since) + claim.lease_s

    def waits_s(self, run: RunId, now: float) -> float | None:
        """For how many seconds the run has waited for a grant; None if none was asked for."""
        asked = next((a for a in self._newest.values() if a.run == run), None)
        return None if asked is None else now - asked.since

    def overdue(self, now: float) -> list[RunId]:
        """Runs that wait for so long that people should know; each is named once."""
        if not self._newest:
            return []
        runs = [
            asked.run
            for asked in self._newest.values()
            if asked.run not in self._told and (self.waits_s(asked.run, now) or 0.0) >= TELL_S
        ]
        self._told.update(runs)
        return runs

    def deadline(self) -> float | None:
        """When `overdue` may have something new."""
        if not self._newest:
            return None
        untold = (a.since + TELL_S for a in self._newest.values() if a.run not in self._told)
        return min(untold, default=None)

    def drop(self, key: ClaimKey) -> None:
        """Nothing is wished for here any more."""
        asked = self._newest.pop(key, None)
        if asked is not None:
            self._told.discard(asked.run)

    def _heard_since(self, moment: float) -> bool:
        return self.heard_at is not None and self.heard_at > moment

    # -- what home nodes say ---------------------------------------------------------------------

    def believe(self, event: ClaimEvent | Restate, now: float) -> tuple[list[Fact], list[Send]]:
        """The heads that a home node carries are the truth about what this node holds."""
        facts: list[Fact] = []
        sends: list[Send] = []
        ledger = self._keeper.ledger
        if ledger.abroad and ledger.bounds.at_home(event.sender):
            for head in heads_of(event):
                facts.extend(self._ended(head))
                for holder in head.holders:
                    if (holder.account, holder.incarnation) == self._me():
                        self._held(head, holder, now, facts, sends)
        return facts, sends

    def _me(self) -> tuple[str, str]:
        return self._keeper.me.account, self._keeper.me.incarnation

    def _ended(self, head: CarriedHead) -> list[Fact]:
        """A head that is as new as the hold, and does not name it: it is over."""
        keeper = self._keeper
        mine = {h.epoch for h in head.holders if (h.account, h.incarnation) == self._me()}
        facts: list[Fact] = []
        for hold in keeper.holds.of_key(head.key):
            if self._stands(hold, head, mine):
                continue
            del keeper.holds[hold.place]
            other = next((h for h in head.holders if h.slot == hold.slot), None)
            who = f"{other.node} holds it" if other is not None else "it is held no more"
            facts.append(Ended(hold, f"by the word of the home server {who}", other))
        for place, base in list(keeper.alone.items()):
            if place[0] == head.key and place not in keeper.holds and head.epoch > base:
                del keeper.alone[place]
        return facts

    def _stands(self, hold: Hold, head: CarriedHead, mine: set[int]) -> bool:
        alone, base = self._keeper.alone, self._keeper.alone.get(hold.place)
        if base is not None and head.epoch <= base:
            return True  # from before this node went its own way
        others = (h for h in head.holders if h.slot == hold.slot and h.epoch not in mine)
        if base is not None and head.epoch < hold.epoch and mine and not any(others):
            alone[hold.place] = head.epoch  # the home stream follows, claim by claim
            return True
        alone.pop(hold.place, None)
        return hold.epoch in mine or base is None and head.epoch < hold.epoch

    def _held(
        self, head: CarriedHead, holder: Holder, now: float, facts: list[Fact], sends: list[Send]
    ) -> None:
        keeper, key, place = self._keeper, head.key, (head.key, holder.slot)
        hold = keeper.holds.get(place)
        if hold is not None and hold.epoch == holder.epoch:
            facts.extend(keeper.prolong(place, holder.sign))
            return
        if hold is not None or holder.epoch <= max(keeper.won_epoch(place), self._returned.get(place, 0)):
            return  # it ended here: nothing revives it
        asked, sent = self._sent.get(holder.sign), keeper.sent_at(holder.sign)
        late = sent is None or sent + keeper.span(holder.lease_s) <= now
        if asked is None or asked[0] != key or late or keeper.mine_over:
            self._returned[place] = holder.epoch
            sends.append(release(keeper.me, key, holder.epoch, holder.run, None, None))
            return
        _, _, claim = asked
        facts.append(keeper.take_up(_as_taken(head, holder, claim), now))
        self.drop(key)


def _as_taken(head: CarriedHead, holder: Holder, claim: Claim) -> Take:
    """The take that the home stream accepted for this node, as far as it matters here."""
    assert head.after is not None
    return Take(
        head.after, holder.account, 0, head.key, holder.node, holder.incarnation, holder.sign, holder.slot,
        holder.epoch, None, holder.run, claim.dag, claim.scope, holder.lease_s, claim.definition,
    )  # fmt: skip
