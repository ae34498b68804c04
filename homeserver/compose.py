"""Set up `compose.yaml`: `python -m homeserver.compose init` writes what it needs.

Into the data directory go homeserver.yaml, log.yaml, signing.key, instance.json and .env, all
readable by their owner only. Done again, it renders anew and keeps secrets, names and port.
"""

import argparse
import os
import secrets
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from homeserver import instance
from homeserver.config import (
    HomeserverConfig,
    Limits,
    Postgres,
    render_homeserver,
    render_log,
)
from homeserver.errors import HomeserverError

HERE: Final = Path(__file__).resolve().parent
COMPOSE_FILE: Final = HERE / "compose.yaml"
DATA: Final = HERE / "data"
_DEFAULT_PORT: Final = 8008
_INNER_PORT: Final = 8008  # as in compose.yaml


def init(
    data_dir: Path = DATA,
    *,
    server_name: str | None = None,
    port: int | None = None,
    limits: Limits = "default",
) -> str:
    """Write the data directory; return the command that starts the containers.

    Raises HomeserverError when the directory belongs to another server name, or its .env
    has lost the database's password.
    """
    home = data_dir.resolve()
    if port is None and instance.load(home) is None:
        port = _DEFAULT_PORT
    kept = instance.prepare(home, server_name=server_name, port=port)
    env_file = home / ".env"
    password = _kept_password(env_file) or secrets.token_urlsafe(32)
    config = HomeserverConfig(
        server_name=kept.server_name,
        port=kept.port,
        data_dir="/data",
        secrets=kept.secrets,
        database=Postgres("postgres", "synapse", password, "synapse"),
        limits=limits,
        # All addresses of the container; compose.yaml publishes the port on loopback only.
        bind_address="0.0.0.0",
        listen_port=_INNER_PORT,
        log_level="INFO",
    )
    instance.write_private(home / "homeserver.yaml", render_homeserver(config))
    instance.write_private(home / "log.yaml", render_log(config))
    values = {
        "POSTGRES_PASSWORD": password,
        "SYNAPSE_PORT": str(kept.port),
        "SYNAPSE_DATA": str(home),
        "SYNAPSE_UID": str(os.getuid()),
        "SYNAPSE_GID": str(os.getgid()),
    }
    lines = [f"{name}='{_escaped(value)}'\n" for name, value in values.items()]
    instance.write_private(env_file, "".join(lines))
    words = ["docker", "compose", "--env-file", str(env_file), "-f", str(COMPOSE_FILE)]
    return shlex.join([*words, "up", "--detach", "--wait"])


def _escaped(value: str) -> str:
    """What stands between single quotes in a .env file, which has no other rule there."""
    return value.replace("'", "\\'")


def _kept_password(env_file: Path) -> str | None:
    if not env_file.exists():
        return None
    for line in env_file.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "POSTGRES_PASSWORD" and value.strip("'"):
            return value.strip("'")
    raise HomeserverError(
        f"{env_file} holds no POSTGRES_PASSWORD: put it back, or delete {env_file} together "
        "with the database (docker volume rm cisbot-homeserver_postgres)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, set up, print the next command."""
    parser = argparse.ArgumentParser(prog="python -m homeserver.compose")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("init", help="write configuration and secrets")
    command.add_argument("--data", type=Path, default=DATA, help=f"default: {DATA}")
    command.add_argument("--server-name", help="for a new directory (default: localhost)")
    command.add_argument("--port", type=int, help=f"on loopback (default: {_DEFAULT_PORT})")
    command.add_argument("--limits", choices=["default", "lifted"], default="default")
    args = parser.parse_args(argv)
    try:
        start = init(args.data, server_name=args.server_name, port=args.port, limits=args.limits)
    except HomeserverError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"written: {args.data}\nnow run:\n  {start}\nand for a first user:")
    print(f"  python -m homeserver user NAME --password PASSWORD --data {args.data}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
