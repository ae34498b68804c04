"""`cisbot status` and `cisbot memory`: questions to the node of this machine, through its socket."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from pydantic import BaseModel, ValidationError

from cisbot.core.ids import NAME_RULE
from cisbot.core.room.wire import VALUE_BYTES_MAX
from cisbot.errors import CisbotError, FieldError
from cisbot.node.build import SOCKET
from cisbot.node.config import load_settings
from cisbot.node.socket import MemoryRequest, StatusRequest, call

OK, FAILED, USAGE = 0, 1, 2
VALUES = {"get": "", "set": " VALUE", "cas": " EXPECTED VALUE"}


def add_arguments(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The sub-commands `status` and `memory`."""
    status = sub.add_parser("status", help="the runs of the room, as this machine's node knows them")
    status.add_argument("run", nargs="?", help="a run's short id")
    status.add_argument("--config", help="the node's TOML file")
    memory = sub.add_parser("memory", help="the room's public memory")
    memory.add_argument("op", choices=list(VALUES))
    memory.add_argument("key")
    memory.add_argument("values", nargs="*", help="set: VALUE; cas: EXPECTED VALUE")
    memory.add_argument("--config", help="the node's TOML file; inside a task it is known")


def _socket(config: str | None) -> Path:
    if config is not None:
        return load_settings(Path(config)).node.data_dir / SOCKET
    if path := os.environ.get("CIS_SOCKET"):
        return Path(path)
    raise FieldError("--config", "is missing", "the node's TOML file")


def _ask(config: str | None, request: BaseModel) -> dict[str, object]:
    path = _socket(config)
    try:
        return asyncio.run(call(path, request))
    except (OSError, ValueError) as error:
        raise CisbotError(f"no node answers at {path}. Start it: cisbot run --config …") from error


def status(args: argparse.Namespace) -> int:
    """Print the runs, or one of them."""
    reply = _ask(args.config, StatusRequest(op="status", run=args.run))
    if not reply.get("ok"):
        sys.stderr.write(f"{reply.get('error')}\n")
        return FAILED
    print(reply["text"])
    return OK


def memory(args: argparse.Namespace) -> int:
    """Get prints the value, 1 if there is none; set and cas exit 0 when the write was accepted."""
    wanted = len(VALUES[args.op].split())
    if len(args.values) != wanted:
        usage = f"cisbot memory {args.op} KEY{VALUES[args.op]}"
        sys.stderr.write(f"memory {args.op}: {len(args.values)} values after the key; expected {usage}\n")
        return USAGE
    value = args.values[-1] if args.values else None
    expected = args.values[0] if args.op == "cas" else None
    try:
        request = MemoryRequest(op=args.op, key=args.key, value=value, expected=expected or None)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][-1])
        rule = NAME_RULE if field == "key" else f"at most {VALUE_BYTES_MAX} characters of text"
        sys.stderr.write(f"memory {args.op}: {field}: can't be used; expected {rule}\n")
        return USAGE
    reply = _ask(args.config, request)
    if not reply.get("ok"):
        sys.stderr.write(f"memory {args.op} {args.key}: {reply.get('error')}\n")
        return FAILED
    if args.op != "get":
        return OK
    if reply.get("value") is None:
        sys.stderr.write(f"{args.key} is not set\n")
        return FAILED
    print(reply["value"])
    return OK
