"""`cisbot audit`: its arguments, its exit codes, and what it prints of a saved room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cisbot.__main__ import main

GOOD = {
    "--homeserver": "http://127.0.0.1:9",
    "--user": "@op:test",
    "--token-file": "token",
    "--room": "tasks",
}
KEY = "job/project-p"


def event(number: int, kind: str, content: dict[str, Any], key: str | None = None, who: str = "a") -> str:
    """A saved line."""
    raw: dict[str, Any] = {
        "event_id": f"$e{number}", "type": kind, "sender": f"@{who}:test",
        "origin_server_ts": 1_795_596_420_000 + 1_000 * number, "content": content,
    }  # fmt: skip
    return json.dumps(raw if key is None else {**raw, "state_key": key})


def room(path: Path, *, outcome_by: str = "a") -> Path:
    """One run of node a, saved as `--save` does: the newest first."""
    who = {"node": "a", "incarnation": "i", "nonce": "n"}
    take = {
        **who, "action": "take", "epoch": 1, "after": None, "run": "$r", "dag": "job", "scope": "project-p",
        "lease_s": 30, "definition": "0",
    }  # fmt: skip
    release = {**who, "action": "release", "epoch": 1, "run": "$r", "outcome": "succeeded"}
    record = {"id": "a", "incarnation": "i", "executes": True}
    lines = [
        event(0, "m.room.create", {"room_version": "12"}, ""),
        event(1, "io.cisbot.charter", {"version": 1, "home": "test"}, ""),
        event(2, "io.cisbot.node", record, "@a:test"),
        event(3, "io.cisbot.lock", take, KEY),
        event(4, "io.cisbot.lock", {**release, "node": outcome_by}, KEY, outcome_by),
    ]
    path.write_text("\n".join(reversed(lines)) + "\n")
    return path


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--homeserver", None, "--homeserver: missing; expected these, or --config"),
        ("--room", None, "--room: missing"),
        ("--homeserver", "example.org", "--homeserver: is not an http or https address"),
        ("--user", "op", "--user: 'op' is not a user id"),
        ("--token-file", None, "--password-file or --token-file: missing"),
        ("--config", "node.toml", "--homeserver, --user, --token-file, --room: stands beside --config"),
        ("--since", "yesterday", "--since: 'yesterday' is no time; expected 30m, 12h, 7d"),
        ("--save", "token", "--save: token can't be written: File exists; expected a new file"),
        ("--from", "token", "--homeserver, --user, --room: stands beside --from"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str | None,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("t\n")
    options = {k: v for k, v in {**GOOD, option: value}.items() if v is not None}
    assert main(["audit", *(word for pair in options.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(("text", "said"), [(None, "can't be read"), ("nonsense", "line 1 is no JSON")])
def test_a_file_that_is_no_saved_room(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = tmp_path / "room"
    if text is not None:
        path.write_text(text)
    assert main(["audit", "--from", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_consistent_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--from", str(room(tmp_path / "room"))]) == 0
    shown = capsys.readouterr().out
    assert KEY in shown and "released, succeeded" in shown
    assert shown.endswith("1 claim, 1 key, 0 void requests, no inconsistency, 0 notes\n")


def test_who_read_off_the_home_server_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = room(tmp_path / "room")
    lines = path.read_text()
    for reader, notes in (("@op:test", "0 notes"), ("@op:elsewhere", "1 note")):
        path.write_text(json.dumps({"reader": reader}) + "\n" + lines)
        assert main(["audit", "--from", str(path)]) == 0
        shown = capsys.readouterr().out
        assert ("note off-home" in shown) is ("elsewhere" in reader)
        assert shown.endswith(f"no inconsistency, {notes}\n")


def test_an_inconsistent_room_is_so_whatever_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(room(tmp_path / "room", outcome_by="b"))
    assert main(["audit", "--from", path, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert {breach["kind"] for breach in report["breaches"]} == {"not-held", "speaks-for-another"}
    assert main(["audit", "--from", path, "--key", "other/project-p", "--json"]) == 1
    shown = capsys.readouterr()
    assert (json.loads(shown.out)["breaches"], json.loads(shown.out)["consistent"]) == ([], False)
    assert "2 more inconsistencies are not shown" in shown.err


def test_nobody_at_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("cisbot.cli.account.PATIENCE_S", 0.0)
    (tmp_path / "token").write_text("t\n")
    assert main(["audit", *(word for pair in GOOD.items() for word in pair)]) == 2
    assert "can't connect to http://127.0.0.1:9" in capsys.readouterr().err
