"""`cisbot audit`: who held what, when and at which epoch, which claims were void, and what contradicts it.

Replays the room's history through the same fold as the nodes. Any member's account will do; nothing is
written. Exit code 0: consistent; 1: an inconsistency; 2: wrong arguments, or the room can't be read.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from cisbot.cli.account import Account, account_of, add_account, say, session
from cisbot.core.audit.examine import audit as examine
from cisbot.core.audit.found import Reading
from cisbot.core.audit.render import as_json, as_text, only
from cisbot.core.dags.faults import explain
from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError, FieldError
from cisbot.matrix.history import read_room, read_saved
from cisbot.matrix.rooms import resolve
from cisbot.node.system import SystemClock

OK, INCONSISTENT, USAGE = 0, 1, 2
OPTIONS = {"homeserver": "--homeserver", "user_id": "--user", "room": "--room"}
UNITS_S = {"m": 60, "h": 3600, "d": 86_400}
SAY_EVERY = 5_000


def add_arguments(sub: argparse._SubParsersAction[Any]) -> None:
    """Add the sub-command; its `run` takes the parsed arguments and returns the exit code."""
    parser = sub.add_parser("audit", help="who held what, and was it right?", description=__doc__)
    add_account(parser)
    parser.add_argument("--room", help="its alias, such as tasks or #tasks:example.org, or its id")
    parser.add_argument("--from", dest="saved", type=Path, metavar="FILE", help="read what --save wrote")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write all events read to this new file")
    parser.add_argument("--since", metavar="TIME", help="read back to 30m, 12h, 7d ago or 2026-01-31")
    parser.add_argument("--key", help="show one key only, such as backup_daily/project-proj-a")
    parser.add_argument("--run", dest="one", metavar="RUN", help="show one run only, by its short id")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.set_defaults(run=audit)


def audit(args: argparse.Namespace) -> int:
    """Read, replay, print; the exit code."""
    try:
        room, reading = _read(args)
    except ValidationError as error:
        for _, said in explain(error, Matrix):
            field = OPTIONS.get(said.field, said.field)
            say(FieldError(field, said.what, said.expected, said.hint).text())
        return USAGE
    except CisbotError as error:
        say(f"audit: {error}")
        return USAGE
    report = examine(reading)
    shown = only(report, key=args.key, run=args.one)
    print(as_json(shown, room, consistent=report.consistent) if args.json else as_text(shown, room))
    if (args.key or args.one) and not shown.holds and not shown.voids:
        say(f"audit: nothing in this room is called {args.key or args.one}; see them all without that option")
    if hidden := len(report.breaches) - len(shown.breaches):
        say(f"audit: {hidden} more inconsistencies are not shown, for they concern other keys or runs")
    return OK if report.consistent else INCONSISTENT


def _read(args: argparse.Namespace) -> tuple[str, Reading]:
    if args.saved is not None:
        beside = [f"--{name}" for name in ("config", "homeserver", "user", "room", "save", "since")
                  if getattr(args, name) is not None]  # fmt: skip
        if beside:
            raise FieldError(", ".join(beside), "stands beside --from", "--from alone: it asks no homeserver")
        try:
            with args.saved.open(encoding="utf-8") as lines:
                return str(args.saved), read_saved(lines)
        except (OSError, UnicodeDecodeError) as error:
            raise FieldError("--from", f"{args.saved} can't be read: {error}", "what --save wrote") from None
        except CisbotError as error:
            raise FieldError("--from", f"{args.saved}: {error}", "what --save wrote") from None
    now_ms = SystemClock().now().wall_ms
    ago_ms = None if args.since is None else _ago_ms(args.since, now_ms)
    account = account_of(args, "room", "cisbot audit")
    with ExitStack() as stack:
        save = None
        if args.save is not None:
            try:
                save = stack.enter_context(args.save.open("x", encoding="utf-8"))
            except OSError as error:
                why = error.strerror or str(error)
                raise FieldError("--save", f"{args.save} can't be written: {why}", "a new file") from None
        return account.matrix.room, asyncio.run(_read_room(account, ago_ms, save))


async def _read_room(account: Account, ago_ms: int | None, save: TextIO | None) -> Reading:
    told = 0

    def progress(count: int) -> None:
        nonlocal told
        if count - told >= SAY_EVERY:
            told = count
            say(f"audit: {count} events read")

    async with session(account) as api:
        room_id = await resolve(api, account.matrix.room)
        now_ms = SystemClock().now().wall_ms
        since_ms = None if ago_ms is None else now_ms - ago_ms
        return await read_room(
            api, room_id, since_ms=since_ms, progress=progress, save=save, now_ms=now_ms
        )  # fmt: skip


def _ago_ms(text: str, now_ms: int) -> int:
    """How long before now. Raises FieldError."""
    if found := re.fullmatch(r"([0-9]{1,6})([mhd])", text):
        return int(found[1]) * UNITS_S[found[2]] * 1000
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        expected = "30m, 12h, 7d, or a time such as 2026-01-31 or 2026-01-31T08:00"
        raise FieldError("--since", f"{text[:40]!r} is no time", expected) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return now_ms - int(moment.timestamp() * 1000)
