"""Command line: `python -m homeserver run|user`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from homeserver import instance
from homeserver.accounts import Accounts
from homeserver.config import DEFAULT_ROOM_VERSION
from homeserver.errors import HomeserverError
from homeserver.synapse import Synapse


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, do what they say, return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments) if arguments.command == "run" else _user(arguments)
    except HomeserverError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m homeserver", description="A local Synapse.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run Synapse in the foreground, until Ctrl-C")
    run.add_argument("--port", type=int, help="loopback port (default: the earlier or a free one)")
    run.add_argument("--server-name", help="for a new data directory (default: localhost)")
    run.add_argument("--room-version", default=DEFAULT_ROOM_VERSION, help="of new rooms")
    run.add_argument("--limits", choices=["default", "lifted"], default="default")
    user = commands.add_parser("user", help="make a user, or log in as one, and print the token")
    user.add_argument("name", help="the part between @ and :")
    user.add_argument("--password", required=True)
    user.add_argument("--admin", action="store_true", help="make an administrator")
    for command in (run, user):
        command.add_argument("--data", type=Path, required=True, help="the data directory")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    signal.signal(signal.SIGTERM, _interrupt)
    with Synapse.start(
        arguments.data,
        port=arguments.port,
        server_name=arguments.server_name,
        limits=arguments.limits,
        room_version=arguments.room_version,
    ) as synapse:
        print(f"{synapse.base_url} is {synapse.server_name}; Ctrl-C ends it", flush=True)
        code = synapse.wait()
    print(f"error: Synapse ended; see {synapse.data_dir}/synapse.log", file=sys.stderr)
    return code or 1


def _user(arguments: argparse.Namespace) -> int:
    kept = instance.load(arguments.data)
    if kept is None:
        raise HomeserverError(
            f"{arguments.data} is no homeserver's data directory; "
            f"start one with `python -m homeserver run --data {arguments.data}`"
        )
    accounts = Accounts(kept.base_url, kept.secrets.shared)
    account = accounts.create(arguments.name, arguments.password, admin=arguments.admin)
    print(f"homeserver: {kept.base_url}")
    print(f"user_id: {account.user_id}")
    print(f"device_id: {account.device_id}")
    print(f"access_token: {account.access_token}")
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
