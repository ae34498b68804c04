"""Settings as a hostile or hurried user writes them: one clear error for each, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from cisbot.__main__ import main
from cisbot.node.config import ConfigError, load

GOOD = {
    "node.id": '"node-1"',
    "matrix.homeserver": '"https://example.org"',
    "matrix.user_id": '"@node-1:example.org"',
    "matrix.room": '"#ops:example.org"',
    "matrix.access_token": '"token"',
}


def write(folder: Path, **changed: str | None) -> Path:
    """A settings' file with some keys changed, or left out."""
    keys = {**GOOD, **{key.replace("__", "."): value for key, value in changed.items()}}
    path = folder / "node.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None))
    path.chmod(0o600)
    return path


def refused(path: Path) -> str:
    """The one error."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    (error,) = caught.value.errors
    return error.text()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("file", "is no folder; expected a folder, or where one can be made"),
        ("file/below", "file is no folder"),
        ("dangling", "dangling is a link to nothing"),
        ("loop/x", "loop is a link to nothing"),
        ("x" * 300, "can't be used: File name too long"),
        ("/".join(["x" * 200] * 30), "can't be used: File name too long"),
        ("a\\u0000b", "'a\\x00b' holds a NUL"),
        ("~nobody-of-that-name/x", "no such user"),
    ],
)
def test_a_data_dir_that_is_none(tmp_path: Path, value: str, said: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    error = refused(write(tmp_path, node__data_dir=f'"{value}"'))
    assert error.startswith("node.data_dir: ") and said in error
    assert len(error) < 400


@pytest.mark.parametrize("value", ["file", "a\\u0000b", "x" * 300])
def test_a_dag_folder_that_is_none(tmp_path: Path, value: str) -> None:
    (tmp_path / "file").write_text("")
    error = refused(write(tmp_path, node__dags=f'["fine", "{value}"]'))
    assert error.startswith("node.dags[1]: ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("example.org", "'example.org' is not an address; expected https://example.org"),
        ("ftp://example.org", "is not an address"),
        ("https://", "is not an address"),
        ("https://exam ple.org", "is not an address"),
        ("https://example.org:99999", "is not an address: Port out of range"),
        ("https://example.org:0", "has port 0"),
        ("https://example.org:http", "is not an address: "),
        ("https://a..b", "is not an address: "),
        (f"https://{'a' * 100}", "is not an address: "),
        ("https://[::1", "is not an address: Invalid IPv6"),
        ("https://:8008", "is not an address: "),
        ("https://op:secret-word@example.org", "has a user or password in it"),
        ("https://example.org/_matrix/client/v3", "has the path '/_matrix/client/v3'"),
        ("https://example.org?x", "is not an address"),
    ],
)
def test_a_homeserver_that_is_none(tmp_path: Path, value: str, said: str) -> None:
    error = refused(write(tmp_path, matrix__homeserver=f'"{value}"'))
    assert error.startswith("matrix.homeserver: ") and said in error
    assert "secret-word" not in error


@pytest.mark.parametrize("address", ["https://example.org/", "http://[::1]:8008", "https://example.org/base"])
def test_addresses_that_are_fine(tmp_path: Path, address: str) -> None:
    load(write(tmp_path, matrix__homeserver=f'"{address}"'))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("access_token", "one\\ntwo", "matrix.access_token: has a line break or NUL in it"),
        ("access_token", "token\\n", "matrix.access_token: has a character that no access token has"),
        ("access_token", "tökén", "matrix.access_token: has a character that no access token has"),
        ("password", "one\\r\\ntwo", "matrix.password: has a line break or NUL in it"),
        ("password", "one\\u0000two", "matrix.password: has a line break or NUL in it"),
        ("password", "  ", "is empty"),
        ("password_file", "a\\u0000b", "matrix.password_file: 'a\\x00b' holds a NUL"),
        ("password_file", ".", "can't be read: Is a directory"),
        ("password_file", "blank", "matrix.password_file: is empty"),
        ("access_token_file", "two", "has 2 lines; expected the secret alone, in one line"),
    ],
)
def test_a_secret_that_is_none(tmp_path: Path, key: str, value: str, said: str) -> None:
    (tmp_path / "blank").write_text(" \n")
    (tmp_path / "two").write_text("one\ntwo\n")
    given = {"matrix__access_token": None, f"matrix__{key}": f'"{value}"'}
    error = refused(write(tmp_path, **given))
    assert said in error
    assert "one\n" not in error


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b" pass word \n", " pass word "),
        (b"word\r\n", "word"),
        (b"\xef\xbb\xbfword", "word"),
        (b"word", "word"),
    ],
)
def test_a_password_keeps_all_but_its_line_break(tmp_path: Path, content: bytes, secret: str) -> None:
    (tmp_path / "word").write_bytes(content)
    (tmp_path / "word").chmod(0o600)
    loaded = load(write(tmp_path, matrix__access_token=None, matrix__password_file='"word"'))
    assert loaded.settings.matrix.password is not None
    assert loaded.settings.matrix.password.get_secret_value() == secret
    assert not loaded.warnings


def test_a_trace_that_cant_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, trace = write(tmp_path), tmp_path / "none" / "trace"
    assert main(["run", "--config", str(path), "--trace", str(trace)]) == 2
    assert f"--trace: {trace} can't be written: No such file" in capsys.readouterr().err


def test_all_of_them_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path, node__data_dir='"a\\u0000b"', matrix__homeserver='"http://h:99999"',
        matrix__access_token=None, matrix__password_file='"none"',
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [error.field for error in caught.value.errors] == [
        "node.data_dir", "matrix.homeserver", "matrix.password_file",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe[node]", "the file: is not UTF-8"),
        (b"[node]\nid = \n", "the file: is not TOML: Invalid value (at line 2, column 6)"),
        (b"x = " + b"[" * 5000, "the file: is nested too deeply"),
        (b"[node]\nid = 'a'\nid = 'b'\n", "is not TOML: Cannot overwrite a value (at line 3"),
    ],
)
def test_a_file_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(content)
    for command in (["check"], ["run"], ["status"], ["publish", "x"], ["room", "init"]):
        assert main([*command, "--config", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"{path}: ") and said in error and error.count("\n") == 1


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    assert refused(tmp_path) == "the file: is a folder; expected a TOML file"
    write(tmp_path)
    assert refused(tmp_path).endswith(f"Did you mean {tmp_path}/node.toml?")


def test_a_byte_order_mark_is_harmless(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert load(path).settings.node.id == "node-1"


def test_check_names_folders_and_broken_dags(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cisbot.matrix.check.PATIENCE_S", 0.1)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "bad.yaml").write_text("id: bad\n")
    (tmp_path / "there" / "good.yaml").write_text("id: good\ntasks:\n  a: {shell: 'true'}\n")
    path = write(tmp_path, node__dags='["none", "there"]', matrix__homeserver='"http://127.0.0.1:9/x"')
    assert main(["check", "--config", str(path)]) == 1
    out = capsys.readouterr().out
    assert "warning  node.dags: none: no such folder\n" in out
    assert f"         mkdir -p {tmp_path}/none\n" in out
    assert "warning  node.dags: bad.yaml:1: tasks: is missing" in out
    assert "ok       1 valid DAG in its folders" in out


@pytest.mark.parametrize(
    "address",
    [
        "ftp://u:secretpw@x",
        "http:/u:secretpw@x",
        "u:secretpw@x",
        "http://u:secretpw@x",
        "http://u:secretpw@x:99999",
        "http://u:secretpw@[x",
        "http://u:secretpw@\\u2100",
        "http://u:secret pw@x",
        "http://u:secret@pw@x?y",
        f"ftp://u:secretpw{'x' * 100}@x",
        "http://x/u:secretpw@y/_matrix",
    ],
)
def test_an_address_with_a_password_is_not_shown(tmp_path: Path, address: str) -> None:
    error = refused(write(tmp_path, matrix__homeserver=f'"{address}"'))
    assert error.startswith("matrix.homeserver: ")
    assert "secret" not in error.replace("its secret into", "")
    assert "pw" not in error
