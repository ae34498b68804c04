"""The room's home server, and a node off it: what it hears from there, can't do, and says while it waits."""

from __future__ import annotations

from collections.abc import Container

from cisbot.core.chat.desk import Desk
from cisbot.core.chat.office import Office, waits_for_grant
from cisbot.core.claims.contend import Wish
from cisbot.core.claims.grants import Requests
from cisbot.core.claims.rows import bounds_to_row
from cisbot.core.claims.state import Bounds
from cisbot.core.effects import Put, ReadRuns
from cisbot.core.ids import RunId, order_hash, server_of
from cisbot.core.inputs import Instant
from cisbot.core.room.events import Charter, End, Intent, RoomEvent
from cisbot.core.runs.granting import grants

RUNS_MAX = 20  # asked for at once; each costs two requests
LOOK_AGAIN_S = 30.0


class Abroad:
    """What depends on which server is the room's home. Pure."""

    def __init__(self, office: Office, desk: Desk, requests: Requests) -> None:
        self._office = office
        self._desk = desk
        self.requests = requests
        self._looked: dict[RunId, float] = {}  # until when a run is not asked for again

    def heard(self, event: RoomEvent, now: Instant) -> None:
        """What a home node sends shows that the link is there; of others, what they ask for a grant."""
        office = self._office
        if isinstance(event, Intent) and office.board.is_node(event.sender):
            self.requests.note(event, now.boot)
        if isinstance(event, End):
            self.requests.over(event)
        if office.board.is_node(event.sender) and office.ledger.bounds.at_home(event.sender):
            office.asks.heard_at = now.boot

    def grants(
        self, own: list[Wish], unread: Container[RunId], now: Instant
    ) -> tuple[list[Wish], list[RunId]]:
        """What this node wishes for itself and for those who asked, and the runs to be looked up."""
        office, stories = self._office, self._office.asks.take_repeated()
        asked = self.requests.open(now.boot)
        if self._looked:
            self._looked = {run: at for run, at in self._looked.items() if at > now.boot}
        if not asked:
            return own, stories
        unknown = {intent.run for intent in asked} - office.board.runs.keys() - self._looked.keys()
        if unknown:  # published where this node could not see it
            some = sorted(unknown)[:RUNS_MAX]
            self._looked.update(dict.fromkeys(some, now.boot + LOOK_AGAIN_S))
            office.asked = set(self._looked)
            office.ask(ReadRuns("asked", tuple(some)))
        wishes, more = grants(asked, own, office.board, office.me, unread, office.loads())
        return wishes, stories + more

    def tell(self, now: Instant) -> None:
        """Say once in a run's thread that no grant comes: one of the nodes on this server does."""
        office = self._office
        for run_id in office.asks.overdue(now.boot):
            run, waits_s = office.board.runs.get(run_id), office.asks.waits_s(run_id, now.boot)
            if run is not None and waits_s is not None:
                mine = server_of(office.me.account)
                here = [n.account for n in office.board.living() if server_of(n.account) == mine]
                first = tuple(sorted(here, key=lambda account: order_hash(run_id, account)))
                said = f"{run.dag} {run.short} {waits_for_grant(office, waits_s, now)}."
                self._desk.voice.note(run, said, f"grant {run_id}", now, first=first)

    def charter(self, charter: Charter) -> Put:
        """Take up the room's rules. Home and mode are for ever: no later charter changes them."""
        ledger = self._office.ledger
        known, home, available = ledger.bounds, charter.home, charter.available
        if known.home:
            home, available = known.home, known.available
        ledger.bounds = Bounds(charter.lease_s_max, charter.epoch_step_max, home, available)
        return bounds_to_row(ledger.bounds)

    def no_memory(self, what: str) -> str | None:
        """Why this node doesn't write to the public memory; None where it does."""
        home = self._office.ledger.bounds.home
        if not self._office.settings.policy.memory:
            return f"{what}: this node's owner does not allow it ([policy] memory)"
        if not self._office.ledger.abroad:
            return None
        return f"{what}: public memory is written on the room's home server, {home}; this node is on another"
