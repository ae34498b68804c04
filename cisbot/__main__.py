"""The command line: `cisbot run | check | room init | audit | validate | publish | status | memory`."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cisbot
from cisbot.cli import audit, check, local, publish, room
from cisbot.cli.validate import validate
from cisbot.errors import CisbotError, FieldError
from cisbot.node import standalone
from cisbot.node.config import ConfigError, load
from cisbot.node.definitions import unusable

OK, FAILED, USAGE = 0, 1, 2


def parser() -> argparse.ArgumentParser:
    """All commands and their arguments."""
    top = argparse.ArgumentParser(
        prog="cisbot", description="Machines run workflows together with nothing but a Matrix room."
    )
    top.add_argument("--version", action="version", version=f"cisbot {cisbot.__version__}")
    sub = top.add_subparsers(dest="command", required=True)
    run = sub.add_parser("run", help="run this machine's node")
    run.add_argument("--config", required=True, help="the node's TOML file")
    run.add_argument("--trace", type=Path, help="append a line of JSON for every step to this file")
    valid = sub.add_parser("validate", help="check DAG files")
    valid.add_argument("files", nargs="+")
    check.add_arguments(sub)
    room.add_arguments(sub)
    audit.add_arguments(sub)
    publish.add_arguments(sub)
    local.add_arguments(sub)
    return top


def run_node(args: argparse.Namespace) -> int:
    """Run the node until it is told to stop."""
    loaded = load(Path(args.config))
    for warning in loaded.warnings:
        standalone.say(warning)
    for folder in loaded.settings.node.dags:
        if why := unusable(folder):
            standalone.say(f"node.dags: {folder}: {why}")
    if args.trace is not None:
        _check_trace(args.trace)
    asyncio.run(standalone.run(loaded.settings, args.trace))
    return OK


def _check_trace(path: Path) -> None:
    """Better here than after the login."""
    try:
        path.open("ab").close()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise FieldError(
            "--trace", f"{path} can't be written: {why}", "a file, new or to append to"
        ) from None


def main(argv: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 not, 2 usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal can't show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(argv)
    try:
        return _command(args)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return USAGE
    except FieldError as error:
        sys.stderr.write(f"cisbot: {error.text()}\n")
        return USAGE
    except CisbotError as error:
        sys.stderr.write(f"cisbot: {error}\n")
        return FAILED
    except BrokenPipeError:  # whoever read our output has enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return 130


def _command(args: argparse.Namespace) -> int:
    match args.command:
        case "run":
            return run_node(args)
        case "validate":
            code = validate(args.files)
            sys.stdout.flush()
            return code
        case "check" | "room" | "audit":
            done: int = args.run(args)
            return done
        case "publish":
            return publish.publish(args)
        case "status":
            return local.status(args)
        case "memory":
            return local.memory(args)
        case other:
            raise AssertionError(other)


if __name__ == "__main__":
    sys.exit(main())
