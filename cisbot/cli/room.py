"""`cisbot room init`: make the cluster's room, or complete it. Prints its id and the nodes' settings.

Exit code 0: the room is as it should be; 1: the homeserver refuses or is away; 2: wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from cisbot.core.dags.faults import explain
from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError
from cisbot.matrix.init import LEASE_S_MAX, Role, RoomMade, RoomPlan, init_room
from cisbot.matrix.login import log_in, log_out

PATIENCE_S = 20.0


def add_arguments(sub: argparse._SubParsersAction[Any]) -> None:
    """Add the sub-command; its `run` takes the parsed arguments and returns the exit code."""
    room = sub.add_parser("room", help="make the cluster's room", description=__doc__)
    init = room.add_subparsers(required=True, metavar="init").add_parser(
        "init", help="make the room, or complete the one that has the alias", description=__doc__
    )
    init.add_argument("--homeserver", required=True, help="such as https://example.org")
    init.add_argument("--user", required=True, help="who makes the room, such as @op:example.org")
    secret = init.add_mutually_exclusive_group(required=True)
    secret.add_argument("--password-file", type=Path, help="holds the password of --user")
    secret.add_argument("--token-file", type=Path, help="holds an access token of --user")
    init.add_argument("--name", required=True, help="the room's name, for people")
    init.add_argument("--alias", required=True, help="such as tasks, for #tasks:example.org")
    init.add_argument("--node", action="append", default=[], metavar="@USER", help="a node's account")
    init.add_argument("--operator", action="append", default=[], metavar="@USER", help="may do anything")
    init.add_argument("--member", action="append", default=[], metavar="@USER", help="may talk")
    init.add_argument("--lease-max", type=int, default=LEASE_S_MAX, help="longest lease, seconds")
    init.add_argument("--room-version", help="else the homeserver's default")
    init.set_defaults(run=init_from)


def init_from(args: argparse.Namespace) -> int:
    """Make or complete the room that the arguments describe; return the exit code."""
    try:
        matrix = _matrix(args)
        plan = _plan(args)
    except ValidationError as error:
        for _, said in explain(error, Matrix):
            print(said, file=sys.stderr)
        return 2
    except CisbotError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        made = asyncio.run(_init(matrix, plan))
    except CisbotError as error:
        print(error, file=sys.stderr)
        return 1
    _show(made, plan, args.homeserver)
    return 0


async def _init(matrix: Matrix, plan: RoomPlan) -> RoomMade:
    with tempfile.TemporaryDirectory() as folder:  # a session for this command alone
        api = await log_in(matrix, Path(folder), _say, patience_s=PATIENCE_S)
        async with api:
            try:
                return await init_room(api, plan)
            finally:
                if matrix.password is not None:
                    await log_out(api)


def _matrix(args: argparse.Namespace) -> Matrix:
    path: Path = args.password_file or args.token_file
    try:
        secret = SecretStr(path.read_text(encoding="utf-8").strip())
    except (OSError, UnicodeDecodeError) as error:
        raise CisbotError(f"{path} can't be read: {error}") from error
    token = secret if args.token_file else None
    return Matrix(
        homeserver=args.homeserver,
        user_id=args.user,
        access_token=token,
        password=None if token else secret,
        room=f"#{args.alias.removeprefix('#').partition(':')[0]}:{args.user.partition(':')[2]}",
        device_name="cisbot room init",
    )


def _plan(args: argparse.Namespace) -> RoomPlan:
    invite: dict[str, Role] = {}
    for role, users in ((Role.MEMBER, args.member), (Role.NODE, args.node), (Role.OPERATOR, args.operator)):
        for user in users:
            if not user.startswith("@") or ":" not in user:
                raise CisbotError(f"--{role}: {user!r} is not a user id such as @{role}-1:example.org")
            invite[user] = role
    if args.lease_max < 1:
        raise CisbotError("--lease-max: a lease is at least one second")
    return RoomPlan(args.name, args.alias, invite, lease_s_max=args.lease_max, room_version=args.room_version)


def _show(made: RoomMade, plan: RoomPlan, homeserver: str) -> None:
    print(f"{'made' if made.created else 'found'} {made.alias}: {made.room_id}")
    for line in made.done or ("nothing was missing",):
        print(f"  {line}")
    for user in (user for user, role in plan.invite.items() if role is Role.NODE):
        print(f"\n# settings of {user}")
        print(f'[matrix]\nhomeserver = "{homeserver}"\nuser_id = "{user}"')
        print(f'room = "{made.room_id}"   # {made.alias}\npassword_file = "password"')


def _say(text: str) -> None:
    print(text, file=sys.stderr)
