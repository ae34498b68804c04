"""The node's data directory: nothing lies in the way of its files, and they stay the ones that we hold."""

from __future__ import annotations

from pathlib import Path

from cisbot.errors import CisbotError

_OTHER = "choose another node.data_dir"
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
