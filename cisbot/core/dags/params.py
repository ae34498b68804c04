"""Parameters: what the publisher gave, checked and defaulted, and how tasks see it. Pure.

A value reaches a task as an environment variable, never by substitution into a script. The parameter `day`
becomes `CIS_PARAM_DAY`, and `DAY` too unless that name would change how programs run (`PATH`, `LD_PRELOAD`,
`PYTHON…`) or starts with `CIS_`. A definition's and a task's own `env` is laid over these, so it wins.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping

from cisbot.core.dags.definition import (
    Definition,
    Param,
    ParamType,
    fits,
)
from cisbot.core.dags.faults import shorten
from cisbot.core.dags.fields import VALUE_BYTES_MAX, Value
from cisbot.core.ids import nearest
from cisbot.errors import FieldError

ENV_PREFIX = "CIS_PARAM_"

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_TRUE = ("true", "yes", "on", "1")
_RULES: Mapping[ParamType, str] = {
    ParamType.STRING: "text",
    ParamType.BOOLEAN: "true or false",
    ParamType.INTEGER: "a whole number of at most 18 digits",
    ParamType.NUMBER: "a number such as 2.5",
}
_FALSE = ("false", "no", "off", "0")
_KEPT = frozenset(
    (
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "IFS", "ENV", "TERM", "LANG", "LANGUAGE", "PWD"),
        *("OLDPWD", "TMPDIR", "TMP", "TEMP", "HOSTNAME", "MAIL", "TZ", "EDITOR", "VISUAL", "PAGER"),
        *("DISPLAY", "CDPATH", "GLOBIGNORE", "SHELLOPTS", "BASHOPTS", "PROMPT_COMMAND", "PS1", "PS2"),
        *("PS4", "UID", "EUID", "PPID", "RANDOM", "SECONDS", "LINENO", "OPTARG", "OPTIND", "NLSPATH"),
        *("HOSTALIASES", "JAVA_TOOL_OPTIONS", "VIRTUAL_ENV", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY"),
        *("ALL_PROXY", "PROJECT_ID"),
    )
)
_KEPT_PREFIXES = (
    *("CIS_", "LD_", "DYLD_", "LC_", "BASH_", "PYTHON", "PERL", "RUBY", "NODE_", "GIT_", "SSH_"),
    *("MALLOC_", "GCONV_", "XDG_", "SUDO_", "SSL_", "DOCKER_", "PIP_", "NPM_", "GEM_", "RES_"),
)


def resolve(definition: Definition, given: Mapping[str, str]) -> Mapping[str, str]:
    """Every parameter's value as text, by name, in the definition's order; those without any are left out.

    Raises one `FieldError` that names all that is wrong: unknown, missing, of a wrong type, not a choice.
    """
    wrong = list(_unknown(definition, given))
    values: dict[str, str] = {}
    missing = []
    for name, param in definition.params.items():
        if name in given:
            try:
                values[name] = _read(name, param, given[name])
            except FieldError as error:
                wrong.append(error)
        elif param.default is not None:
            values[name] = as_text(param.default)
        elif param.required:
            missing.append(name)
    if missing:
        example = " ".join(f"{name}=…" for name in missing)
        wrong.append(FieldError("params", f"missing: {', '.join(missing)}", example))
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise FieldError("params", " | ".join(error.text() for error in wrong))
    return values


def _unknown(definition: Definition, given: Mapping[str, str]) -> Iterator[FieldError]:
    names = list(definition.params)
    for name in given:
        if name not in definition.params:
            what = f"{definition.id} has no parameter '{shorten(name)}'"
            listed = f"one of: {', '.join(names)}" if names else "no parameters"
            yield FieldError(name[:64], what, listed, nearest(name[:200], names))


def _read(name: str, param: Param, text: str) -> str:
    if len(text.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX or "\0" in text:
        raise FieldError(name, "is too long or holds a NUL", f"at most {VALUE_BYTES_MAX} bytes of text")
    value = _typed(param.type, text)
    if value is None:
        raise FieldError(name, f"'{shorten(text)}' is not of type {param.type}", _RULES[param.type])
    if param.choices and value not in param.choices:
        choices = [as_text(choice) for choice in param.choices]
        listed = f"one of: {', '.join(choices)}"
        what = f"'{shorten(text)}' is not one of the choices"
        raise FieldError(name, what, listed, nearest(text[:200], choices))
    if param.pattern and not fits(param.pattern, text):
        raise FieldError(name, f"'{shorten(text)}' does not match", f"text like {param.pattern}")
    return as_text(value)


def _typed(kind: ParamType, text: str) -> Value | None:
    """The value, or None if the text is not of that type."""
    match kind:
        case ParamType.STRING:
            return text
        case ParamType.BOOLEAN:
            word = text.lower()
            return word in _TRUE if word in _TRUE + _FALSE else None
        case ParamType.INTEGER:
            return int(text) if _INTEGER.match(text) else None
        case ParamType.NUMBER:
            if _INTEGER.match(text):
                return int(text)
            number = float(text) if len(text) <= 64 and _NUMBER.match(text) else math.inf
            return number if math.isfinite(number) else None


def as_text(value: Value) -> str:
    """The spelling that tasks read: `true`, `5`, `2.5`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def environment(values: Mapping[str, str]) -> Mapping[str, str]:
    """The variables of resolved parameters: `CIS_PARAM_DAY` always, `DAY` where that is harmless."""
    variables: dict[str, str] = {}
    for name, value in values.items():
        word = name.upper().replace("-", "_")
        variables[ENV_PREFIX + word] = value
        if word not in _KEPT and not word.startswith(_KEPT_PREFIXES):
            variables[word] = value
    return variables
