"""The yardstick: one state PUT of a client outside the cluster, until a node's `/sync` has shown it.

The nodes themselves are the readers, by their traces: whom a homeserver serves first of all that wait is its
affair and stays the same for long, so one reader of our own would measure its place in that order.
"""

from __future__ import annotations

import http.client
import json
from urllib.parse import quote, urlsplit

from cisbot.node.system import boot_time
from homeserver.accounts import Account

KIND = "io.cisbot.intent"  # a type that every node asks for; without its fields it means nothing to them
TIMEOUT_S = 60


class Yardstick:
    """Puts state into one room over a kept connection, as the nodes do."""

    def __init__(self, base_url: str, writer: Account, room: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=TIMEOUT_S)
        self._path = f"/_matrix/client/v3/rooms/{quote(room)}/state/{KIND}/yardstick"
        self._headers = {"Authorization": f"Bearer {writer.access_token}"}
        self.puts: dict[str, float] = {}  # event id -> boot time from before the PUT

    def put(self) -> str:
        """One PUT; its event's id. Raises `AssertionError` where it is refused."""
        began = boot_time()
        body = json.dumps({"number": len(self.puts)})
        self._connection.request("PUT", self._path, body, self._headers)
        answer = self._connection.getresponse()
        found = json.loads(answer.read())
        assert answer.status == 200, found
        event = str(found["event_id"])
        self.puts[event] = began
        return event
