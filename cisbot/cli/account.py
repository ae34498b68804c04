"""Whose account a command uses, beside a running node: a settings file, or address, user and secret.

With the latter the session is for this command alone, and a login by password is ended again.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from cisbot.core.ids import server_of
from cisbot.core.settings import Matrix
from cisbot.errors import FieldError
from cisbot.matrix.http import Api, check_address
from cisbot.matrix.login import log_in, log_out
from cisbot.node.config import load, read_secret

PATIENCE_S = 20.0
OWN = ("homeserver", "user", "password-file", "token-file")


@dataclass(frozen=True, slots=True)
class Account:
    """Who acts, and in which room. Without a `data_dir` the session is for this command alone."""

    matrix: Matrix
    data_dir: Path | None


def add_account(parser: argparse.ArgumentParser) -> None:
    """The options that say whose account it is; the command adds the one that names the room."""
    parser.add_argument("--config", type=Path, help="a TOML file whose [matrix] stands for the next four")
    parser.add_argument("--homeserver", help="such as https://example.org")
    parser.add_argument("--user", help="whose account, such as @op:example.org")
    secret = parser.add_mutually_exclusive_group()
    secret.add_argument("--password-file", type=Path, help="holds the password of --user")
    secret.add_argument("--token-file", type=Path, help="holds an access token of --user")


def account_of(args: argparse.Namespace, room: str, device_name: str) -> Account:
    """The account that the arguments name; `room` is the option that names the room.

    Raises FieldError and ConfigError; ValidationError where the room's name can be none.
    """
    own = (*OWN, room)
    given = [f"--{name}" for name in own if getattr(args, name.replace("-", "_")) is not None]
    if args.config is not None:
        if given:
            raise FieldError(", ".join(given), "stands beside --config", "--config, or these without it")
        loaded = load(args.config)
        for warning in loaded.warnings:
            say(f"warning  {warning}")
        return Account(loaded.settings.matrix, loaded.settings.node.data_dir)
    lacking = [f"--{name}" for name in ("homeserver", "user", room) if f"--{name}" not in given]
    if not (args.password_file or args.token_file):
        lacking.append("--password-file or --token-file")
    if lacking:
        raise FieldError(", ".join(lacking), "missing", "these, or --config with a TOML file that has them")
    token = args.token_file is not None
    field = "--token-file" if token else "--password-file"
    secret = SecretStr(read_secret(field, args.token_file or args.password_file, token=token))
    check_address(args.homeserver, "--homeserver")
    if not re.fullmatch(r"@[^:\s]+:\S+", args.user):
        raise FieldError("--user", f"{args.user[:80]!r} is not a user id", "one such as @you:example.org")
    return Account(
        Matrix(
            homeserver=args.homeserver,
            user_id=args.user,
            access_token=secret if token else None,
            password=None if token else secret,
            room=_room(getattr(args, room), args.user),
            device_name=device_name,
        ),
        None,
    )


def _room(name: str, user: str) -> str:
    """An id as it is; `tasks` and `#tasks` are on the user's own homeserver."""
    if name.startswith("!") or name.startswith("#") and ":" in name:
        return name
    return f"#{name.removeprefix('#').partition(':')[0]}:{server_of(user)}"


@asynccontextmanager
async def session(account: Account) -> AsyncIterator[Api]:
    """Log in; afterwards nothing of it is left, unless the session is a node's own."""
    with tempfile.TemporaryDirectory() as folder:
        place = account.data_dir or Path(folder)
        async with await log_in(account.matrix, place, say, patience_s=PATIENCE_S) as api:
            try:
                yield api
            finally:
                if account.data_dir is None and account.matrix.password is not None:
                    await log_out(api)


def say(text: str) -> None:
    """To standard error."""
    print(text, file=sys.stderr)
