"""`cisbot publish`: the same command from a shell, under the node's account; `--wait` follows the run."""

from __future__ import annotations

import argparse
import asyncio
import re
import secrets
import sys
from pathlib import Path

from cisbot.core.chat.grammar import Publish, format_command, parse_command
from cisbot.core.ids import EventId, RunId, UserId, run_event, run_id, run_node, short_id
from cisbot.core.inputs import Input, RoomBatch
from cisbot.core.room.events import JsonMap, Message, NodeRecord
from cisbot.core.room.wire import BLOCK
from cisbot.core.runs.board import Board
from cisbot.core.settings import Policy, Settings
from cisbot.errors import CisbotError, FieldError
from cisbot.matrix.follow import SyncLoop
from cisbot.matrix.http import Api, Method
from cisbot.matrix.http import Path as Url
from cisbot.matrix.login import log_in
from cisbot.matrix.rooms import join
from cisbot.node.config import load_settings

OK, FAILED, USAGE = 0, 1, 2
ENDS = ("rejected ", "cancelled ", "expired ", "closed ")


def add_arguments(sub: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The sub-command `publish`."""
    publish = sub.add_parser("publish", help="publish a run, as !dag publish does in the room")
    publish.add_argument("words", nargs="+", help="DAG [target=…] [scope=…] [priority=…] [key=value …]")
    publish.add_argument("--config", required=True, help="the node's TOML file")
    publish.add_argument("--wait", action="store_true", help="wait for the end; exit 0 if it succeeded")


def publish(args: argparse.Namespace) -> int:
    """0 published (with --wait: succeeded), 1 not, 2 usage."""
    settings = load_settings(Path(args.config))
    try:
        command = _command(args.words)
    except FieldError as error:
        sys.stderr.write(f"publish: {error.text()}\n")
        return USAGE
    return asyncio.run(_publish(settings, command, wait=args.wait))


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


async def _publish(settings: Settings, command: Publish, *, wait: bool) -> int:
    api = await log_in(settings.matrix, settings.node.data_dir, _say, patience_s=60)
    try:
        return await _send(api, settings, command, wait=wait)
    finally:
        await api.close()


async def _send(api: Api, settings: Settings, command: Publish, *, wait: bool) -> int:
    room = await join(api, settings.matrix.room)
    inbox: asyncio.Queue[Input] = asyncio.Queue()
    sync = SyncLoop(api, room, UserId(settings.matrix.user_id), cursor=None, emit=inbox.put_nowait, say=_say)
    following = asyncio.ensure_future(sync.run())
    waiting = Wait()
    try:
        if wait:
            waiting.begin(await _next(inbox, following))  # from here on nothing is missed
        content: JsonMap = {
            "msgtype": "m.text",
            "body": format_command(command),
            "m.mentions": {},
            BLOCK: {"kind": "command"},
        }
        txn = f"publish.{secrets.token_hex(8)}"
        answer = await api.read(Method.PUT, Url.v3.rooms[room].send["m.room.message"][txn], content)
        event = EventId(str(answer["event_id"]))
        print(f"{command.dag} {short_id(run_id(event))} published", flush=True)
        waiting.published(event, command.dag)
        return await _follow(inbox, following, waiting) if wait else OK
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _follow(inbox: asyncio.Queue[Input], following: asyncio.Future[None], wait: Wait) -> int:
    while True:
        if (code := wait.take(await _next(inbox, following))) is not None:
            return code


async def _next(inbox: asyncio.Queue[Input], following: asyncio.Future[None]) -> RoomBatch:
    """The next batch. Raises what ended the sync."""
    while True:
        getting = asyncio.ensure_future(inbox.get())
        both: set[asyncio.Future[None] | asyncio.Future[Input]] = {getting, following}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            following.result()
            raise CisbotError("the room can't be followed any more")
        if isinstance(batch := getting.result(), RoomBatch):
            return batch


class Wait:
    """What is still to come of one publication: one run, or with target=all one for each of its nodes."""

    def __init__(self) -> None:
        self.event = EventId("")
        self._board = Board(Policy())
        self._dag = ""
        self._open: set[RunId] | None = None
        self._code = OK

    def begin(self, batch: RoomBatch) -> None:
        """The room as it is before the publication."""
        for item in (*batch.state, *batch.history, *batch.events):
            if isinstance(item, NodeRecord):
                self._board.note_node(item, 0)

    def published(self, event: EventId, dag: str) -> None:
        """The homeserver has the publishing message."""
        self.event, self._dag = event, dag

    def take(self, batch: RoomBatch) -> int | None:
        """Read on; the exit code once all runs are over."""
        for item in (*batch.state, *batch.history, *batch.events):
            if isinstance(item, NodeRecord):
                self._board.note_node(item, 0)
            elif isinstance(item, Message) and item.event_id == self.event:
                nodes = self._board.eligible(self._dag, "all")
                self._open = {run_id(self.event, n.id) for n in nodes}
            elif isinstance(item, Message) and self._over(item):
                return self._code
        return None

    def _over(self, msg: Message) -> bool:
        """Judge one message; whether it was the last to wait for."""
        block = (msg.block or {}) if self._board.is_node(msg.sender) else {}
        run, answers, kind = block.get("run"), block.get("answers"), block.get("kind")
        if kind == "answer" and answers == self.event:
            sys.stderr.write(msg.body + "\n")
            self._code = FAILED
            return True
        if not isinstance(run, str) or run_event(RunId(run)) != self.event or msg.edits is not None:
            return False
        closed = kind == "answer" and isinstance(answers, str) and answers.startswith(ENDS)
        if kind != "final" and not closed:
            return False
        print(msg.body, flush=True)
        if closed or block.get("status") != "succeeded":
            self._code = FAILED
        if run_node(RunId(run)) is None or self._open is None:
            return True
        self._open.discard(RunId(run))
        return not self._open


def _say(text: str) -> None:
    sys.stderr.write(f"cisbot: {text}\n")
