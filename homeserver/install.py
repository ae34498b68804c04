"""Install Synapse into `homeserver/.venv`, once: `python -m homeserver.install`."""

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from homeserver.errors import HomeserverError, InstallError

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
REQUIREMENTS = HERE / "requirements.txt"
_STDERR = 2


def install(*, venv: Path = VENV, requirements: Path = REQUIREMENTS) -> Path:
    """Return the Python interpreter of a virtualenv that holds Synapse, installing it if needed.

    Instant when the stamp of an earlier, finished install fits. Of two calls at once, one
    installs and the other waits for it. An install that was cut short is done again from scratch.
    pip's progress goes to standard error.

    Raises InstallError when the virtualenv cannot be made or pip fails.
    """
    if not requirements.is_file():
        raise InstallError(f"{requirements} is missing; it names the Synapse version to install")
    python = venv / "bin" / "python"
    stamp = venv / "installed.sha256"
    wanted = _fingerprint(venv, requirements)
    with _locked(requirements):
        if python.exists() and stamp.is_file() and stamp.read_text() == wanted:
            return python
        print(f"installing Synapse into {venv} (once, about half a minute)", file=sys.stderr)
        stamp.unlink(missing_ok=True)
        _run(
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            hint="on Debian and Ubuntu `apt install python3-venv` supplies the venv module",
        )
        _run(
            [str(python), "-m", "pip", "install", "--disable-pip-version-check"] + ["-r", str(requirements)],
            hint="pip's message above says why; it needs a package index (network or mirror)",
        )
        stamp.write_text(wanted)
    return python


def _fingerprint(venv: Path, requirements: Path) -> str:
    """Everything that makes an existing virtualenv unfit when it changes."""
    parts = [requirements.read_text(), sys.version, str(venv.resolve())]
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


def main() -> int:
    """Install and print the interpreter's path."""
    try:
        print(install())
    except HomeserverError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
