"""What the README shows works: its settings load, its DAGs are valid, its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from cisbot.core.dags.definition import Definition
from cisbot.core.dags.parse import parse
from cisbot.core.settings import Settings
from cisbot.node.config import load_settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_dags_are_valid() -> None:
    found = blocks("yaml")
    assert found
    for text in found:
        parsed = parse(text, "README.md")
        assert isinstance(parsed, Definition), [p.text() for p in parsed]


def test_the_settings_load_and_name_every_key_with_its_default(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "node.toml"
    path.write_text(text)
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    settings = load_settings(path)
    for section in ("coordinator", "worker", "policy"):
        model = Settings.model_fields[section].default
        shown = getattr(settings, section)
        for key in type(model).model_fields:
            assert re.search(
                rf"^\[{section}.*?^{key}\b|^\[{section}\.{key}", text, re.DOTALL | re.MULTILINE
            ), key
            if key != "dags":
                assert getattr(shown, key) == getattr(model, key), key


def test_the_commands_exist() -> None:
    for command in set(re.findall(r"cisbot (run|check|room|validate|publish|status|memory)\b", README)):
        done = subprocess.run(
            [sys.executable, "-m", "cisbot", command, "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_gate_calls_the_readmes_own_test_command() -> None:
    assert "make test" in README
    assert re.search(r"^make .*\btest\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
