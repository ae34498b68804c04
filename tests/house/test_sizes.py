"""The house is simple: small files, small functions, bare `__init__.py`, folders named for what they are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("cisbot", "plugins", "homeserver", "tests")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
NAMES_BANNED = {"utils", "util", "helpers", "models", "managers", "common", "misc"}
LAZY = {"cisbot/__init__.py"}  # maubot looks for its main class there


def sources() -> Iterator[Path]:
    """Every Python file of ours."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if not any(part.startswith(".") or part == "build" for part in path.relative_to(ROOT).parts):
                yield path


def name(path: Path) -> str:
    """The path from the root."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", list(sources()), ids=name)
def test_a_file_is_one_idea(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES_MAX
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines"
    assert not NAMES_BANNED & {path.stem, *path.relative_to(ROOT).parts}
    if path.name == "__init__.py" and name(path) not in LAZY:
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert not imports, "an __init__.py holds a docstring, no imports"
    if path.parts[len(ROOT.parts)] != "tests":
        assert ast.get_docstring(tree), "a module says what it is for"
