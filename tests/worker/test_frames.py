"""Frames: every frame survives the wire, and nothing else is taken for one."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core import frames
from cisbot.core.frames import (
    FRAME_BYTES_MAX,
    CancelRun,
    Frame,
    FrameError,
    Hello,
    Ping,
    Pong,
    Ready,
    SetDeadline,
    Shutdown,
    StartTask,
    TaskEnded,
    TaskStarted,
    decode,
    encode,
)
from tests.worker.real_processes import start

TEXT = st.text(max_size=40)
INT = st.integers(-(2**63) + 1, 2**63 - 1)
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
MAP = st.dictionaries(TEXT, TEXT, max_size=4)
JSON = st.recursive(
    st.none() | st.booleans() | INT | FLOAT | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FRAMES = st.one_of(
    st.builds(Hello, INT, TEXT, INT),
    st.builds(
        StartTask,
        run=TEXT,
        task=TEXT,
        attempt=INT,
        kind=st.sampled_from(frames.KINDS),
        script=TEXT,
        args=st.dictionaries(TEXT, JSON, max_size=4),
        shell=TEXT,
        env=MAP,
        workdir=TEXT,
        log_path=TEXT,
        priority=INT,
        order=INT,
        grace_s=FLOAT,
        fence_s=FLOAT,
        timeout_s=st.none() | FLOAT,
        deadline=FLOAT,
    ),
    st.builds(CancelRun, TEXT, FLOAT),
    st.builds(SetDeadline, TEXT, FLOAT),
    st.builds(Shutdown, FLOAT),
    st.builds(Ready, INT, INT),
    st.builds(Ping),
    st.builds(Pong),
    st.builds(TaskStarted, TEXT, TEXT, INT, INT),
    st.builds(
        TaskEnded,
        TEXT,
        TEXT,
        INT,
        st.none() | INT,
        st.none() | INT,
        st.sampled_from(frames.REASONS),
        TEXT,
        TEXT,
        MAP,
    ),
)


@given(FRAMES)
def test_round_trip(frame: Frame) -> None:
    line = encode(frame)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == frame


@given(st.binary(max_size=200))
def test_bytes_are_no_frame(line: bytes) -> None:
    with pytest.raises(FrameError):
        decode(line)


@given(JSON)
def test_other_json_is_no_frame(value: object) -> None:
    with pytest.raises(FrameError):
        decode(json.dumps(value).encode())


@given(FRAMES, st.data())
def test_one_change_spoils_a_frame(frame: Frame, data: st.DataObject) -> None:
    body: dict[str, Any] = json.loads(encode(frame))
    match data.draw(st.sampled_from(["drop", "add", "spoil", "rename"])):
        case "drop":
            del body[data.draw(st.sampled_from(sorted(body)))]
        case "add":
            body["surplus"] = 1
        case "rename":
            body["frame"] = data.draw(st.sampled_from(["Nothing", 1, None, ["Hello"], {}]))
        case _:
            field = data.draw(st.sampled_from(sorted(body.keys() - {"frame"}) or ["frame"]))
            body[field] = [body[field]]
    with pytest.raises(FrameError):
        decode(json.dumps(body).encode())


@pytest.mark.parametrize(
    "line",
    [
        b'{"frame":"Shutdown","grace_s":NaN}',
        b'{"frame":"Shutdown","grace_s":1e999}',
        b'{"frame":"Shutdown","grace_s":true}',
        b'{"frame":"Ready","protocol":1,"pid":9223372036854775808}',
        b'{"frame":"Ready","protocol":1,"pid":1.0}',
        b'{"frame":"Shutdown","grace_s":' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"frame":"Shutdown","grace_s":1}' + b" " * FRAME_BYTES_MAX,
    ],
)
def test_odd_numbers_depth_and_length(line: bytes) -> None:
    with pytest.raises(FrameError):
        decode(line)


def test_what_makes_no_line(tmp_path: Any) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for change in (
        {"script": "x" * FRAME_BYTES_MAX},
        {"args": {"a": float("nan")}},
        {"args": {"a": object()}},
        {"args": {"a": deep}},
        {"deadline": float("inf")},
        {"attempt": True},
        {"env": {"A": 1}},
        {"kind": "magic"},
    ):
        with pytest.raises(FrameError):
            encode(start(tmp_path, **({"script": ":"} | change)))


def test_literals_and_tuples_agree() -> None:
    assert get_args(frames.Kind) == frames.KINDS
    assert get_args(frames.Reason) == frames.REASONS
