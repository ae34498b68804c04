"""A real worker: order, exit codes, signals, deadlines, and that nothing survives."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from cisbot.core.frames import (
    OUTPUT_BYTES_MAX,
    CancelRun,
    SetDeadline,
    TaskEnded,
    TaskStarted,
)
from cisbot.worker import shell
from cisbot.worker.spare import Spares
from tests.worker.real_processes import Box, Worker, alive, boot, start


def test_exit_codes_signals_and_tail(worker: Worker, tmp_path: Path) -> None:
    good = worker.run(start(tmp_path, "echo fine; exit 0"))
    assert (good.exit_code, good.signal, good.reason, good.tail) == (0, None, "exit", "fine\n")
    bad = worker.run(start(tmp_path, "exit 7", task="bad"))
    assert (bad.exit_code, bad.signal, bad.reason) == (7, None, "exit")
    shot = worker.run(start(tmp_path, "kill -9 $$", task="shot"))
    assert (shot.exit_code, shot.signal, shot.reason) == (None, 9, "exit")
    strict = worker.run(start(tmp_path, "false\necho unreached", task="strict"))
    assert (strict.exit_code, strict.tail) == (1, "")


def test_tail_is_of_this_attempt_only_and_the_log_is_appended(worker: Worker, tmp_path: Path) -> None:
    worker.run(start(tmp_path, "echo one"))
    second = worker.run(start(tmp_path, "echo two", attempt=2))
    assert second.tail == "two\n"
    assert (tmp_path / "logs" / "t.log").read_text() == "one\ntwo\n"


def test_priority_then_order_and_the_limit(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.hello(max_concurrent=1)
        worker.send(
            start(tmp_path, ":", task="first"),
            start(tmp_path, ":", task="late", order=2),
            start(tmp_path, ":", task="early", order=1),
            start(tmp_path, ":", task="urgent", priority=5, order=9),
        )
        seen: list[tuple[str, str]] = []
        while len(seen) < 8:
            frame = worker.frame()
            assert isinstance(frame, TaskStarted | TaskEnded)
            seen.append((type(frame).__name__, frame.task))
    order = ["first", "urgent", "early", "late"]
    assert seen == [(kind, task) for task in order for kind in ("TaskStarted", "TaskEnded")]


def test_as_many_at_once_as_allowed(tmp_path: Path, box: Box) -> None:
    with Worker(tmp_path) as worker:
        worker.hello(max_concurrent=3)
        worker.send(*(start(tmp_path, "sleep 1000", task=f"t{n}", order=n) for n in range(4)))
        assert [worker.started().task for _ in range(3)] == ["t0", "t1", "t2"]
        worker.send(CancelRun("$run:example.org", 5.0))
        # The fourth never starts: all four end cancelled.
        ends = [worker.ended() for _ in range(4)]
    assert {end.reason for end in ends} == {"cancelled"}
    assert [end.signal for end in ends if end.task == "t3"] == [None]


def test_the_same_attempt_twice_is_one(worker: Worker, tmp_path: Path, box: Box) -> None:
    task = start(tmp_path, "read x < $BOX.in; exit 3")
    os.mkfifo(f"{box.path}.in")
    worker.send(task, task)
    worker.started()
    Path(f"{box.path}.in").write_text("go\n")
    assert worker.ended().exit_code == 3
    assert worker.run(start(tmp_path, ":", task="next")).task == "next"


def test_cancel_is_term_with_a_grace(worker: Worker, tmp_path: Path, box: Box) -> None:
    script = "trap 'echo bye; exit 5' TERM; echo up > $BOX; while :; do sleep 1000 & wait; done"
    worker.send(start(tmp_path, script))
    worker.started()
    box.line()
    worker.send(CancelRun("$run:example.org", 60.0))
    end = worker.ended()
    assert (end.reason, end.exit_code, end.tail) == ("cancelled", 5, "bye\n")


def test_who_ignores_term_is_killed(worker: Worker, tmp_path: Path, box: Box) -> None:
    worker.send(start(tmp_path, "trap '' TERM; echo up > $BOX; while :; do sleep 1000; done"))
    pid = worker.started().pid
    box.line()
    before = boot()
    worker.send(CancelRun("$run:example.org", 0.3))
    end = worker.ended()
    assert (end.reason, end.exit_code, end.signal) == ("cancelled", None, 9)
    assert boot() - before >= 0.3
    assert not alive(pid)


def test_a_stopped_process_is_ended_too(worker: Worker, tmp_path: Path) -> None:
    worker.send(start(tmp_path, "kill -STOP $$"))
    worker.started()
    worker.send(CancelRun("$run:example.org", 60.0))
    assert worker.ended().signal == signal.SIGTERM


@pytest.mark.parametrize("clear", ["", "env -i "], ids=["marked", "cleared environment"])
@pytest.mark.parametrize("way", ["trap '' TERM; ", ""], ids=["deaf", "plain"])
def test_a_daemon_is_dead_before_the_end_is_told(
    worker: Worker, tmp_path: Path, box: Box, clear: str, way: str
) -> None:
    inner = f"{way}echo \\$\\$ > {box.path}; while :; do sleep 1000; done"
    script = f'(setsid {clear}sh -c "{inner}" < /dev/null > /dev/null 2>&1 &)\nread x < $BOX.go'
    os.mkfifo(f"{box.path}.go")
    worker.send(start(tmp_path, script, grace_s=0.2))
    first = worker.started().pid
    daemon = int(box.line())
    assert os.getsid(daemon) == daemon != first
    Path(f"{box.path}.go").write_text("go\n")
    assert worker.ended().exit_code == 0
    with pytest.raises(ProcessLookupError):  # not even a zombie
        os.kill(daemon, 0)


def test_another_task_is_left_alone(worker: Worker, tmp_path: Path, box: Box) -> None:
    inner = f"echo \\$\\$ > {box.path}; exec sleep 1000"
    script = f'(setsid sh -c "{inner}" &)\nsleep 1000'
    worker.send(start(tmp_path, script, run="$other"))
    worker.started()
    daemon = int(box.line())
    assert worker.run(start(tmp_path, "sleep 0.1 & true")).exit_code == 0
    assert alive(daemon)
    worker.send(CancelRun("$other", 1.0))
    assert worker.ended().run == "$other"
    assert not alive(daemon)


def test_a_fork_storm_ends(worker: Worker, tmp_path: Path, box: Box) -> None:
    script = (
        "trap '' TERM; echo up > $BOX; while :; do (setsid sleep 1000 &); "
        "i=$((i + 1)); [ $i -lt 300 ] || break; done; echo full > $BOX; sleep 1000"
    )
    worker.send(start(tmp_path, f"i=0; {script}"))
    worker.started()
    assert (box.line(), box.line()) == ("up", "full")
    worker.send(CancelRun("$run:example.org", 0.0))
    assert worker.ended().reason == "cancelled"


def test_time_limit(worker: Worker, tmp_path: Path) -> None:
    end = worker.run(start(tmp_path, "sleep 1000", timeout_s=0.2, grace_s=0.2))
    assert (end.reason, end.signal) == ("timeout", signal.SIGTERM)


def test_deadline_counts_grace_back(worker: Worker, tmp_path: Path) -> None:
    deadline = boot() + 1.5
    deaf = "trap '' TERM; while :; do sleep 1000; done"
    worker.send(start(tmp_path, deaf, grace_s=0.3, deadline=deadline))
    pid = worker.started().pid
    end = worker.ended()
    assert (end.reason, end.signal) == ("fenced", 9)
    assert not alive(pid)
    assert boot() < deadline


def test_the_deadline_cuts_every_grace_short(worker: Worker, tmp_path: Path, box: Box) -> None:
    deadline = boot() + 2.0
    deaf = "trap '' TERM; echo up > $BOX; while :; do sleep 1000; done"
    worker.send(start(tmp_path, deaf, grace_s=0.1, deadline=deadline))
    worker.started()
    box.line()
    worker.send(CancelRun("$run:example.org", 1_000.0))
    end = worker.ended()
    assert (end.reason, end.signal) == ("cancelled", 9)
    assert boot() < deadline


def test_deadline_moves_both_ways(worker: Worker, tmp_path: Path, box: Box) -> None:
    worker.send(
        start(tmp_path, "read x < $BOX.go; exit 4", grace_s=0.0, deadline=boot() + 1.2),
        SetDeadline("$run:example.org", boot() + 1000),
    )
    os.mkfifo(f"{box.path}.go")
    worker.started()
    assert not worker_speaks(worker, 1.5)  # the first deadline passes
    worker.send(SetDeadline("$run:example.org", boot() + 0.1))
    assert worker.ended().reason == "fenced"


def worker_speaks(worker: Worker, within_s: float) -> bool:
    """Whether a frame comes within that time."""
    from tests.worker.real_processes import readable

    assert worker.process.stdout is not None
    return readable(worker.process.stdout.fileno(), within_s)


def test_past_its_deadline_nothing_starts(worker: Worker, tmp_path: Path) -> None:
    worker.send(start(tmp_path, "echo no", deadline=boot() - 1))
    end = worker.ended()
    assert (end.reason, end.exit_code, end.signal) == ("fenced", None, None)


def test_environment_is_clean(tmp_path: Path) -> None:
    with Worker(tmp_path, env={"SECRET_TOKEN": "syt_x", "LANG": "C.UTF-8"}) as worker:
        worker.hello()
        worker.run(start(tmp_path, "env -0 > seen; cat", env={"A": "b"}))
    seen = dict(entry.split("=", 1) for entry in (tmp_path / "seen").read_text().split("\0") if entry)
    assert seen.pop("PATH") == os.environ["PATH"]
    assert seen.pop("CIS_ATTEMPT").startswith("$run:example.org:t:1:")
    seen.pop("CIS_OUTPUT"), seen.pop("PWD", ""), seen.pop("_", ""), seen.pop("SHLVL", "")
    seen.pop("OLDPWD", "")
    assert seen == {"A": "b", "HOME": "/", "LANG": "C.UTF-8", "CIS_DATA": str(tmp_path)}


def test_no_descriptor_leaks_into_tasks(worker: Worker, tmp_path: Path) -> None:
    end = worker.run(start(tmp_path, "ls -l /proc/self/fd"))
    places = [line.rpartition("-> ")[2] for line in end.tail.splitlines() if "->" in line]
    log = str(tmp_path / "logs" / "t.log")
    assert [place for place in places if not place.startswith("/proc/")] == ["/dev/null", log, log]


def test_outputs(worker: Worker, tmp_path: Path) -> None:
    script = 'echo "name=a b=c" >> $CIS_OUTPUT; echo "other=" >> $CIS_OUTPUT'
    end = worker.run(start(tmp_path, script))
    assert (end.outputs, end.error) == ({"name": "a b=c", "other": ""}, "")
    bad = worker.run(start(tmp_path, "echo nonsense > $CIS_OUTPUT", task="bad"))
    assert (bad.outputs, bad.reason) == ({}, "error")
    assert bad.error.startswith("CIS_OUTPUT: line 1 is not NAME=VALUE; expected a file with lines NAME=VALUE")
    big = worker.run(start(tmp_path, "yes a=b | head -c 200000 > $CIS_OUTPUT", task="big"))
    assert big.outputs == {}
    assert str(OUTPUT_BYTES_MAX) in big.error
    assert list((tmp_path / "logs").glob("*.out")) == []


def test_output_that_is_no_utf8(worker: Worker, tmp_path: Path) -> None:
    end = worker.run(start(tmp_path, r"printf 'a\377\376\033[1mb\000\r\n\303\244'"))
    assert end.tail == "a��[1mb\nä"
    cut = worker.run(start(tmp_path, "yes ä | head -c 4001", task="cut"))
    assert "�" not in cut.tail[:-1]
    assert len(cut.tail.encode()) <= 2_003


def test_a_hundred_megabytes_of_output_cost_no_memory(worker: Worker, tmp_path: Path) -> None:
    worker.run(start(tmp_path, ":"))
    status = Path(f"/proc/{worker.process.pid}/status")

    def peak() -> int:
        line = next(text for text in status.read_text().splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1])

    before = peak()
    end = worker.run(start(tmp_path, "head -c 100000000 /dev/zero | tr '\\0' x", task="big"))
    assert end.tail == "x" * 2_000
    assert (tmp_path / "logs" / "big.log").stat().st_size == 100_000_000
    assert peak() - before < 4_096  # KiB


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"log_path": "/dev/null/x/t.log"}, "the log can't be opened: "),
        ({"workdir": "/nowhere"}, "the task can't be started: No such file or directory: /nowhere"),
        ({"shell": "/bin/nosh"}, "the task can't be started: No such file or directory: /bin/nosh"),
        ({"env": {"A": "b\0c"}}, "the task can't be started: embedded null byte"),
        ({"env": {"A=B": "c"}}, "the task can't be started: illegal environment variable name"),
        ({"env": {"A": "\ud800"}}, "the task can't be started: "),
        ({"script": "#" + "x" * 200_000}, "the task can't be started: Argument list too long"),
    ],
)
def test_what_cannot_start_is_an_error(
    worker: Worker, tmp_path: Path, change: dict[str, object], text: str
) -> None:
    worker.send(start(tmp_path, str(change.pop("script", "echo no")), **change))
    end = worker.ended()
    assert (end.reason, end.exit_code) == ("error", None)
    assert end.error.startswith(text)
    assert worker.run(start(tmp_path, "true", task="next")).exit_code == 0


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(shell, "open_log", full)
    frame = start(tmp_path, "true")
    with pytest.raises(shell.LaunchError, match="the log can't be opened: No space left on device: .*t.log"):
        shell.launch(frame, "mark", "", Spares({}))
