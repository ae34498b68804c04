"""The proxy commits its faults: what is dropped took effect, what is late comes, what hangs is let go."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from typing_extensions import override

from homeserver.api import call
from tests.chaos.plan import Kind
from tests.chaos.proxy import Proxy

GONE = OSError
Seen = queue.SimpleQueue[tuple[str, str, bytes]]


@pytest.fixture
def seen() -> Seen:
    """What the homeserver was asked."""
    return queue.SimpleQueue()


@pytest.fixture
def proxy(seen: Seen) -> Iterator[Proxy]:
    class Homeserver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            seen.put((self.command, self.path, self.rfile.read(int(self.headers.get("Content-Length", 0)))))
            self.send_response(200)
            self.send_header("Content-Length", "13")
            self.end_headers()
            self.wfile.write(b'{"good": "x"}')

        do_GET = do_PUT

        @override
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Homeserver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Proxy(f"http://127.0.0.1:{server.server_port}", ["n1", "n2"], seed=1, lease_s=0.4) as made:
            yield made
        server.shutdown()
        thread.join()


def put(proxy: Proxy, node: str = "n1") -> tuple[int, dict[str, object]]:
    return call("PUT", f"{proxy.address(node)}/_matrix/x", {"a": 1})


def outcomes(proxy: Proxy, count: int) -> list[bool]:
    """Whether each of so many requests was answered."""
    found = []
    for _ in range(count):
        try:
            found.append(put(proxy)[0] == 200)
        except GONE:
            found.append(False)
    return found


def test_in_good_weather_all_passes(proxy: Proxy, seen: Seen) -> None:
    assert put(proxy) == (200, {"good": "x"})
    assert seen.get(timeout=5) == ("PUT", "/_matrix/x", b'{"a": 1}')


def test_what_is_dropped_took_effect(proxy: Proxy, seen: Seen) -> None:
    proxy.change("n1", Kind.DROP, on=True)
    answered = outcomes(proxy, 40)
    assert 5 < answered.count(False) < 35
    assert len([seen.get(timeout=5) for _ in range(40)]) == 40
    assert put(proxy, "n2")[0] == 200
    proxy.change("n1", Kind.DROP, on=False)
    assert all(outcomes(proxy, 10))
    assert proxy.befallen[Kind.DROP] == answered.count(False)


def test_what_is_late_comes_later(proxy: Proxy, seen: Seen) -> None:
    proxy.change("n1", Kind.LATE, on=True)
    answered = outcomes(proxy, 20)
    assert 2 < answered.count(False) < 18
    assert len([seen.get(timeout=5) for _ in range(20)]) == 20


def test_who_is_cut_off_reaches_nobody(proxy: Proxy, seen: Seen) -> None:
    proxy.change("n1", Kind.CUT, on=True)
    assert outcomes(proxy, 3) == [False] * 3
    assert seen.empty()
    proxy.change("n1", Kind.CUT, on=False)
    assert outcomes(proxy, 1) == [True]


def test_a_sync_hangs_until_it_is_let_go_and_a_timeline_is_cut(proxy: Proxy, seen: Seen) -> None:
    asked = json.dumps({"room": {"timeline": {"types": ["a"], "limit": 100}}})
    url = f"{proxy.address('n1')}/_matrix/client/v3/sync?since=s&filter={quote(asked)}"
    proxy.change("n1", Kind.GAP, on=True)
    proxy.change("n1", Kind.HANG, on=True)
    answers: queue.SimpleQueue[int] = queue.SimpleQueue()
    waiting = threading.Thread(target=lambda: answers.put(call("GET", url)[0]))
    waiting.start()
    query = parse_qs(urlsplit(seen.get(timeout=5)[1]).query)
    assert json.loads(query["filter"][0]) == {"room": {"timeline": {"types": ["a"], "limit": 2}}}
    assert query["since"] == ["s"]
    assert put(proxy)[0] == 200
    assert answers.empty()
    proxy.change("n1", Kind.HANG, on=False)
    assert answers.get(timeout=5) == 200
    waiting.join()
