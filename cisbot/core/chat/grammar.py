"""The grammar of `!dag`: a message's text → a command, or one error that suggests the next right one.

Phones write typographic quotes and dashes; they are read as plain ones. Prefixes of verbs match when they are
clear; a typing error is only ever suggested, never executed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from cisbot.core.frozen import dataclass
from cisbot.core.ids import nearest
from cisbot.errors import FieldError

BODY_MAX = 60_000
PRIORITY_MAX = 100
RESERVED = ("target", "scope", "priority")
VERBS = ("help", "list", "show", "publish", "status", "cancel", "approve", "reject", "logs", "nodes")
YES = frozenset({"✅", "✔", "☑"})  # a thumb up is said too easily to approve a deployment
NO = frozenset({"❌", "✖", "👎", "❎"})
WORDS_YES = frozenset({"approve", "approved", "yes", "ok", "okay"})
WORDS_NO = frozenset({"reject", "rejected", "no"})
WORDS_STOP = frozenset({"cancel", "stop"})

_PREFIX = re.compile(r"!dag(?=\s|\Z)", re.IGNORECASE)
_FENCE = re.compile(r"```[^\n]*\n(.*?)\n?```\s*\Z", re.DOTALL)
_QUOTES = str.maketrans("“”„‟«»‘’‚‛‹›", '"' * 6 + "'" * 6)
_PIECES = re.compile("[^'‘’‚‛‹›]+|['‘’‚‛‹›]+")
_DASHES = re.compile("[‐‑‒–—−]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAYBE_RUN = re.compile(r"[2-9a-hjkmnp-z]{3,6}(?:/\S*)?\Z|\$\S+\Z", re.IGNORECASE)
_WORDS = re.compile(r"[A-Za-z0-9,.:;!?_]+(?: [A-Za-z0-9,.:;!?_]+)*\Z")
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
    """`!dag reject [RUN] [reason]`; a first word that can't be a short id begins the reason."""

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


def parse_command(body: str, *, file: bool = False) -> Command | None:
    """The command in a message; None where it is none. Raises `FieldError`.

    `file` says that the message brings a file, so that `publish` needs no DAG's name.
    """
    text = _unquoted(body)
    if not _PREFIX.match(text):
        return None
    if len(text) > BODY_MAX:
        raise FieldError("message", "is too long for a command", f"at most {BODY_MAX} characters")
    if _SURROGATE.search(text):
        raise FieldError("message", "holds half a character (a surrogate)", "text that can be UTF-8")
    words, attached = _words(text[4:])
    if not words and attached is None:
        return Help()
    verb = _verb(words[0]) if words else ""
    if attached is not None and verb != "publish":
        raise FieldError("message", "a DAG can only be attached to publish", "", "See: !dag help publish")
    return _command(verb, words[1:], attached, file=file)


def _unquoted(body: str) -> str:
    """The body without a reply's quoted fallback."""
    lines = body.lstrip().split("\n")
    if lines[0].startswith("> "):
        while lines and lines[0].startswith(">"):
            lines.pop(0)
    return "\n".join(lines).strip()


def _words(text: str) -> tuple[list[str], str | None]:
    """The words, and the block that is attached. Raises `FieldError` where something is left open.

    A quote opens at a word's beginning, after "=", or right after another closed (as in a shell, so that
    a value can hold both kinds); anywhere else it is an apostrophe.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote, before = "", ""
    for index, char in enumerate(text):
        plain = char.translate(_QUOTES)
        if quote:
            if plain == quote:
                quote, before = "", ""
            elif word is not None:
                word.append(char)
        elif plain in "\"'" and (word is None or before in ("", "=")):
            word, quote = word if word is not None else [], plain
        elif char.isspace():
            words += ["".join(word)] if word is not None else []
            word = None
        elif word is None and text.startswith("```", index):
            return words, _fenced(text[index:])
        else:
            word = word if word is not None else []
            word.append(_DASHES.sub("-", char))
            before = char
    if quote:
        raise FieldError("message", f"a quote {quote} is not closed", f"a second {quote}")
    return words + (["".join(word)] if word is not None else []), None


def _fenced(text: str) -> str:
    found = _FENCE.match(text)
    if found is None:
        raise FieldError("message", "the ``` block is not closed", "a last line of ```, and nothing after it")
    if not found[1].strip():
        raise FieldError("message", "the ``` block is empty", "a DAG's YAML", "See: !dag help publish")
    return found[1]


def _verb(word: str) -> str:
    lower = word.lower()
    if lower in VERBS:
        return lower
    found = [v for v in VERBS if len(lower) >= 2 and v.startswith(lower)]
    if len(found) == 1:
        return found[0]
    near = nearest(lower, VERBS)
    hint = near.replace("'", "'!dag ", 1) if near else "See: !dag help"
    starts = ", ".join(v for v in VERBS if lower and v.startswith(lower))
    raise FieldError("command", f"'{word[:40]}' is no command", starts and f"one of: {starts}", hint)


def _command(verb: str, args: list[str], attached: str | None, *, file: bool) -> Command:
    match verb:
        case "publish":
            return _publish(args, attached, file=file)
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
            if not dag:
                raise FieldError("dag", "is missing", "!dag show DAG", "See: !dag list")
            return Show(dag)
        case "status":
            return Status(_one(verb, args))
        case "cancel":
            return Cancel(_one(verb, args))
        case "approve":
            return Approve(_one(verb, args))
        case "reject":
            return _reject(args)
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


def _reject(args: list[str]) -> Reject:
    run = args.pop(0) if args and (args[0] == "-" or _MAYBE_RUN.match(args[0])) else None
    return Reject(run if run != "-" else None, " ".join(args))


def _publish(args: list[str], attached: str | None, *, file: bool) -> Publish:
    dag = ""
    if args and "=" not in args[0]:
        dag, args = args[0], args[1:]
    if dag == "-":
        dag = ""
    if not dag and attached is None and not file:
        raise FieldError("dag", "is missing", "!dag publish DAG [key=value …]", "See: !dag list")
    pairs: dict[str, str] = {}
    for arg in args:
        key, equals, value = arg.partition("=")
        if not equals:
            mend = f"such as {arg[:20]}=value; a value with spaces goes in quotes"
            raise FieldError("publish", f"'{arg[:40]}' is no key=value", mend, "See: !dag help publish")
        if not _KEY.match(key):
            what = f"'{key[:40]}' can't be a key"
            raise FieldError(
                "publish", what, "letters, digits, '_' and '-'", f"See: !dag show {dag}".rstrip()
            )
        if key.lower() in RESERVED:
            key = key.lower()
        if key in pairs:
            raise FieldError(key, "is given twice", f"one {key}=value", f"See: !dag show {dag}".rstrip())
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
    verb = type(command).__name__.lower()
    match command:
        case Publish():
            words = [_quoted(command.dag or "-")]
            given = {"target": command.target, "scope": command.scope, "priority": command.priority}
            pairs = {key: str(value) for key, value in given.items() if value is not None}
            words += [f"{key}={_quoted(value)}" for key, value in (pairs | dict(command.params)).items()]
            words += [f"\n```yaml\n{command.attached}\n```"] if command.attached is not None else []
        case Reject():
            words = [command.run or "-"]
            reason = command.reason
            words += [reason if _WORDS.match(reason) else _quoted(reason)] if reason else []
        case Logs():
            words = [_quoted(word) for word in (command.run, command.task) if word is not None]
        case Show():
            words = [_quoted(command.dag)]
        case Help():
            words = [_quoted(command.topic)] if command.topic is not None else []
        case Status() | Cancel() | Approve():
            words = [_quoted(command.run)] if command.run is not None else []
        case List() | Nodes():
            words = []
    return " ".join([f"!dag {verb}", *words])


def _quoted(value: str) -> str:
    """A word that is read back as this value: bare, in quotes, or in pieces with one kind of quotes each."""
    plain = value.translate(_QUOTES)
    if _BARE.match(value) and plain == value and not _DASHES.search(value):
        return value
    if '"' not in plain:
        return f'"{value}"'
    return "".join(
        f"'{piece}'" if '"' in piece.translate(_QUOTES) else f'"{piece}"' for piece in _PIECES.findall(value)
    )


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
