"""What a node holds: one claim in each slot of a key, and for a run its own key and its named locks."""

from __future__ import annotations

from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, RunId

Place = tuple[ClaimKey, int]  # a key's slot


@dataclass(frozen=True, slots=True)
class Hold:
    """A claim that this node holds, and the boot time at which its last process must be dead."""

    key: ClaimKey
    slot: int
    epoch: int
    run: RunId
    lease_s: int
    deadline: float

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self.key, self.slot


class Holds(dict[Place, Hold]):
    """All of them, by their places."""

    def held(self, key: ClaimKey, run: RunId) -> Hold | None:
        """The key's slot that is held for that run."""
        return next((hold for hold in self.of_key(key) if hold.run == run), None)

    def of_key(self, key: ClaimKey) -> list[Hold]:
        """The slots of the key that are held."""
        return [hold for hold in self.values() if hold.key == key]

    def of_run(self, run: RunId) -> list[Hold]:
        """All that is held for the run."""
        return [hold for hold in self.values() if hold.run == run]

    def of_keys(self) -> list[ClaimKey]:
        """The keys of which something is held."""
        return list(dict.fromkeys(key for key, _ in self))

    def runs(self) -> set[RunId]:
        """The runs for which something is held."""
        return {hold.run for hold in self.values()}
