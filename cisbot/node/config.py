"""Reads the node's settings: a TOML file, then environment variables over it, then secrets from files.

`CISBOT_MATRIX__ACCESS_TOKEN` sets `matrix.access_token`, and so on for every key; lists and tables are given
as JSON. A credential in the environment replaces the file's. Relative paths start at the file's folder.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsError,
    TomlConfigSettingsSource,
)

from cisbot.core.dags.faults import annotation_at, explain
from cisbot.core.settings import (
    CREDENTIALS,
    Coordinator,
    Matrix,
    Node,
    Policy,
    Settings,
    Worker,
)
from cisbot.errors import CisbotError, FieldError

ENV_PREFIX = "CISBOT_"
SECRET_BYTES_MAX = 64 * 1024

_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_SWITCH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False}
_SWITCH["0"] = False

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


class ConfigError(CisbotError):
    """Everything wrong with the settings, one line each."""

    def __init__(self, path: Path, errors: list[FieldError]) -> None:
        self.path = path
        self.errors = tuple(errors)
        super().__init__("\n".join(f"{path}: {error.text()}" for error in errors))


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what a person should mend though it works."""

    settings: Settings
    warnings: tuple[str, ...]


class _Sections(BaseSettings):
    """Tells pydantic-settings which sections there are; never built."""

    coordinator: Coordinator
    worker: Worker
    node: Node
    matrix: Matrix
    policy: Policy


def load_settings(path: Path) -> Settings:
    """The settings alone. Raises `ConfigError`."""
    return load(path).settings


def load(path: Path) -> Loaded:
    """Read the file, the environment and the secrets' files. Raises `ConfigError`."""
    path = path.absolute()
    written = _toml(path)
    from_env = _environment(path)
    merged = _over(written, from_env)
    own, theirs = merged.get("matrix"), from_env.get("matrix")
    given = [key for key in CREDENTIALS if isinstance(theirs, dict) and key in theirs]
    if given and isinstance(own, dict):
        merged["matrix"] = {k: v for k, v in own.items() if k not in CREDENTIALS or k in given}
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(path, [said for _, said in explain(error, Settings)]) from None
    warnings = []
    table = written.get("matrix")
    if isinstance(table, dict) and ("access_token" in table or "password" in table):
        warnings += _exposed(path)
    return _finish(path, settings, warnings)


def _toml(path: Path) -> dict[str, Json]:
    try:
        if not path.is_file():
            raise ConfigError(path, [FieldError("the file", "is not there", "a TOML file")])
        content: dict[str, Json] = TomlConfigSettingsSource(_Sections, toml_file=path)()
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [FieldError("the file", f"is not TOML: {error}")]) from None
    except UnicodeDecodeError:
        raise ConfigError(path, [FieldError("the file", "is not UTF-8", "text in UTF-8")]) from None
    except OSError as error:
        what = f"can't be read: {error.strerror}"
        raise ConfigError(path, [FieldError("the file", what, "a readable file")]) from None
    return content


def _environment(path: Path) -> dict[str, Json]:
    """What the environment sets, with text turned into the numbers and switches that the keys want."""
    source = EnvSettingsSource(
        _Sections, case_sensitive=False, env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )
    try:
        content: dict[str, Json] = source()
    except SettingsError as error:
        raise ConfigError(
            path, [FieldError("environment", str(error), "JSON for a list or a table")]
        ) from None
    return {key: _typed(value, (key,)) for key, value in content.items()}


def _typed(value: Json, loc: tuple[str, ...]) -> Json:
    if isinstance(value, dict):
        return {key: _typed(one, (*loc, key)) for key, one in value.items()}
    if not isinstance(value, str):
        return value
    wanted = annotation_at(Settings, loc)
    if wanted is bool:
        return _SWITCH.get(value.lower(), value)
    if wanted in (int, float):
        try:
            return int(value) if wanted is int else float(value)
        except ValueError:
            return value
    return value


def _over(below: Mapping[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    """Both tables, where they differ the upper one."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _finish(path: Path, settings: Settings, warnings: list[str]) -> Loaded:
    """Absolute paths, and the secret itself in place of the name of its file."""
    folder = path.parent
    node = settings.node.model_copy(
        update={
            "data_dir": _absolute(folder, settings.node.data_dir),
            "dags": tuple(_absolute(folder, one) for one in settings.node.dags),
        }
    )
    matrix = settings.matrix
    for key in ("access_token", "password"):
        file: Path | None = getattr(matrix, f"{key}_file")
        if file is not None:
            place = _absolute(folder, file)
            secret = SecretStr(_secret(path, f"matrix.{key}_file", place))
            warnings += _exposed(place)
            matrix = matrix.model_copy(update={key: secret, f"{key}_file": None})
    return Loaded(settings.model_copy(update={"node": node, "matrix": matrix}), tuple(warnings))


def _absolute(folder: Path, path: Path) -> Path:
    return folder / path.expanduser()


def _secret(config: Path, field: str, place: Path) -> str:
    """The first line of a secret's file."""
    try:
        with place.open("rb") as file:
            text = file.read(SECRET_BYTES_MAX).decode()
    except OSError as error:
        said = FieldError(field, f"{place} can't be read: {error.strerror}", "a readable file")
        raise ConfigError(config, [said]) from None
    except UnicodeDecodeError:
        raise ConfigError(config, [FieldError(field, f"{place} is not UTF-8", "text")]) from None
    lines = text.strip().splitlines()
    if len(lines) != 1:
        what = f"{place} has {len(lines)} lines"
        raise ConfigError(config, [FieldError(field, what, "the secret alone, in one line")])
    return lines[0].strip()


def _exposed(place: Path) -> list[str]:
    """A warning if others on this machine can read a file with a secret."""
    if os.name != "posix" or not place.stat().st_mode & _OTHERS:
        return []
    return [f"{place} holds a secret and other users can read it; run: chmod 600 {place}"]
