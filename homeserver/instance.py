"""What a data directory remembers of its homeserver between starts: name, port and secrets."""

import errno
import json
import os
import random
import socket
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from homeserver.config import (
    DEFAULT_SERVER_NAME,
    LOOPBACK,
    Secrets,
    new_secrets,
    new_signing_key,
)
from homeserver.errors import HomeserverError, StartError

_FILE: Final = "instance.json"
# Below the range from which the kernel picks ports for outgoing connections, so that a kept
# port is still free at the next start.
_PORTS: Final = range(20000, 32000)


@dataclass(frozen=True, slots=True)
class Instance:
    """One homeserver's lasting facts."""

    server_name: str
    port: int
    secrets: Secrets

    @property
    def base_url(self) -> str:
        """The address for clients on this machine."""
        return f"http://{LOOPBACK}:{self.port}"


def load(data_dir: Path) -> Instance | None:
    """Read the instance kept in `data_dir`, None when there is none.

    Raises HomeserverError when the file is there but damaged.
    """
    path = data_dir / _FILE
    try:
        kept = json.loads(path.read_text())
        keys = kept["secrets"]
        return Instance(
            server_name=str(kept["server_name"]),
            port=int(kept["port"]),
            secrets=Secrets(str(keys["shared"]), str(keys["macaroon"]), str(keys["form"])),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise HomeserverError(
            f"{path} is damaged ({error!r}): restore it, or delete {data_dir} to start anew"
        ) from error


def prepare(data_dir: Path, *, server_name: str | None = None, port: int | None = None) -> Instance:
    """Make `data_dir` ready: its instance (kept or new, on `port` when given) and signing key.

    Raises HomeserverError when the directory belongs to another server name.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = load(data_dir)
    if kept is None:
        name = server_name or DEFAULT_SERVER_NAME
        instance = Instance(name, port or free_port(), new_secrets())
    elif server_name not in (None, kept.server_name):
        raise HomeserverError(
            f"{data_dir} is the home of {kept.server_name!r}, not {server_name!r}: "
            "a server cannot be renamed; give another data directory"
        )
    else:
        instance = replace(kept, port=port or kept.port)
    if instance != kept:
        _save(data_dir, instance)
    signing_key = data_dir / "signing.key"
    if not signing_key.exists():
        write_private(signing_key, new_signing_key())
    return instance


def write_private(path: Path, text: str) -> None:
    """Replace `path` by a file that only its owner can read, whole or not at all."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    new.replace(path)


def free_port() -> int:
    """Find a loopback port that nobody listens on.

    Raises StartError when a hundred random ones are all taken.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):
        if port_is_free(port):
            return port
    raise StartError("no free port found on 127.0.0.1; name one with --port")


def port_is_free(port: int) -> bool:
    """Say whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _save(data_dir: Path, instance: Instance) -> None:
    keys = instance.secrets
    kept = {
        "server_name": instance.server_name,
        "port": instance.port,
        "secrets": {"shared": keys.shared, "macaroon": keys.macaroon, "form": keys.form},
    }
    write_private(data_dir / _FILE, json.dumps(kept, indent=2) + "\n")
