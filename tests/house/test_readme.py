"""What the README shows works: its settings load, its DAGs are valid, its commands exist."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from cisbot.__main__ import main, parser
from cisbot.core.chat.grammar import VERBS, parse_command
from cisbot.core.dags.definition import Definition
from cisbot.core.dags.parse import parse
from cisbot.core.settings import CREDENTIALS, Settings
from cisbot.node.config import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = ("node.labels", "policy.dags")  # shown with something to see instead of their defaults


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[list[str]]:
    """Every `cisbot` command that stands in an indented block, as words."""
    text = README.replace("\\\n", " ")
    lines = re.findall(r"^ {4,}(cisbot .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_dags_are_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = blocks("yaml")
    assert found
    for number, text in enumerate(found):
        parsed = parse(text, "README.md")
        assert isinstance(parsed, Definition), [p.text() for p in parsed]
        (tmp_path / f"{number}.yaml").write_text(text)
    assert main(["validate", str(tmp_path)]) == 0, capsys.readouterr().out


def test_the_settings_load_and_name_every_key_with_its_default(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    (tmp_path / "password").write_text("secret")
    (tmp_path / "password").chmod(0o600)
    (tmp_path / "node.toml").write_text(text)
    loaded = load(tmp_path / "node.toml")
    assert not loaded.warnings
    written = tomllib.loads(text)
    assert set(written) == set(Settings.model_fields)
    for section, field in Settings.model_fields.items():
        model = field.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        shown = Settings.model_validate(written)
        assert set(written[section]) | set(CREDENTIALS) >= set(model.model_fields), section
        for key, one in model.model_fields.items():
            if one.is_required() or key in CREDENTIALS or f"{section}.{key}" in EXAMPLES:
                continue
            assert getattr(getattr(shown, section), key) == one.get_default(), f"{section}.{key}"
    for key in CREDENTIALS:
        assert key in text


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_a_command_is_understood(words: list[str]) -> None:
    try:
        parser().parse_args(words)
    except SystemExit as error:
        raise AssertionError(f"cisbot {' '.join(words)}") from error


def test_every_command_is_shown() -> None:
    (sub,) = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    assert {words[0] for words in commands()} == set(sub.choices)


def test_the_rooms_commands_are_the_grammars() -> None:
    said = set(re.findall(r"!dag ([a-z]+)", README))
    assert said >= set(VERBS)
    for line in re.findall(r"^ *(?:── operator: )?(!dag publish [^\n]*?)(?: {3,}.*)?$", README, re.MULTILINE):
        assert parse_command(line) is not None


def test_the_make_targets_exist() -> None:
    for target in set(re.findall(r"(?:`| {4})make ([a-z]+)", README)):
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_the_gate_calls_the_readmes_own_test_command() -> None:
    assert "make test" in README
    assert re.search(r"^make .*\btest\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_the_gate_is_strict() -> None:
    assert "set -euo pipefail" in (ROOT / ".ci" / "run").read_text()
