"""The node's DAG files: read when they changed, broken ones named, good ones kept by id."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from cisbot.core.dags.definition import DEFINITION_BYTES_MAX, Definition
from cisbot.core.dags.parse import parse_bytes
from cisbot.core.inputs import Definitions

FILES_MAX = 1_000
SUFFIXES = (".yaml", ".yml")


def _mark(path: Path) -> tuple[str, int, int]:
    try:
        state = path.stat()
    except OSError:  # it went away meanwhile, as editors do
        return str(path), 0, 0
    return str(path), state.st_mtime_ns, state.st_size


def unusable(folder: Path) -> str:
    """Why no DAG files can be read from the folder; empty where they can."""
    if not folder.is_dir():
        return "no such folder"
    return "" if os.access(folder, os.R_OK | os.X_OK) else "this user may not read it"


class DagFiles:
    """The files below the configured folders."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self._folders = folders
        self._seen: tuple[tuple[str, int, int], ...] | None = None

    async def read(self) -> Definitions | None:
        """All definitions, or None where no file changed since the last call."""
        return await asyncio.to_thread(self.changed)

    def changed(self) -> Definitions | None:
        """The same, at once."""
        files: list[Path] = []
        problems: list[str] = []
        for folder in self._folders:
            if why := unusable(folder):
                problems.append(f"{folder.name}: {why}")
                continue
            files.extend(p for p in sorted(folder.rglob("*")) if p.suffix in SUFFIXES and p.is_file())
        seen = tuple(_mark(path) for path in files[:FILES_MAX])
        if seen == self._seen:
            return None
        self._seen = seen
        dags: dict[str, Definition] = {}
        for path in files[:FILES_MAX]:
            try:
                with path.open("rb") as file:
                    parsed = parse_bytes(file.read(DEFINITION_BYTES_MAX + 1), path.name)
            except OSError as error:
                problems.append(f"{path.name}: {error.strerror}")
                continue
            if not isinstance(parsed, Definition):
                first = parsed[0]
                problems.append(f"{path.name}:{first.line}: {first.field}: {first.what}")
            elif parsed.id in dags:
                problems.append(f"{path.name}: id '{parsed.id}' is taken by another file")
            else:
                dags[parsed.id] = parsed
        return Definitions(dags, tuple(problems))
