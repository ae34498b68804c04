"""The grammar of `!dag`: what phones send, what people mistype, and any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.chat.grammar import (
    Approve,
    Cancel,
    Command,
    Help,
    List,
    Logs,
    Nodes,
    Publish,
    Reject,
    Show,
    Status,
    format_command,
    parse_command,
    parse_word,
    reaction,
)
from cisbot.errors import FieldError


@pytest.mark.parametrize(
    ("body", "command"),
    [
        ("!dag", Help()),
        ("!dag help publish", Help("publish")),
        ("!DAG List", List()),
        ("!dag pub backup target=node-1", Publish("backup", "node-1")),
        ("!dag publish backup a=1 b='two words'", Publish("backup", params={"a": "1", "b": "two words"})),
        ("!dag publish backup note=“two words”", Publish("backup", params={"note": "two words"})),
        ("!dag publish backup note=“dash – kept”", Publish("backup", params={"note": "dash – kept"})),
        ("!dag publish backup–daily", Publish("backup-daily")),
        ("!dag\u00a0publish backup priority=-5", Publish("backup", priority=-5)),
        ("> <@a:b> old\n> text\n\n!dag status", Status()),
        ("!dag publish\n```yaml\nid: x\ntasks: {}\n```", Publish("", attached="id: x\ntasks: {}")),
        ("!dag publish - target=any\n```\nid: x\n```", Publish("", "any", attached="id: x")),
        ("!dag logs k7f3qx dump", Logs("k7f3qx", "dump")),
        ("!dag reject k7f3qx not today", Reject("k7f3qx", "not today")),
        ("!dag publish x empty=", Publish("x", params={"empty": ""})),
        ("!dag publish x Target=any", Publish("x", "any")),
        ("!dag publish x a=„zwei Wege“ b=«le mot»", Publish("x", params={"a": "zwei Wege", "b": "le mot"})),
        ("!dag publish x a=don't b=5\"", Publish("x", params={"a": "don't", "b": '5"'})),
        ("!dag publish x a='it is'\"'\"s", Publish("x", params={"a": "it is's"})),
        ("!dag publish x a='```\nb'\n```\ny\n```", Publish("x", params={"a": "```\nb"}, attached="y")),
        ("!dag reject not today", Reject(None, "not today")),
        ("!dag reject K7F3QX/node-1 why", Reject("K7F3QX/node-1", "why")),
        ("!dag reject - bad disk", Reject(None, "bad disk")),
    ],
)  # fmt: skip
def test_it_is_read(body: str, command: Command) -> None:
    assert parse_command(body) == command


@pytest.mark.parametrize("body", ["", "hello", "!dagger x", "say !dag help", "dag help", "! dag"])
def test_it_is_no_command(body: str) -> None:
    assert parse_command(body) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("!dag pubish x", "Did you mean '!dag publish'?"),
        ("!dag l", "is no command"),
        ("!dag publish", "dag: is missing"),
        ("!dag publish x y", "'y' is no key=value"),
        ("!dag publish x a=1 a=2", "is given twice"),
        ("!dag publish x a='open", "is not closed"),
        ("!dag publish x priority=high", "is no priority"),
        ("!dag show", "dag: is missing"),
        ("!dag list all", "one word too many"),
        ("!dag status\n```\nid: x\n```", "only be attached to publish"),
        ("!dag\n```\nid: x\n```", "only be attached to publish"),
        ("!dag publish\n```\nid: x", "block is not closed"),
        ("!dag publish\n```\n \n```", "block is empty"),
        ("!dag l", "one of: list, logs"),
        ("!dag show ''", "dag: is missing"),
        ("!dag publish x target=a TARGET=b", "target: is given twice"),
        ("!dag publish x a=\ud800", "half a character"),
        ("!dag publish x " + "a" * 60_000, "too long"),
    ],
)
def test_a_mistake_is_named(body: str, said: str) -> None:
    with pytest.raises(FieldError) as error:
        parse_command(body)
    assert said in error.value.text()


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_.-]{0,20}\Z", fullmatch=True)
VALUES = st.text(max_size=40) | st.text("\"'“‘’« =`\\-–\u00a0\n", max_size=12)
RUNS = st.from_regex(r"[2-9a-hjkmnp-z]{6}(/[a-z0-9-]{1,9})?\Z", fullmatch=True)
KEYS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,20}\Z", fullmatch=True).filter(
    lambda k: k not in ("target", "scope", "priority")
)
COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        Publish,
        dag=NAMES,
        target=st.none() | NAMES,
        scope=st.none() | NAMES,
        priority=st.none() | st.integers(-100, 100),
        params=st.dictionaries(KEYS, VALUES, max_size=4),
        attached=st.none() | st.text(min_size=1, max_size=40).filter(str.strip) | st.just("a\n```\n\n"),
    ),
    st.builds(Reject, st.none() | RUNS, VALUES.map(str.strip)),
    st.builds(Help, st.none() | NAMES),
    st.builds(Show, NAMES),
    st.builds(Status, st.none() | NAMES),
    st.builds(Cancel, st.none() | NAMES),
    st.builds(Approve, st.none() | NAMES),
    st.builds(Logs, NAMES, st.none() | NAMES),
    st.just(List()),
    st.just(Nodes()),
)


@given(COMMANDS)
def test_what_is_written_is_read_back(command: Command) -> None:
    assert parse_command(format_command(command)) == command


def test_a_file_needs_no_name() -> None:
    assert parse_command("!dag publish", file=True) == Publish("")


@given(st.text(max_size=300))
def test_no_text_breaks_it(text: str) -> None:
    for body in (text, "!dag " + text, "!dag publish " + text):
        try:
            parse_command(body)
        except FieldError as error:
            assert error.text()


@pytest.mark.parametrize(
    ("body", "command"),
    [("yes", Approve()), ("OK!", Approve()), ("no", Reject()), ("Stop", Cancel()), ("yes please", None)],
)
def test_words(body: str, command: Command | None) -> None:
    assert parse_word(body) == command


@pytest.mark.parametrize(
    ("key", "meaning"),
    [("✅", "yes"), ("✔️", "yes"), ("👍🏽", None), ("❌", "no"), ("✖️", "no"), ("👀", None), ("", None)],
)
def test_reactions(key: str, meaning: str | None) -> None:
    assert reaction(key) == meaning
