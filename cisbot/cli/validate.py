"""`cisbot validate`: every problem of every DAG file, as `file:line:column: field: what`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cisbot.core.dags.definition import DEFINITION_BYTES_MAX, Definition
from cisbot.core.dags.parse import parse_bytes
from cisbot.core.dags.tree import Problem

OK = 0
USAGE = 2
SUFFIXES = (".yaml", ".yml")


def validate(paths: Sequence[str]) -> int:
    """Check files, and all `*.yaml` and `*.yml` below folders. 0: all valid; 2: something is wrong."""
    files, problems = 0, 0
    owners: dict[str, Path] = {}
    for path in _files(paths):
        files += 1
        found = _check(path, owners) if isinstance(path, Path) else [path]
        problems += len(found)
        for problem in found:
            print(_printable(problem.text()))
    counted = f"{_count(files, 'file')}, {_count(problems, 'problem') if problems else 'all valid'}"
    print(counted if files else "nothing to check: name a DAG file or a folder")
    return USAGE if problems or not files else OK


def _printable(text: str) -> str:
    """One line that does to a terminal what it looks like."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _files(paths: Sequence[str]) -> Iterator[Path | Problem]:
    """Each file once, in order; a folder without any is a problem."""
    seen: set[Path] = set()
    for name in paths:
        top = Path(name)
        below = sorted(one for one in top.rglob("*") if one.suffix in SUFFIXES and one.is_file())
        if top.is_dir() and not below:
            yield _problem(name, "the folder", "has no DAG file", "*.yaml or *.yml")
        for path in below if top.is_dir() else [top]:
            if path.absolute() not in seen:
                seen.add(path.absolute())
                yield path


def _check(path: Path, owners: dict[str, Path]) -> list[Problem]:
    try:
        if path.is_fifo() and not path.is_relative_to("/dev"):  # it would wait for ever
            return [_problem(str(path), "the file", "is a pipe", "a DAG file or a folder")]
        with path.open("rb") as file:
            data = file.read(DEFINITION_BYTES_MAX + 1)
    except FileNotFoundError:
        return [_problem(str(path), "the file", "is not there", "a DAG file or a folder")]
    except OSError as error:
        what = f"can't be read: {error.strerror}"
        return [_problem(str(path), "the file", what, "a readable file")]
    if len(data) > DEFINITION_BYTES_MAX:
        limit = f"at most {DEFINITION_BYTES_MAX} bytes"
        return [_problem(str(path), "the file", "is too large", limit)]
    parsed = parse_bytes(data, str(path))
    if not isinstance(parsed, Definition):
        return parsed
    first = owners.setdefault(parsed.id, path)
    if first != path:
        return [_problem(str(path), "id", f"{first} has the id '{parsed.id}' too", "one file for each id")]
    return []


def _problem(file: str, field: str, what: str, expected: str) -> Problem:
    return Problem(file, 1, 1, field, what, expected)
