"""`cisbot room init`: make the cluster's room, or complete it. Prints its id and the nodes' settings.

Exit code 0: the room is as it should be; 1: the homeserver refuses or is away; 2: wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

from pydantic import ValidationError

from cisbot.cli.account import Account, account_of, add_account, session
from cisbot.core.dags.faults import explain
from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError, FieldError
from cisbot.matrix.init import LEASE_S_MAX, Role, RoomMade, RoomPlan, init_room
from cisbot.node.config import ConfigError

OPTIONS = {"homeserver": "--homeserver", "user_id": "--user", "room": "--alias"}


def add_arguments(sub: argparse._SubParsersAction[Any]) -> None:
    """Add the sub-command; its `run` takes the parsed arguments and returns the exit code."""
    room = sub.add_parser("room", help="make the cluster's room", description=__doc__)
    init = room.add_subparsers(required=True, metavar="init").add_parser(
        "init", help="make the room, or complete the one that has the alias", description=__doc__
    )
    add_account(init)
    init.add_argument("--alias", help="such as tasks, for #tasks:example.org")
    init.add_argument("--name", help="the room's name, for people; needed only to make it")
    init.add_argument("--node", action="append", default=[], metavar="@USER", help="a node's account")
    init.add_argument("--operator", action="append", default=[], metavar="@USER", help="may do anything")
    init.add_argument("--member", action="append", default=[], metavar="@USER", help="may talk")
    init.add_argument("--lease-max", type=int, default=LEASE_S_MAX, help="longest lease, seconds")
    init.add_argument(
        "--mode", choices=("consistent", "available"), help="of a new room, for ever; else consistent"
    )
    init.add_argument(
        "--no-delayed-ends", action="store_true", help="a dead node's claims are free by their lease only"
    )
    init.add_argument("--room-version", help="else the homeserver's default")
    init.set_defaults(run=init_from)


def init_from(args: argparse.Namespace) -> int:
    """Make or complete the room that the arguments describe; return the exit code."""
    try:
        account = account_of(args, "alias", "cisbot room init")
        plan = _plan(args, account)
        made = asyncio.run(_init(account, plan))
    except ValidationError as error:
        for _, said in explain(error, Matrix):
            field = OPTIONS.get(said.field, said.field)
            print(FieldError(field, said.what, said.expected, said.hint), file=sys.stderr)
        return 2
    except (FieldError, ConfigError) as error:
        print(error, file=sys.stderr)
        return 2
    except CisbotError as error:
        print(error, file=sys.stderr)
        return 1
    _show(made, plan, account.matrix.homeserver)
    return 0


async def _init(account: Account, plan: RoomPlan) -> RoomMade:
    async with session(account) as api:
        return await init_room(api, plan)


def _plan(args: argparse.Namespace, account: Account) -> RoomPlan:
    invite: dict[str, Role] = {}
    for role, users in ((Role.MEMBER, args.member), (Role.NODE, args.node), (Role.OPERATOR, args.operator)):
        for user in users:
            if not user.startswith("@") or ":" not in user:
                raise FieldError(
                    f"--{role}", f"{user!r} is not a user id", f"one such as @{role}-1:example.org"
                )
            invite[user] = role
    if args.lease_max < 1:
        raise FieldError("--lease-max", f"{args.lease_max} is too short", "at least 1 second")
    alias = args.alias or account.matrix.room
    return RoomPlan(
        args.name or "", alias, invite, lease_s_max=args.lease_max, mode=args.mode,
        room_version=args.room_version, delayed_ends=not args.no_delayed_ends,
    )  # fmt: skip


def _show(made: RoomMade, plan: RoomPlan, homeserver: str) -> None:
    print(f"{'made' if made.created else 'found'} {made.alias}: {made.room_id}")
    for line in made.done or ("nothing was missing",):
        print(f"  {line}")
    for user in (user for user, role in plan.invite.items() if role is Role.NODE):
        print(f"\n# settings of {user}")
        print(f'[matrix]\nhomeserver = "{homeserver}"\nuser_id = "{user}"')
        print(f'room = "{made.room_id}"   # {made.alias}\npassword_file = "password"')
