"""`cisbot publish`: the same command from a shell, under the node's account; `--wait` follows the run.

A mistake that this machine's own DAG files show is told before anything is published. Else the nodes judge:
their answer is waited for a few seconds, so that a mistake fails here and not in the room alone.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cisbot.cli.watch import Watch
from cisbot.core.chat.grammar import Publish, format_command, parse_command
from cisbot.core.dags.params import resolve
from cisbot.core.dags.values import parse_target
from cisbot.core.ids import EventId, UserId, run_id, short_id
from cisbot.core.inputs import Input, RoomBatch
from cisbot.core.room.events import JsonMap
from cisbot.core.room.wire import BLOCK
from cisbot.core.scopes import parse_scope
from cisbot.core.settings import SECONDS_MAX, Settings
from cisbot.errors import CisbotError, FieldError
from cisbot.matrix.follow import SyncLoop
from cisbot.matrix.http import Api, Method
from cisbot.matrix.http import Path as Url
from cisbot.matrix.login import log_in
from cisbot.matrix.rooms import join
from cisbot.node.config import load_settings
from cisbot.node.definitions import DagFiles

OK, FAILED, USAGE = 0, 1, 2
ANSWER_S = 10.0  # the first node answers at once; each that is dead costs four seconds
FINAL_S = 10.0  # from the release of a claim to the final message


def add_arguments(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The sub-command `publish`."""
    publish = sub.add_parser("publish", help="publish a run, as !dag publish does in the room")
    publish.add_argument("words", nargs="+", help="DAG [target=…] [scope=…] [priority=…] [key=value …]")
    publish.add_argument("--config", required=True, help="the node's TOML file")
    publish.add_argument("--wait", action="store_true", help="wait for the end; exit 0 if it succeeded")
    publish.add_argument(
        "--timeout",
        type=_seconds,
        metavar="SECONDS",
        help="with --wait: stop waiting, exit 1; the run goes on",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no number of seconds; expected one above 0, such as 60"
        )
    return seconds


def publish(args: argparse.Namespace) -> int:
    """0 published (with --wait: succeeded), 1 not, 2 usage: nodes or this machine find a mistake."""
    if args.timeout is not None and not args.wait:
        sys.stderr.write("publish: --timeout: is given alone; expected --wait with it\n")
        return USAGE
    settings = load_settings(Path(args.config))
    try:
        command = _command(args.words)
        _check(settings, command)
    except FieldError as error:
        sys.stderr.write(f"publish: {error.text()}\n")
        return USAGE
    publication = Publication(command, wait=args.wait, timeout_s=args.timeout, config=args.config)
    return asyncio.run(_publish(settings, publication))


def _command(words: list[str]) -> Publish:
    pairs: dict[str, str] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals:
            raise FieldError(word[:40], "is no key=value", "key=value")
        if key in pairs:
            raise FieldError(key[:40], "is given twice", "each key once")
        pairs[key] = value
    priority = pairs.pop("priority", None)
    if priority is not None and not re.fullmatch(r"[+-]?[0-9]{1,3}", priority):
        raise FieldError("priority", f"{priority[:20]!r} is no number", "a whole number")
    command = Publish(
        words[0],
        pairs.pop("target", None),
        pairs.pop("scope", None),
        int(priority) if priority is not None else None,
        pairs,
        None,
    )
    again = parse_command(format_command(command))
    assert isinstance(again, Publish)
    return again


def _check(settings: Settings, command: Publish) -> None:
    """What can be told from here. A DAG that this machine lacks is for others to judge."""
    if command.target is not None:
        parse_target(command.target)
    if command.scope is not None:
        parse_scope(command.scope)
    read = DagFiles(settings.node.dags).changed()
    definition = read.dags.get(command.dag) if read is not None else None
    if definition is not None:
        resolve(definition, command.params)


@dataclass(frozen=True, slots=True)
class Publication:
    """What is published, and what to wait for."""

    command: Publish
    wait: bool
    timeout_s: float | None
    config: str


async def _publish(settings: Settings, publication: Publication) -> int:
    api = await log_in(settings.matrix, settings.node.data_dir, _say, patience_s=60)
    try:
        return await _send(api, settings, publication)
    finally:
        await api.close()


async def _send(api: Api, settings: Settings, publication: Publication) -> int:
    room = await join(api, settings.matrix.room)
    inbox: asyncio.Queue[Input] = asyncio.Queue()
    sync = SyncLoop(api, room, UserId(settings.matrix.user_id), cursor=None, emit=inbox.put_nowait, say=_say)
    following = asyncio.ensure_future(sync.run())
    watch = Watch(_say)
    try:
        watch.begin(await _next(inbox, following))  # from here on nothing is missed
        content: JsonMap = {
            "msgtype": "m.text",
            "body": format_command(publication.command),
            "m.mentions": {},
            BLOCK: {"kind": "command"},
        }
        txn = f"publish.{secrets.token_hex(8)}"
        answer = await api.read(Method.PUT, Url.v3.rooms[room].send["m.room.message"][txn], content)
        event = EventId(str(answer["event_id"]))
        print(f"{publication.command.dag} {short_id(run_id(event))} published", flush=True)
        watch.published(event, publication.command.dag)
        return await Following(inbox, following, watch).follow(publication, short_id(run_id(event)))
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


class Following:
    """Reads the room until enough is known, or the time is up."""

    def __init__(self, inbox: asyncio.Queue[Input], following: asyncio.Future[None], watch: Watch) -> None:
        self._inbox, self._following, self._watch = inbox, following, watch

    async def follow(self, publication: Publication, short: str) -> int:
        """The exit code."""
        watch, started = self._watch, asyncio.get_running_loop().time()
        answer_s = min(ANSWER_S, publication.timeout_s or ANSWER_S)
        if not await self._until(lambda: watch.heard, answer_s):
            _say("published; no node has answered yet" + ("; waiting" if publication.wait else ""))
        if publication.wait and not watch.refused:
            left_s = publication.timeout_s
            if left_s is not None:
                left_s = max(0.0, left_s - (asyncio.get_running_loop().time() - started))
            if not await self._until(lambda: watch.settled, left_s):
                _say(
                    f"not over after {publication.timeout_s:g} s; the run goes on. "
                    f"See: cisbot status {short} --config {publication.config}"
                )
                return FAILED
            if not await self._until(lambda: watch.over, FINAL_S):
                watch.give_up_on_messages()
        if watch.refused:
            sys.stderr.write(f"publish: {watch.refused}\n")
            return USAGE
        for end in watch.ends.values():
            print(end.text, flush=True)
        return OK if all(end.well for end in watch.ends.values()) or not publication.wait else FAILED

    async def _until(self, done: Callable[[], bool], seconds: float | None) -> bool:
        """Read on until `done`; False when the time is up."""
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    self._watch.take(await _next(self._inbox, self._following))
        except TimeoutError:
            return done()
        return True


async def _next(inbox: asyncio.Queue[Input], following: asyncio.Future[None]) -> RoomBatch:
    """The next batch. Raises what ended the sync."""
    while True:
        getting = asyncio.ensure_future(inbox.get())
        both: set[asyncio.Future[None] | asyncio.Future[Input]] = {getting, following}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                getting.cancel()
        if not getting.done():
            following.result()
            raise CisbotError("the room can't be followed any more")
        if isinstance(batch := getting.result(), RoomBatch):
            return batch


def _say(text: str) -> None:
    sys.stderr.write(f"cisbot: {text}\n")
