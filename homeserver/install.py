"""Install Synapse, or maubot for its test, each once into a virtualenv of its own.

`python -m homeserver.install [synapse | maubot] …`
"""

import fcntl
import hashlib
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from homeserver.errors import HomeserverError, InstallError

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"
MAUBOT_VENV = HERE / ".maubot-venv"
PROJECT = HERE.parent / "pyproject.toml"
_STDERR = 2


def install(*, venv: Path = VENV, requirements: Path = REQUIREMENTS) -> Path:
    """Return the Python interpreter of a virtualenv that holds Synapse, installing it if needed.

    Raises InstallError when the virtualenv cannot be made or pip fails.
    """
    if not requirements.is_file():
        raise InstallError(f"{requirements} is missing; it names the Synapse version to install")
    return _ensure("Synapse", venv, requirements.read_text(), lock=requirements)


def install_maubot(*, venv: Path = MAUBOT_VENV, project: Path = PROJECT) -> Path:
    """Return the Python interpreter of a virtualenv that holds maubot and what cisbot needs, but not cisbot.

    Raises InstallError when the virtualenv cannot be made or pip fails.
    """
    if not project.is_file():
        raise InstallError(f"{project} is missing; it names what to install")
    table = tomllib.loads(project.read_text())["project"]
    wanted = [*table["dependencies"], *table["optional-dependencies"]["maubot"]]
    return _ensure("maubot", venv, "\n".join(wanted), lock=project)


def _ensure(what: str, venv: Path, wanted: str, *, lock: Path) -> Path:
    """The interpreter of a virtualenv with the packages that `wanted` names, one a line.

    Instant when the stamp of an earlier, finished install fits. Of two calls at once, one
    installs and the other waits for it. An install that was cut short is done again from scratch.
    pip's progress goes to standard error.
    """
    python = venv / "bin" / "python"
    stamp = venv / "installed.sha256"
    fingerprint = _fingerprint(venv, wanted)
    with _locked(lock):
        if python.exists() and stamp.is_file() and stamp.read_text() == fingerprint:
            return python
        print(f"installing {what} into {venv} (once, about half a minute)", file=sys.stderr)
        stamp.unlink(missing_ok=True)
        _run(
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            hint="on Debian and Ubuntu `apt install python3-venv` supplies the venv module",
        )
        _run(
            [str(python), "-m", "pip", "install", "--disable-pip-version-check", *wanted.splitlines()],
            hint="pip's message above says why; it needs a package index (network or mirror)",
        )
        stamp.write_text(fingerprint)
    return python


def _fingerprint(venv: Path, wanted: str) -> str:
    """Everything that makes an existing virtualenv unfit when it changes."""
    parts = [wanted, sys.version, str(venv.resolve())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel lets go of it when the process ends."""
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], *, hint: str) -> None:
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=_STDERR)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"`{' '.join(command)}` failed: {error}; {hint}") from error


def main(names: Sequence[str]) -> int:
    """Install what is named, Synapse if nothing is, and print the interpreters' paths."""
    installers: dict[str, Callable[[], Path]] = {"synapse": install, "maubot": install_maubot}
    if unknown := [name for name in names if name not in installers]:
        print(f"error: unknown {unknown[0]!r}; expected one of: {', '.join(installers)}", file=sys.stderr)
        return 2
    try:
        for name in names or ["synapse"]:
            print(installers[name]())
    except HomeserverError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
