"""Opening the database: pragmas, migrations, and clear words where that fails."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from cisbot.errors import CisbotError

BUSY_MS = 10_000
SQLITE_MIN = (3, 37, 0)  # the first with STRICT tables


class StoreError(CisbotError):
    """The database can't be used; the text says why."""


class StoreFull(StoreError):
    """The disk is full: nothing of the transaction was written."""


def migrations() -> list[str]:
    """The schema's steps, oldest first; a step is never edited once released."""
    folder = resources.files("cisbot.store") / "schema"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [f.read_text(encoding="utf-8") for f in files]


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set the pragmas and migrate. Raises `StoreError`."""
    if sqlite3.sqlite_version_info < SQLITE_MIN:
        least = ".".join(map(str, SQLITE_MIN))
        raise StoreError(f"this Python has SQLite {sqlite3.sqlite_version}; expected {least} or newer")
    try:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        steps = migrations()
        if version > len(steps):
            raise StoreError(
                f"{path} was written by a newer cisbot (schema {version}); expected at most "
                f"{len(steps)}. Install that version, or give this node another data_dir"
            )
        for number, step in enumerate(steps[version:], start=version + 1):
            connection.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
    except sqlite3.Error as error:
        raise understood(error, path) from error


def understood(error: sqlite3.Error, path: Path) -> StoreError:
    """The error in words for an operator."""
    text, code = str(error), getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE or _primary(code) == sqlite3.SQLITE_FULL:
        return StoreFull(f"the disk that holds {path} is full; make room, then start the node again")
    if _primary(code) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(
            f"{path} is damaged ({text}). Move it away and start again: the room knows the runs, and the "
            "node joins it anew"
        )
    if _primary(code) == sqlite3.SQLITE_BUSY:
        return StoreError(f"{path} is in use by another process ({text}); expected one node per data_dir")
    return StoreError(f"{path}: {text}")


def _primary(code: int | None) -> int | None:
    """The kind of error, without its extension."""
    return None if code is None else code & 0xFF
