"""`cisbot validate` on real files."""

from pathlib import Path

import pytest

from cisbot.cli.validate import validate

GOOD = "id: {}\ntasks:\n  a: {{shell: 'true'}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text(GOOD.format("a"))
    (tmp_path / "sub" / "b.yml").write_text(GOOD.format("b"))
    (tmp_path / "notes.txt").write_text("no DAG")
    return tmp_path


def test_all_valid(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate([str(folder), str(folder / "a.yaml")]) == 0
    assert capsys.readouterr().out == "2 files, all valid\n"


def test_every_error_of_every_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "c.yaml").write_text("id: c\nidd: x\ntasks:\n  a: {shel: ls}\n")
    (folder / "d.yaml").write_bytes(b"id: d\nx: \xff\n")
    (folder / "e.yaml").write_text(GOOD.format("a"))
    (folder / "f.yaml").write_text("#" * 1_000_001)
    assert validate([str(folder), str(folder / "none.yaml")]) == 2
    lines = capsys.readouterr().out.replace(f"{folder}/", "").splitlines()
    assert [line.partition(";")[0] for line in lines] == [
        "c.yaml:2:1: idd: unknown key 'idd'",
        "c.yaml:4:3: tasks.a: does nothing",
        "c.yaml:4:7: tasks.a.shel: unknown key 'shel'",
        "d.yaml:2:4: the file: byte 0xff is not UTF-8",
        "e.yaml:1:1: id: a.yaml has the id 'a' too",
        "f.yaml:1:1: the file: is too large",
        "none.yaml:1:1: the file: is not there",
        "7 files, 7 problems",
    ]
    assert lines[2].endswith("Did you mean 'shell'?")


def test_nothing_to_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert validate([]) == 2
    assert "nothing to check" in capsys.readouterr().out
    assert validate([str(tmp_path)]) == 2
    assert "has no DAG file" in capsys.readouterr().out


def test_an_unreadable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    assert validate([str(loop)]) == 2
    assert "can't be read" in capsys.readouterr().out
