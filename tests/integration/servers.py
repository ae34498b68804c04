"""Several real homeservers of one room, over TLS on loopback, with links between them that the test cuts."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
from typing_extensions import override

from homeserver.accounts import Account
from homeserver.config import LOOPBACK, Federation
from homeserver.demo.person import Person
from homeserver.instance import free_port
from homeserver.synapse import Synapse
from tests.integration.nodes import Nodes

RETRY_S = 0.5  # until Synapse tries a server again that it could not reach


class Way:
    """The CONNECT proxy of one server: what it asks of others goes through here, and is cut by target."""

    def __init__(self) -> None:
        self._door = socket.create_server((LOOPBACK, 0))
        self.url = f"http://{LOOPBACK}:{self._door.getsockname()[1]}"
        self._open: dict[socket.socket, str] = {}
        self._cut: set[str] = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self, target: str) -> None:
        """End what goes to that server name, and let nothing new through."""
        with self._lock:
            self._cut.add(target)
            ended = [link for link, name in self._open.items() if name == target]
        for link in ended:
            _end(link)

    def heal(self, target: str) -> None:
        """Let it through again."""
        with self._lock:
            self._cut.discard(target)

    def close(self) -> None:
        """End all."""
        _end(self._door)
        self._door.close()
        for link in list(self._open):
            _end(link)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with suppress(OSError, IndexError), client:
            asked = b""
            while b"\r\n\r\n" not in asked:
                if not (part := client.recv(4096)):
                    return
                asked += part
            target = asked.split(b" ")[1].decode()
            with self._lock:
                if target in self._cut:
                    return
                self._open[client] = target
            host, _, port = target.rpartition(":")
            with socket.create_connection((host, int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join()
        with self._lock:
            self._open.pop(client, None)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)
    _end(source)
    _end(target)


def _end(link: socket.socket) -> None:
    with suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


class Servers:
    """So many homeservers that know each other; the first is the room's home."""

    def __init__(self, root: Path, count: int) -> None:
        self._stack = ExitStack()
        self.count = itertools.count(1)
        authority = trustme.CA()
        authority_file = root / "authority.pem"
        authority.cert_pem.write_to_path(str(authority_file))
        issued = authority.issue_cert(LOOPBACK)
        certificate, key = root / "certificate.pem", root / "key.pem"
        for blob in issued.cert_chain_pems:
            blob.write_to_path(str(certificate), append=True)
        issued.private_key_pem.write_to_path(str(key))
        self.ways = [Way() for _ in range(count)]
        for way in self.ways:
            self._stack.callback(way.close)

        def start(number: int) -> Synapse:
            port, way = free_port(), self.ways[number]
            meeting = Federation(port, str(certificate), str(key), str(authority_file), way.url, RETRY_S)
            name = f"{LOOPBACK}:{port}"
            folder = root / f"synapse-{number}"
            return Synapse.start(folder, server_name=name, limits="lifted", federation=meeting)

        with ThreadPoolExecutor() as together:  # before the first join all must be there
            self.all = [self._stack.enter_context(made) for made in together.map(start, range(count))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def cut(self, number: int) -> None:
        """Cut one server from all others, both ways."""
        self._both(number, Way.cut)

    def heal(self, number: int) -> None:
        """Its links are back."""
        self._both(number, Way.heal)

    def _both(self, number: int, change: Callable[[Way, str], None]) -> None:
        for other, way in enumerate(self.ways):
            if other != number:
                change(way, self.all[number].server_name)
                change(self.ways[number], self.all[other].server_name)


class Spread(Nodes):
    """Nodes named after the number of their server: `0-a` is on the first."""

    def __init__(self, servers: Servers, root: Path, *, lease_s: int) -> None:
        self.servers = servers
        self.people: list[Person] = []  # one on every server
        super().__init__(servers.all[0], self.account, root, lease_s=lease_s)

    def account(self, prefix: str, *, admin: bool = False) -> Account:
        """An account on the server that the name begins with, else on the first."""
        number = int(prefix[0]) if prefix[0].isdigit() else 0
        name = f"n{prefix}-{next(self.servers.count)}"
        return self.servers.all[number].accounts.create(name, "secret word", admin=admin)

    @override
    def address(self, name: str) -> str:
        """That of the server which the name's first character tells."""
        return self.servers.all[int(name[0])].base_url

    def begin(
        self, names: Sequence[str], *, entries: Sequence[str] = (), later: Sequence[str] = (), mode: str
    ) -> None:
        """Make the room and start the nodes but those of `later`; `entries` execute nothing."""
        self.accounts = {name: self.make_account(name) for name in (*entries, *names, *later)}
        there = [self.make_account(f"{n}-person") for n in range(1, len(self.servers.all))]
        self.make_room(powers=there, mode=mode)
        self.people = [self.person]
        for number, account in enumerate(there, start=1):
            self.people.append(self.person_of(account, self.servers.all[number]))
        for name in self.accounts:
            self.write_settings(name, node_id=f"n{name}")
            if name in entries:
                text = self.config(name).read_text().replace("[node]\n", "[node]\nexecute = false\n")
                self.config(name).write_text(text)
        for name in (*entries, *names):
            self.start(name)
        for name in (*entries, *names):
            self.joined(f"n{name}")
