"""What a task may leave in place of its outputs and its log: the worker neither blocks nor dies of it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cisbot.worker.results import (
    NOT_REGULAR,
    TOO_LARGE,
    WANTED,
    OutputError,
    SkillError,
    read_outputs,
    remove_output,
)
from tests.worker.real_processes import Worker, start

BIND = "import os, socket; socket.socket(socket.AF_UNIX).bind(os.path.relpath(os.environ['CIS_OUTPUT']))"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("mkdir $CIS_OUTPUT", NOT_REGULAR),
        ("mkdir -p $CIS_OUTPUT/a/b; touch $CIS_OUTPUT/a/c; ln -s $PWD/kept $CIS_OUTPUT/a/link", NOT_REGULAR),
        ("mkfifo $CIS_OUTPUT", NOT_REGULAR),
        (f'python3 -c "{BIND}"', NOT_REGULAR),
        ("ln -s $PWD/kept $CIS_OUTPUT", NOT_REGULAR),
        ("ln -s $PWD/kept/file $CIS_OUTPUT", NOT_REGULAR),
        ("ln -s nowhere $CIS_OUTPUT", NOT_REGULAR),
        ("truncate -s 100G $CIS_OUTPUT", TOO_LARGE),
        ("", ""),
    ],
    ids=["folder", "folders", "fifo", "socket", "link to a folder", "link", "dangling", "huge", "nothing"],
)
@pytest.mark.parametrize("stop", ["exit 3", "kill -9 $$"])
def test_what_is_put_in_place_of_the_outputs(
    worker: Worker, tmp_path: Path, script: str, error: str, stop: str
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("a=b\n")
    end = worker.run(start(tmp_path, f"rm $CIS_OUTPUT; {script}\n{stop}", env={"PATH": os.environ["PATH"]}))
    assert (end.outputs, end.error, end.reason) == ({}, error, "exit")
    assert (end.exit_code, end.signal) in ((3, None), (None, 9))
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["t.log"]
    assert (tmp_path / "kept" / "file").read_text() == "a=b\n"
    assert worker.run(start(tmp_path, "echo c=d > $CIS_OUTPUT", attempt=2)).outputs == {"c": "d"}


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("rm -r logs; touch logs", "CIS_OUTPUT can't be read: Not a directory"),
        ("rm -r logs", ""),
        (
            "rm $CIS_OUTPUT; mkdir $CIS_OUTPUT; cd $CIS_OUTPUT; seq 2001 | xargs touch",
            f"{NOT_REGULAR}; CIS_OUTPUT is not removed: a folder of more than 2000 files",
        ),
        (
            "rm $CIS_OUTPUT; mkdir $CIS_OUTPUT; cd $CIS_OUTPUT; "
            "for i in $(seq 1500); do mkdir a; cd -P a; done",
            f"{NOT_REGULAR}; CIS_OUTPUT can't be removed: folders too deep",
        ),
    ],
    ids=["no folder", "nothing", "many", "deep"],
)
def test_what_cannot_be_removed_is_told(worker: Worker, tmp_path: Path, script: str, error: str) -> None:
    end = worker.run(start(tmp_path, script))
    assert end.exit_code == 0
    assert end.error.startswith(error)
    assert worker.run(start(tmp_path, ":", log_path=str(tmp_path / "more" / "t.log"))).exit_code == 0
    subprocess.run(["rm", "-rf", tmp_path / "logs"], check=True)  # pytest can't remove it either


def test_what_lies_in_the_way_of_an_attempt(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "logs" / "t.log.out" / "a").mkdir(parents=True)
    assert worker.run(start(tmp_path, "echo a=b > $CIS_OUTPUT")).outputs == {"a": "b"}
    (tmp_path / "logs" / "t.log.out").mkdir()
    worker.send(start(tmp_path, ":", workdir="/nowhere"))
    assert worker.ended().error == "the task can't be started: No such file or directory: /nowhere"
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["t.log"]


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_log_must_be_a_regular_file(worker: Worker, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    os.mkfifo(log) if kind == "fifo" else log.mkdir()
    worker.send(start(tmp_path, ":", log_path=str(log)))
    end = worker.ended()
    assert end.reason == "error"
    assert end.error.startswith("the log can't be opened: ")
    assert worker.run(start(tmp_path, ":", task="next")).exit_code == 0


def test_a_skills_outputs_must_have_names(tmp_path: Path) -> None:
    (tmp_path / "out").write_text('{"outputs": {"a b": "c"}}')
    with pytest.raises(OutputError, match="'a b' is not a name"):
        read_outputs(tmp_path / "out", "skill")


def test_a_skill_may_write_any_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("[" * 90_000)
    with pytest.raises(OutputError, match="not what a skill writes"):
        read_outputs(out, "skill")
    out.write_text(json.dumps({"outputs": {"a": "b\ud800"}}))
    assert read_outputs(out, "skill") == {"a": "b?"}
    out.write_text(json.dumps({"error": "\udfff!"}))
    with pytest.raises(SkillError, match=r"^\?!$"):
        read_outputs(out, "skill")


def test_a_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    assert remove_output(tmp_path / "out") == "CIS_OUTPUT can't be removed: Permission denied"


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (
            "echo a=b > $CIS_OUTPUT; echo nonsense >> $CIS_OUTPUT",
            f"CIS_OUTPUT: line 2 is not NAME=VALUE; {WANTED}",
        ),
        ("echo 1a=b > $CIS_OUTPUT", f"CIS_OUTPUT: line 1 is not NAME=VALUE; {WANTED}"),
        (r"printf 'a=\0' > $CIS_OUTPUT", f"CIS_OUTPUT: line 1 holds a NUL; {WANTED}"),
        ("yes a=b | head -c 20000 > $CIS_OUTPUT", TOO_LARGE),
        ("rm $CIS_OUTPUT; mkfifo $CIS_OUTPUT", NOT_REGULAR),
    ],
    ids=["no name", "digit", "NUL", "large", "fifo"],
)
def test_unusable_outputs_are_the_tasks_error(
    worker: Worker, tmp_path: Path, script: str, error: str
) -> None:
    end = worker.run(start(tmp_path, script, env={"PATH": os.environ["PATH"]}))
    assert (end.reason, end.exit_code, end.error, end.outputs) == ("error", 0, error, {})


def test_values_may_hold_any_sign_but_a_line_break(worker: Worker, tmp_path: Path) -> None:
    end = worker.run(start(tmp_path, r"printf 'a=b\013c\r\n\nd=\342\200\250\n' > $CIS_OUTPUT"))
    assert (end.reason, end.outputs, end.error) == ("exit", {"a": "b\x0bc", "d": "\u2028"}, "")
