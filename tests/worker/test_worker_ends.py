"""How a real worker ends: its lock, its parent's death, garbage, orphans, and descriptors."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cisbot.core.frames import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    CancelRun,
    Hello,
    Ready,
    Shutdown,
    decode,
    encode,
)
from tests.worker.real_processes import CODE, Box, Worker, alive, dies, start


def test_the_lock_names_its_holder(worker: Worker, tmp_path: Path) -> None:
    assert int(worker.lock.read_text()) == worker.process.pid
    with Worker(tmp_path) as second:
        assert second.exit_code() == 75
        assert f"held by process {worker.process.pid}" in second.err.read_text()


def test_a_lock_left_by_a_dead_worker_is_free(tmp_path: Path) -> None:
    with Worker(tmp_path) as first:
        first.hello()
        first.process.kill()
        first.exit_code()
    with Worker(tmp_path) as second:
        assert second.hello() == second.process.pid


def test_it_dies_with_its_parent_though_its_input_stays_open(tmp_path: Path) -> None:
    middle = (
        "import subprocess, sys; child = subprocess.Popen(sys.argv[1:]);"
        "print(child.pid, file=sys.stderr, flush=True); child.wait()"
    )
    command = [sys.executable, "-P", "-m", "cisbot.worker", "--lock", str(tmp_path / "lock")]
    parent = subprocess.Popen(
        [sys.executable, "-c", middle, *command],
        env={"PYTHONPATH": str(CODE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    assert parent.stderr is not None
    worker = int(parent.stderr.readline())
    parent.stdin.write(encode(Hello(PROTOCOL, "s", 1)))
    parent.stdin.flush()
    assert isinstance(decode(parent.stdout.readline()), Ready)
    parent.kill()
    assert dies(worker)
    parent.wait()
    for pipe in (parent.stdin, parent.stdout, parent.stderr):
        pipe.close()


@pytest.mark.parametrize("how", ["eof", "term", "stdout", "shutdown"])
def test_every_end_cleans_up(tmp_path: Path, box: Box, how: str) -> None:
    inner = f"trap '' TERM; echo \\$\\$ > {box.path}; while :; do sleep 1000; done"
    with Worker(tmp_path) as worker:
        worker.hello(max_concurrent=1)
        worker.send(
            start(tmp_path, f'(setsid sh -c "{inner}" &)\nsleep 1000', grace_s=0.2),
            start(tmp_path, "echo started > $BOX", task="queued"),
        )
        first, daemon = worker.started().pid, int(box.line())
        match how:
            case "eof":
                worker.close_stdin()
            case "term":
                worker.process.terminate()
            case "stdout":
                assert worker.process.stdout is not None
                worker.process.stdout.close()
            case _:
                worker.send(Shutdown(0.2))
        if how != "stdout":
            assert {worker.ended().reason, worker.ended().reason} == {"cancelled"}
        assert worker.exit_code() == 0
        assert not alive(first)
        assert not alive(daemon)


def test_killed_with_minus_nine_its_first_processes_die(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.hello()
        worker.send(start(tmp_path, "exec sleep 1000"))
        pid = worker.started().pid
        worker.process.kill()
        assert dies(pid)


@pytest.mark.parametrize(
    "line", [b"{}\n", b"\xff\n", b"x" * (FRAME_BYTES_MAX + 10) + b"\n"], ids=["{}", "ff", "long"]
)
def test_garbage_ends_the_worker(tmp_path: Path, line: bytes) -> None:
    with Worker(tmp_path) as worker:
        worker.hello()
        worker.send(start(tmp_path, "sleep 1000"))
        pid = worker.started().pid
        assert worker.process.stdin is not None
        worker.process.stdin.write(line)
        try:
            worker.process.stdin.flush()
        except BrokenPipeError:
            assert len(line) > FRAME_BYTES_MAX
        assert worker.ended().reason == "cancelled"
        assert worker.exit_code() == 65
        assert not alive(pid)


def test_unexpected_frames_and_another_protocol(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.send(CancelRun("r", 1.0))
        assert worker.exit_code() == 65
    with Worker(tmp_path) as worker:
        worker.hello()
        worker.send(Hello(PROTOCOL, "s", 1))
        assert worker.exit_code() == 65
    with Worker(tmp_path) as worker:
        worker.send(Hello(PROTOCOL + 1, "s", 1))
        assert worker.expect(Ready).protocol == PROTOCOL
        assert worker.exit_code() == 76


def test_wrong_arguments(tmp_path: Path) -> None:
    from cisbot.worker.__main__ import main

    assert main([]) == 64
    assert main(["--lock"]) == 64
    assert main(["--lock", str(tmp_path / "l"), "--huh", "x"]) == 64


def test_orphans_are_reaped_while_their_task_runs(worker: Worker, tmp_path: Path, box: Box) -> None:
    script = "(sh -c 'echo $$ > $BOX' &)\nread x < $BOX.go"
    os.mkfifo(f"{box.path}.go")
    worker.send(start(tmp_path, script))
    worker.started()
    pid = int(box.line())
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        os.sched_yield()
    assert not Path(f"/proc/{pid}").exists()
    Path(f"{box.path}.go").write_text("go\n")
    assert worker.ended().exit_code == 0


def test_descriptors_are_given_back(worker: Worker, tmp_path: Path) -> None:
    fds = Path(f"/proc/{worker.process.pid}/fd")
    worker.run(start(tmp_path, ":"))
    before = len(list(fds.iterdir()))
    for number in range(20):
        worker.run(start(tmp_path, "sleep 0.01 &", task=f"t{number}"))
    assert abs(len(list(fds.iterdir())) - before) <= 1  # the spare's socket
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
