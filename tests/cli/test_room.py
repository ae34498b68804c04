"""`cisbot room init`: what it refuses before and after it asks the homeserver."""

from __future__ import annotations

from pathlib import Path

import pytest

from cisbot.__main__ import main

GOOD = {
    "--homeserver": "http://127.0.0.1:9",
    "--user": "@op:test",
    "--token-file": "token",
    "--alias": "tasks",
    "--name": "Tasks",
}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--homeserver", None, "--homeserver: missing; expected these, or --config"),
        ("--homeserver", "example.org", "--homeserver: is not an http or https address"),
        ("--homeserver", "ftp://example.org", "--homeserver: is not an http or https address"),
        ("--homeserver", "https://example.org:99999", "--homeserver: is not an address: Port out of range"),
        ("--homeserver", "https://op:pw@example.org", "--homeserver: has a user or password in it"),
        ("--homeserver", "https://exam ple.org", "--homeserver: 'https://exam ple.org' is not an address"),
        ("--homeserver", "https://example.org/_matrix/client", "expected https://example.org without it"),
        ("--user", "op", "--user: 'op' is not a user id"),
        ("--token-file", None, "--password-file or --token-file: missing"),
        ("--token-file", "nowhere", "--token-file: nowhere can't be read: No such file"),
        ("--node", "node-1", "--node: 'node-1' is not a user id; expected one such as @node-1:example.org"),
        ("--lease-max", "0", "--lease-max: 0 is too short"),
        ("--config", "node.toml", "--homeserver, --user, --token-file, --alias: stands beside --config"),
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
    assert main(["room", "init", *(word for pair in options.items() for word in pair)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "op:pw" not in error
