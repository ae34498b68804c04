"""What an attempt left: the end of its log, and its outputs. The task may have put anything there."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

from cisbot.core.frames import OUTPUT_BYTES_MAX, TAIL_BYTES, Kind

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline


class OutputError(Exception):
    """The outputs can't be used; the text is for people."""


class SkillError(Exception):
    """The skill could not be loaded or run; the text is for people."""


def read_tail(log_fd: int, start: int) -> str:
    """The last `TAIL_BYTES` bytes of what was written after `start`, as clean text."""
    size = os.fstat(log_fd).st_size
    begin = max(min(start, size), size - TAIL_BYTES)
    data = os.pread(log_fd, size - begin, begin)
    if begin > start:  # cut: the first character may be a part of one
        data = data.lstrip(bytes(range(0x80, 0xC0)))
    return _CONTROL.sub("", data.decode("utf-8", errors="replace"))


def _read_file(path: Path) -> str:
    """The text of a small plain file; never blocks, whatever the task has put in its place."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise OutputError(f"outputs can't be read: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OutputError("outputs can't be read: no plain file")
        data = os.read(fd, 6 * OUTPUT_BYTES_MAX + 1_024)  # a skill's are JSON, with escapes
    finally:
        os.close(fd)
    return data.decode("utf-8", errors="replace")


def _check_size(outputs: dict[str, str]) -> dict[str, str]:
    size = sum(len(key.encode()) + len(value.encode()) + 2 for key, value in outputs.items())
    if size > OUTPUT_BYTES_MAX:
        raise OutputError(f"outputs dropped: more than {OUTPUT_BYTES_MAX} bytes")
    return outputs


def read_outputs(path: Path, kind: Kind) -> dict[str, str]:
    """The outputs of an attempt.

    Raises `OutputError` when they are unusable, `SkillError` when a skill reports its own failure.
    """
    text = _read_file(path)
    if kind == "skill":
        return _check_size(_skill_outputs(text))
    outputs = {}
    if len(text.encode()) > OUTPUT_BYTES_MAX:
        raise OutputError(f"outputs dropped: more than {OUTPUT_BYTES_MAX} bytes")
    for number, line in enumerate(text.splitlines(), 1):
        key, equals, value = line.partition("=")
        if not line.strip():
            continue
        if not equals or not _KEY.match(key):
            raise OutputError(f"outputs dropped: line {number} is not key=value")
        outputs[key] = value
    return outputs


def _skill_outputs(text: str) -> dict[str, str]:
    """Read what `cisbot.worker.skill` wrote: {"outputs": {...}} or {"error": "..."} or nothing."""
    if not text:
        return {}
    try:
        body = json.loads(text)
    except ValueError as error:
        raise OutputError("outputs dropped: not what a skill writes") from error
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        raise SkillError(body["error"][:2_000])
    outputs = body.get("outputs") if isinstance(body, dict) else None
    if not isinstance(outputs, dict):
        raise OutputError("outputs dropped: not what a skill writes")
    for key, value in outputs.items():
        if not _KEY.match(key) or not isinstance(value, str):
            raise OutputError(f"outputs dropped: {key[:64]!r} is not a name with a text")
    return outputs
