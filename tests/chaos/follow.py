"""Writes down a room in the order of its stream, until SIGTERM: `python follow.py FOLDER`. Knows no cisbot.

FOLDER/follow.json says how: `homeserver`, `token` (an ordinary member's), `room`. It writes `room.jsonl`, an
event a line, and at its end pages back through the room: an event that the stream did not show is named
in `followed.json` as missing, and nothing can be judged then.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

POLL_MS = 5_000
FILTER = json.dumps({"room": {"timeline": {"limit": 100}}, "presence": {"types": []}})
V3 = "/_matrix/client/v3"
Event = dict[str, Any]
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Follower:
    """An ordinary account in one room."""

    def __init__(self, homeserver: str, token: str, room: str) -> None:
        self._base, self._token, self._room = homeserver, token, room
        self.since = ""
        self.seen: set[str] = set()

    def ask(self, method: str, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        """One request, said again while the homeserver is away."""
        url = f"{self._base}{V3}{path}" + (f"?{urlencode(query)}" if query else "")
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        body = b"{}" if method == "POST" else None
        while True:
            request = urllib.request.Request(url, data=body, method=method, headers=headers)
            try:
                with _OPENER.open(request, timeout=60) as answer:
                    found: dict[str, Any] = json.loads(answer.read())
                    return found
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code != 429:
                    raise
            except (OSError, ValueError):
                pass
            threading.Event().wait(0.3)

    def join(self) -> None:
        """Enter the room; what comes from now on is followed."""
        self.ask("POST", f"/join/{quote(self._room)}")
        self.since = str(self.ask("GET", "/sync", {"timeout": "0", "filter": FILTER})["next_batch"])

    def news(self, poll_ms: int) -> list[Event]:
        """What is new, in the order of the stream."""
        query = {"timeout": str(poll_ms), "filter": FILTER, "since": self.since, "set_presence": "offline"}
        answer = self.ask("GET", "/sync", query)
        self.since = str(answer["next_batch"])
        room = answer.get("rooms", {}).get("join", {}).get(self._room, {})
        events: list[Event] = room.get("timeline", {}).get("events", [])
        fresh = [event for event in events if event["event_id"] not in self.seen]
        self.seen |= {event["event_id"] for event in fresh}
        return fresh

    def missing(self, first: str) -> list[str]:
        """The ids of what came after the event `first` and was not seen."""
        found: list[str] = []
        query = {"dir": "b", "limit": "500"}
        while True:
            answer = self.ask("GET", f"/rooms/{quote(self._room)}/messages", query)
            chunk: list[Event] = answer.get("chunk", [])
            ids = [str(event["event_id"]) for event in chunk]
            reached = first in ids
            found += [i for i in (ids[: ids.index(first)] if reached else ids) if i not in self.seen]
            if reached or "end" not in answer or not chunk:
                return found
            query["from"] = str(answer["end"])


def main(folder: Path) -> None:
    """Follow until SIGTERM, then to the very end."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    follower = Follower(**json.loads((folder / "follow.json").read_text()))
    follower.join()
    (folder / "following").touch()
    first = ""
    with (folder / "room.jsonl").open("a", buffering=1) as out:
        while True:
            ending = stopped.is_set()
            news = follower.news(0 if ending else POLL_MS)
            for event in news:
                first = first or str(event["event_id"])
                out.write(json.dumps(event) + "\n")
            if ending and not news:
                break
    missing = follower.missing(first) if first else []
    (folder / "followed.json").write_text(json.dumps({"seen": len(follower.seen), "missing": missing}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
