"""`cisbot run`: the node without maubot. Logs in, follows the room with its own sync, heeds signals."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from cisbot.core.ids import RoomId, UserId
from cisbot.core.settings import Settings
from cisbot.matrix.follow import SyncLoop
from cisbot.matrix.login import log_in
from cisbot.node.build import Node
from cisbot.node.datadir import check_ways


def say(text: str) -> None:
    """One line for the operator."""
    sys.stderr.write(f"cisbot: {text}\n")
    sys.stderr.flush()


async def follow(room_id: RoomId, cursor: str | None, node: Node) -> None:
    """Follow the room until cancelled."""
    outbox = node.outbox
    assert outbox is not None
    sync = SyncLoop(
        node.api,
        room_id,
        UserId(node.settings.matrix.user_id),
        cursor=cursor,
        emit=node.emit,
        handled=node.handled,
        say=node.say,
        on_encrypted=outbox.forbid,
    )
    node.say(f"{node.settings.node.id} follows {room_id}")
    await sync.run()


async def run(settings: Settings, trace: Path | None = None) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP. Raises `CisbotError` where the node can't start or go on."""
    work = asyncio.ensure_future(_log_in_and_serve(settings, trace))
    try:
        await work
    except asyncio.CancelledError:
        if not work.cancelled():
            raise
        say("stopped before it had begun")


async def _log_in_and_serve(settings: Settings, trace: Path | None) -> None:
    node: Node | None = None
    work = asyncio.current_task()
    assert work is not None

    def stop() -> None:
        if node is None or not node.stop():
            work.cancel()

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else it is to outlive its terminal: nohup
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    check_ways(settings.node.data_dir)  # here too: a login makes a device at the homeserver
    api = await log_in(settings.matrix, settings.node.data_dir, say)
    try:
        node = Node(settings, api, say, trace=trace, alone=True)
        await node.serve(follow)
    finally:
        await api.close()
