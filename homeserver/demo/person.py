"""A person in the room: an ordinary client that sends, reacts and reads, and knows nothing of cisbot."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode

from homeserver.accounts import Account
from homeserver.api import call

Event = Mapping[str, object]
V3 = "/_matrix/client/v3"
FILTER = '{"room":{"timeline":{"limit":100}}}'  # unasked, a homeserver leaves out all but the last ten


class Person:
    """Follows one room in a thread of its own; every event is kept and told to `on_event`."""

    def __init__(self, base_url: str, account: Account, room: str, on_event: Callable[[Event], None]) -> None:
        self.base_url = base_url
        self.account = account
        self.room = room
        self.events: list[Event] = []
        self._on_event = on_event
        self._changed = threading.Condition()
        self._txn = itertools.count(1)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._since = self._sync(None)
        self._thread.start()

    def stop(self) -> None:
        """Stop to follow."""
        self._stopped.set()

    def say(self, body: str) -> str:
        """Send an ordinary message; the event id."""
        return self._send("m.room.message", {"msgtype": "m.text", "body": body})

    def react(self, event: str, key: str) -> str:
        """React to an event."""
        relates = {"rel_type": "m.annotation", "event_id": event, "key": key}
        return self._send("m.reaction", {"m.relates_to": relates})

    def wait(self, what: str, match: Callable[[Event], bool], seconds: float = 90) -> Event:
        """The first event, seen or to come, that matches. Raises `TimeoutError`, naming `what`."""
        end = time.monotonic() + seconds
        with self._changed:
            seen = 0
            while True:
                for event in self.events[seen:]:
                    if match(event):
                        return event
                seen = len(self.events)
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"waited {seconds:.0f} s for {what}")
                self._changed.wait(left)

    def _send(self, kind: str, content: dict[str, object]) -> str:
        path = f"{V3}/rooms/{quote(self.room)}/send/{kind}/demo{next(self._txn)}.{time.time_ns()}"
        while True:
            status, answer = self._call("PUT", path, content)
            if status == 200:
                return str(answer["event_id"])
            if status != 429:
                raise RuntimeError(f"{kind}: {status} {answer}")
            wait_ms = answer.get("retry_after_ms", 1000)
            time.sleep((wait_ms if isinstance(wait_ms, int) else 1000) / 1000)

    def _call(
        self, method: str, path: str, body: dict[str, object] | None = None, timeout: float = 60
    ) -> tuple[int, dict[str, object]]:
        return call(method, self.base_url + path, body, token=self.account.access_token, timeout=timeout)

    def _sync(self, since: str | None) -> str:
        query = {"timeout": "20000" if since else "0", "set_presence": "offline", "filter": FILTER}
        if since:
            query["since"] = since
        status, answer = self._call("GET", f"{V3}/sync?{urlencode(query)}")
        if status != 200:
            raise RuntimeError(f"sync: {status} {answer}")
        rooms = answer.get("rooms")
        joined = rooms.get("join", {}) if isinstance(rooms, dict) else {}
        room = joined.get(self.room, {})
        timeline = room.get("timeline", {})
        events = timeline.get("events", []) if since else []
        if since and timeline.get("limited"):
            events = [*self._hidden(timeline["prev_batch"], since), *events]
        with self._changed:
            for event in events:
                self.events.append(event)
                self._on_event(event)
            self._changed.notify_all()
        return str(answer["next_batch"])

    def _hidden(self, token: str, since: str) -> list[Event]:
        """What a limited sync left out, oldest first."""
        found: list[Event] = []
        while True:
            query = urlencode({"dir": "b", "from": token, "to": since, "limit": "100"})
            status, answer = self._call("GET", f"{V3}/rooms/{quote(self.room)}/messages?{query}")
            if status != 200:
                raise RuntimeError(f"messages: {status} {answer}")
            chunk, following = answer.get("chunk"), answer.get("end")
            found += chunk if isinstance(chunk, list) else []
            if not chunk or not isinstance(following, str):
                return found[::-1]
            token = following

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                self._since = self._sync(self._since)
            except (OSError, RuntimeError):
                if not self._stopped.wait(0.5):
                    continue
