"""What an attempt left: the end of its log, and its outputs. The task may have put anything there."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from pathlib import Path

from cisbot.core.frames import OUTPUT_BYTES_MAX, TAIL_BYTES, Kind

WANTED = (
    "expected a file with lines NAME=VALUE, a NAME of at most 64 letters, digits, '_', '.' and '-' that "
    f"begins with a letter or '_', all lines together at most {OUTPUT_BYTES_MAX} bytes"
)
NOT_REGULAR = f"CIS_OUTPUT is not a regular file; {WANTED}"
TOO_LARGE = f"CIS_OUTPUT holds more than {OUTPUT_BYTES_MAX} bytes; {WANTED}"
_ENTRIES_MAX = 2_000  # in a folder that was left as outputs, to be removed
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
    """The text of a small regular file; never blocks, whatever the task has put in its place."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a device may do something already
            raise OutputError(NOT_REGULAR)
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OutputError(NOT_REGULAR)
            data = os.read(fd, 6 * OUTPUT_BYTES_MAX + 1_024)  # a skill's are JSON, with escapes
        finally:
            os.close(fd)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise OutputError(f"CIS_OUTPUT can't be read: {error.strerror}") from error
    return data.decode("utf-8", errors="replace")


def _is_large(folder: Path) -> bool:
    folders, count = [str(folder)], 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                count += 1
                if count > _ENTRIES_MAX:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return False


def remove_output(path: Path) -> str:
    """Remove whatever the task has left there; why it can't be, for people, or "".

    A link is removed, not followed. A folder too large to be removed in a moment stays: meanwhile
    the worker would not keep its deadlines.
    """
    try:
        try:
            path.unlink(missing_ok=True)
        except IsADirectoryError:
            if _is_large(path):
                return f"CIS_OUTPUT is not removed: a folder of more than {_ENTRIES_MAX} files"
            shutil.rmtree(path)
    except OSError as error:
        return f"CIS_OUTPUT can't be removed: {error.strerror}"
    except RecursionError:
        return "CIS_OUTPUT can't be removed: folders too deep"
    return ""


def _check_size(outputs: dict[str, str]) -> dict[str, str]:
    size = sum(len(key.encode()) + len(value.encode()) + 2 for key, value in outputs.items())
    if size > OUTPUT_BYTES_MAX:
        raise OutputError(TOO_LARGE)
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
        raise OutputError(TOO_LARGE)
    for number, line in enumerate(text.split("\n"), 1):
        key, equals, value = line.removesuffix("\r").partition("=")
        if not line.strip():
            continue
        if not equals or not _KEY.match(key):
            raise OutputError(f"CIS_OUTPUT: line {number} is not NAME=VALUE; {WANTED}")
        if "\0" in value:  # no environment takes it
            raise OutputError(f"CIS_OUTPUT: line {number} holds a NUL; {WANTED}")
        outputs[key] = value
    return outputs


def _skill_outputs(text: str) -> dict[str, str]:
    """Read what `cisbot.worker.skill` wrote: {"outputs": {...}} or {"error": "..."} or nothing."""
    if not text:
        return {}
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise OutputError(
            "CIS_OUTPUT is not what a skill writes; expected the skill to return its outputs"
        ) from error
    if isinstance(body, dict) and isinstance(body.get("error"), str):
        raise SkillError(_encodable(body["error"][:2_000]))
    outputs = body.get("outputs") if isinstance(body, dict) else None
    if not isinstance(outputs, dict):
        raise OutputError("CIS_OUTPUT is not what a skill writes; expected the skill to return its outputs")
    for key, value in outputs.items():
        if not _KEY.match(key) or not isinstance(value, str):
            raise OutputError(
                f"CIS_OUTPUT: {key[:64]!r} is not a name with a text; expected names as in NAME=VALUE"
            )
    return {key: _encodable(value) for key, value in outputs.items()}


def _encodable(text: str) -> str:
    """JSON may name half a surrogate pair, which no database or room takes."""
    return text.encode("utf-8", "replace").decode()
