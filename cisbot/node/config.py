"""Reads the node's settings: a TOML file, then environment variables over it, then secrets from files.

`CISBOT_MATRIX__ACCESS_TOKEN` sets `matrix.access_token`, and so on for every key; lists and tables are given
as JSON. A credential in the environment replaces the file's. Relative paths start at the file's folder.
"""

from __future__ import annotations

import os
import re
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
from cisbot.matrix.http import check_address

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
    def refuse(what: str, expected: str = "", hint: str = "") -> ConfigError:
        return ConfigError(path, [FieldError("the file", what, expected, hint)])

    try:
        if not path.is_file():
            hint = f"Did you mean {path}/node.toml?" if (path / "node.toml").is_file() else ""
            raise refuse("is a folder" if path.is_dir() else "is not there", "a TOML file", hint)
        content: dict[str, Json] = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise refuse(f"is not TOML: {error}") from None
    except UnicodeDecodeError:
        raise refuse("is not UTF-8", "text in UTF-8") from None
    except RecursionError:
        raise refuse("is nested too deeply", "sections with keys") from None
    except OSError as error:
        raise refuse(f"can't be read: {error.strerror}", "a readable file") from None
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
    errors: list[FieldError] = []
    node = _placed(path.parent, settings.node, errors)
    matrix = settings.matrix
    try:
        check_address(matrix.homeserver)
    except FieldError as error:
        errors.append(error)
    for key in ("access_token", "password"):
        file: Path | None = getattr(matrix, f"{key}_file")
        inline: SecretStr | None = getattr(matrix, key)
        try:
            if inline is not None:
                check_secret(f"matrix.{key}", inline.get_secret_value(), token=key == "access_token")
            if file is not None:
                place = _absolute(path.parent, file, f"matrix.{key}_file")
                secret = SecretStr(read_secret(f"matrix.{key}_file", place, token=key == "access_token"))
                warnings += _exposed(place)
                matrix = matrix.model_copy(update={key: secret, f"{key}_file": None})
        except FieldError as error:
            errors.append(error)
    if errors:
        raise ConfigError(path, errors)
    return Loaded(settings.model_copy(update={"node": node, "matrix": matrix}), tuple(warnings))


def _placed(folder: Path, node: Node, errors: list[FieldError]) -> Node:
    """The node's folders, absolute; what can't be one is an error."""
    try:
        data_dir = _absolute(folder, node.data_dir, "node.data_dir")
        _check_folder(data_dir, "node.data_dir")
    except FieldError as error:
        errors.append(error)
        data_dir = node.data_dir
    dags = []
    for number, one in enumerate(node.dags):
        field = f"node.dags[{number}]"
        try:
            dags.append(_absolute(folder, one, field))
            if dags[-1].is_file():
                raise FieldError(field, f"{dags[-1]} is a file", "the folder of DAG files")
        except FieldError as error:
            errors.append(error)
    return node.model_copy(update={"data_dir": data_dir, "dags": tuple(dags)})


def _absolute(folder: Path, path: Path, field: str) -> Path:
    """The path as the file at `folder` means it. Raises `FieldError` where no path can be like that."""
    try:
        place = folder / path.expanduser()
        place.exists()
    except RuntimeError:
        raise FieldError(
            field, f"{str(path)[:40]!r}: no such user", "a path, or ~ for your own home"
        ) from None
    except OSError as error:
        raise FieldError(field, f"{_brief(path)} can't be used: {error.strerror}", "another path") from None
    if "\0" in str(place):
        raise FieldError(field, f"{_brief(path)} holds a NUL", "a path")
    return place


def _check_folder(place: Path, field: str) -> None:
    """Whether the folder is there, or can be made, for this user."""
    there = next(one for one in (place, *place.parents) if os.path.lexists(one))
    if not there.is_dir():
        what = f"{there} is no folder" if there.exists() else f"{there} is a link to nothing"
        raise FieldError(field, what, "a folder, or where one can be made")
    if not os.access(there, os.W_OK | os.X_OK):
        raise FieldError(field, f"this user may not write to {there}", "a folder of this user's own")


def _brief(path: Path) -> str:
    text = repr(str(path))
    return text if len(text) <= 60 else f"{text[:59]}…"


def read_secret(field: str, place: Path, *, token: bool) -> str:
    """The one line of a secret's file, without its line break. Raises `FieldError`."""
    try:
        with place.open("rb") as file:
            text = file.read(SECRET_BYTES_MAX).decode("utf-8-sig")
    except OSError as error:
        raise FieldError(field, f"{place} can't be read: {error.strerror}", "a readable file") from None
    except UnicodeDecodeError:
        raise FieldError(field, f"{place} is not UTF-8", "text") from None
    lines = text.splitlines()
    if len(lines) != 1:
        raise FieldError(field, f"{place} has {len(lines)} lines", "the secret alone, in one line")
    return check_secret(field, lines[0].strip() if token else lines[0], token=token)


def check_secret(field: str, secret: str, *, token: bool) -> str:
    """A secret that can be sent as it is. Raises `FieldError`, which never shows it."""
    if not secret.strip():
        raise FieldError(field, "is empty", "the secret itself")
    if len(secret.splitlines()) != 1 or "\0" in secret:
        raise FieldError(field, "has a line break or NUL in it", "the secret alone, in one line")
    if token and not re.fullmatch(r"[!-~]+", secret):
        raise FieldError(field, "has a character that no access token has", "letters, digits and signs alone")
    return secret


def _exposed(place: Path) -> list[str]:
    """A warning if others on this machine can read a file with a secret."""
    if os.name != "posix" or not place.stat().st_mode & _OTHERS:
        return []
    return [f"{place} holds a secret and other users can read it; run: chmod 600 {place}"]
