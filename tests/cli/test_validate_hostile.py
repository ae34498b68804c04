"""Files that are no DAGs, as a hostile user writes them: each gets lines with place, field and mend."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cisbot.cli.validate import validate

T = "tasks:\n  a: {shell: 'true'}\n"
BOMB = "id: b\na: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{upper}: &{upper} [{','.join([f'*{lower}'] * 9)}]\n"
    for lower, upper in zip("abcdefg", "bcdefgh", strict=True)
)
LINE = re.compile(r"x\.yaml:[0-9]+:[0-9]+: [^:]+: .+")

WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "binary": (b"\x7fELF\x00\x00\x01", ["1:1: the file: the character U+007F is not allowed"]),
    "random": (b"\xc8\xff\x00", ["1:1: the file: byte 0xc8 is not UTF-8"]),
    "utf-16": (f"id: x\n{T}".encode("utf-16"), ["1:1: the file: byte 0xff is not UTF-8"]),
    "latin-1": (
        f"id: x\ndescription: caf\xe9\n{T}".encode("latin-1"),
        ["2:17: the file: byte 0xe9 is not UTF"],
    ),
    "nul": (f"id: x\0y\n{T}", ["1:6: the file: the character U+0000 is not allowed"]),
    "10 MB": ("#" * 10_000_000, ["1:1: the file: is too large; expected at most 1000000 bytes"]),
    "alias bomb": (BOMB + T, ["8:11: g[1]: aliases make this too large"]),
    "alias to itself": (f"id: x\nenv: &e\n  a: *e\n{T}", ["3:6: env.a: '*e' has no anchor before it"]),
    "merge key": ("id: x\ntasks:\n  a:\n    <<: {b: c}\n    shell: x\n", ["4:5: tasks.a: merge keys ('<<')"]),
    "tabs": ("id: x\ntasks:\n\ta:\n", ["3:1: the file: a tab is used for indentation; expected spaces"]),
    "twice": (
        "id: x\nid: y\ntasks:\n  a: {shell: x, shell: y}\n",
        [
            "2:1: the file: the key 'id' is there twice, first in line 1; expected each key once",
            "4:17: tasks.a: the key 'shell' is there twice",
        ],
    ),
    "keys that are no text": (
        f"id: x\n1: x\n[a, b]: z\nnull: 3\n? {{a: b}}\n: c\n{T}",
        [
            "2:1: 1: unknown key '1'; expected one of: id, ",
            "3:1: the file: a key that is not text; expected text as the key",
            "4:1: null: unknown key 'null'",
            "5:3: the file: a key that is not text",
        ],
    ),
    "deep lists": (
        f"id: x\nenv: {'[' * 5000}{']' * 5000}\n{T}",
        ["2:1005: the file: exceeded maximum nesting"],
    ),
    "deep maps": ("".join(" " * n + "a:\n" for n in range(1200)), ["33:33: a.a.a"]),
    "empty": ("", ["1:1: the file: is empty; expected a mapping (key: value) with at least id and tasks"]),
    "comments": ("# nothing\n", ["1:1: the file: is empty"]),
    "a word": ("hello\n", ["1:1: the file: is not a mapping"]),
    "a list": ("- a\n", ["1:1: the file: is not a mapping"]),
    "two documents": (
        f"id: x\n{T}---\nid: y\n{T}",
        ["4:1: the file: a second document; expected one document"],
    ),
    "crlf": (f"id: x\nidd: 3\n{T}".replace("\n", "\r\n"), ["2:1: idd: unknown key 'idd'"]),
    "byte order mark": (f"\ufeffid: x\nidd: 3\n{T}", ["2:1: idd: unknown key 'idd'"]),
    "python": (
        f"id: !!python/object/apply:os.system ['id']\n{T}",
        ["1:5: id: the tag ", "1:5: id: a list can't"],
    ),
    "open brace": (
        "id: x\ntasks: {a: {shell: x}\nenv: 3\n",
        ["3:1: the file: did not find expected ',' or '}' (while parsing a flow mapping, begun in line 2)"],
    ),
    "escapes": (f"id: x\n\x1b[31mred: 3\n{T}", ["2:1: the file: the character U+001B is not allowed"]),
    "bidi": (f"id: x\n\u202eevil: 3\n{T}", ["2:1: \\u202eevil: unknown key '\\u202eevil'"]),
    "a long number": (
        f"id: x\npriority: {'9' * 5000}\n{T}",
        ["2:11: priority: too long a number", "2:11: priority"],
    ),
    "a slow pattern": (
        f"id: x\nparams: {{a: {{pattern: '(a+)+$', default: {'a' * 40}b}}}}\n{T}",
        ["2:42: params.a.default: does not match the pattern"],
    ),
    "no task": ("id: x\ntasks:\n", ["2:7: tasks: is empty"]),
}


@pytest.mark.parametrize(("content", "wanted"), WRONG.values(), ids=WRONG.keys())
def test_a_file_that_is_no_dag(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: str | bytes,
    wanted: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert validate(["x.yaml"]) == 2
    *lines, summary = capsys.readouterr().out.splitlines()
    assert all(LINE.fullmatch(line) and line.isprintable() and len(line) < 500 for line in lines), lines
    assert summary.startswith("1 file, ")
    starts = [f"x.yaml:{start}" for start in wanted]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


@pytest.mark.parametrize(
    "content", [f"\ufeffid: x\n{T}", f"id: x\n{T}".replace("\n", "\r\n"), f"---\nid: x\n{T}...\n"]
)
def test_harmless_oddities(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.yaml").write_bytes(content.encode())
    assert validate([str(tmp_path)]) == 0


def test_a_pipe_and_odd_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "two\nlines.yaml").write_text("")
    assert validate([str(tmp_path / "pipe.yaml"), str(tmp_path)]) == 2
    first, second, _ = capsys.readouterr().out.replace(f"{tmp_path}/", "").splitlines()
    assert first == "pipe.yaml:1:1: the file: is a pipe; expected a DAG file or a folder"
    assert second.startswith("two\\nlines.yaml:1:1: the file: is empty")


def test_any_terminal_will_do(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "id: x\ntasks:\n  a: {shell: x, needs: [b]}\n  b: {shell: x, needs: [a]}\n"
    )
    (tmp_path / os.fsdecode(b"\xff.yaml")).write_text("")
    command = [sys.executable, "-m", "cisbot", "validate", str(tmp_path)]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (2, "")
    assert "wait for each other: a \\u2192 b \\u2192 a" in done.stdout


def test_a_reader_that_has_enough(tmp_path: Path) -> None:
    for number in range(500):
        (tmp_path / f"{number}.yaml").write_text("")
    command = [sys.executable, "-m", "cisbot", "validate", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
