"""The grammar of `!dag`: a message's text → a command, or one error that suggests the next right one.

Phones write typographic quotes and dashes; they are read as plain ones. Prefixes of verbs match when they are
clear; a typing error is only ever suggested, never executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cisbot.core.ids import nearest
from cisbot.errors import FieldError

BODY_MAX = 60_000
PRIORITY_MAX = 100
VERBS = ("help", "list", "show", "publish", "status", "cancel", "approve", "reject", "logs", "nodes")
YES = frozenset({"✅", "✔", "☑", "👍"})
NO = frozenset({"❌", "✖", "👎", "❎"})
WORDS_YES = frozenset({"approve", "approved", "yes", "ok", "okay"})
WORDS_NO = frozenset({"reject", "rejected", "no"})
WORDS_STOP = frozenset({"cancel", "stop"})

_PREFIX = re.compile(r"!dag(?=\s|\Z)", re.IGNORECASE)
_FENCE = re.compile(r"```[^\n]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "‚": "'"})
_DASHES = re.compile("[‐‑‒–—−]")
_BARE = re.compile(r"[^\s\"'`\\]+\Z")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")


@dataclass(frozen=True, slots=True)
class Help:
    """`!dag help [TOPIC]`."""

    topic: str | None = None


@dataclass(frozen=True, slots=True)
class List:
    """`!dag list`."""


@dataclass(frozen=True, slots=True)
class Show:
    """`!dag show DAG`."""

    dag: str


@dataclass(frozen=True, slots=True)
class Publish:
    """`!dag publish DAG [target=…] [scope=…] [priority=…] [key=value …]`, perhaps with a DAG attached."""

    dag: str
    target: str | None = None
    scope: str | None = None
    priority: int | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    attached: str | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """`!dag status [RUN]`."""

    run: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """`!dag cancel [RUN]`."""

    run: str | None = None


@dataclass(frozen=True, slots=True)
class Approve:
    """`!dag approve [RUN]`."""

    run: str | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """`!dag reject [RUN] [reason]`."""

    run: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Logs:
    """`!dag logs [RUN] [TASK]`."""

    run: str | None = None
    task: str | None = None


@dataclass(frozen=True, slots=True)
class Nodes:
    """`!dag nodes`."""


Command = Help | List | Show | Publish | Status | Cancel | Approve | Reject | Logs | Nodes


def parse_command(body: str) -> Command | None:
    """The command in a message; None where it is none. Raises `FieldError`."""
    text = _unquoted(body)
    if not _PREFIX.match(text):
        return None
    if len(text) > BODY_MAX:
        raise FieldError("message", "is too long for a command", f"at most {BODY_MAX} characters")
    rest, attached = text[4:], None
    if fence := _FENCE.search(rest):
        attached, rest = fence[1], rest[: fence.start()]
    words = _words(rest)
    if not words:
        return Help()
    verb = _verb(words[0])
    if attached is not None and verb != "publish":
        raise FieldError("message", "a DAG can only be attached to publish", "", "See: !dag help publish")
    return _command(verb, words[1:], attached)


def _unquoted(body: str) -> str:
    """The body without a reply's quoted fallback."""
    lines = body.replace("\u00a0", " ").lstrip().split("\n")
    if lines[0].startswith("> "):
        while lines and lines[0].startswith(">"):
            lines.pop(0)
    return "\n".join(lines).strip()


def _words(text: str) -> list[str]:
    """Split into words; quotes hold spaces together. Raises `FieldError` for a quote left open."""
    words: list[str] = []
    word, quote, begun = "", "", False
    for char in text:
        plain = char.translate(_QUOTES)
        if quote:
            if plain == quote:
                quote = ""
            else:
                word += char
        elif plain in "\"'" and (not word or word.endswith("=")):
            quote, begun = plain, True
        elif char.isspace():
            if word or begun:
                words.append(word)
            word, begun = "", False
        else:
            word += _DASHES.sub("-", char)
    if quote:
        raise FieldError("message", f"a quote {quote} is not closed", f"a second {quote}")
    if word or begun:
        words.append(word)
    return words


def _verb(word: str) -> str:
    lower = word.lower()
    if lower in VERBS:
        return lower
    found = [v for v in VERBS if len(lower) >= 2 and v.startswith(lower)]
    if len(found) == 1:
        return found[0]
    near = nearest(lower, VERBS)
    hint = near.replace("'", "'!dag ", 1) if near else "See: !dag help"
    raise FieldError("command", f"'{word[:40]}' is no command", "", hint)


def _command(verb: str, args: list[str], attached: str | None) -> Command:
    match verb:
        case "publish":
            return _publish(args, attached)
        case "help":
            return Help(_one(verb, args))
        case "list":
            _none(verb, args)
            return List()
        case "nodes":
            _none(verb, args)
            return Nodes()
        case "show":
            dag = _one(verb, args)
            if dag is None:
                raise FieldError("dag", "is missing", "!dag show DAG", "See: !dag list")
            return Show(dag)
        case "status":
            return Status(_one(verb, args))
        case "cancel":
            return Cancel(_one(verb, args))
        case "approve":
            return Approve(_one(verb, args))
        case "reject":
            return Reject(args[0] if args else None, " ".join(args[1:]))
        case _:
            if len(args) > 2:
                raise FieldError(verb, f"'{args[2][:40]}' is one word too many", "!dag logs [RUN] [TASK]")
            return Logs(*(args + [None, None])[:2])


def _one(verb: str, args: list[str]) -> str | None:
    if len(args) > 1:
        raise FieldError(verb, f"'{args[1][:40]}' is one word too many", f"!dag {verb} and one word")
    return args[0] if args else None


def _none(verb: str, args: list[str]) -> None:
    if args:
        raise FieldError(verb, f"'{args[0][:40]}' is one word too many", f"!dag {verb}")


def _publish(args: list[str], attached: str | None) -> Publish:
    dag = ""
    if args and "=" not in args[0]:
        dag, args = args[0], args[1:]
    if dag == "-":
        dag = ""
    if not dag and attached is None:
        raise FieldError("dag", "is missing", "!dag publish DAG [key=value …]", "See: !dag list")
    pairs: dict[str, str] = {}
    for arg in args:
        key, equals, value = arg.partition("=")
        if not equals:
            raise FieldError("publish", f"'{arg[:40]}' is no key=value", f"such as {arg[:20]}=value")
        if not _KEY.match(key):
            raise FieldError("publish", f"'{key[:40]}' can't be a key", "letters, digits, '_' and '-'")
        if key in pairs:
            raise FieldError(key, "is given twice", "each key once")
        pairs[key] = value
    target, scope = pairs.pop("target", None), pairs.pop("scope", None)
    return Publish(dag, target, scope, _priority(pairs.pop("priority", None)), pairs, attached)


def _priority(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.match(r"[+-]?[0-9]{1,3}\Z", text) or abs(int(text)) > PRIORITY_MAX:
        raise FieldError("priority", f"'{text[:20]}' is no priority", "a whole number from -100 to 100")
    return int(text)


def format_command(command: Command) -> str:
    """The text that `parse_command` reads back as this command."""
    match command:
        case Publish():
            words = ["publish", command.dag or "-"]
            for key in ("target", "scope", "priority"):
                value = getattr(command, key)
                words += [f"{key}={_quoted(str(value))}"] if value is not None else []
            words += [f"{key}={_quoted(value)}" for key, value in command.params.items()]
            fence = f"\n```yaml\n{command.attached}\n```" if command.attached is not None else ""
            return "!dag " + " ".join(words) + fence
        case Reject():
            return " ".join(["!dag reject", *([command.run] if command.run else []), command.reason]).strip()
        case Logs():
            return " ".join(w for w in ("!dag logs", command.run, command.task) if w)
        case Show():
            return f"!dag show {command.dag}"
        case Help():
            return f"!dag help {command.topic or ''}".strip()
        case Status() | Cancel() | Approve():
            verb = type(command).__name__.lower()
            return f"!dag {verb} {command.run or ''}".strip()
        case List() | Nodes():
            return f"!dag {type(command).__name__.lower()}"


def _quoted(value: str) -> str:
    plain = value.translate(_QUOTES)
    if _BARE.match(value) and plain == value and not _DASHES.search(value):
        return value
    if '"' not in plain:
        return f'"{value}"'
    if "'" not in plain:
        return f"'{value}'"
    raise FieldError("value", "holds both kinds of quotes", "one kind of quotes at most")


def parse_word(body: str) -> Command | None:
    """A plain word in a thread or reply: approve, reject or cancel."""
    word = _unquoted(body).strip().strip(".!").lower()
    if word in WORDS_YES:
        return Approve()
    if word in WORDS_NO:
        return Reject()
    return Cancel() if word in WORDS_STOP else None


def reaction(key: str) -> str | None:
    """What a reaction means: "yes", "no", or nothing."""
    plain = key.replace("\ufe0f", "").strip()
    for skin in "🏻🏼🏽🏾🏿":
        plain = plain.replace(skin, "")
    if plain in YES:
        return "yes"
    return "no" if plain in NO else None
