"""The settings' file on a real disk, with environment variables and secrets' files."""

import os
from pathlib import Path

import pytest

from cisbot.node.config import ConfigError, load, load_settings

NODE = """\
[node]
id = "node-1"
labels = { disk = "ssd" }
data_dir = "state"
dags = ["dags", "/srv/dags"]

[matrix]
homeserver = "https://example.org"
user_id = "@node-1:example.org"
room = "#ops:example.org"
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.upper().startswith("CISBOT_")]:
        monkeypatch.delenv(key)


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "cisbot.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def refused(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return [error.text() for error in caught.value.errors]


def test_paths_start_at_the_file(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, NODE + 'access_token = "t"\n'))
    assert loaded.settings.node.data_dir == tmp_path / "state"
    assert loaded.settings.node.dags == (tmp_path / "dags", Path("/srv/dags"))
    assert loaded.warnings == ()


def test_an_open_file_with_a_secret_warns(tmp_path: Path) -> None:
    path = write(tmp_path, NODE + 'access_token = "t"\n', mode=0o644)
    assert load(path).warnings == (
        f"{path} holds a secret and other users can read it; run: chmod 600 {path}",
    )


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CISBOT_MATRIX__ACCESS_TOKEN", "12345")
    monkeypatch.setenv("CISBOT_COORDINATOR__MAX_RUNS", "3")
    monkeypatch.setenv("CISBOT_COORDINATOR__KILL_GRACE", "2.5")
    monkeypatch.setenv("CISBOT_NODE__EXECUTE", "no")
    monkeypatch.setenv("CISBOT_NODE__LABELS", '{"gpu": "a100"}')
    monkeypatch.setenv("CISBOT_NODE__DAGS", '["more"]')
    monkeypatch.setenv("CISBOT_POLICY__PUBLISH__POWER_LEVEL", "0")
    monkeypatch.setenv("CISBOT_LOG", "ignored")
    settings = load_settings(write(tmp_path, NODE + 'password_file = "nowhere"\n', mode=0o644))
    assert settings.matrix.access_token and settings.matrix.access_token.get_secret_value() == "12345"
    assert settings.matrix.password_file is None
    assert (settings.coordinator.max_runs, settings.coordinator.kill_grace) == (3, 2.5)
    assert settings.node.execute is False and settings.node.labels == {"disk": "ssd", "gpu": "a100"}
    assert settings.node.dags == (tmp_path / "more",)
    assert settings.policy.publish.power_level == 0


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("CISBOT_COORDINATOR__MAX_RUNS", "many", "coordinator.max_runs: the text 'many' can't be used here"),
        ("CISBOT_NODE__EXECUTE", "perhaps", "node.execute: the text 'perhaps' can't be used here"),
        ("CISBOT_NODE__LABELS", "{", "environment: error parsing value"),
        ("CISBOT_COORDINATOR__MAX_RUN", "1", "coordinator.max_run: unknown key 'max_run'"),
    ],
)
def test_a_wrong_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: str, said: str
) -> None:
    monkeypatch.setenv(key, value)
    errors = refused(write(tmp_path, NODE + 'access_token = "t"\n'))
    assert len(errors) == 1 and said in errors[0]


def test_a_secret_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("the-token\n")
    secret.chmod(0o644)
    loaded = load(write(tmp_path, NODE + 'access_token_file = "token"\n', mode=0o644))
    matrix = loaded.settings.matrix
    assert matrix.access_token and matrix.access_token.get_secret_value() == "the-token"
    assert matrix.access_token_file is None
    assert [warning.partition(" ")[0] for warning in loaded.warnings] == [str(secret)]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "can't be read"), (b"", "has 0 lines"), (b"a\nb\n", "has 2 lines"), (b"\xff", "is not UTF-8")],
)
def test_a_broken_secret(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    errors = refused(write(tmp_path, NODE + 'password_file = "token"\n'))
    assert len(errors) == 1 and errors[0].startswith("matrix.password_file:") and said in errors[0]


def test_every_error_at_once(tmp_path: Path) -> None:
    text = NODE.replace('id = "node-1"', 'id = "any"\nlabls = {}') + "access_token = 5\n"
    text += "[coordinator]\nmax_workers = 0\nworker_idle_timout = 3\n[wroker]\n"
    text += '[policy.dags.backup.publish]\npower_levl = 5\nusers = ["alice"]\n'
    assert [error.partition(";")[0] for error in refused(write(tmp_path, text))] == [
        "coordinator.max_workers: the number 0 can't be used here",
        "coordinator.worker_idle_timout: unknown key 'worker_idle_timout'",
        "node.id: 'any' is a target's word",
        "node.labls: unknown key 'labls'",
        "matrix.access_token: a wrong value can't be used here",
        "policy.dags.backup.publish.users[0]: 'alice' is not a Matrix user id",
        "policy.dags.backup.publish.power_levl: unknown key 'power_levl'",
        "wroker: unknown key 'wroker'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[node\n",
            "the file: is not TOML: Expected ']' at the end of a table declaration (at line 1, column 6)",
        ),
        ("", "node: is missing; expected a section [node] with at least an id"),
        (NODE, "matrix: has no credential; expected exactly one of: access_token, password,"),
        (NODE + 'access_token = "a"\npassword = "b"\n', "matrix: has access_token and password"),
        ("matrix = 5\n", "matrix: the number 5 can't be used here"),
    ],
)
def test_refused(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in error for error in refused(write(tmp_path, text)))


def test_files_that_are_none(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.toml") == ["the file: is not there; expected a TOML file"]
    assert "can't be read" in refused(tmp_path / ("x" * 300))[0]
    path = write(tmp_path, "")
    path.write_bytes(b"\xff")
    assert refused(path) == ["the file: is not UTF-8; expected text in UTF-8"]
