"""`cisbot status` and `cisbot memory` without and with a node that answers as told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cisbot.__main__ import main


@contextmanager
def node(path: Path, reply: dict[str, object]) -> Iterator[None]:
    """Something behind the socket."""
    started, loop = threading.Event(), asyncio.new_event_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(json.dumps(reply).encode() + b"\n")
        await writer.drain()
        writer.close()

    async def open_socket() -> None:
        await asyncio.start_unix_server(serve, path=str(path))
        started.set()

    def run() -> None:
        loop.run_until_complete(open_socket())
        loop.run_forever()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait(10)
    yield
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.mark.parametrize(
    ("reply", "code", "out", "err"),
    [
        ({"ok": True, "value": "green"}, 0, "green\n", ""),
        ({"ok": True, "value": ""}, 0, "\n", ""),
        ({"ok": True, "value": None}, 1, "", "pool is not set\n"),
        ({"ok": False, "error": "too late"}, 1, "", "memory get pool: too late\n"),
    ],
)
def test_an_unset_key_is_no_empty_value(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reply: dict[str, object],
    code: int,
    out: str,
    err: str,
) -> None:
    monkeypatch.setenv("CIS_SOCKET", str(tmp_path / "s"))
    with node(tmp_path / "s", reply):
        assert main(["memory", "get", "pool"]) == code
    assert capsys.readouterr() == (out, err)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["get", "a/b"], 2, "memory get: key: can't be used; expected a letter or digit"),
        (["set", "a", "x" * 5000], 2, "memory set: value: can't be used; expected at most"),
        (["set", "a"], 2, "memory set: 0 values after the key; expected cisbot memory set KEY VALUE"),
        (["cas", "a", "b"], 2, "expected cisbot memory cas KEY EXPECTED VALUE"),
        (["get", "a"], 1, "no node answers at"),
    ],
)
def test_what_is_refused_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv("CIS_SOCKET", str(tmp_path / "none"))
    assert main(["memory", *words]) == code
    assert said in capsys.readouterr().err


def test_outside_a_task_the_settings_must_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("CIS_SOCKET", raising=False)
    assert main(["status"]) == 2
    assert "--config: is missing; expected the node's TOML file" in capsys.readouterr().err
