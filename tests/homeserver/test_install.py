"""Installing: once, by one at a time, and anew after a cut-short install."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from homeserver import install as module
from homeserver.errors import InstallError
from homeserver.install import install


class FakeRun:
    """Stands for the two commands of an install; fails at pip when told to."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.pip_fails = False
        self.busy = threading.Lock()

    def __call__(self, command: Sequence[str], *, hint: str) -> None:
        assert self.busy.acquire(blocking=False), "two installs at once"
        try:
            self.commands.append(command[2])
            if command[2] == "venv":
                python = Path(command[-1]) / "bin" / "python"
                python.parent.mkdir(parents=True, exist_ok=True)
                python.touch()
            elif self.pip_fails:
                raise InstallError(hint)
        finally:
            self.busy.release()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    fake = FakeRun()
    monkeypatch.setattr(module, "_run", fake)
    return fake


@pytest.fixture
def requirements(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text("matrix-synapse==1\n")
    return path


def test_second_call_does_nothing_until_the_pin_changes(
    tmp_path: Path, run: FakeRun, requirements: Path
) -> None:
    venv = tmp_path / "venv"
    for _ in range(2):
        assert install(venv=venv, requirements=requirements) == venv / "bin" / "python"
    assert run.commands == ["venv", "pip"]
    requirements.write_text("matrix-synapse==2\n")
    install(venv=venv, requirements=requirements)
    assert run.commands == ["venv", "pip"] * 2


def test_half_finished_install_is_done_again(tmp_path: Path, run: FakeRun, requirements: Path) -> None:
    run.pip_fails = True
    with pytest.raises(InstallError):
        install(venv=tmp_path / "venv", requirements=requirements)
    run.pip_fails = False
    install(venv=tmp_path / "venv", requirements=requirements)
    assert run.commands == ["venv", "pip"] * 2


def test_of_two_at_once_one_installs(tmp_path: Path, run: FakeRun, requirements: Path) -> None:
    threads = [
        threading.Thread(target=install, kwargs={"venv": tmp_path / "venv", "requirements": requirements})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert run.commands == ["venv", "pip"]


def test_failing_command_is_shown_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="no-such-python.*install it"):
        module._run([str(tmp_path / "no-such-python")], hint="install it")


def test_missing_requirements_are_named(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match=r"gone\.txt is missing"):
        install(venv=tmp_path / "venv", requirements=tmp_path / "gone.txt")


def test_maubot_gets_what_the_project_needs(
    tmp_path: Path, run: FakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[Sequence[str]] = []

    def noted(command: Sequence[str], *, hint: str) -> None:
        commands.append(command)
        run(command, hint=hint)

    monkeypatch.setattr(module, "_run", noted)
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["a>=1"]\noptional-dependencies = {maubot = ["maubot"]}\n')
    python = module.install_maubot(venv=tmp_path / "venv", project=project)
    assert python == tmp_path / "venv" / "bin" / "python"
    assert list(commands[1][-2:]) == ["a>=1", "maubot"]
    with pytest.raises(InstallError, match=r"gone\.toml is missing"):
        module.install_maubot(venv=tmp_path / "venv", project=tmp_path / "gone.toml")
