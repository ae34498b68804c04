"""From text to a definition or to every problem, under both of PyYAML's parsers."""

import json
import re

import pytest
import yaml
from hypothesis import example, given, reject
from hypothesis import strategies as st

from cisbot.core.dags import parse as module
from cisbot.core.dags.definition import DEFINITION_BYTES_MAX, Definition
from cisbot.core.dags.parse import parse, parse_bytes
from cisbot.core.ids import TaskId

WRONG = """\
id: b c
target: disk=
tsks: 1
priority: 200
idempotent: yes
approval:
params:
  day: {type: strng, default: 5}
  Day: {type: integer, choices: [1, two], defualt: 4}
env: {A: 5, CIS_X: a, B: 0755}
tasks:
  dump:
    shell: pg_dump
    skill: x
    needs: [b]
    timeout: 300
  b: {needs: [dump, dmp], shell: ls}
  c: {needs: dump, matrix: ''}
  d: !!python/object {matrix: {mesage: x, room: hi}}
  d: {shell: x}
  e: {matrix: hi, with: {a: null}, remember: {"a b": x}}
"""

SAID = """\
1:5: id: 'b c' is not a name
2:9: target: 'disk=' is not a condition on labels: '' is not a name
3:1: tsks: unknown key 'tsks'
4:11: priority: the number 200 can't be used here
5:13: idempotent: the text 'yes' can't be used here
6:10: approval: is empty
8:15: params.day.type: the text 'strng' can't be used here
9:3: params.Day: shares its variable with 'day'
9:33: params.Day.choices: the text 'two' is not of type integer
9:43: params.Day.defualt: unknown key 'defualt'
10:10: env.A: the number 5 can't be used here
10:13: env.CIS_X: 'CIS_X' can't be a variable's name
12:3: tasks.dump: has shell and skill
16:14: tasks.dump.timeout: the number 300 is not a duration
17:14: tasks.b.needs: the tasks wait for each other: b → dump → b
17:21: tasks.b.needs[1]: no task is called 'dmp'
18:14: tasks.c.needs: the text 'dump' can't be used here
18:28: tasks.c.matrix.message: is empty
19:6: tasks.d: the tag 'tag:yaml.org,2002:python/object' is not allowed
19:23: tasks.d.matrix.message: is missing
19:32: tasks.d.matrix.mesage: unknown key 'mesage'
19:49: tasks.d.matrix.room: 'hi' is not a room
20:3: tasks: the key 'd' is there twice, first in line 19
21:3: tasks.e: 'with' beside matrix
21:47: tasks.e.remember.a b: 'a b' is not a name
"""


@pytest.fixture(params=["fast", "plain"])
def _parsers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        monkeypatch.setattr(module, "_LOADER", yaml.SafeLoader)


def said(text: str) -> list[str]:
    """The problems in short: place, field and what."""
    parsed = parse(text, "f.yaml")
    assert not isinstance(parsed, Definition)
    return [problem.text().removeprefix("f.yaml:").partition("; expected")[0] for problem in parsed]


def good(text: str) -> Definition:
    parsed = parse(text, "f.yaml")
    assert isinstance(parsed, Definition), parsed
    return parsed


@pytest.mark.usefixtures("_parsers")
def test_every_error_at_once() -> None:
    assert said(WRONG) == SAID.splitlines()


def test_every_error_has_what_would_be_right() -> None:
    parsed = parse(WRONG, "f.yaml")
    assert isinstance(parsed, list)
    assert all(problem.expected for problem in parsed)
    hints = {problem.field: problem.hint for problem in parsed if problem.hint}
    assert hints == {
        "tsks": "Did you mean 'tasks'?",
        "idempotent": "Did you mean true?",
        "params.Day.defualt": "Did you mean 'default'?",
        "env.A": 'Put it in quotes: "5"',
        "tasks.dump.timeout": "Did you mean '300s'?",
        "tasks.b.needs[1]": "Did you mean 'dump'?",
        "tasks.c.needs": "Did you mean [dump]?",
        "tasks.d.matrix.mesage": "Did you mean 'message'?",
    }


@pytest.mark.usefixtures("_parsers")
@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("", "1:1: the file: is empty"),
        ("# only a comment\n", "the file: is empty"),
        ("---\n", "the file: is empty"),
        ("{}", "1:1: the file: is empty"),
        ("- a\n", "1:1: the file: is not a mapping"),
        ("text", "1:1: the file: is not a mapping"),
        ("a: b: c", "1:5: the file: mapping values are not allowed"),
        ("id: x\n\ttasks: y", "2:1: the file: a tab is used for indentation"),
        ('id: "x', "1:7: the file: found unexpected end of stream (while scanning a quoted scalar)"),
        ("id: x\n---\nid: y", "2:1: the file: a second document"),
        ("id: \x07", "1:5: the file: the character U+0007 is not allowed"),
        ("id: \ud800", "1:5: the file: the character U+D800 is not allowed"),
        ("? [a]\n: b", "1:3: the file: a key that is not text"),
        ("<<: {a: b}", "1:1: the file: merge keys ('<<') are not supported"),
        (f"{'k' * 201}: b", "1:1: the file: too long a key"),
        ("id: x\ntasks: [a]", "2:8: tasks: a list can't be used here"),
        ("id: x\ntasks: {a: 5}", "2:12: tasks.a: the number 5 can't be used here"),
        ("id:\ntasks: {a: {shell: ls}}", "1:4: id: is empty"),
        ("a: *b", "1:4: a: '*b' has no anchor before it"),
        ("id: 1234567890123456789", "1:5: id: too long a number"),
        ("id: 1e999", "1:5: id: too large a number"),
        ("a: " + "[" * 40, "1:35: a" + "[0]" * 31 + ": is nested too deeply"),
        ("#" * (DEFINITION_BYTES_MAX + 1), "1:1: the file: has 1000001 bytes"),
    ],
)
def test_broken_files(text: str, first: str) -> None:
    assert any(first in line for line in said(text)), said(text)


@pytest.mark.parametrize(
    ("text", "only"),
    [
        ("id: x\ntasks: {a: {}}", "2:9: tasks.a: does nothing"),
        ("id: x\ntasks: {a: {shell: ls, needs: [b]}}", "2:32: tasks.a.needs[0]: no task is called 'b'"),
        ("id:\ntasks: {a: {shell: ls}}", "1:4: id: is empty"),
    ],
)
def test_each_problem_is_said_once(text: str, only: str) -> None:
    assert said(text) == [only]


def test_alias_bombs_are_cheap() -> None:
    names = "abcdefghi"
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"
    for before, name in zip(names, names[1:], strict=False):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    assert said(bomb) == ["7:11: g[1]: aliases make this too large"]


def test_aliases_work() -> None:
    made = good("id: x\nenv: &e {A: b}\ntasks:\n  a: {shell: ls, env: *e}\n  b: {shell: ls, env: *e}\n")
    assert [task.env for task in made.tasks.values()] == [{"A": "b"}] * 2


def test_scalars_are_read_as_yaml_1_2() -> None:
    env = "A: no, B: 0755, C: 2024-05-01, D: 1:30, E: 0x1f, F: !!str 5"
    made = good(f"id: x\nenv: {{{env}}}\ntasks: {{1: {{shell: on}}}}")
    assert list(made.env.values()) == ["no", "0755", "2024-05-01", "1:30", "0x1f", "5"]
    assert list(made.tasks) == ["1"]


def test_a_byte_order_mark_is_no_matter() -> None:
    text = "id: x\ntasks: {a: {shell: ls}}"
    assert good("\ufeff" + text) == parse_bytes(b"\xef\xbb\xbf" + text.encode(), "f") == good(text)


def test_bytes_that_are_no_text() -> None:
    parsed = parse_bytes("id: é\nx: ".encode() + b"\xff", "f.yaml")
    assert isinstance(parsed, list)
    assert parsed[0].text() == (
        "f.yaml:2:4: the file: byte 0xff is not UTF-8; expected text in UTF-8. Save the file as UTF-8."
    )


def test_so_many_problems_that_not_all_are_shown() -> None:
    tasks = "".join(f" t{n}: {{shll: x, needs: [u{n}]}}\n" for n in range(3000))
    parsed = parse(f"id: x\ntasks:\n{tasks}", "f")
    assert isinstance(parsed, list)
    assert len(parsed) == 1001 and "the rest is not shown" in parsed[-1].what


@pytest.mark.long
def test_what_grows_too_large_when_written_out_is_refused() -> None:
    tasks = "".join(f" t{n}: {{shell: x}}\n" for n in range(48_000))
    assert re.fullmatch(r"1:1: the file: has \d+ bytes once written out", said(f"id: x\ntasks:\n{tasks}")[0])


def test_the_hash_is_stable_under_spelling() -> None:
    plain = "id: x\ntasks:\n  a:\n    shell: ls\n    timeout: 1h\n    needs: []\n"
    other = "# comment\ntasks: {'a': {\"timeout\": 60m, shell:   ls}}\n\ntarget: any\nid: x"
    assert good(plain).hash == good(other).hash
    assert good(plain).hash != good(plain.replace("ls", "ls -l")).hash
    assert re.fullmatch("[0-9a-f]{64}", good(plain).hash)


def test_the_hash_never_changes() -> None:
    """Hashes are kept with runs and in the room: a new version must compute the old ones."""
    tasks = "tasks:\n  a: {shell: ls, timeout: 1h30m}\n  b: {matrix: hi, needs: [a]}\n"
    assert good("id: x\nidempotent: true\n" + tasks).canonical == (
        '{"id":"x","idempotent":true,"on_lost":"rerun",'
        '"tasks":{"a":{"shell":"ls","timeout":"5400s"},"b":{"needs":["a"],"matrix":{"message":"hi"}}}}'
    )


def test_a_quoted_merge_key_is_a_key() -> None:
    made = good('id: x\ntasks: {a: {skill: s, with: {"<<": 1}}}')
    assert made.tasks[TaskId("a")].with_ == {"<<": 1} and good(made.canonical) == made


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
ENV = st.dictionaries(st.from_regex(r"[A-Z_]{1,6}", fullmatch=True), st.text(max_size=20), max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | st.text()
JSON = st.recursive(
    LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=9), one, max_size=3)
)
FILLED = st.text(min_size=1).filter(lambda text: text.strip() and "\0" not in text)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    """A definition with every kind of task."""
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    tasks: dict[str, object] = {}
    for index, name in enumerate(names):
        needs = draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        kind = draw(st.sampled_from(["shell", "skill", "matrix"]))
        task: dict[str, object] = {"needs": needs, "env": draw(ENV)}
        task[kind] = draw(NAMES if kind == "skill" else FILLED)
        if kind == "skill":
            task["with"] = draw(st.dictionaries(st.text(max_size=9), JSON, max_size=3))
        tasks[name] = task
    raw = {
        "id": draw(NAMES),
        "description": draw(st.text()),
        "priority": draw(st.integers(-100, 100)),
        "idempotent": draw(st.booleans()),
        "params": {"p": {"type": "number", "default": draw(st.integers(-99, 99) | st.floats(-9, 9))}},
        "approval": draw(st.none() | st.just({"power_level": None, "users": ["@a:x"], "deadline": "1h"})),
        "tasks": tasks,
    }
    try:
        return Definition.model_validate(raw)
    except ValueError:
        reject()


@given(definitions())
def test_canonical_text_round_trips(made: Definition) -> None:
    text = made.canonical
    back = parse(text, "canonical")
    assert back == made, (text, back)
    assert made.canonical == text and json.loads(text)


@pytest.mark.usefixtures("_parsers")
def test_odd_characters_round_trip() -> None:
    odd = "\x7f\x85\xa0\u2028\u2029\ufeff\ufffe\uffff\U0001f600 \t\r\n\x01: #'\"\\/"
    made = good(json.dumps({"id": "x", "description": "d", "tasks": {"a": {"shell": "x"}}}))
    made = Definition(id=made.id, description=odd, tasks=made.tasks)
    assert good(made.canonical).description == odd


@given(st.text() | st.text(alphabet="id: tasks\n\t-[]{}&*!|>'\"%@`,?#<\\x0") | JSON.map(json.dumps))
@example("a: &a [*a]")
@example("%YAML 9.9\n---\na: b")
@example("? ? ? a")
def test_no_text_crashes(text: str) -> None:
    for problem in said(text):
        assert problem


@given(st.binary())
def test_no_bytes_crash(data: bytes) -> None:
    assert isinstance(parse_bytes(data, "f"), list)


@given(st.data())
def test_no_change_of_a_good_file_crashes(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(WRONG)))
    end = data.draw(st.integers(start, min(len(WRONG), start + 20)))
    text = WRONG[:start] + data.draw(st.text(max_size=5)) + WRONG[end:]
    parsed = parse(text, "f")
    assert isinstance(parsed, list) and parsed == sorted(parsed, key=lambda one: (one.line, one.column))
