"""The node's data directory: nothing lies in the way of its files, and they stay the ones that we hold."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from cisbot.errors import CisbotError
from cisbot.matrix.waiting import pause

Identity = tuple[int, int]  # device and inode

_OTHER = "choose another node.data_dir"
LOOK_S = 3.0
FILES = ("node.lock", "node.db", "node.sock", "session.json")


def check_ways(data_dir: Path) -> None:
    """Raises `CisbotError` naming a folder, left by a task perhaps, where the node has a file."""
    for name in FILES:
        path = data_dir / name
        try:
            blocked = path.is_dir()
        except OSError as error:
            raise CisbotError(f"{path} can't be used: {error.strerror}; mend that, or {_OTHER}") from error
        if blocked:
            raise CisbotError(f"{path} is a folder, expected a file of the node's; remove it, or {_OTHER}")


def identities(paths: Sequence[Path]) -> dict[Path, Identity]:
    """Which files these are, while we hold them open; no other gets such a number until they are closed."""
    states = {path: path.stat() for path in paths}
    return {path: (state.st_dev, state.st_ino) for path, state in states.items()}


async def watch(held: Mapping[Path, Identity]) -> None:
    """Look every 3 s whether our open files are still those at their paths.

    Returns never. Raises `CisbotError` when they are not: what is written then is lost at the node's end,
    and another node may hold the new files.
    """
    while True:
        try:
            now = await asyncio.to_thread(identities, tuple(held))
        except OSError as error:
            raise CisbotError(_lost(str(error.filename), f"is gone ({error.strerror})")) from error
        for path, identity in held.items():
            if now[path] != identity:
                raise CisbotError(_lost(str(path), "is another file"))
        await pause(LOOK_S)


def _lost(path: str, how: str) -> str:
    return (
        f"node.data_dir was removed or replaced while the node ran: {path} {how}. See who did it, a "
        "task perhaps, then start the node again: the room knows the runs, and the node joins it anew"
    )
